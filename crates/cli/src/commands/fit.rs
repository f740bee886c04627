//! `infermark fit`.

mod advance;
pub(crate) mod checkpoints;
mod dispersion_advice;
mod fingerprint;

use super::{
    fewer_threads, interrupt_on_signals, interrupt_set_up, load_own_rows, load_panel, load_stored_panel,
};
use crate::exit::Exit;
use crate::memory::MemoryArguments;
use crate::output::{notify, print};
use crate::ranks::Ranks;
use crate::remedies::VerbOptions;
use crate::settings::{
    ColumnArguments, CoordinatesArguments, GaussianArguments, LikelihoodArguments, NutsArguments,
    ObjectiveName, PriorArguments, RunArguments, SpecificationArguments, SviArguments,
};
use advance::advance;
use anyhow::{Context, bail, ensure};
use checkpoints::CheckpointArguments;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory};
use dispersion_advice::{advice, by_category};
use fingerprint::Fingerprint;
use infermark::{
    BackendError, Cause, Convergence, ESS_LIMIT, Method, MethodKind, Posterior, RHAT_LIMIT, Request, Run,
    Warning, read_truth, registry,
};
use infermark_atomic_file::ClaimedFolder;
use infermark_fit_files::checkpoint_file::FitIdentity;
use infermark_fit_files::fit_output::{ELASTICITIES_PICTURES, FILES, FitParts, write_fit};
use infermark_fit_files::fit_record::{DispersionRecord, FitRecord, FitStatus};
use infermark_fit_files::panel_description::PanelDescription;
use infermark_harness::fit_dispersion::dispersion_of;
use infermark_machine::Description;
use infermark_model::lower_bound::share_below;
use infermark_model::wild_price::wildest_price;
use infermark_model::{Cut, Likelihood, Panel, Site, Specification};
use infermark_report::fit_notes::{below_lower_bound, constant_prices};
use infermark_report::fit_summary::{fit_summary, likelihood_in_words, model_in_words};
use infermark_report::plots::categories;
use infermark_report::quality::truth::elasticities_by_category;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `fit`.
#[derive(Debug, Args)]
pub struct FitArguments {
    /// Sales file: .csv or .parquet, one row per product and period.
    data: PathBuf,
    /// Folder for posterior.csv, run.json, trace.csv or draws.parquet, and a picture; one that holds a fit is refused.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the fit that is in --out, as soon as there is another one to be written.
    #[arg(long)]
    force: bool,
    /// CSV file with true parameters (of `infermark generate`): prints error and coverage of the elasticities.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Exit with code 1 when the result has not converged.
    #[arg(long, help = convergence_help())]
    require_convergence: bool,
    #[command(flatten)]
    checkpoints: CheckpointArguments,
    #[command(flatten)]
    memory: MemoryArguments,
    #[command(flatten)]
    run: RunArguments,
    #[command(flatten)]
    columns: ColumnArguments,
    #[command(flatten)]
    model: SpecificationArguments,
    #[command(flatten)]
    priors: PriorArguments,
    #[command(flatten)]
    likelihood: LikelihoodArguments,
    #[command(flatten)]
    guide: CoordinatesArguments,
    #[command(flatten)]
    svi: SviArguments,
    #[command(flatten)]
    nuts: NutsArguments,
    #[command(flatten)]
    gaussian: GaussianArguments,
}

fn convergence_help() -> String {
    format!(
        "Exit with code 1 when the result has not converged: SVI that did not meet the criterion of --early-stop, which is needed \
         for it; NUTS with R-hat above {RHAT_LIMIT}, effective samples below {ESS_LIMIT} or divergences; the Gaussian methods with \
         --tolerance not met"
    )
}

impl FitArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        self.refuse_what_would_be_ignored(given)?;
        let asked_for_checkpoint = checkpoints::listen()?;
        let ranks = self.run.ranks.find(&self.run.devices)?;
        let end = self.run_on(&ranks, given, asked_for_checkpoint);
        if let Err(error) = &end {
            ranks.end_all(VerbOptions::of("fit").in_error(error));
        }
        end
    }

    fn run_on(
        self,
        ranks: &Ranks,
        given: &ArgMatches,
        asked_for_checkpoint: Arc<AtomicBool>,
    ) -> anyhow::Result<Exit> {
        ensure!(
            ranks.are_processes() || given.value_source("rank_timeout") != Some(ValueSource::CommandLine),
            "--rank-timeout goes with several processes, which a launcher starts"
        );
        let storage = self.memory.bound(self.run.method, &self.run.devices, &self.out);
        let method = match self.run.method {
            MethodKind::Svi => Method::Svi(self.svi.settings(self.guide.coordinates)),
            MethodKind::Nuts => Method::Nuts(self.nuts.settings()),
            MethodKind::Laplace => Method::Laplace(self.gaussian.laplace()),
            MethodKind::StructuredVi => Method::StructuredVi(self.gaussian.structured_vi()),
            MethodKind::Meanfield => Method::Meanfield(self.gaussian.meanfield(self.guide.coordinates)),
        };
        let model = self.model.model;
        let given_priors = self.priors.given()?;
        let mut request = Request {
            likelihood: self.likelihood.likelihood,
            shards: ranks.shards(self.run.shards, self.run.devices.len(), self.run.method)?,
            ..self
                .run
                .request(method, given_priors.over(model.constant_priors())?)
        };
        ensure!(
            request.cut == Cut::Product || request.shards > 1,
            "--cut row needs several shards; see --shards"
        );
        ensure!(
            request.cut == Cut::Product || storage.is_none(),
            "--cut row has its rows in memory; leave --memory out"
        );
        let backend = ranks.connect(registry().choose(&request)?)?;
        if ranks.is_first() {
            ClaimedFolder::recover(&self.out, &FILES);
            self.checkpoints.refuse_earlier_fit(&self.out, self.force)?;
        }
        let columns = self.columns.into();
        let panel = match (&ranks.of_panel(&request), &storage) {
            (Some(ranks), storage) => load_own_rows(&self.data, &columns, storage.as_ref(), ranks)?,
            (None, None) => load_panel(&self.data, &columns)?,
            (None, Some(storage)) => load_stored_panel(&self.data, &columns, storage)?,
        };
        if let Some(held) = held_rows_in_words(&panel) {
            notify(held);
        }
        let truth = self
            .truth
            .as_ref()
            .map(|path| read_truth(path, &panel))
            .transpose()?;
        let source = self
            .data
            .file_name()
            .unwrap_or(self.data.as_os_str())
            .to_string_lossy();
        // Describes the prices in the file: fits of one file have the same panel, whatever the model does
        // with its prices.
        // Ranks put it together, on one thread and all at the same point.
        let in_background =
            request.resolved_threads() > 1 && !self.checkpoints.are_written() && panel.ranks().is_none();
        let (described, panel) = if model == Specification::Published && in_background {
            // They do not change, and their fingerprint is not needed before the end.
            (None, panel)
        } else {
            let description = PanelDescription::new(&panel, source.clone());
            let panel = Arc::new(
                model
                    .panel(Arc::unwrap_or_clone(panel))
                    .context("storing prices")?,
            );
            (Some(description), panel)
        };
        request.priors = given_priors.over(model.priors(&panel))?;
        let constant = panel.constant_price_products();
        let constant: Vec<String> = constant
            .into_iter()
            .map(|product| panel.products().get(product).to_string())
            .collect();
        // Before the hours of the run, not after them.
        let folder = match ranks.is_first() {
            true => Some(ClaimedFolder::claim(&self.out, &FILES)?),
            false => None,
        };
        let (interrupt, begun) = match &folder {
            Some(folder) => {
                // Another run may have ended in the meantime.
                self.checkpoints.refuse_earlier_fit(&self.out, self.force)?;
                interrupt_set_up(folder)
            }
            None => (interrupt_on_signals(), Arc::default()),
        };
        let system = Description::ask();
        let identity = || FitIdentity {
            panel: described
                .clone()
                .expect("a fit with checkpoints is described first"),
            model,
            request: request.clone(),
        };
        let (mut run, mut checkpoints) =
            self.checkpoints
                .start(&*backend, panel.clone(), &self.out, identity, &request, ranks)?;
        begun.store(true, Ordering::SeqCst);
        let failure = advance(
            &mut *run,
            &interrupt,
            ranks,
            checkpoints.as_mut(),
            &asked_for_checkpoint,
        );
        if ranks.are_processes()
            && let Some(failure) = &failure
            && !matches!(failure, BackendError::Diverged { .. })
        {
            // It may be this process's alone, and what follows is put together from all of them.
            return Err(failure.clone().into());
        }

        let description = match described {
            Some(description) => Fingerprint::Taken(description),
            None => Fingerprint::begun(&panel, source.clone()),
        };
        let progress = run.progress();
        let posterior = run.posterior().ok();
        let below = posterior.as_ref().map(|posterior| {
            share_below(
                &panel,
                &request.priors,
                &posterior.mean,
                request.resolved_threads(),
            )
        });
        let mut report = run.report();
        report.warnings.extend(
            [
                below.and_then(|share| below_lower_bound(model, &request.priors, share)),
                constant_prices(model, &constant, panel.layout().products),
                wildest_price(&panel)
                    .map(|wild| Cause::from(format!("The fit may be of a price that is none: {wild}."))),
                fewer_threads(),
            ]
            .into_iter()
            .flatten()
            .map(Warning::from),
        );
        let convergence = report.convergence(&request.method);
        let converged = convergence == Convergence::Converged;
        let dispersion = posterior
            .as_ref()
            .map(|posterior| dispersion_of(&panel, &request, &*run, posterior, converged));
        let (status, reason) = match (&failure, progress.state.is_complete()) {
            (None, true) => (FitStatus::Finished, None),
            (Some(error), _) => (FitStatus::Unfinished, Some(error.to_string())),
            (None, false) => (FitStatus::Unfinished, Some("interrupted".to_owned())),
        };
        let mut record = FitRecord {
            model,
            below_lower_bound: below,
            constant_price_products: constant,
            ..FitRecord::new(
                status,
                reason.clone(),
                request.clone(),
                report.clone(),
                description.taken(),
                system.answer(),
            )
        }
        .with_dispersion(dispersion.as_ref().map(|of| DispersionRecord::new(&panel, of)));
        let exit = |files_are_missing: bool| {
            if failure.is_some() || files_are_missing || (self.require_convergence && !converged) {
                Exit::CheckFailed
            } else if status == FitStatus::Unfinished {
                Exit::Interrupted
            } else {
                Exit::Done
            }
        };
        // The first rank writes what all of them know.
        let Some(folder) = folder else {
            return Ok(exit(false));
        };
        let pictures = match &posterior {
            Some(posterior) => match categories::render(
                Path::new(ELASTICITIES_PICTURES[0]).with_extension("").as_path(),
                &elasticities_by_category(&panel, posterior),
                "category",
                &subtitle(&panel, &source, model, &request, &*run),
            ) {
                Ok(pictures) => pictures.into_iter().map(|picture| picture.bytes).collect(),
                Err(error) => {
                    notify(format_args!("warning: {error}"));
                    Vec::new()
                }
            },
            None => Vec::new(),
        };
        let draws = run.draws();
        let parts = FitParts {
            posterior: posterior.as_ref(),
            draws: draws.as_ref(),
            pictures: &pictures,
        };
        let written = write_fit(&folder, &panel, &parts, record.clone())?;
        if !written.missing.is_empty() {
            record.status = FitStatus::Unfinished;
            record.reason = written.missing.join("; ");
        }
        if record.status == FitStatus::Finished {
            checkpoints::remove(&self.out);
        }
        let summary = posterior
            .as_ref()
            .map(|posterior| fit_summary(&record, &panel, posterior, &self.out));
        let exit = exit(!written.missing.is_empty());
        if let Some(summary) = summary {
            let quality = posterior.as_ref().zip(truth.as_ref());
            let quality =
                quality.map(|(posterior, truth)| quality_in_words(posterior, &truth.product_elasticity));
            print(|out| {
                out.write_all(summary.as_bytes())?;
                quality.iter().try_for_each(|text| writeln!(out, "{text}"))
            })?;
        }
        let options = VerbOptions::of("fit");
        for warning in &report.warnings {
            notify(format_args!("note: {}", options.in_warning(warning)));
        }
        if status == FitStatus::Finished && convergence == Convergence::Unknown {
            notify("note: --early-stop tests whether the loss still falls, for runs of enough --iterations");
        }
        if let (Some(dispersion), FitStatus::Finished) = (&dispersion, status)
            && let Some(advice) = advice(dispersion, request.likelihood)
        {
            notify(format_args!("note: {advice}"));
            notify(format_args!("note: {}", by_category(dispersion, &panel)));
        }
        for missing in &written.missing {
            notify(format_args!("warning: {missing}"));
        }
        let out = self.out.display();
        let failure = failure.as_ref().map(|failure| options.in_backend_error(failure));
        match failure.or(reason) {
            Some(reason) if written.files.is_empty() => notify(format_args!(
                "unfinished ({reason}) without a posterior: the fit in {out} is as it was"
            )),
            Some(reason) => notify(format_args!(
                "unfinished ({reason}): partial results are in {out}"
            )),
            None if !written.missing.is_empty() => {
                notify(format_args!(
                    "unfinished (not all files could be written): the others are in {out}"
                ));
            }
            None => notify(format_args!("done: {out}")),
        }
        Ok(exit)
    }

    /// Refuses options that have no meaning in combination with the others.
    fn refuse_what_would_be_ignored(&self, given: &ArgMatches) -> anyhow::Result<()> {
        let was_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
        let kind = self.run.method;
        let method = kind.name();
        ensure!(
            !self.gaussian.plain || matches!(kind, MethodKind::Laplace | MethodKind::StructuredVi),
            "--plain goes with --method laplace and structured-vi, whose marginals are corrected for skewness otherwise; --method \
             {method} knows no such correction"
        );
        ensure!(
            !self.gaussian.plain || self.likelihood.likelihood == Likelihood::Poisson,
            "--plain goes with --likelihood poisson; under the other marginals are not corrected for skewness"
        );
        let mut command = crate::Arguments::command();
        let fit = command.find_subcommand_mut("fit").expect("the verb is there");
        for (arguments, its_methods) in [
            ("SviArguments", &["svi"] as &[&str]),
            ("CoordinatesArguments", &["svi", "meanfield"]),
            ("NutsArguments", &["nuts"]),
            ("GaussianArguments", &["laplace", "structured-vi", "meanfield"]),
        ] {
            if its_methods.contains(&method) {
                continue;
            }
            let its_method = its_methods.join(" or ");
            let group = fit.get_groups().find(|group| group.get_id() == arguments);
            for id in group.expect("arguments are grouped by method").get_args() {
                if was_given(id.as_str()) {
                    let option = id.as_str().replace('_', "-");
                    bail!("--{option} goes with --method {its_method}; this is --method {method}");
                }
            }
        }
        if kind == MethodKind::Svi {
            ensure!(
                !(was_given("alpha") && self.svi.objective == ObjectiveName::Elbo),
                "--alpha goes with --objective renyi"
            );
            let settings = self.svi.settings(self.guide.coordinates);
            ensure!(
                !self.svi.early_stop || settings.early_stop.is_some(),
                "--early-stop in orthogonal coordinates needs at least 2000 --iterations; these are {}",
                settings.iterations
            );
            ensure!(
                self.svi.batch_products.is_none() || self.svi.objective == ObjectiveName::Elbo,
                "--batch-products goes with --objective elbo: a batch gives no unbiased estimate of the Renyi bound"
            );
            ensure!(
                !was_given("window") || self.svi.early_stop,
                "--window goes with --early-stop"
            );
            ensure!(
                !self.require_convergence || self.svi.early_stop,
                "--require-convergence needs --early-stop with --method svi: a schedule that runs to its end says nothing"
            );
        }
        Ok(())
    }
}

/// How many rows the ranks hold that a panel is spread over.
fn held_rows_in_words(panel: &Panel) -> Option<String> {
    let ranks = panel.ranks()?;
    let mut rows = vec![0; ranks.size()];
    rows[ranks.rank()] = panel.held_rows() as u64;
    panel.sum_integers_over_ranks(&mut rows);
    let (least, most) = (rows.iter().min()?, rows.iter().max()?);
    Some(format!(
        "each rank holds the rows of its own products: {least} to {most} of {}",
        panel.rows()
    ))
}

fn subtitle(panel: &Panel, source: &str, model: Specification, request: &Request, run: &dyn Run) -> String {
    let layout = panel.layout();
    let done = run.progress().completed;
    let method = match &request.method {
        Method::Svi(svi) => format!("SVI, {done} iterations, {} particles", svi.particles),
        Method::Nuts(nuts) => format!(
            "NUTS, {} chains, {} draws each after warm-up",
            nuts.chains, nuts.draws
        ),
        Method::Laplace(_) => format!("Laplace, {done} Newton steps"),
        Method::StructuredVi(_) => format!("Structured Gaussian VI, {done} steps"),
        Method::Meanfield(_) => format!("Mean-field optimum, {done} steps"),
    };
    format!(
        "{source}: {} products, {} rows. {}, {}. {method}.",
        layout.products,
        panel.rows(),
        model_in_words(model),
        likelihood_in_words(request.likelihood),
    )
}

/// Error and coverage of the elasticities against the truth, in words.
fn quality_in_words(posterior: &Posterior, truth: &[f64]) -> String {
    format!(
        "product_a against the truth: mean absolute error {:.4}, 90% intervals cover {:.1}%, 95% intervals cover {:.1}%",
        posterior.mean_absolute_error(Site::ProductA, truth),
        100.0 * posterior.coverage_90(Site::ProductA, truth),
        100.0 * posterior.coverage_95(Site::ProductA, truth),
    )
}
