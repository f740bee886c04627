//! The work to be timed: a run in steady state, or fit after fit.

use super::{Case, Plan};
use crate::timed_fits::TimedFits;
use crate::timed_run::TimedRun;
use infermark_backend::{BackendError, Interrupt, Request};
use infermark_model::Panel;
use std::sync::Arc;

/// A started case, with its timings so far.
pub(super) enum TimedCase {
    /// A run that is advanced, of which iterations or gradients are counted.
    Run(TimedRun),
    /// Whole fits are counted.
    Fits(Box<TimedFits>),
}

impl TimedCase {
    /// Starts the run of `request`.
    pub(super) fn start(case: &Case, panel: &Arc<Panel>, request: &Request) -> Result<Self, BackendError> {
        if request.method.kind().is_fitted_whole() {
            let fits = TimedFits::new(case.backend.clone(), panel.clone(), request.clone());
            return Ok(TimedCase::Fits(Box::new(fits)));
        }
        let run = TimedRun::start(&*case.backend, panel.clone(), request)?;
        Ok(TimedCase::Run(run))
    }

    /// Warms up as `plan` says; for whole fits, with one fit.
    pub(super) fn warmup(&mut self, plan: &Plan, interrupt: &Interrupt) -> Result<(), BackendError> {
        match self {
            TimedCase::Run(run) => run.warmup(
                plan.warmup_seconds,
                plan.warmup_iterations,
                plan.repeat_seconds,
                plan.repeats,
                interrupt,
            ),
            TimedCase::Fits(fits) => fits.warmup(interrupt),
        }
    }

    /// One timed repeat.
    pub(super) fn repeat(&mut self, seconds: f64, interrupt: &Interrupt) -> Result<(), BackendError> {
        match self {
            TimedCase::Run(run) => run.repeat(seconds, interrupt),
            TimedCase::Fits(fits) => fits.repeat(seconds, interrupt),
        }
    }
}
