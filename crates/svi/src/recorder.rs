//! The recorder of a run: iterations, losses, trace, state.

use crate::convergence::ConvergenceWatch;
use infermark_backend::{
    BackendError, Cause, Checkpoint, Choice, Detail, EarlyStop, Precision, Progress, Remedy, Report,
    RunState, Setting, StepUnit, SviReport, SviSettings, SviWarning, TracePoint, Warning,
};
use infermark_model::{Centredness, Coordinates};
use serde::{Deserialize, Serialize};

/// What helps against parameters that leave the finite numbers.
pub(crate) const STEADIER: [Remedy; 2] = [
    Remedy::Lower(Setting::LearningRate),
    Remedy::Choose(Choice::Precision(Precision::F64)),
];

/// What happens after an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Do the next iteration.
    Continue,
    /// This was the last one.
    Stop,
    /// The loss is not finite: discard the step of this iteration and stop.
    Discard,
}

/// The recorder of a run. A checkpoint has all of it except the settings, which are those of the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecorder {
    #[serde(skip)]
    settings: SviSettings,
    setup_seconds: f64,
    run_seconds: f64,
    completed: u64,
    state: RunState,
    /// Why it cannot go on; such a run gives no checkpoint.
    #[serde(skip)]
    failure: Option<BackendError>,
    last_loss: f64,
    effective_particles_sum: f64,
    trace: Vec<TracePoint>,
    convergence: Option<ConvergenceWatch>,
}

impl RunRecorder {
    /// The recorder of a run that has not iterated yet, for a guide over `latents` latents; `setup_seconds`
    /// is the time that starting it took.
    pub fn new(settings: SviSettings, latents: usize, setup_seconds: f64) -> Self {
        RunRecorder {
            convergence: settings
                .early_stop
                .map(|criterion| ConvergenceWatch::new(criterion, latents)),
            settings,
            setup_seconds,
            run_seconds: 0.0,
            completed: 0,
            state: RunState::Running,
            failure: None,
            last_loss: f64::NAN,
            effective_particles_sum: 0.0,
            trace: Vec::new(),
        }
    }

    /// A recorder that decides as this one does, without what it has recorded so far.
    pub(crate) fn without_trace(&self) -> Self {
        RunRecorder {
            settings: self.settings.clone(),
            failure: self.failure.clone(),
            trace: Vec::new(),
            convergence: self.convergence.clone(),
            ..*self
        }
    }

    /// The recorder of a run that goes on from `checkpoint`, of a run with these settings; `setup_seconds` is the time that
    /// starting it again took.
    ///
    /// # Errors
    /// When the checkpoint is of a run with other settings.
    pub(crate) fn resumed(
        settings: SviSettings,
        checkpoint: RunRecorder,
        setup_seconds: f64,
    ) -> Result<Self, BackendError> {
        let is_of_these = ConvergenceWatch::is_for(checkpoint.convergence.as_ref(), settings.early_stop)
            && checkpoint.completed <= settings.iterations;
        if !is_of_these {
            return Err(Checkpoint::malformed("it is of a run with other settings"));
        }
        Ok(RunRecorder {
            settings,
            setup_seconds: checkpoint.setup_seconds + setup_seconds,
            ..checkpoint
        })
    }

    /// The settings of the run.
    pub fn settings(&self) -> &SviSettings {
        &self.settings
    }

    /// Iterations done.
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Iterations until the criterion of an early stop may decide next; without one it is the largest number.
    /// Code that iterates in batches must end one there, so that a run stops at the same iteration whatever
    /// the length of its batches.
    pub fn decides_in(&self) -> u64 {
        self.convergence
            .as_ref()
            .map_or(u64::MAX, ConvergenceWatch::decides_in)
    }

    /// Seconds spent advancing before the current piece.
    pub fn run_seconds(&self) -> f64 {
        self.run_seconds
    }

    /// Why the run cannot go on, if it cannot.
    pub(crate) fn failure(&self) -> Option<&BackendError> {
        self.failure.as_ref()
    }

    /// Begins a piece of up to `steps` iterations. Returns the iteration to stop at, or `None` if there is
    /// nothing to do.
    ///
    /// # Errors
    /// When the run has failed: the same reason again.
    pub fn begin(&mut self, steps: u64) -> Result<Option<u64>, BackendError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let target = self.completed.saturating_add(steps).min(self.settings.iterations);
        if self.state.is_complete() || target == self.completed {
            return Ok(None);
        }
        self.state = RunState::Running;
        Ok(Some(target))
    }

    /// Records an iteration: its loss and effective particles, its time (total seconds of advancing), and
    /// whether the run was asked to stop.
    pub fn record(
        &mut self,
        loss: f64,
        effective_particles: f64,
        seconds: f64,
        target: u64,
        interrupted: bool,
    ) -> Decision {
        self.last_loss = loss;
        if !loss.is_finite() {
            self.fail(BackendError::Diverged {
                step: self.completed,
                reason: Cause::new(format!("the loss of the next iteration is {loss}"), STEADIER),
            });
            return Decision::Discard;
        }
        self.effective_particles_sum += effective_particles;
        self.completed += 1;
        let total = self.settings.iterations;
        if (self.completed - 1).is_multiple_of(self.settings.trace_every) || self.completed == total {
            self.trace.push(TracePoint {
                iteration: self.completed,
                seconds,
                loss,
                effective_particles,
                learning_rate: self.settings.optimizer.learning_rate_at(self.completed - 1),
            });
        }
        let converged = self.convergence.as_mut().is_some_and(|c| c.push(loss));
        self.state = if converged {
            RunState::Converged
        } else if self.completed == total {
            RunState::Finished
        } else if interrupted {
            RunState::Interrupted
        } else if self.completed == target {
            return Decision::Stop;
        } else {
            return Decision::Continue;
        };
        Decision::Stop
    }

    /// Ends a piece; `run_seconds` are the total seconds of advancing.
    ///
    /// # Errors
    /// When the run failed in it.
    pub fn end(&mut self, run_seconds: f64) -> Result<Progress, BackendError> {
        self.run_seconds = run_seconds;
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.progress()),
        }
    }

    /// Ends the run for good, for this reason.
    pub fn fail(&mut self, failure: BackendError) {
        self.state = RunState::Failed;
        self.failure = Some(failure);
    }

    /// Where the run is.
    pub fn progress(&self) -> Progress {
        let note = match self.trace.last() {
            Some(last) => format!(
                "loss {:.6e}, effective particles {:.2}, learning rate {:.2e}",
                self.last_loss, last.effective_particles, last.learning_rate
            ),
            None => String::new(),
        };
        Progress {
            completed: self.completed,
            total: self.settings.iterations,
            unit: StepUnit::Iterations,
            state: self.state,
            note,
        }
    }

    /// The run's figures. `centredness` is that of the guide now.
    pub fn report(
        &self,
        backend: &str,
        device: String,
        threads: usize,
        centredness: Centredness,
        mut warnings: Vec<Warning>,
    ) -> Report {
        if let Some(failure) = &self.failure {
            warnings.push(
                match failure {
                    BackendError::Diverged { .. } => SviWarning::NotFinite {
                        iteration: self.completed + 1,
                    },
                    other => SviWarning::Failed {
                        completed: self.completed,
                        error: other.clone(),
                    },
                }
                .into(),
            );
        } else if !self.state.is_complete() {
            warnings.push(
                SviWarning::Unfinished {
                    completed: self.completed,
                    iterations: self.settings.iterations,
                }
                .into(),
            );
        }
        let could_tell = |stop: EarlyStop| stop.can_be_met_in(self.settings.iterations);
        if self.state == RunState::Finished && self.settings.early_stop.is_some_and(could_tell) {
            warnings.push(SviWarning::StillFalling.into());
        }
        if self.settings.coordinates == Coordinates::Published {
            warnings.push(Warning::MeanField);
        }
        Report {
            backend: backend.into(),
            device,
            threads,
            setup_seconds: self.setup_seconds,
            run_seconds: self.run_seconds,
            state: self.state,
            warnings,
            detail: Detail::Svi(SviReport {
                iterations: self.completed,
                iterations_per_second: self.completed as f64 / self.run_seconds.max(f64::MIN_POSITIVE),
                mean_effective_particles: self.effective_particles_sum / self.completed.max(1) as f64,
                centredness,
                trace: self.trace.clone(),
                communication: None,
            }),
        }
    }
}
