//! A run of a Gaussian method, advanced step by step.

mod dispersion;
mod saved;
mod warnings;

use crate::averaging::Averaging;
use crate::cost::cost;
use crate::newton::{ModeError, ModeSearch, ModeSettings};
use crate::objective::GaussianObjective;
use crate::shape_shift::ShapeShift;
use crate::skewness::{corrected_mean, corrected_mode};
use crate::variational::{Family, Search};
use infermark_arrowhead::{ArrowheadFactor, FactorError};
use infermark_backend::{
    BackendError, Cause, Checkpoint, Detail, GaussianReport, Interrupt, Method, MethodKind, Posterior,
    Progress, Remedy, Report, Request, Run, RunState, Setting, StepPoint, StepUnit,
};
use infermark_model::dispersion::{Dispersion, FittedRates};
use infermark_model::{IndependentRates, Likelihood, Orthogonal, Panel};
use infermark_processor::processor_name;
use std::sync::Arc;
use std::time::Instant;

pub(crate) use saved::SavedRun;

/// Decrement to which the mode is sought if it is only the start of an iteration.
const MODE_TO_START_FROM: f64 = 1e-2;

/// The rate at the upper clip bound below which products with counts near it are refused instead of left out:
/// eight standard deviations are then no longer a small fraction of it, and most of the sales would be left
/// out.
const LEAST_HIGHEST_RATE: f64 = 1e4;

/// Where a run is.
enum Stage {
    Mode(Box<ModeSearch>),
    Variational(Box<Search>),
    /// The posterior is known, or was lost to an error.
    Over,
}

/// The Gaussian that was found.
enum Fitted {
    /// The Gaussian with the precision at this mode; the factor is computed again if it is gone.
    Mode(Vec<f64>, Option<Box<ArrowheadFactor>>),
    /// The Gaussian with this mean and precision.
    Precision(Vec<f64>, Box<ArrowheadFactor>),
    /// A Gaussian with independent latents: the posterior's own standard deviations, or those of these
    /// coordinates, from which the variances of log rates follow.
    Independent(Option<(Arc<Orthogonal>, Vec<f64>)>),
}

/// What is fitted.
///
/// # Errors
/// When the upper clip bound lies among the counts.
pub(crate) fn counts_of(panel: &Arc<Panel>, request: &Request) -> Result<GaussianObjective, BackendError> {
    let counts = GaussianObjective::new(panel, &request.priors, request.likelihood);
    let highest = request.priors.clip_high.exp();
    let left_out = counts.left_out().len();
    if left_out > 0 && highest < LEAST_HIGHEST_RATE {
        return Err(BackendError::request(Cause::new(
            format!(
                "{left_out} products have counts near {highest:.0}, the largest rate that clip_high = {} allows; the Gaussian methods \
                 leave such products out, at so low a bound too many",
                request.priors.clip_high
            ),
            [Remedy::Raise(Setting::ClipHigh), Remedy::method(MethodKind::Nuts)],
        )));
    }
    Ok(counts)
}

pub(crate) struct GaussianRun {
    name: &'static str,
    counts: GaussianObjective,
    settings: ModeSettings,
    request: Request,
    stage: Stage,
    state: RunState,
    /// Why it cannot go on.
    failure: Option<BackendError>,
    posterior: Option<Posterior>,
    report: GaussianReport,
    /// Fraction of the rows whose rates are near the lower clip bound.
    near_lower_bound: f64,
    /// The source of the variances of the log rates, once there is a posterior.
    fitted: Option<Fitted>,
    /// Number of categories with one product of few sales, if marginals were corrected.
    lone_categories: usize,
    /// The largest distance of a mean above the products from the mode, in standard deviations, if means were
    /// corrected.
    mean_shift: f64,
    /// The distance of the joint mode of a log shape from its mean, if that matters.
    shape_shift: Option<ShapeShift>,
    /// The cost of the work if it is large, reported before the first step.
    cost: Option<String>,
    cost_is_told: bool,
    /// Id and name of the device that walks the rows, if it is not the host.
    device: Option<[String; 2]>,
    /// Whether the intervals use a fallback curvature instead of the exact precision.
    uses_fallback_curvature: bool,
    setup_seconds: f64,
    run_seconds: f64,
}

impl GaussianRun {
    pub(crate) fn start(
        name: &'static str,
        panel: Arc<Panel>,
        request: &Request,
        bytes: u64,
        started: Instant,
    ) -> Result<Self, BackendError> {
        let counts = counts_of(&panel, request)?;
        let cost = cost(&counts, request, bytes);
        Ok(Self::of_counts(name, counts, request, cost, None, started))
    }

    /// A run on `counts`, walked by the host at this `cost` if it is large, or by `device`.
    pub(crate) fn of_counts(
        name: &'static str,
        counts: GaussianObjective,
        request: &Request,
        cost: Option<String>,
        device: Option<[String; 2]>,
        started: Instant,
    ) -> Self {
        let settings = ModeSettings {
            steps: usize::MAX,
            tolerance: match &request.method {
                Method::Laplace(laplace) => laplace.tolerance,
                _ => MODE_TO_START_FROM,
            },
            threads: request.resolved_threads(),
        };
        let left_out_products = counts.left_out();
        // The first passes run in an `advance`, which can be stopped.
        let search = ModeSearch::unstarted(&counts, &settings);
        GaussianRun {
            name,
            device,
            counts,
            settings,
            request: request.clone(),
            report: GaussianReport {
                newton_steps: 0,
                variational_steps: 0,
                skewed_products: 0,
                left_out_products,
                converged: false,
                gradient_norm: f64::NAN,
                decrement: search.decrement(),
                log_joint: search.log_joint(),
                elbo: None,
                trace: Vec::new(),
            },
            stage: Stage::Mode(Box::new(search)),
            state: RunState::Running,
            failure: None,
            posterior: None,
            near_lower_bound: 0.0,
            fitted: None,
            lone_categories: 0,
            mean_shift: 0.0,
            shape_shift: None,
            cost_is_told: cost.is_none(),
            cost,
            uses_fallback_curvature: false,
            setup_seconds: started.elapsed().as_secs_f64(),
            run_seconds: 0.0,
        }
    }

    /// What is fitted.
    pub(crate) fn counts(&self) -> &GaussianObjective {
        &self.counts
    }

    fn most_steps(&self) -> u64 {
        match &self.request.method {
            Method::Laplace(laplace) => laplace.steps,
            Method::StructuredVi(structured) => structured.steps,
            Method::Meanfield(meanfield) => meanfield.steps,
            other => unreachable!("{} was refused", other.name()),
        }
    }

    /// The variational family; `None` if only the mode is sought.
    fn family(&self) -> Option<(Family, f64)> {
        match &self.request.method {
            Method::StructuredVi(settings) => Some((Family::Structured, settings.tolerance)),
            Method::Meanfield(settings) => Some((Family::MeanField, settings.tolerance)),
            _ => None,
        }
    }

    /// One step, or the end of a stage. Stopped work can be resumed at the point that it had reached.
    fn step(&mut self) -> Result<(), ModeError> {
        let most = self.most_steps();
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Mode(mut search) => {
                let enough = search.is_evaluated() && (search.converged() || search.steps as u64 >= most);
                let (reached, steps) = (search.reached(), search.steps);
                let done = match self.family() {
                    Some((family, _)) if enough => search.into_mode().map(|mode| {
                        let coordinates = self.request.method.coordinates();
                        let search = Search::new(&self.counts, family, coordinates, mode);
                        self.stage = Stage::Variational(Box::new(search));
                    }),
                    None if enough => self.end_at_mode(*search),
                    _ => search.advance().map(|()| {
                        self.report.newton_steps = search.steps as u64;
                        self.report.log_joint = search.log_joint();
                        self.report.decrement = search.decrement();
                        self.stage = Stage::Mode(search);
                    }),
                };
                self.or_resumed(done, reached, steps)
            }
            Stage::Variational(mut search) => {
                let (_, tolerance) = self.family().expect("a variational method");
                let point = search.means().to_vec();
                let done = if search.steps as u64 >= most || search.moved < tolerance {
                    self.end_at_optimum(*search, tolerance)
                } else {
                    search.advance().map(|()| {
                        self.report.variational_steps = search.steps as u64;
                        self.report.elbo = search.elbo();
                        self.report.decrement = search.moved;
                        self.stage = Stage::Variational(search);
                    })
                };
                let steps = self.report.newton_steps as usize;
                self.or_resumed(done, Some(point), steps)
            }
            Stage::Over => Ok(()),
        }
    }

    /// If work was stopped, a search for the mode replaces it, from the point that was reached or from the
    /// start.
    fn or_resumed(
        &mut self,
        done: Result<(), ModeError>,
        point: Option<Vec<f64>>,
        steps: usize,
    ) -> Result<(), ModeError> {
        let done = match done {
            // Marginals do not fail; if they were stopped there is no posterior.
            Ok(()) if self.posterior.is_some() => {
                let walk = self.counts.partition();
                walk.agreed(walk.unless_stopped()).map_err(|error| {
                    self.posterior = None;
                    ModeError::from(error)
                })
            }
            done => done,
        };
        if done.as_ref().is_err_and(ModeError::is_stopped) {
            self.report.variational_steps = 0;
            self.report.elbo = None;
            self.report.converged = false;
            let search = match point {
                Some(point) => ModeSearch::resumed(&self.counts, &self.settings, point, steps),
                None => ModeSearch::unstarted(&self.counts, &self.settings),
            };
            self.stage = Stage::Mode(Box::new(search));
        }
        done
    }

    /// Whether marginals are corrected for skewness. The expansion is that of Poisson rows.
    fn corrects(&self) -> bool {
        let asked = match &self.request.method {
            Method::Laplace(laplace) => laplace.skewness_correction,
            Method::StructuredVi(structured) => structured.skewness_correction,
            _ => false,
        };
        asked && self.request.likelihood == Likelihood::Poisson
    }

    fn end_at_mode(&mut self, search: ModeSearch) -> Result<(), ModeError> {
        let mode = search.into_mode()?;
        self.report.converged = mode.converged;
        self.report.gradient_norm = mode.gradient_norm;
        self.report.decrement = mode.decrement;
        self.uses_fallback_curvature = mode.factor.uses_fallback_curvature();
        let point = mode.point.clone();
        let mut factor = None;
        self.near_lower_bound = self
            .counts
            .near_lower_bound(&mode.point, self.request.resolved_threads())?;
        let posterior = if self.corrects() {
            let (corrected, there) = corrected_mode(&self.counts, mode)?;
            self.report.skewed_products = corrected.skewed as u64;
            self.mean_shift = corrected.shift;
            self.lone_categories = corrected.lone;
            factor = Some(Box::new(there));
            corrected.posterior
        } else {
            if self.cost.is_some() {
                // The dispersion needs them as well, and is not stopped.
                mode.factor.prepare_variances();
            }
            let sd: Vec<f64> = mode
                .factor
                .marginals_there()?
                .variance
                .iter()
                .map(|v| v.sqrt())
                .collect();
            if self.request.likelihood.has_shape() {
                self.shape_shift = ShapeShift::of(&self.counts, &mode.point, &sd, mode.factor)?;
            } else {
                factor = Some(Box::new(mode.factor));
            }
            Posterior::normal(self.counts.layout(), mode.point, sd)
        };
        self.posterior = Some(self.counts.gathered(posterior)?);
        self.fitted = Some(Fitted::Mode(point, factor));
        Ok(())
    }

    fn end_at_optimum(&mut self, search: Search, tolerance: f64) -> Result<(), ModeError> {
        let fit = search.into_fit(tolerance);
        self.report.converged = fit.converged;
        self.report.gradient_norm = fit.gradient_norm;
        self.report.decrement = fit.decrement;
        self.report.elbo = Some(fit.elbo);
        self.uses_fallback_curvature = fit.factor.uses_fallback_curvature();
        self.near_lower_bound = self
            .counts
            .near_lower_bound(&fit.mean, self.request.resolved_threads())?;
        let posterior = if self.corrects() {
            let corrected = corrected_mean(&self.counts, &fit.mean, &fit.factor)?;
            self.report.skewed_products = corrected.skewed as u64;
            self.lone_categories = corrected.lone;
            corrected.posterior
        } else {
            let sd = fit.variance.iter().map(|v| v.sqrt()).collect();
            Posterior::normal(self.counts.layout(), fit.mean.clone(), sd)
        };
        self.posterior = Some(self.counts.gathered(posterior)?);
        self.fitted = Some(match self.family() {
            Some((Family::Structured, _)) => Fitted::Precision(fit.mean, Box::new(fit.factor)),
            _ => Fitted::Independent(fit.orthogonal),
        });
        Ok(())
    }

    /// Where the search is, in words.
    fn note(&self) -> String {
        match (self.report.elbo, self.report.variational_steps) {
            (Some(elbo), steps) if steps > 0 => {
                format!(
                    "evidence lower bound {elbo:.9e}, last step {:.1e}",
                    self.report.decrement
                )
            }
            _ => format!(
                "log joint {:.9e}, to be gained {:.1e}",
                self.report.log_joint, self.report.decrement
            ),
        }
    }

    fn failed(&self, step: u64, error: &ModeError) -> BackendError {
        match (error, &self.device) {
            (ModeError::Factor(FactorError::Device(reason)), Some([device, _])) => BackendError::Device {
                device: device.clone(),
                reason: reason.clone(),
            },
            (ModeError::Factor(FactorError::Communication(error)), _) => {
                BackendError::Communication(error.clone())
            }
            _ => BackendError::Diverged {
                step,
                reason: error.in_panel(self.counts.panel()).into(),
            },
        }
    }

    /// The failure with which the run ends.
    fn ends(&mut self, step: u64, error: &ModeError) -> BackendError {
        let failure = self.failed(step, error);
        self.state = RunState::Failed;
        self.failure = Some(failure.clone());
        failure
    }

    fn completed(&self) -> u64 {
        self.report.newton_steps + self.report.variational_steps
    }
}

impl Run for GaussianRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.state.is_complete() || steps == 0 {
            return Ok(self.progress());
        }
        let before = self.run_seconds;
        let clock = Instant::now();
        let target = self.completed().saturating_add(steps);
        self.state = RunState::Running;
        if !std::mem::replace(&mut self.cost_is_told, true) {
            return Ok(self.progress());
        }
        let asked = interrupt.clone();
        self.counts
            .partition()
            .watch()
            .stop_when(Arc::new(move || asked.is_set()));
        loop {
            let done = self.completed();
            let step = self.step();
            if step.as_ref().is_err_and(ModeError::is_stopped) {
                self.run_seconds = before + clock.elapsed().as_secs_f64();
                self.state = RunState::Interrupted;
                break;
            }
            if let Err(error) = step {
                self.run_seconds = before + clock.elapsed().as_secs_f64();
                return Err(self.ends(done, &error));
            }
            self.run_seconds = before + clock.elapsed().as_secs_f64();
            if self.completed() > done {
                self.report.trace.push(StepPoint {
                    step: self.completed(),
                    seconds: self.run_seconds,
                    value: self.report.elbo.unwrap_or(self.report.log_joint),
                    remaining: self.report.decrement,
                });
            }
            if matches!(self.stage, Stage::Over) {
                // Requests to the fit are short from now on, and must complete.
                self.counts.partition().watch().stop_when(Arc::new(|| false));
                self.state = if self.report.converged {
                    RunState::Converged
                } else {
                    RunState::Finished
                };
                break;
            }
            match self
                .counts
                .partition()
                .agreed(self.counts.partition().unless_stopped())
            {
                Ok(()) => {}
                Err(FactorError::Stopped) => {
                    self.state = RunState::Interrupted;
                    break;
                }
                Err(error) => return Err(self.ends(done, &error.into())),
            }
            if self.completed() >= target {
                break;
            }
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        let note = match (self.completed(), &self.cost) {
            (0, Some(cost)) => cost.clone(),
            _ => self.note(),
        };
        Progress {
            completed: self.completed(),
            // The steps to the mode that a variational run starts from come before its own.
            total: match self.state {
                RunState::Converged | RunState::Finished => self.completed(),
                _ => {
                    self.most_steps()
                        + if self.family().is_some() {
                            self.report.newton_steps
                        } else {
                            0
                        }
                }
            },
            unit: StepUnit::Steps,
            state: self.state,
            note,
        }
    }

    fn within_step(&self) -> Option<Box<dyn Fn() -> f64 + Send + Sync>> {
        let walk = self.cost.is_some().then(|| self.counts.partition().clone())?;
        Some(Box::new(move || walk.watch().part_done()))
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        self.posterior
            .clone()
            .ok_or_else(|| BackendError::NoPosterior("the mode was not found yet".into()))
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let posterior = self.posterior.as_ref()?;
        let threads = self.request.resolved_threads();
        let (panel, priors) = (self.counts.panel(), self.counts.priors());
        let likelihood = self.counts.likelihood();
        // The counts of a product that is left out do not vary about the rates.
        let left_out = &self.report.left_out_products;
        let found = match self.fitted.as_ref()? {
            Fitted::Precision(mean, factor) => {
                let fitted = FittedRates::new(panel, priors, likelihood, mean).leaving_out(left_out);
                self.dispersion_under(fitted, factor)?
            }
            Fitted::Mode(mode, factor) => {
                let fitted = FittedRates::at_mode(panel, priors, likelihood, mode).leaving_out(left_out);
                match factor {
                    Some(factor) if factor.is_elsewhere() => {
                        self.dispersion_under(fitted, &factor.at_home(|_| true).ok()?)?
                    }
                    Some(factor) => self.dispersion_under(fitted, factor)?,
                    None => {
                        let there = self.counts.evaluate(mode, Averaging::Point, None, threads).ok()?;
                        self.dispersion_under(fitted, &there.found.factor)?
                    }
                }
            }
            Fitted::Independent(coordinates) => {
                let fitted =
                    FittedRates::new(panel, priors, likelihood, &posterior.mean).leaving_out(left_out);
                match coordinates {
                    Some((orthogonal, of_rates)) => {
                        fitted.with_independent(IndependentRates::orthogonal(of_rates, orthogonal), threads)
                    }
                    None => {
                        let variances: Vec<f64> = posterior.sd.iter().map(|sd| sd * sd).collect();
                        fitted.with_independent(IndependentRates::natural(&variances), threads)
                    }
                }
            }
        };
        Some(if self.report.converged && !self.uses_fallback_curvature {
            found
        } else {
            found.without_level()
        })
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackendError> {
        self.saved()
    }

    fn report(&self) -> Report {
        Report {
            backend: self.name.into(),
            device: match &self.device {
                Some([_, name]) => name.clone(),
                None => processor_name(),
            },
            threads: self.request.resolved_threads(),
            setup_seconds: self.setup_seconds,
            run_seconds: self.run_seconds,
            state: self.state,
            warnings: self.warnings(),
            detail: Detail::Gaussian(self.report.clone()),
        }
    }
}
