//! A run in a worker.

use crate::process::{Process, Trouble};
use crate::protocol::{Losses, Moments, Question};
use infermark_backend::{BackendError, Interrupt, Posterior, Progress, Report, Run, RunState};
use infermark_model::{Layout, Parameterization};
use infermark_svi::{Decision, RunRecorder};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seconds of a batch of iterations, at the end of which an interrupt is noticed.
const BATCH_SECONDS: f64 = 0.05;
/// Most iterations of a batch.
const LONGEST_BATCH: u64 = 1000;
/// Effective particles in the trace of a worker, which reports none.
const NOT_REPORTED: f64 = 0.0;

/// A run under way. It owns the worker, which ends with it.
pub(crate) struct PeerRun {
    pub(crate) backend: &'static str,
    pub(crate) device: String,
    pub(crate) threads: usize,
    pub(crate) layout: Layout,
    pub(crate) recorder: RunRecorder,
    /// Iterations of the next batch.
    pub(crate) batch: u64,
    pub(crate) process: Mutex<Process>,
}

impl PeerRun {
    fn failed(&self, trouble: Trouble) -> BackendError {
        crate::backend_error(self.backend, trouble)
    }

    /// Iterates `iterations` times and records the losses; `None` if the run goes on.
    fn iterate(
        &mut self,
        iterations: u64,
        target: u64,
        seconds: impl Fn() -> f64,
        interrupt: &Interrupt,
    ) -> Result<Option<Decision>, BackendError> {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        let asked = process.ask::<Losses>(&Question::Advance { iterations });
        let losses = asked.map_err(|trouble| self.failed(trouble))?.losses;
        if losses.len() as u64 != iterations {
            let count = losses.len();
            let reason = format!("it reported {count} losses of {iterations} iterations");
            return Err(self.failed(Trouble::Failed(reason)));
        }
        let last = losses.len() - 1;
        for (place, loss) in losses.into_iter().enumerate() {
            let interrupted = place == last && interrupt.is_set();
            let loss = loss.unwrap_or(f64::NAN);
            let decision = self
                .recorder
                .record(loss, NOT_REPORTED, seconds(), target, interrupted);
            if decision != Decision::Continue {
                return Ok(Some(decision));
            }
        }
        Ok(None)
    }
}

impl Run for PeerRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let Some(target) = self.recorder.begin(steps)? else {
            return Ok(self.progress());
        };
        let before = self.recorder.run_seconds();
        let clock = Instant::now();
        let seconds = || before + clock.elapsed().as_secs_f64();
        loop {
            let left = target - self.recorder.completed();
            let batch = self.batch.min(left).min(self.recorder.decides_in()).max(1);
            let started = Instant::now();
            match self.iterate(batch, target, seconds, interrupt) {
                Ok(None) => {}
                Ok(Some(_)) => break,
                Err(error) => {
                    self.recorder.fail(error);
                    break;
                }
            }
            let ratio = BATCH_SECONDS / started.elapsed().as_secs_f64().max(1e-9);
            let wanted = (batch as f64 * ratio.clamp(0.5, 2.0)).round() as u64;
            self.batch = wanted.clamp(1, LONGEST_BATCH);
        }
        self.recorder.end(seconds())
    }

    fn progress(&self) -> Progress {
        self.recorder.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        if self.progress().state == RunState::Failed {
            let lost = format!("the state of {} was lost with the failure", self.backend);
            return Err(BackendError::NoPosterior(lost.into()));
        }
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = process.ask::<Moments>(&Question::Moments);
        let Moments { mean, sd } = asked.map_err(|trouble| self.failed(trouble))?;
        let latents = self.layout.latents();
        if mean.len() != latents || sd.len() != latents {
            let (means, sds) = (mean.len(), sd.len());
            let reason =
                format!("it reported {means} means and {sds} standard deviations of {latents} latents");
            return Err(self.failed(Trouble::Failed(reason)));
        }
        Ok(Posterior::normal(self.layout, mean, sd))
    }

    fn report(&self) -> Report {
        let centredness = Parameterization::Centered.start();
        self.recorder.report(
            self.backend,
            self.device.clone(),
            self.threads,
            centredness,
            Vec::new(),
        )
    }
}
