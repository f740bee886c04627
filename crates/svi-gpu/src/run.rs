//! A run behind the trait: batches of launches, and the losses read between them.

use crate::fused::engine::{LOG_ENTRIES, Machine};
use infermark_backend::{BackendError, Interrupt, Posterior, Progress, Report, Request, Run, SviSettings};
use infermark_model::dispersion::Dispersion;
use infermark_model::guide::Guide;
use infermark_model::panel::Panel;
use infermark_svi::{Chart, GuidedRun, Ledger, Verdict};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a batch lasts: reading its losses waits for the device, so it should be rare; an interruption and an early
/// stop are heard between batches, so it should be short.
const BATCH: Duration = Duration::from_millis(50);

/// A run under way.
pub(crate) struct GpuRun {
    machine: Box<dyn Machine>,
    panel: Arc<Panel>,
    request: Request,
    chart: Chart,
    device: String,
    ledger: Ledger,
    batch: u64,
}

impl GpuRun {
    /// A run whose first iteration is placed.
    pub(crate) fn new(
        machine: Box<dyn Machine>,
        panel: Arc<Panel>,
        request: &Request,
        chart: Chart,
        settings: SviSettings,
        device: String,
        setup_seconds: f64,
    ) -> Self {
        let latents = panel.layout_for(request.likelihood).latents();
        GpuRun {
            machine,
            panel,
            request: request.clone(),
            chart,
            device,
            ledger: Ledger::new(settings, latents, setup_seconds),
            batch: 1,
        }
    }
}

impl GuidedRun for GpuRun {
    fn guide(&self) -> Result<Guide, BackendError> {
        self.machine.guide()
    }
}

impl Run for GpuRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let Some(target) = self.ledger.open(steps)? else {
            return Ok(self.progress());
        };
        let before = self.ledger.run_seconds();
        let begin = Instant::now();
        let mut verdict = Verdict::Continue;
        while verdict == Verdict::Continue {
            let from = begin.elapsed().as_secs_f64();
            let count = self
                .batch
                .min(self.ledger.decides_in())
                .min(target - self.ledger.completed());
            let outcomes = self.machine.iterate(count as u32)?;
            let batch_seconds = begin.elapsed().as_secs_f64() - from;
            let interrupted = interrupt.is_set();
            let last = outcomes.len() - 1;
            for (i, outcome) in outcomes.iter().enumerate() {
                // What the batch has done is done: the run stops at its end, whatever iteration gave the reason.
                let answer = self.ledger.enter(
                    outcome.loss,
                    outcome.effective_particles,
                    before + from + batch_seconds * (i + 1) as f64 / outcomes.len() as f64,
                    target,
                    interrupted && i == last,
                );
                if answer != Verdict::Continue {
                    verdict = answer;
                }
                if answer == Verdict::LeaveOut {
                    break;
                }
            }
            let ratio = BATCH.as_secs_f64() / batch_seconds.max(1e-6);
            let next = (count as f64 * ratio.clamp(0.5, 4.0)) as u64;
            self.batch = next.clamp(1, u64::from(LOG_ENTRIES));
        }
        self.machine.settle()?;
        self.ledger.close(before + begin.elapsed().as_secs_f64())
    }

    fn progress(&self) -> Progress {
        self.ledger.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let guide = self.machine.guide()?;
        self.chart
            .posterior(&guide, &self.panel, self.request.likelihood, &self.request.priors)
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let guide = self.machine.guide().ok()?;
        let Request {
            likelihood, priors, ..
        } = &self.request;
        let threads = self.request.resolved_threads();
        Some(
            self.chart
                .dispersion(&guide, &self.panel, *likelihood, priors, threads),
        )
    }

    fn report(&self) -> Report {
        let mut warnings = Vec::new();
        let centredness = match self.machine.guide() {
            Ok(guide) => guide.centredness(self.request.parameterization),
            Err(error) => {
                warnings.push(format!("The device no longer answers: {error}."));
                self.request.parameterization.start()
            }
        };
        self.ledger
            .report(crate::NAME, self.device.clone(), 1, centredness, warnings)
    }
}
