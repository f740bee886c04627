//! `infermark fit`.

use super::{interrupt_on_ctrl_c, load_panel};
use crate::backends;
use crate::exit::Exit;
use crate::progress_bar::Bar;
use crate::settings::{
    ColumnArguments, MethodName, NutsArguments, PriorArguments, RunArguments, SviArguments,
};
use clap::Args;
use infermark_backend::{BackendError, Interrupt, Method, Posterior, Request, Run, RunState, StepUnit};
use infermark_data::read_truth;
use infermark_harness::fit_output::write_fit;
use infermark_harness::fit_record::{FitRecord, FitStatus};
use infermark_harness::panel_description::PanelDescription;
use infermark_harness::plots::categories;
use infermark_harness::quality::elasticities_by_category;
use infermark_harness::system::System;
use infermark_model::{Panel, Site};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a piece of a run lasts: how often the bar moves and Ctrl-C is heard.
const PIECE: Duration = Duration::from_millis(200);

/// Arguments of `fit`.
#[derive(Debug, Args)]
pub struct FitArguments {
    /// Sales file: .csv or .parquet, one row a product and period.
    data: PathBuf,
    /// Folder for posterior.csv, run.json, trace.csv or draws.parquet, and plots.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// CSV file with true parameters (of `infermark generate`): prints error and coverage.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Exit with code 1 when the result has not converged: SVI stopped before its schedule's end; NUTS with R-hat above
    /// 1.01, effective samples below 400 or divergences.
    #[arg(long)]
    require_convergence: bool,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    columns: ColumnArguments,
    #[command(flatten)]
    priors: PriorArguments,
    #[command(flatten)]
    svi: SviArguments,
    #[command(flatten)]
    nuts: NutsArguments,
}

impl FitArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let method = match self.run.method {
            MethodName::Svi => Method::Svi(self.svi.settings()),
            MethodName::Nuts => Method::Nuts(self.nuts.settings()),
        };
        let request = self.run.request(method, self.priors.load()?);
        request.validate()?;
        let backend = backends::for_method(&request.method);
        backends::check_devices(&*backend, &request)?;
        let panel = load_panel(&self.data, &self.columns.into())?;
        let truth = self
            .truth
            .as_ref()
            .map(|path| read_truth(path, &panel))
            .transpose()?;
        let interrupt = interrupt_on_ctrl_c();
        let mut run = backend.start(panel.clone(), &request)?;
        let failure = advance(&mut *run, &interrupt);

        let progress = run.progress();
        let posterior = run.posterior().ok();
        let report = run.report();
        let (status, reason) = match (&failure, progress.state.is_complete()) {
            (None, true) => (FitStatus::Finished, None),
            (Some(error), _) => (FitStatus::Unfinished, Some(error.to_string())),
            (None, false) => (FitStatus::Unfinished, Some("interrupted".to_owned())),
        };
        let source = self
            .data
            .file_name()
            .unwrap_or(self.data.as_os_str())
            .to_string_lossy();
        let description = PanelDescription::new(&panel, source.clone());
        let record = FitRecord::new(
            status,
            reason.clone(),
            request.clone(),
            report.clone(),
            description,
            System::describe(),
        );
        write_fit(
            &self.out,
            &panel,
            posterior.as_ref(),
            run.draws().as_ref(),
            record,
        )?;
        if let Some(posterior) = &posterior {
            let subtitle = subtitle(&panel, &source, &request, &*run);
            let stem = self.out.join("elasticities_by_category");
            categories::draw(
                &stem,
                &elasticities_by_category(&panel, posterior),
                "category",
                &subtitle,
            )?;
            if let Some(truth) = &truth {
                print_quality(posterior, &truth.product_elasticity);
            }
        }
        for warning in &report.warnings {
            eprintln!("note: {warning}");
        }
        match reason {
            Some(reason) => eprintln!(
                "unfinished ({reason}): what there was is in {}",
                self.out.display()
            ),
            None => eprintln!("done: {}", self.out.display()),
        }
        let converged = progress.state.is_complete() && chains_converged(&report);
        Ok(match failure {
            Some(_) => Exit::GateFailed,
            None if self.require_convergence && !converged => Exit::GateFailed,
            None => Exit::Done,
        })
    }
}

/// Advances a run to its end in pieces of about [`PIECE`], or until Ctrl-C. Returns why it failed.
fn advance(run: &mut dyn Run, interrupt: &Interrupt) -> Option<BackendError> {
    let bar = Bar::for_run(&run.progress());
    let mut steps = 1;
    while !interrupt.is_set() {
        let clock = Instant::now();
        let progress = match run.advance(steps, interrupt) {
            Ok(progress) => progress,
            Err(error) => return Some(error),
        };
        bar.show(&progress);
        if progress.state != RunState::Running {
            return None;
        }
        if progress.unit == StepUnit::Iterations {
            let ratio = PIECE.as_secs_f64() / clock.elapsed().as_secs_f64().max(1e-6);
            steps = (steps as f64 * ratio.clamp(0.5, 2.0)).round().max(1.0) as u64;
        }
    }
    None
}

fn subtitle(panel: &Panel, source: &str, request: &Request, run: &dyn Run) -> String {
    let layout = panel.layout();
    let done = run.progress().completed;
    let method = match &request.method {
        Method::Svi(svi) => format!("SVI, {done} iterations, {} particles", svi.particles),
        Method::Nuts(nuts) => format!(
            "NUTS, {} chains, {} draws each after warm-up",
            nuts.chains, nuts.draws
        ),
    };
    format!(
        "{source}: {} products, {} rows. {method}.",
        layout.products,
        panel.rows()
    )
}

/// Error and coverage of the elasticities against the truth, on stdout.
fn print_quality(posterior: &Posterior, truth: &[f64]) {
    println!(
        "product_a against the truth: mean absolute error {:.4}, 90% intervals cover {:.1}%, 95% intervals cover {:.1}%",
        posterior.mean_absolute_error(Site::ProductA, truth),
        100.0 * posterior.coverage_90(Site::ProductA, truth),
        100.0 * posterior.coverage_95(Site::ProductA, truth),
    );
}

/// Whether a sampler's diagnostics allow its result to be trusted; true for methods without chains.
fn chains_converged(report: &infermark_backend::Report) -> bool {
    match &report.detail {
        infermark_backend::report::Detail::Svi(_) => true,
        infermark_backend::report::Detail::Nuts(nuts) => {
            nuts.divergences == 0
                && nuts.max_rhat.is_some_and(|r| r <= 1.01)
                && nuts.min_ess_bulk.is_some_and(|e| e >= 400.0)
                && nuts.min_ess_tail.is_some_and(|e| e >= 400.0)
        }
    }
}
