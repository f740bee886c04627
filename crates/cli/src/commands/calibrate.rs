//! `infermark calibrate`: simulation-based calibration.

use super::{interrupt_on_signals, refuse_given};
use crate::choices::method_parser;
use crate::exit::Exit;
use crate::output::{notify, print};
use crate::progress_bar::Bar;
use crate::settings::{CoordinatesArguments, LikelihoodArguments};
use anyhow::{bail, ensure};
use clap::{ArgMatches, Args};
use infermark::{
    Backend, Coordinates, MeanfieldSettings, Method, MethodKind, NutsSettings, RHAT_LIMIT, Request,
    SviSettings, check_threads, registry,
};
use infermark_atomic_file::ClaimedFolder;
use infermark_calibration::{
    Calibration, CalibrationError, Design, FOUND_WITH, Latents, MODERATE_PRIORS, MethodUnderTest,
    MethodVerdict, PosteriorError, Power, Quantity, QuantityVerdict, RANK_DRAWS, calibrate, verdicts,
};
use infermark_fit_files::given::GivenPriors;
use infermark_machine::Description;
use infermark_model::Priors;
use infermark_report::calibration_output::{
    CalibratedMethod, CalibrationRecord, FILES, RUN_JSON, calibration_table, write_calibration,
};
use infermark_report::number_format::{count, three_digits};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
pub struct CalibrateArguments {
    /// Methods, separated by commas.
    #[arg(
        long,
        value_parser = method_parser(),
        value_name = "METHODS",
        value_delimiter = ',',
        default_value = "nuts,structured-vi,laplace"
    )]
    methods: Vec<MethodKind>,
    /// Replications: draws of parameters and data, each fitted by every method. How large an error so many of them find is
    /// said before the work starts.
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
    #[command(flatten)]
    likelihood: LikelihoodArguments,
    #[command(flatten)]
    guide: CoordinatesArguments,
    /// JSON file with the priors that parameters are drawn from; what it leaves out keeps the verb's own default, under which
    /// counts are moderate (docs/calibration.md).
    #[arg(long, value_name = "FILE")]
    priors: Option<PathBuf>,
    /// JSON file with the priors that are fitted with; what it leaves out is as drawn from. Other priors than those drawn from
    /// must fail: it shows that the check bites.
    #[arg(long, value_name = "FILE")]
    fit_priors: Option<PathBuf>,
    /// NUTS: warm-up draws of its one chain.
    #[arg(long, value_name = "N", default_value_t = 500, help = warmup_help())]
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

fn warmup_help() -> String {
    format!(
        "NUTS: warm-up draws of its one chain. Warm-up and draws are doubled together, up to five times, where a latent has fewer than \
         {RANK_DRAWS} effective draws or an R-hat above {RHAT_LIMIT}; a chain that has not mixed then is a failed fit"
    )
}

impl CalibrateArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        check_threads(self.threads)?;
        if !self.has(MethodKind::Nuts) {
            refuse_given(given, &["warmup", "draws"], "nuts among the --methods")?;
        }
        if !self.has(MethodKind::Svi) {
            refuse_given(given, &["iterations"], "svi among the --methods")?;
        }
        if !(self.has(MethodKind::Svi) || self.has(MethodKind::Meanfield)) {
            refuse_given(given, &["coordinates"], "svi or meanfield among the --methods")?;
        }
        ensure!(
            self.level > 0.0 && self.level <= 0.5,
            "--level is {}; give a probability above 0 and up to 0.5",
            self.level
        );
        ensure!(self.draws >= 100, "--draws is {}; give at least 100", self.draws);
        let design = Design {
            priors: GivenPriors::read(self.priors.as_deref())?.over(MODERATE_PRIORS)?,
            likelihood: self.likelihood.likelihood,
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
        let folder = ClaimedFolder::claim(&self.out, &FILES)?;
        let methods_under_test: Vec<MethodUnderTest<'_>> = fitted
            .iter()
            .map(|(request, backend)| MethodUnderTest {
                name: request.method.name().to_owned(),
                backend: &**backend,
                request: request.clone(),
            })
            .collect();
        let threads = self.threads.unwrap_or_else(infermark_threads::available);
        notify(self.promised(&design));
        let interrupt = interrupt_on_signals();
        let system = Description::ask();
        let clock = Instant::now();
        let calibration = {
            let bar = Bar::new(design.replications as u64, "replications");
            let found = calibrate(&design, &methods_under_test, threads, &interrupt, &mut |done| {
                bar.set(done as u64);
            });
            match found {
                Err(CalibrationError::Stopped) => {
                    drop(bar);
                    notify(
                        "unfinished (interrupted) before the first replication was done: nothing was written",
                    );
                    return Ok(Exit::Interrupted);
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
                sensitivity: verdict
                    .quantities
                    .iter()
                    .map(|q| (q.quantity.name().to_owned(), q.sensitivity()))
                    .collect(),
            })
            .collect();
        let seconds = clock.elapsed().as_secs_f64();
        let record = CalibrationRecord::new(
            design,
            &calibration,
            self.level,
            seconds,
            methods,
            system.answer(),
        );
        let written = write_calibration(&folder, &calibration, &verdicts, record)?;
        for missing in &written.missing {
            notify(format_args!("warning: {missing}"));
        }
        let text = calibration_table(&verdicts);
        print(|out| out.write_all(text.as_bytes()))?;
        self.tell(&calibration, &verdicts);
        Ok(if !calibration.is_complete() {
            Exit::Interrupted
        } else if verdicts.iter().all(|verdict| verdict.passes) {
            Exit::Done
        } else {
            Exit::CheckFailed
        })
    }

    /// Whether a method is among those to check.
    fn has(&self, kind: MethodKind) -> bool {
        self.methods.contains(&kind)
    }

    /// Request and backend of every method.
    fn fitted(&self, priors: Priors) -> anyhow::Result<Vec<(Request, Arc<dyn Backend>)>> {
        let mut fitted: Vec<(Request, Arc<dyn Backend>)> = Vec::with_capacity(self.methods.len());
        for kind in self.methods.iter().copied() {
            let method = match kind {
                MethodKind::Nuts => Method::Nuts(NutsSettings {
                    chains: 1,
                    warmup: self.warmup,
                    draws: self.draws,
                    ..NutsSettings::default()
                }),
                MethodKind::Svi => Method::Svi(match self.guide.coordinates {
                    Coordinates::Published => SviSettings {
                        iterations: self.iterations,
                        ..SviSettings::default()
                    },
                    Coordinates::Orthogonal => SviSettings::orthogonal().falling_over(self.iterations),
                }),
                MethodKind::Meanfield => Method::Meanfield(MeanfieldSettings {
                    coordinates: self.guide.coordinates,
                    ..MeanfieldSettings::default()
                }),
                MethodKind::Laplace | MethodKind::StructuredVi => kind.default_method(),
            };
            let request = Request {
                priors,
                likelihood: self.likelihood.likelihood,
                threads: Some(1),
                seed: self.seed,
                ..Request::new(method)
            };
            let backend = registry().choose(&request)?;
            ensure!(
                fitted.iter().all(|(other, _)| other.method.kind() != kind),
                "--methods names {} twice",
                kind.name()
            );
            fitted.push((request, backend));
        }
        Ok(fitted)
    }

    /// The errors that the replications will find, for a quantity with a single latent per replication and
    /// for one with a latent per product.
    fn promised(&self, design: &Design) -> String {
        let quantities = Quantity::all(design.likelihood).len();
        // A method with draws has the most quantities, and ranks see a little less: no other method sees less than this.
        let has_draws = self.methods.iter().any(|kind| kind.has_draws());
        let one = Power {
            replications: design.replications,
            quantities: if has_draws { quantities } else { quantities - 1 },
            level: self.level,
            rank_draws: has_draws.then_some(RANK_DRAWS as f64),
            latents: Latents::Single,
        };
        let several = |worth: f64| Power {
            latents: Latents::Several(worth),
            ..one
        };
        let dependent = several(1.0);
        let products = several(design.products as f64);
        let five = PosteriorError::Sd(0.05);
        let found = |power: Power| {
            findings(
                power.smallest_sd_error(FOUND_WITH),
                power.of(five),
                power.smallest_mean_error(FOUND_WITH),
            )
        };
        let needed = |power: Power| power.replications_for(five, FOUND_WITH);
        let mut text = format!(
            "With {}, of a quantity with one latent per replication: {}.\n",
            replications(design.replications),
            found(one)
        );
        let mut needs = vec![needed(one)];
        if design.products > 1 {
            text += &format!(
                "Latents of a site are tested together. If they moved as one: {}. If those of {} products were independent: {}.\n",
                found(dependent),
                count(design.products as u64),
                found(products)
            );
            needs.extend([needed(dependent), needed(products)]);
        }
        let fewest = needs.iter().flatten().min();
        let most = needs
            .iter()
            .copied()
            .max_by_key(|n| n.unwrap_or(usize::MAX))
            .flatten();
        let finding = format!(
            "an error of the sds by 5% with {:.0}% probability",
            100.0 * FOUND_WITH
        );
        text + &match (fewest, most) {
            (Some(fewest), Some(most)) if *fewest == most => {
                format!("Finding {finding} takes {} replications.", count(most as u64))
            }
            (Some(fewest), Some(most)) => format!(
                "Finding {finding} takes {} to {} replications.",
                count(*fewest as u64),
                count(most as u64)
            ),
            (Some(fewest), None) => format!(
                "Finding {finding} takes {} replications and more, of some quantities more than can be done.",
                count(*fewest as u64)
            ),
            (None, _) => format!("Finding {finding} takes more replications than can be done."),
        }
    }

    /// Information that is not in the table.
    fn tell(&self, calibration: &Calibration, verdicts: &[MethodVerdict]) {
        for (method, verdict) in verdicts.iter().enumerate() {
            let passes = if verdict.passes { "passes" } else { "FAILS" };
            let failed = match verdict.failed_fits {
                0 => String::new(),
                n => format!(
                    "; {n} of {} fits failed, which fails the method whatever the tests of the others say",
                    calibration.done
                ),
            };
            notify(format_args!(
                "{} {passes} at a level of {}{failed}",
                verdict.method, self.level
            ));
            if let Some(line) = found_by(verdict, calibration.done) {
                notify(format_args!("  {line}"));
            }
            if let Some(failure) = calibration.failures.iter().find(|f| f.method == method) {
                notify(format_args!(
                    "  replication {}: {}",
                    failure.replication, failure.reason
                ));
            }
            let has_log_joint = verdict
                .quantities
                .iter()
                .any(|q| q.quantity == Quantity::LogJoint);
            if !verdict.quantities.is_empty() && !has_log_joint {
                notify(format_args!(
                    "  its log joint is left out: the method gives no draws"
                ));
            }
        }
        let out = self.out.display();
        if calibration.is_complete() {
            notify(format_args!("done: {out}"));
        } else {
            notify(format_args!(
                "unfinished (interrupted): {} of {} replications are in {out}",
                calibration.done, calibration.asked
            ));
        }
    }
}

/// The errors that a method's replications find, for the quantities with the least and with the most power.
fn found_by(verdict: &MethodVerdict, done: usize) -> Option<String> {
    let by_power: Vec<(&QuantityVerdict, _)> = verdict
        .quantities
        .iter()
        .map(|quantity| (quantity, quantity.sensitivity()))
        .collect();
    let power = |(_, s): &&(_, infermark_calibration::Sensitivity)| s.power_sd_5_percent;
    let least = by_power.iter().min_by(|a, b| power(a).total_cmp(&power(b)))?;
    let most = by_power.iter().max_by(|a, b| power(a).total_cmp(&power(b)))?;
    let of = |(quantity, s): &(&QuantityVerdict, infermark_calibration::Sensitivity)| {
        format!(
            "of {}, {}",
            quantity.quantity.name(),
            findings(s.sd_error_found, s.power_sd_5_percent, s.mean_error_found)
        )
    };
    Some(format!(
        "with {}: {}; {}",
        replications(done),
        of(least),
        of(most)
    ))
}

/// `200 replications`.
fn replications(n: usize) -> String {
    match n {
        1 => "1 replication".to_owned(),
        n => format!("{} replications", count(n as u64)),
    }
}

/// Errors that are found, in words.
fn findings(sd_error: Option<f64>, power_of_5_percent: f64, mean_error: Option<f64>) -> String {
    let found = 100.0 * FOUND_WITH;
    let sd = match sd_error {
        Some(error) => format!(
            "an error of the sds by {}% is found with {found:.0}% probability",
            three_digits(100.0 * error)
        ),
        None => format!("no error of the sds up to 95% is found with {found:.0}% probability"),
    };
    let mean = match mean_error {
        Some(error) => format!("one of the means by {} sd with {found:.0}%", three_digits(error)),
        None => format!("none of the means up to 5 sd with {found:.0}%"),
    };
    format!(
        "{sd}, by 5% with {}%, {mean}",
        three_digits(100.0 * power_of_5_percent)
    )
}
