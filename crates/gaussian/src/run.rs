//! A run of a Gaussian method, advanced a step at a time.

use crate::counts::Counts;
use crate::newton::{ModeError, ModeSearch, ModeSettings};
use crate::poisson::Spread;
use crate::skewness::corrected;
use crate::variational::{Family, Search};
use infermark_arrow::ArrowFactor;
use infermark_backend::progress::{Progress, RunState, StepUnit};
use infermark_backend::report::{Detail, GaussianReport, Report, StepPoint};
use infermark_backend::{BackendError, Interrupt, Method, Posterior, Request, Run};
use infermark_cpu_kernels::device_name;
use infermark_model::dispersion::{Dispersion, FittedRates, Variances};
use infermark_model::{Likelihood, Panel};
use std::sync::Arc;
use std::time::Instant;

/// Decrement to which the mode is sought where an iteration only starts from it.
const MODE_TO_START_FROM: f64 = 1e-2;

/// Part of the rows near the lower clip bound beyond which a reader is told.
const MOST_NEAR_LOWER_BOUND: f64 = 0.05;

/// The rate at the upper clip bound from which on counts near it are so rare, and so far from others, that their rows may be
/// left out.
const LEAST_HIGHEST_RATE: f64 = 1e4;

/// Where a run is.
enum Stage {
    Mode(Box<ModeSearch>),
    Variational(Box<Search>),
    /// The posterior is there, or was lost to an error.
    Over,
}

/// The Gaussian that was found.
enum Fitted {
    /// That of the precision at this mode.
    Mode(Vec<f64>),
    /// That of this precision.
    Precision(Box<ArrowFactor>),
    /// One with independent latents: the posterior's own standard deviations.
    Independent,
}

pub(crate) struct GaussianRun {
    name: &'static str,
    counts: Counts,
    request: Request,
    stage: Stage,
    state: RunState,
    posterior: Option<Posterior>,
    report: GaussianReport,
    /// Part of the rows whose rates are near the lower clip bound.
    near_lower_bound: f64,
    /// What the variances of the log rates come from, once there is a posterior.
    fitted: Option<Fitted>,
    /// Whether the precision that the intervals come from only stands in for the exact one.
    stands_in: bool,
    setup_seconds: f64,
    run_seconds: f64,
}

impl GaussianRun {
    pub(crate) fn start(
        name: &'static str,
        panel: Arc<Panel>,
        request: &Request,
        started: Instant,
    ) -> Result<Self, BackendError> {
        let settings = ModeSettings {
            steps: usize::MAX,
            tolerance: match &request.method {
                Method::Laplace(laplace) => laplace.tolerance,
                _ => MODE_TO_START_FROM,
            },
            threads: request.resolved_threads(),
        };
        let counts = Counts::new(&panel, &request.priors, request.likelihood);
        let highest = request.priors.clip_high.exp();
        if counts.products_at_bound() > 0 && highest < LEAST_HIGHEST_RATE {
            return Err(BackendError::Request(format!(
                "{} products have counts near {highest:.0}, the largest rate that clip_high = {} allows; the Gaussian methods \
                 leave such rows out, which at so low a bound would bias what is left: raise clip_high, or take --method nuts",
                counts.products_at_bound(),
                request.priors.clip_high
            )));
        }
        let search = ModeSearch::new(&counts, &settings).map_err(|error| failed(0, &error))?;
        Ok(GaussianRun {
            name,
            counts,
            request: request.clone(),
            report: GaussianReport {
                newton_steps: 0,
                variational_steps: 0,
                skewed_products: 0,
                converged: false,
                gradient_norm: f64::NAN,
                decrement: search.decrement(),
                log_joint: search.log_joint(),
                elbo: None,
                trace: Vec::new(),
            },
            stage: Stage::Mode(Box::new(search)),
            state: RunState::Running,
            posterior: None,
            near_lower_bound: 0.0,
            fitted: None,
            stands_in: false,
            setup_seconds: started.elapsed().as_secs_f64(),
            run_seconds: 0.0,
        })
    }

    fn most_steps(&self) -> u64 {
        match &self.request.method {
            Method::Laplace(laplace) => laplace.steps,
            Method::StructuredVi(variational) | Method::Meanfield(variational) => variational.steps,
            other => unreachable!("{} was refused", other.name()),
        }
    }

    /// The family, unless the mode is what is sought.
    fn family(&self) -> Option<(Family, f64)> {
        match &self.request.method {
            Method::StructuredVi(settings) => Some((Family::Structured, settings.tolerance)),
            Method::Meanfield(settings) => Some((Family::MeanField, settings.tolerance)),
            _ => None,
        }
    }

    /// One step, or the end of a stage.
    fn step(&mut self) -> Result<(), ModeError> {
        let most = self.most_steps();
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Mode(mut search) => {
                let enough = search.converged() || search.steps as u64 >= most;
                match self.family() {
                    Some((family, _)) if enough => {
                        let search = Search::new(&self.counts, family, search.into_mode());
                        self.stage = Stage::Variational(Box::new(search));
                    }
                    None if enough => self.end_at_mode(*search)?,
                    _ => {
                        search.advance()?;
                        self.report.newton_steps = search.steps as u64;
                        self.report.log_joint = search.log_joint();
                        self.report.decrement = search.decrement();
                        self.stage = Stage::Mode(search);
                    }
                }
            }
            Stage::Variational(mut search) => {
                let (_, tolerance) = self.family().expect("a variational method");
                if search.steps as u64 >= most || search.moved < tolerance {
                    self.end_at_optimum(*search, tolerance);
                } else {
                    search.advance()?;
                    self.report.variational_steps = search.steps as u64;
                    self.report.elbo = search.elbo();
                    self.report.decrement = search.moved;
                    self.stage = Stage::Variational(search);
                }
            }
            Stage::Over => {}
        }
        Ok(())
    }

    fn end_at_mode(&mut self, search: ModeSearch) -> Result<(), ModeError> {
        let mode = search.into_mode();
        self.report.converged = mode.converged;
        self.report.gradient_norm = mode.gradient_norm;
        self.report.decrement = mode.decrement;
        self.stands_in = mode.stands_in;
        self.fitted = Some(Fitted::Mode(mode.point.clone()));
        // The expansion is that of Poisson rows.
        let corrects = self.request.likelihood == Likelihood::Poisson
            && matches!(&self.request.method, Method::Laplace(laplace) if laplace.skewness_correction);
        self.near_lower_bound = self
            .counts
            .near_lower_bound(&mode.point, self.request.resolved_threads());
        self.posterior = Some(if corrects {
            let (posterior, skewed) = corrected(&self.counts, mode)?;
            self.report.skewed_products = skewed as u64;
            posterior
        } else {
            let sd = mode
                .factor
                .marginals()
                .variance
                .iter()
                .map(|v| v.sqrt())
                .collect();
            Posterior::normal(self.counts.layout(), mode.point, sd)
        });
        Ok(())
    }

    fn end_at_optimum(&mut self, search: Search, tolerance: f64) {
        let fit = search.into_fit(tolerance);
        self.report.converged = fit.converged;
        self.report.gradient_norm = fit.gradient_norm;
        self.report.decrement = fit.decrement;
        self.report.elbo = Some(fit.elbo);
        self.stands_in = fit.stands_in;
        self.near_lower_bound = self
            .counts
            .near_lower_bound(&fit.mean, self.request.resolved_threads());
        let sd = fit.variance.iter().map(|v| v.sqrt()).collect();
        self.posterior = Some(Posterior::normal(self.counts.layout(), fit.mean, sd));
        self.fitted = Some(match self.family() {
            Some((Family::Structured, _)) => Fitted::Precision(Box::new(fit.factor)),
            _ => Fitted::Independent,
        });
    }

    /// The dispersion about mean rates, with the variances of the log rates under the Gaussian of `factor`.
    fn dispersion_under(&self, fitted: FittedRates<'_>, factor: &ArrowFactor) -> Dispersion {
        let sums = factor.for_each_product(|product, moments| {
            fitted.of_product(product, |row| {
                let (x, t) = (row.log_price, row.period);
                let (with_a, with_e) = (moments.elasticity_with_periods[t], moments.effect_with_periods[t]);
                x * x * moments.elasticity
                    + 2.0 * x * moments.covariance
                    + moments.effect
                    + 2.0 * (x * with_a + with_e)
                    + moments.periods[t]
            })
        });
        Dispersion::of_products(self.counts.panel(), &sums)
    }

    fn completed(&self) -> u64 {
        self.report.newton_steps + self.report.variational_steps
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.report.converged {
            let what = match self.state {
                RunState::Finished => "the limit of steps was met",
                RunState::Failed => "the search failed",
                _ => "the run was stopped",
            };
            warnings.push(format!(
                "Not converged: {what} after {} Newton and {} variational steps; means and intervals are not to be trusted.",
                self.report.newton_steps, self.report.variational_steps
            ));
        }
        if self.stands_in {
            warnings.push(
                "The precision where the search ended is not positive definite, and a near one without the couplings of rates \
                 and shapes stands in for it: the intervals are not to be trusted; --method nuts needs no such precision."
                    .into(),
            );
        }
        if self.near_lower_bound > MOST_NEAR_LOWER_BOUND {
            warnings.push(format!(
                "{:.0}% of the rows have rates near the lower bound of the log rate or below it. The Gaussian methods do not know \
                 that bound: where most rows of a product are near it, its intervals are not to be trusted; --method nuts has it.",
                100.0 * self.near_lower_bound
            ));
        }
        let at_bound = self.counts.products_at_bound();
        if at_bound > 0 {
            warnings.push(format!(
                "{at_bound} products have rows at the upper bound of the log rate, which say only that it is above: the Gaussian \
                 methods leave those rows out, --method nuts does not."
            ));
        }
        if let Method::Meanfield(_) = self.request.method {
            warnings.push(
                "The Gaussian is mean-field: it ignores the correlations of the posterior, so its intervals are far too \
                 narrow where elasticities and effects are correlated."
                    .into(),
            );
        }
        warnings
    }
}

fn failed(step: u64, error: &ModeError) -> BackendError {
    BackendError::Diverged {
        step,
        reason: format!("{error}; check prices and units for extreme values"),
    }
}

impl Run for GaussianRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        if self.state == RunState::Failed || self.state.is_complete() {
            return Ok(self.progress());
        }
        let before = self.run_seconds;
        let clock = Instant::now();
        let target = self.completed().saturating_add(steps);
        self.state = RunState::Running;
        loop {
            let done = self.completed();
            if let Err(error) = self.step() {
                self.state = RunState::Failed;
                self.run_seconds = before + clock.elapsed().as_secs_f64();
                return Err(failed(done, &error));
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
                self.state = if self.report.converged {
                    RunState::Converged
                } else {
                    RunState::Finished
                };
                break;
            }
            if interrupt.is_set() {
                self.state = RunState::Interrupted;
                break;
            }
            if self.completed() >= target {
                break;
            }
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        let note = match (self.report.elbo, self.report.variational_steps) {
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
        let found = match self.fitted.as_ref()? {
            Fitted::Precision(factor) => {
                let fitted = FittedRates::new(panel, priors, likelihood, &posterior.mean);
                self.dispersion_under(fitted, factor)
            }
            Fitted::Mode(mode) => {
                let there = self.counts.evaluate(mode, Spread::Point, None, threads).ok()?;
                let fitted = FittedRates::at_mode(panel, priors, likelihood, mode);
                self.dispersion_under(fitted, &there.found.factor)
            }
            Fitted::Independent => {
                let variances: Vec<f64> = posterior.sd.iter().map(|sd| sd * sd).collect();
                let variances = Variances::Independent(&variances);
                Dispersion::of(panel, priors, likelihood, &posterior.mean, variances, threads)
            }
        };
        Some(if self.report.converged && !self.stands_in {
            found
        } else {
            found.without_level()
        })
    }

    fn report(&self) -> Report {
        Report {
            backend: self.name.into(),
            device: device_name(),
            threads: self.request.resolved_threads(),
            setup_seconds: self.setup_seconds,
            run_seconds: self.run_seconds,
            state: self.state,
            warnings: self.warnings(),
            detail: Detail::Gaussian(self.report.clone()),
        }
    }
}
