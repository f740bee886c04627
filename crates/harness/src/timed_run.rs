//! Timing of a run: set-up and warm-up separately, then stretches in steady state. Iterations are counted, of
//! samplers gradients; whole fits are timed by [`crate::timed_fits`].

use infermark_backend::{Backend, BackendError, Interrupt, Report, Request, Run, StepPacer};
use infermark_model::Panel;
use infermark_report::records::case_record::Sample;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Duration of a piece of a sampler's repeat, as a fraction of the repeat; longer if that is less than the
/// four draws per chain that [`StepPacer`] asks for. A repeat ends with a piece, and chains wait for each other
/// only there.
const PIECE_OF_REPEAT: f64 = 0.25;
/// Longest warm-up, unless more seconds were requested: it ends then even if iterations are missing.
pub const LONGEST_WARMUP: Duration = Duration::from_secs(60);
/// Duration of a piece of a run for quality.
const PIECE: Duration = Duration::from_millis(200);

/// A started run with its timings.
pub struct TimedRun {
    run: Box<dyn Run>,
    counts_gradients: bool,
    /// Seconds that starting took.
    pub setup_seconds: f64,
    /// The warm-up.
    pub warmup: Sample,
    /// The timed repeats.
    pub repeats: Vec<Sample>,
    iterations_per_repeat: u64,
    pacer: StepPacer,
}

impl TimedRun {
    /// Starts a run and times its start.
    ///
    /// # Errors
    /// When the backend refuses.
    pub fn start(backend: &dyn Backend, panel: Arc<Panel>, request: &Request) -> Result<Self, BackendError> {
        let clock = Instant::now();
        let run = backend.start(panel, request)?;
        Ok(TimedRun {
            pacer: StepPacer::of(&*run, PIECE),
            run,
            counts_gradients: request.method.kind().has_draws(),
            setup_seconds: clock.elapsed().as_secs_f64(),
            warmup: Sample {
                iterations: 0,
                seconds: 0.0,
            },
            repeats: Vec::new(),
            iterations_per_repeat: 1,
        })
    }

    /// The run's own report.
    pub fn report(&self) -> Report {
        self.run.report()
    }

    /// The run itself.
    pub fn run(&self) -> &dyn Run {
        &*self.run
    }

    /// Advances for about `seconds` without counting them, an optimizer for `iterations` at least, but not
    /// much longer than [`LONGEST_WARMUP`] for their sake; and finds how many iterations a repeat of
    /// `repeat_seconds` takes, so that all `repeats` fit in the requested total of the run.
    ///
    /// # Errors
    /// When the run fails.
    pub fn warmup(
        &mut self,
        seconds: f64,
        iterations: u64,
        repeat_seconds: f64,
        repeats: usize,
        interrupt: &Interrupt,
    ) -> Result<(), BackendError> {
        let iterations = if self.counts_gradients { 0 } else { iterations };
        let longest = seconds.max(LONGEST_WARMUP.as_secs_f64());
        let lasting = Duration::from_secs_f64(PIECE_OF_REPEAT * repeat_seconds.min(1e6));
        self.pacer = StepPacer::of(&*self.run, lasting);
        let mut steps = self.pacer.steps();
        loop {
            let sample = self.stretch(steps, interrupt)?;
            self.warmup.iterations += sample.iterations;
            self.warmup.seconds += sample.seconds;
            let progress = self.run.progress();
            let left = progress.total.saturating_sub(progress.completed);
            let missing = iterations.saturating_sub(self.warmup.iterations);
            let enough = self.warmup.seconds >= seconds && missing == 0;
            if enough || self.warmup.seconds >= longest || interrupt.is_set() || left <= self.run.width() {
                if !self.counts_gradients {
                    // The last stretch is the longest, and nearest to the steady state.
                    let wanted = (sample.rate() * repeat_seconds).ceil();
                    let most = (left / repeats.max(1) as u64).max(1);
                    self.iterations_per_repeat = (wanted.min(1e9) as u64).clamp(1, most);
                }
                return Ok(());
            }
            steps = if self.counts_gradients {
                self.pacer.took(Duration::from_secs_f64(sample.seconds));
                self.pacer.steps_of_at_most(left / 2)
            } else {
                // When the time is up, only the missing iterations, and no more at once than fit in the
                // longest warm-up.
                let most = if missing > 0 && self.warmup.seconds >= seconds {
                    let room = sample.rate() * (longest - self.warmup.seconds);
                    missing.min(room.ceil().min(1e9) as u64)
                } else {
                    u64::MAX
                };
                (2 * steps).min(most).min(left / 2).max(1)
            };
        }
    }

    /// One timed repeat. A repeat that an interruption cut short is not kept.
    ///
    /// # Errors
    /// When the run fails.
    pub fn repeat(&mut self, seconds: f64, interrupt: &Interrupt) -> Result<(), BackendError> {
        let sample = if self.counts_gradients {
            // Draws differ in their number of gradients: draw piece by piece until the time is up.
            self.draws_for(seconds, interrupt)?
        } else {
            self.stretch(self.iterations_per_repeat, interrupt)?
        };
        if !interrupt.is_set() && sample.iterations > 0 {
            self.repeats.push(sample);
        }
        Ok(())
    }

    fn stretch(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Sample, BackendError> {
        let before = self.done();
        let clock = Instant::now();
        self.run.advance(steps, interrupt)?;
        let seconds = clock.elapsed().as_secs_f64();
        Ok(Sample {
            iterations: self.done() - before,
            seconds,
        })
    }

    fn draws_for(&mut self, seconds: f64, interrupt: &Interrupt) -> Result<Sample, BackendError> {
        let before = self.done();
        let clock = Instant::now();
        let mut elapsed = 0.0;
        while elapsed < seconds && !interrupt.is_set() {
            let piece = Instant::now();
            let progress = self.run.advance(self.pacer.steps(), interrupt)?;
            self.pacer.took(piece.elapsed());
            elapsed = clock.elapsed().as_secs_f64();
            if progress.state.is_complete() {
                break;
            }
        }
        Ok(Sample {
            iterations: self.done() - before,
            seconds: elapsed,
        })
    }

    /// Advances for about `seconds` more, until the piece under way is done, or to the run's end, reporting
    /// progress.
    ///
    /// # Errors
    /// When the run fails.
    pub fn go_on(
        &mut self,
        seconds: f64,
        interrupt: &Interrupt,
        mut told: impl FnMut(u64, u64),
    ) -> Result<(), BackendError> {
        let clock = Instant::now();
        let mut pacer = StepPacer::of(&*self.run, PIECE);
        loop {
            let elapsed = clock.elapsed().as_secs_f64();
            told((1000.0 * elapsed.min(seconds)) as u64, (1000.0 * seconds) as u64);
            if elapsed >= seconds || interrupt.is_set() {
                return Ok(());
            }
            let piece = Instant::now();
            if self.run.advance(pacer.steps(), interrupt)?.state.is_complete() {
                return Ok(());
            }
            pacer.took(piece.elapsed());
        }
    }

    /// Iterations or gradients done.
    fn done(&self) -> u64 {
        if self.counts_gradients {
            self.run.gradients().unwrap_or(0)
        } else {
            self.run.progress().completed
        }
    }
}
