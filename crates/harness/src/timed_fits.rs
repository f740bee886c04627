//! Timing of whole fits, from the loaded panel to the posterior with all its marginals.

use infermark_backend::{Backend, BackendError, Interrupt, Posterior, Report, Request, RunState};
use infermark_model::Panel;
use infermark_report::records::case_record::Sample;
use std::sync::Arc;
use std::time::Instant;

/// A backend that is fitted repeatedly, with its timings.
pub struct TimedFits {
    backend: Arc<dyn Backend>,
    panel: Arc<Panel>,
    request: Request,
    /// The warm-up: one fit.
    pub warmup: Sample,
    /// The timed repeats.
    pub repeats: Vec<Sample>,
    /// The result of the last whole fit.
    pub last: Option<WholeFit>,
}

/// The result of a fit.
#[derive(Debug, Clone)]
pub struct WholeFit {
    /// Its posterior.
    pub posterior: Posterior,
    /// Its report.
    pub report: Report,
    /// Seconds that starting took, included in `seconds`.
    pub setup_seconds: f64,
    /// Seconds from the loaded panel to the posterior.
    pub seconds: f64,
    /// Steps that it took.
    pub steps: u64,
}

impl TimedFits {
    /// Prepares fits of `request` on `panel`, without running any.
    pub fn new(backend: Arc<dyn Backend>, panel: Arc<Panel>, request: Request) -> Self {
        TimedFits {
            backend,
            panel,
            request,
            warmup: Sample {
                iterations: 0,
                seconds: 0.0,
            },
            repeats: Vec::new(),
            last: None,
        }
    }

    /// One fit that is not counted.
    ///
    /// # Errors
    /// When the backend refuses or fails.
    pub fn warmup(&mut self, interrupt: &Interrupt) -> Result<(), BackendError> {
        if let Some(seconds) = self.fit(interrupt)? {
            self.warmup.iterations += 1;
            self.warmup.seconds += seconds;
        }
        Ok(())
    }

    /// One timed repeat: fits until `seconds` are over, at least one. A repeat that an interruption cut short is not kept.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn repeat(&mut self, seconds: f64, interrupt: &Interrupt) -> Result<(), BackendError> {
        let mut sample = Sample {
            iterations: 0,
            seconds: 0.0,
        };
        while sample.iterations == 0 || sample.seconds < seconds {
            let Some(elapsed) = self.fit(interrupt)? else {
                return Ok(());
            };
            sample.iterations += 1;
            sample.seconds += elapsed;
        }
        self.repeats.push(sample);
        Ok(())
    }

    /// A whole fit and its seconds; `None` when an interruption cut it short. Freeing the run is not timed.
    fn fit(&mut self, interrupt: &Interrupt) -> Result<Option<f64>, BackendError> {
        let clock = Instant::now();
        let mut run = self.backend.start(self.panel.clone(), &self.request)?;
        let setup_seconds = clock.elapsed().as_secs_f64();
        let mut progress = run.progress();
        while progress.state == RunState::Running && !interrupt.is_set() {
            let left = progress.total.saturating_sub(progress.completed).max(1);
            progress = run.advance(left, interrupt)?;
        }
        if !progress.state.is_complete() {
            return Ok(None);
        }
        let posterior = run.posterior()?;
        let seconds = clock.elapsed().as_secs_f64();
        self.last = Some(WholeFit {
            posterior,
            report: run.report(),
            setup_seconds,
            seconds,
            steps: progress.completed,
        });
        Ok(Some(seconds))
    }
}
