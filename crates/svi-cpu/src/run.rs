//! An SVI run behind the trait.

use crate::convergence::ConvergenceWatch;
use crate::iterate::Verdict;
use crate::state::State;
use infermark_backend::report::{Detail, SviReport, TracePoint};
use infermark_backend::{BackendError, Interrupt, Posterior, Progress, Report, Run, RunState, StepUnit};
use infermark_cpu_kernels::device_name;
use infermark_cpu_kernels::simd::Simd;
use infermark_model::guide::Guide;
use std::time::Instant;

/// An SVI run under way.
pub(crate) struct SviRun<I: Simd> {
    state: State<I>,
    threads: usize,
    setup_seconds: f64,
    run_seconds: f64,
    completed: u64,
    run_state: RunState,
    last_loss: f64,
    effective_particles_sum: f64,
    trace: Vec<TracePoint>,
    convergence: Option<ConvergenceWatch>,
}

impl<I: Simd> SviRun<I> {
    /// A run from a state whose first iteration is placed; `setup_seconds` is the time that took.
    pub(crate) fn new(state: State<I>, threads: usize, setup_seconds: f64) -> Self {
        SviRun {
            convergence: state.settings.early_stop.map(ConvergenceWatch::new),
            threads: state.useful_threads(threads),
            state,
            setup_seconds,
            run_seconds: 0.0,
            completed: 0,
            run_state: RunState::Running,
            last_loss: f64::NAN,
            effective_particles_sum: 0.0,
            trace: Vec::new(),
        }
    }

    /// Why a failed run cannot go on.
    fn failure(&self) -> BackendError {
        BackendError::Diverged {
            step: self.completed,
            reason: format!(
                "the loss of the next iteration is {}; try a lower learning rate, or --precision f64",
                self.last_loss
            ),
        }
    }
}

/// A run whose guide can be read: what following another implementation needs beyond the trait.
pub trait GuidedRun: Run {
    /// The guide's parameters now.
    fn guide(&self) -> Guide;
}

impl<I: Simd> GuidedRun for SviRun<I> {
    fn guide(&self) -> Guide {
        self.state.guide()
    }
}

impl<I: Simd> Run for SviRun<I> {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        if self.run_state == RunState::Failed {
            return Err(self.failure());
        }
        let settings = &self.state.settings;
        let total = settings.iterations;
        let target = self.completed.saturating_add(steps).min(total);
        if self.run_state.is_complete() || target == self.completed {
            return Ok(self.progress());
        }
        let start = Instant::now();
        let seconds_before = self.run_seconds;
        let (completed, convergence, trace) = (&mut self.completed, &mut self.convergence, &mut self.trace);
        let (last_loss, run_state) = (&mut self.last_loss, &mut self.run_state);
        let effective_particles_sum = &mut self.effective_particles_sum;
        *run_state = RunState::Running;
        self.state.iterate(self.threads, |weighted| {
            *last_loss = weighted.loss;
            if !weighted.loss.is_finite() {
                *run_state = RunState::Failed;
                return Verdict::LeaveOut;
            }
            *effective_particles_sum += weighted.effective_particles;
            *completed += 1;
            if (*completed - 1).is_multiple_of(settings.trace_every) || *completed == total {
                trace.push(TracePoint {
                    iteration: *completed,
                    seconds: seconds_before + start.elapsed().as_secs_f64(),
                    loss: weighted.loss,
                    effective_particles: weighted.effective_particles,
                    learning_rate: settings.optimizer.learning_rate_at(*completed - 1),
                });
            }
            *run_state = if *completed == total {
                RunState::Finished
            } else if convergence.as_mut().is_some_and(|c| c.push(weighted.loss)) {
                RunState::Converged
            } else if interrupt.is_set() {
                RunState::Interrupted
            } else if *completed == target {
                return Verdict::Stop;
            } else {
                return Verdict::Continue;
            };
            Verdict::Stop
        });
        self.run_seconds = seconds_before + start.elapsed().as_secs_f64();
        if self.run_state == RunState::Failed {
            return Err(self.failure());
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        let note = match self.trace.last() {
            Some(last) => format!(
                "loss {:.6e}, effective particles {:.2}, learning rate {:.2e}",
                self.last_loss, last.effective_particles, last.learning_rate
            ),
            None => String::new(),
        };
        Progress {
            completed: self.completed,
            total: self.state.settings.iterations,
            unit: StepUnit::Iterations,
            state: self.run_state,
            note,
        }
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let state = &self.state;
        let guide = state.guide();
        let (mean, sd) = guide.natural_moments(&state.panel, &state.priors, state.parameterization);
        if !mean.iter().chain(&sd).all(|m| m.is_finite()) {
            return Err(BackendError::NoPosterior(
                "parameters of the guide are not finite; try a lower learning rate, or --precision f64"
                    .into(),
            ));
        }
        Ok(Posterior::normal(state.layout(), mean, sd))
    }

    fn report(&self) -> Report {
        let mut warnings = Vec::new();
        if self.run_state == RunState::Failed {
            warnings.push(format!(
                "The loss left the finite numbers at iteration {}, whose step was left out.",
                self.completed + 1
            ));
        } else if !self.run_state.is_complete() {
            warnings.push(format!(
                "Unfinished: {} of {} iterations were done.",
                self.completed, self.state.settings.iterations
            ));
        }
        warnings.push(
            "The guide is mean-field: it ignores the correlations of the posterior, so its intervals are far too \
             narrow where elasticities and effects are correlated."
                .into(),
        );
        let centredness = self.state.guide().centredness(self.state.parameterization);
        Report {
            backend: crate::NAME.into(),
            device: device_name(),
            threads: self.threads,
            setup_seconds: self.setup_seconds,
            run_seconds: self.run_seconds,
            state: self.run_state,
            warnings,
            detail: Detail::Svi(SviReport {
                iterations: self.completed,
                iterations_per_second: self.completed as f64 / self.run_seconds.max(f64::MIN_POSITIVE),
                mean_effective_particles: self.effective_particles_sum / (self.completed.max(1)) as f64,
                centredness: centredness.0,
                trace: self.trace.clone(),
            }),
        }
    }
}
