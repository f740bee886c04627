//! A run behind the trait.

use crate::descent::Descend;
use infermark_backend::{BackendError, Interrupt, Posterior, Progress, Report, Request, Run, SviSettings};
use infermark_model::dispersion::Dispersion;
use infermark_model::guide::Guide;
use infermark_model::panel::Panel;
use infermark_svi::{Chart, GuidedRun, Ledger, Verdict};
use std::sync::Arc;
use std::time::Instant;

/// A run under way. The log-weights are read after every iteration, as a training loop does that watches its loss.
pub(crate) struct TensorRun {
    descent: Box<dyn Descend>,
    panel: Arc<Panel>,
    request: Request,
    chart: Chart,
    device: String,
    ledger: Ledger,
}

impl TensorRun {
    pub(crate) fn new(
        descent: Box<dyn Descend>,
        panel: Arc<Panel>,
        request: &Request,
        chart: Chart,
        settings: SviSettings,
        device: String,
        setup_seconds: f64,
    ) -> Self {
        let latents = panel.layout_for(request.likelihood).latents();
        TensorRun {
            descent,
            panel,
            request: request.clone(),
            chart,
            device,
            ledger: Ledger::new(settings, latents, setup_seconds),
        }
    }
}

impl GuidedRun for TensorRun {
    fn guide(&self) -> Result<Guide, BackendError> {
        self.descent.guide()
    }
}

impl Run for TensorRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let Some(target) = self.ledger.open(steps)? else {
            return Ok(self.progress());
        };
        let before = self.ledger.run_seconds();
        let begin = Instant::now();
        loop {
            let weighted = self.descent.iterate()?;
            let verdict = self.ledger.enter(
                weighted.loss,
                weighted.effective_particles,
                before + begin.elapsed().as_secs_f64(),
                target,
                interrupt.is_set(),
            );
            if verdict != Verdict::Continue {
                break;
            }
        }
        self.descent.wait()?;
        self.ledger.close(before + begin.elapsed().as_secs_f64())
    }

    fn progress(&self) -> Progress {
        self.ledger.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        self.chart.posterior(
            &self.descent.guide()?,
            &self.panel,
            self.request.likelihood,
            &self.request.priors,
        )
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let guide = self.descent.guide().ok()?;
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
        let centredness = match self.descent.guide() {
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
