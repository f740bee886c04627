//! What is under the clock: a run in steady state, or fit after fit.

use super::{Case, Plan};
use crate::timed_fits::TimedFits;
use crate::timed_run::TimedRun;
use infermark_backend::{BackendError, Interrupt, Method, Request};
use infermark_model::Panel;
use std::sync::Arc;

/// A case that was started, with what was timed of it so far.
pub(super) enum Timed {
    /// A run that is advanced, of which iterations or gradients are counted.
    Run(TimedRun),
    /// Whole fits are counted.
    Fits(Box<TimedFits>),
}

impl Timed {
    /// Starts what `request` asks for.
    pub(super) fn start(case: &Case, panel: &Arc<Panel>, request: &Request) -> Result<Self, BackendError> {
        Ok(match request.method {
            Method::Svi(_) | Method::Nuts(_) => {
                Timed::Run(TimedRun::start(&*case.backend, panel.clone(), request)?)
            }
            Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => {
                let fits = TimedFits::new(case.backend.clone(), panel.clone(), request.clone());
                Timed::Fits(Box::new(fits))
            }
        })
    }

    /// Warms up as `plan` says; of fits one.
    pub(super) fn warmup(&mut self, plan: &Plan<'_>, interrupt: &Interrupt) -> Result<(), BackendError> {
        match self {
            Timed::Run(run) => run.warmup(
                plan.warmup_seconds,
                plan.warmup_iterations,
                plan.repeat_seconds,
                plan.repeats,
                interrupt,
            ),
            Timed::Fits(fits) => fits.warmup(interrupt),
        }
    }

    /// One timed repeat.
    pub(super) fn repeat(&mut self, seconds: f64, interrupt: &Interrupt) -> Result<(), BackendError> {
        match self {
            Timed::Run(run) => run.repeat(seconds, interrupt),
            Timed::Fits(fits) => fits.repeat(seconds, interrupt),
        }
    }
}
