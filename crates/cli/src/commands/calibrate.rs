//! `infermark calibrate`: simulation-based calibration.

use super::{interrupt_on_ctrl_c, refuse_given};
use crate::answer::{answer, say};
use crate::backends;
use crate::exit::Exit;
use crate::progress_bar::Bar;
use crate::settings::{GivenPriors, MethodName};
use anyhow::{bail, ensure};
use clap::{ArgMatches, Args, ValueEnum};
use infermark_backend::request::MOST_THREADS;
use infermark_backend::{
    Backend, LaplaceSettings, Method, NutsSettings, Request, SviSettings, VariationalSettings,
};
use infermark_calibration::{
    Calibration, CalibrationError, Contender, Design, MODERATE_PRIORS, MethodVerdict, calibrate, verdicts,
};
use infermark_harness::calibration_output::{
    CalibratedMethod, CalibrationRecord, RUN_JSON, calibration_table, write_calibration,
};
use infermark_harness::fit_output::prove_writable;
use infermark_model::Priors;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// Methods, separated by commas.
    #[arg(
        long,
        value_enum,
        value_name = "METHODS",
        value_delimiter = ',',
        default_value = "nuts,structured-vi,laplace"
    )]
    methods: Vec<MethodName>,
    /// Replications: draws of parameters and data, each fitted by every method.
    #[arg(long, value_name = "R", default_value_t = Design::default().replications)]
    replications: usize,
    /// Products of a panel.
    #[arg(long, value_name = "N", default_value_t = Design::default().products)]
    products: usize,
    /// Periods of a panel.
    #[arg(long, value_name = "T", default_value_t = Design::default().periods)]
    periods: usize,
    /// Categories that products fall into.
    #[arg(long, value_name = "C", default_value_t = Design::default().categories)]
    categories: usize,
    /// Seed of everything; the result does not depend on the number of threads.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Processor threads, each of which fits a replication; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Probability that a calibrated method fails, over all its quantities.
    #[arg(long, value_name = "P", default_value_t = 0.01)]
    level: f64,
    /// JSON file with the priors that parameters are drawn from; what it leaves out keeps the verb's own default, under which
    /// counts are moderate (docs/calibration.md).
    #[arg(long, value_name = "FILE")]
    priors: Option<PathBuf>,
    /// JSON file with the priors that are fitted with; what it leaves out is as drawn from. Other priors than those drawn from
    /// must fail: it shows that the check bites.
    #[arg(long, value_name = "FILE")]
    fit_priors: Option<PathBuf>,
    /// NUTS: warm-up draws of its one chain; doubled, with the draws, where a chain has fewer than 99 effective ones.
    #[arg(long, value_name = "N", default_value_t = 500)]
    warmup: u64,
    /// NUTS: draws after warm-up.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    draws: u64,
    /// SVI: iterations.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    iterations: u64,
    /// Folder for calibration.csv, summary.csv, run.json and pictures; one that holds results is refused.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace what is in --out.
    #[arg(long)]
    force: bool,
}

impl CalibrateArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if let Some(threads) = self.threads {
            ensure!(
                (1..=MOST_THREADS).contains(&threads),
                "--threads is {threads}; give 1 to {MOST_THREADS}"
            );
        }
        if !self.methods.contains(&MethodName::Nuts) {
            refuse_given(given, &["warmup", "draws"], "nuts among the --methods")?;
        }
        if !self.methods.contains(&MethodName::Svi) {
            refuse_given(given, &["iterations"], "svi among the --methods")?;
        }
        ensure!(
            self.level > 0.0 && self.level <= 0.5,
            "--level is {}; give a probability above 0 and up to 0.5",
            self.level
        );
        ensure!(self.draws >= 100, "--draws is {}; give at least 100", self.draws);
        let design = Design {
            priors: GivenPriors::read(self.priors.as_deref())?.over(MODERATE_PRIORS)?,
            products: self.products,
            periods: self.periods,
            categories: self.categories,
            replications: self.replications,
            seed: self.seed,
        };
        design.validate()?;
        let fit_priors = GivenPriors::read(self.fit_priors.as_deref())?.over(design.priors)?;
        let fitted = self.fitted(fit_priors)?;
        if !self.force && self.out.join(RUN_JSON).exists() {
            bail!(
                "{} holds results already; give another folder, or --force to replace them",
                self.out.display()
            );
        }
        prove_writable(&self.out)?;
        let contenders: Vec<Contender<'_>> = fitted
            .iter()
            .map(|(request, backend)| Contender {
                name: request.method.name().to_owned(),
                backend: &**backend,
                request: request.clone(),
            })
            .collect();
        let threads = self
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
        let interrupt = interrupt_on_ctrl_c();
        let clock = Instant::now();
        let calibration = {
            let bar = Bar::new(design.replications as u64, "replications");
            let found = calibrate(&design, &contenders, threads, &interrupt, &mut |done| {
                bar.set(done as u64);
            });
            match found {
                Err(CalibrationError::Stopped) => {
                    drop(bar);
                    say(
                        "unfinished (interrupted) before the first replication was done: nothing was written",
                    );
                    return Ok(Exit::GateFailed);
                }
                found => found?,
            }
        };
        let verdicts = verdicts(&calibration, self.level);
        let methods = fitted
            .into_iter()
            .zip(&verdicts)
            .map(|((request, backend), verdict)| CalibratedMethod {
                name: verdict.method.clone(),
                backend: backend.name().to_owned(),
                request,
                failed_fits: verdict.failed_fits,
                passes: verdict.passes,
            })
            .collect();
        let seconds = clock.elapsed().as_secs_f64();
        let record = CalibrationRecord::new(design, &calibration, self.level, seconds, methods);
        write_calibration(&self.out, &calibration, &verdicts, record)?;
        let text = calibration_table(&verdicts);
        answer(|out| out.write_all(text.as_bytes()))?;
        self.tell(&calibration, &verdicts);
        let passes = calibration.is_complete() && verdicts.iter().all(|verdict| verdict.passes);
        Ok(if passes { Exit::Done } else { Exit::GateFailed })
    }

    /// Request and backend of every method.
    fn fitted(&self, priors: Priors) -> anyhow::Result<Vec<(Request, Arc<dyn Backend>)>> {
        let mut fitted: Vec<(Request, Arc<dyn Backend>)> = Vec::with_capacity(self.methods.len());
        for name in &self.methods {
            let method = match name {
                MethodName::Nuts => Method::Nuts(NutsSettings {
                    chains: 1,
                    warmup: self.warmup,
                    draws: self.draws,
                    ..NutsSettings::default()
                }),
                MethodName::Svi => Method::Svi(SviSettings {
                    iterations: self.iterations,
                    ..SviSettings::default()
                }),
                MethodName::Laplace => Method::Laplace(LaplaceSettings::default()),
                MethodName::StructuredVi => Method::StructuredVi(VariationalSettings::default()),
                MethodName::Meanfield => Method::Meanfield(VariationalSettings::default()),
            };
            let request = Request {
                priors,
                threads: Some(1),
                seed: self.seed,
                ..Request::new(method)
            };
            request.validate()?;
            let name = name.to_possible_value().expect("no method is hidden");
            ensure!(
                fitted
                    .iter()
                    .all(|(other, _)| other.method.name() != name.get_name()),
                "--methods names {} twice",
                name.get_name()
            );
            let backend = backends::for_request(&request);
            fitted.push((request, backend));
        }
        Ok(fitted)
    }

    /// What the table does not say.
    fn tell(&self, calibration: &Calibration, verdicts: &[MethodVerdict]) {
        for (method, verdict) in verdicts.iter().enumerate() {
            let passes = if verdict.passes { "passes" } else { "FAILS" };
            let failed = match verdict.failed_fits {
                0 => String::new(),
                n => format!("; {n} of {} fits failed", calibration.done),
            };
            say(format_args!(
                "{} {passes} at a level of {}{failed}",
                verdict.method, self.level
            ));
            if let Some(failure) = calibration.failures.iter().find(|f| f.method == method) {
                say(format_args!(
                    "  replication {}: {}",
                    failure.replication, failure.reason
                ));
            }
            let log_joint = infermark_calibration::Quantity::LogJoint;
            if verdict.quantities.iter().all(|q| q.quantity != log_joint) {
                say(format_args!(
                    "  its log joint is left out: the method gives no draws"
                ));
            }
        }
        let out = self.out.display();
        if calibration.is_complete() {
            say(format_args!("done: {out}"));
        } else {
            say(format_args!(
                "unfinished (interrupted): {} of {} replications are in {out}",
                calibration.done, calibration.asked
            ));
        }
    }
}
