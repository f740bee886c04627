//! An SVI run behind the trait.

use crate::state::State;
use infermark_backend::{BackendError, Interrupt, Posterior, Progress, Report, Run};
use infermark_cpu_kernels::device_name;
use infermark_cpu_kernels::simd::Simd;
use infermark_model::dispersion::Dispersion;
use infermark_model::guide::Guide;
use infermark_svi::{GuidedRun, Ledger};
use std::time::Instant;

/// An SVI run under way.
pub(crate) struct SviRun<I: Simd> {
    state: State<I>,
    threads: usize,
    ledger: Ledger,
}

impl<I: Simd> SviRun<I> {
    /// A run from a state whose first iteration is placed; `setup_seconds` is the time that took.
    pub(crate) fn new(state: State<I>, threads: usize, setup_seconds: f64) -> Self {
        SviRun {
            ledger: Ledger::new(state.settings.clone(), state.layout.latents(), setup_seconds),
            threads: state.useful_threads(threads),
            state,
        }
    }
}

impl<I: Simd> GuidedRun for SviRun<I> {
    fn guide(&self) -> Result<Guide, BackendError> {
        Ok(self.state.guide())
    }
}

impl<I: Simd> Run for SviRun<I> {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let Some(target) = self.ledger.open(steps)? else {
            return Ok(self.progress());
        };
        let before = self.ledger.run_seconds();
        let start = Instant::now();
        let ledger = &mut self.ledger;
        self.state.iterate(self.threads, |weighted| {
            ledger.enter(
                weighted.loss,
                weighted.effective_particles,
                before + start.elapsed().as_secs_f64(),
                target,
                interrupt.is_set(),
            )
        });
        self.ledger.close(before + start.elapsed().as_secs_f64())
    }

    fn progress(&self) -> Progress {
        self.ledger.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let state = &self.state;
        state.chart.posterior(
            &state.guide(),
            &state.panel,
            state.layout.likelihood,
            &state.priors,
        )
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let state = &self.state;
        let (likelihood, threads) = (state.layout.likelihood, self.threads);
        let guide = state.guide();
        Some(
            state
                .chart
                .dispersion(&guide, &state.panel, likelihood, &state.priors, threads),
        )
    }

    fn report(&self) -> Report {
        let centredness = self
            .state
            .guide()
            .centredness(self.state.chart.parameterization());
        self.ledger
            .report(crate::NAME, device_name(), self.threads, centredness, Vec::new())
    }
}
