//! A run of SVI behind the trait, whatever it iterates on.

use crate::{Chart, Decision, GuideState, GuidedRun, RunRecorder};
use infermark_backend::{
    BackendError, Checkpoint, CommunicationReport, Detail, Interrupt, Method, Posterior, Progress, Report,
    Request, Run, StateFormat, SviWarning,
};
use infermark_communicator::Traffic;
use infermark_model::dispersion::Dispersion;
use infermark_model::guide::Guide;
use infermark_model::{Panel, Parameterization};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Iterates a guide on some hardware.
pub trait Iterate: Send {
    /// Iterates, recording every iteration in `piece`, until that returns a stop. Then the device must be
    /// idle and every parameter at the same step.
    ///
    /// # Errors
    /// [`BackendError::Device`] when the device fails; it is not called again then.
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError>;

    /// The guide's parameters now.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    fn guide(&self) -> Result<Guide, BackendError>;

    /// The guide's parameters and the optimizer's moments now; `None`, which is the default, where they are not read out.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        Ok(None)
    }

    /// Puts a state in place of its own, as of `completed` iterations, and prepares the next. Returns whether it can, which by
    /// default it cannot.
    ///
    /// # Errors
    /// When the device fails.
    fn restore(&mut self, _state: &GuideState, _completed: u64) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// The number of ranks, and what crossed between them in the iterations; `None`, which is the default, where there is one.
    fn crossed(&self) -> Option<(usize, Traffic)> {
        None
    }
}

/// A piece of a run under way: at most the requested number of iterations.
#[derive(Debug)]
pub struct Piece<'a> {
    recorder: &'a mut RunRecorder,
    /// The iteration to stop at.
    target: u64,
    /// Seconds of advancing before this piece.
    before: f64,
    clock: Instant,
    interrupt: &'a Interrupt,
}

impl Piece<'_> {
    /// Remaining iterations of the piece.
    pub fn left(&self) -> u64 {
        self.target - self.recorder.completed()
    }

    /// See [`RunRecorder::decides_in`].
    pub fn decides_in(&self) -> u64 {
        self.recorder.decides_in()
    }

    /// Whether the run was asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Seconds since the piece began.
    pub fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }

    /// The same piece for another rank. It has the iterations left of this one, and records for itself.
    pub fn follower(&self) -> Follower {
        Follower {
            recorder: self.recorder.without_trace(),
            target: self.target,
            before: self.before,
            clock: self.clock,
            interrupt: self.interrupt.clone(),
        }
    }

    /// Records an iteration that was just done.
    pub fn record(&mut self, loss: f64, effective_particles: f64) -> Decision {
        self.record_at(self.seconds(), loss, effective_particles, self.is_interrupted())
    }

    /// Records an iteration that was done `seconds` after the piece began; `interrupted` says whether the run
    /// stops after it on request.
    pub fn record_at(
        &mut self,
        seconds: f64,
        loss: f64,
        effective_particles: f64,
        interrupted: bool,
    ) -> Decision {
        let seconds = self.before + seconds;
        self.recorder
            .record(loss, effective_particles, seconds, self.target, interrupted)
    }
}

/// A piece on another rank, which sees the same losses and so stops at the same iteration.
#[derive(Debug, Clone)]
pub struct Follower {
    recorder: RunRecorder,
    target: u64,
    before: f64,
    clock: Instant,
    interrupt: Interrupt,
}

impl Follower {
    /// The piece.
    pub fn piece(&mut self) -> Piece<'_> {
        Piece {
            recorder: &mut self.recorder,
            target: self.target,
            before: self.before,
            clock: self.clock,
            interrupt: &self.interrupt,
        }
    }
}

/// How a run was started.
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// Name of the backend.
    pub backend: &'static str,
    /// The device in plain words.
    pub device: String,
    /// CPU threads that iterations use.
    pub threads: usize,
    /// The panel.
    pub panel: Arc<Panel>,
    /// The request, for SVI.
    pub request: Request,
    /// The coordinates of its guide.
    pub chart: Chart,
    /// Seconds that it took.
    pub setup_seconds: f64,
}

/// The format of the states of all SVI backends.
const FORMAT: StateFormat = StateFormat {
    name: "svi",
    version: 1,
};

/// What a checkpoint of SVI holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SavedRun {
    state: GuideState,
    recorder: RunRecorder,
    /// Iterations among ranks, and what crossed between them: operations, bytes and time.
    crossed: (u64, u64, u64, Duration),
}

/// What crossed between the ranks of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Crossed {
    /// The iterations that it crossed in.
    iterations: u64,
    traffic: Traffic,
}

impl SavedRun {
    /// What `checkpoint` holds of a run of `request` on `panel`, for the backend `reader`.
    ///
    /// # Errors
    /// When it is of another format, or of a panel or a guide of another size.
    pub fn read(
        checkpoint: &Checkpoint,
        reader: &'static str,
        panel: &Panel,
        request: &Request,
    ) -> Result<Self, BackendError> {
        let saved: SavedRun = checkpoint.state(reader, FORMAT)?;
        let learns = request.parameterization == Parameterization::Learned;
        saved.state.check(&panel.layout_for(request.likelihood), learns)?;
        Ok(saved)
    }

    /// The guide.
    pub fn guide(&self) -> &Guide {
        &self.state.guide
    }
}

/// A run under way, whose iterations are `I`'s.
pub struct SviRun<I> {
    iterations: I,
    setup: RunSetup,
    recorder: RunRecorder,
    /// The iterations of the run that this one goes on from, and what crossed in them.
    started_at: u64,
    crossed_before: Crossed,
}

impl<I: Iterate> SviRun<I> {
    /// A run whose first iteration is prepared.
    ///
    /// # Panics
    /// When the request is for another method.
    pub fn new(iterations: I, setup: RunSetup) -> Self {
        let Method::Svi(settings) = &setup.request.method else {
            panic!("a run of SVI for the method {}", setup.request.method.name())
        };
        let latents = setup.panel.layout_for(setup.request.likelihood).latents();
        SviRun {
            recorder: RunRecorder::new(settings.clone(), latents, setup.setup_seconds),
            iterations,
            setup,
            started_at: 0,
            crossed_before: Crossed::default(),
        }
    }

    /// What crossed since the first iteration, in those that had several ranks.
    fn crossed(&self) -> Crossed {
        let Some((_, mut traffic)) = self.iterations.crossed() else {
            return self.crossed_before;
        };
        traffic += self.crossed_before.traffic;
        Crossed {
            iterations: self.crossed_before.iterations + self.recorder.completed() - self.started_at,
            traffic,
        }
    }

    /// The same run as far as `saved` had come.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if what it iterates on takes no state; [`BackendError::Request`] if that is of a run with
    /// other settings.
    pub fn gone_on_from(mut self, saved: SavedRun) -> Result<Self, BackendError> {
        let SavedRun {
            state,
            recorder,
            crossed: (iterations, operations, bytes, time),
        } = saved;
        self.crossed_before = Crossed {
            iterations,
            traffic: Traffic {
                operations,
                bytes,
                time,
            },
        };
        self.started_at = recorder.completed();
        let settings = self.recorder.settings().clone();
        self.recorder = RunRecorder::resumed(settings, recorder, self.setup.setup_seconds)?;
        if !self.iterations.restore(&state, self.recorder.completed())? {
            return Err(BackendError::Unsupported {
                backend: self.setup.backend,
                what: "checkpoints".into(),
            });
        }
        Ok(self)
    }
}

impl<I: Iterate> GuidedRun for SviRun<I> {
    fn guide(&self) -> Result<Guide, BackendError> {
        self.iterations.guide()
    }
}

impl<I: Iterate> Run for SviRun<I> {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let Some(target) = self.recorder.begin(steps)? else {
            return Ok(self.progress());
        };
        let before = self.recorder.run_seconds();
        let clock = Instant::now();
        let done = self.iterations.iterate(&mut Piece {
            recorder: &mut self.recorder,
            target,
            before,
            clock,
            interrupt,
        });
        let seconds = before + clock.elapsed().as_secs_f64();
        if let Err(error) = done {
            self.recorder.fail(error);
        }
        self.recorder.end(seconds)
    }

    fn progress(&self) -> Progress {
        self.recorder.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let RunSetup {
            chart,
            panel,
            request,
            ..
        } = &self.setup;
        chart.posterior(
            &self.iterations.guide()?,
            panel,
            request.likelihood,
            &request.priors,
        )
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackendError> {
        if let Some(failure) = self.recorder.failure() {
            return Err(failure.clone());
        }
        let Some(state) = self.iterations.state()? else {
            return Ok(None);
        };
        let Crossed { iterations, traffic } = self.crossed();
        let saved = SavedRun {
            state,
            recorder: self.recorder.clone(),
            crossed: (iterations, traffic.operations, traffic.bytes, traffic.time),
        };
        Checkpoint::new(self.setup.backend, FORMAT, self.recorder.completed(), &saved).map(Some)
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let guide = self.iterations.guide().ok()?;
        let RunSetup {
            chart,
            panel,
            request,
            ..
        } = &self.setup;
        let threads = request.resolved_threads();
        Some(chart.dispersion(&guide, panel, request.likelihood, &request.priors, threads))
    }

    fn report(&self) -> Report {
        let mut warnings = Vec::new();
        let parameterization = self.setup.chart.parameterization();
        let centredness = match self.iterations.guide() {
            Ok(guide) => guide.centredness(parameterization),
            Err(error) => {
                warnings.push(SviWarning::DeviceLost(error).into());
                parameterization.start()
            }
        };
        let RunSetup {
            backend,
            device,
            threads,
            ..
        } = &self.setup;
        let mut report = self
            .recorder
            .report(backend, device.clone(), *threads, centredness, warnings);
        if let Detail::Svi(svi) = &mut report.detail {
            svi.communication = self.iterations.crossed().map(|(ranks, _)| {
                let Crossed { iterations, traffic } = self.crossed();
                CommunicationReport::new(ranks, traffic, iterations)
            });
        }
        report
    }
}
