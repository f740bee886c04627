//! The iterations: a team of threads walks the phases in lock step.

use crate::phases::{CategoryBack, CategoryPlace, ChunkPhase, Top, TopTask};
use crate::state::State;
use infermark_cpu_kernels::likelihood::Scratch;
use infermark_cpu_kernels::simd::Simd;
use infermark_cpu_kernels::team::run_team;
use infermark_model::guide::Guide;
use infermark_model::objective::Weighted;
use infermark_model::svi::LossAndGradient;
use infermark_svi::Verdict;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

impl<I: Simd> State<I> {
    fn with_frame<R>(&self, f: impl FnOnce(&crate::state::Frame) -> R) -> R {
        f(&self.frame.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn advance_top(&self, task: TopTask) {
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        if task == TopTask::Advance {
            frame.iteration += 1;
            frame.step_pending = true;
        }
        self.isa.vectorize(Top {
            state: self,
            frame: &mut frame,
            top: &mut top,
            task,
        });
    }

    /// Draws and places the top and the periods of the first iteration.
    pub(crate) fn place_first(&self) {
        self.advance_top(TopTask::Place);
        self.with_frame(|frame| {
            self.categories.for_each(|_, item| {
                self.isa.vectorize(CategoryPlace {
                    state: self,
                    frame,
                    item,
                })
            });
        });
    }

    /// Threads that have something to do.
    pub(crate) fn useful_threads(&self, threads: usize) -> usize {
        threads.min(self.chunks.len())
    }

    /// Adds up the log-weights of an iteration whose chunks are done: parts in their order, whatever the threads.
    fn log_weights(&self) -> Vec<f64> {
        let top = self.top.read().unwrap_or_else(PoisonError::into_inner);
        let mut total: Vec<f64> = top
            .log_weights
            .iter()
            .map(|l| l - self.panel.sums().ln_factorials)
            .collect();
        let mut add = |part: &[f64]| total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
        self.categories.for_each(|_, item| add(&item.log_weights));
        self.chunks.for_each(|_, item| add(&item.log_weights));
        total
    }

    /// Weighs the particles of the iteration whose chunks are done.
    fn weigh(&self) -> (Vec<f64>, Weighted) {
        let log_weights = self.log_weights();
        let weighted = self.settings.objective.weigh(&log_weights);
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        frame.weights.copy_from_slice(&weighted.weights);
        frame.scalars = self.settings.optimizer.scalars(u64::from(frame.iteration));
        if let Some(rate) = self.noise.learning_rate(frame.iteration) {
            frame.scalars.learning_rate = rate;
        }
        (log_weights, weighted)
    }

    /// Iterates on `threads` threads until `watch`, which sees every iteration's loss, says stop. Afterwards every
    /// parameter has made the same steps; after [`Verdict::LeaveOut`] the state cannot be iterated further.
    pub(crate) fn iterate(&self, threads: usize, watch: impl FnMut(&Weighted) -> Verdict + Send) {
        let watch = Mutex::new(watch);
        let (stop, leave_out) = (AtomicBool::new(false), AtomicBool::new(false));
        self.chunks.rewind();
        self.categories.rewind();
        run_team(self.useful_threads(threads), |barrier| {
            let mut scratch = Scratch::new(self.isa, self.settings.particles);
            let mut chunk_phase = |step_only: bool| {
                self.with_frame(|frame| {
                    self.chunks.take_all(|_, item| {
                        let scratch = &mut scratch;
                        self.isa.vectorize(ChunkPhase {
                            state: self,
                            frame,
                            item,
                            scratch,
                            step_only,
                        });
                    });
                });
            };
            while !stop.load(Ordering::Relaxed) {
                chunk_phase(false);
                barrier.wait(|| {
                    let (_, weighted) = self.weigh();
                    let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
                    let verdict = watch(&weighted);
                    stop.store(verdict == Verdict::Stop, Ordering::Relaxed);
                    leave_out.store(verdict == Verdict::LeaveOut, Ordering::Relaxed);
                });
                if leave_out.load(Ordering::Relaxed) {
                    return;
                }
                self.with_frame(|frame| {
                    self.categories.take_all(|_, item| {
                        self.isa.vectorize(CategoryBack {
                            state: self,
                            frame,
                            item,
                            learn: true,
                        });
                    });
                });
                barrier.wait(|| {
                    self.categories.rewind();
                    self.advance_top(TopTask::Advance);
                });
                self.with_frame(|frame| {
                    self.categories.take_all(|_, item| {
                        self.isa.vectorize(CategoryPlace {
                            state: self,
                            frame,
                            item,
                        });
                    });
                });
                barrier.wait(|| {
                    self.categories.rewind();
                    self.chunks.rewind();
                });
            }
            chunk_phase(true);
        });
        self.frame
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .step_pending = false;
    }

    /// Loss and gradient at the present parameters under the noise of the present iteration, without a step.
    pub(crate) fn loss_and_gradient(&self, threads: usize) -> LossAndGradient {
        self.chunks.rewind();
        run_team(self.useful_threads(threads), |_| {
            let scratch = &mut Scratch::new(self.isa, self.settings.particles);
            self.with_frame(|frame| {
                self.chunks.take_all(|_, item| {
                    let phase = ChunkPhase {
                        state: self,
                        frame,
                        item,
                        scratch,
                        step_only: false,
                    };
                    self.isa.vectorize(phase);
                });
            });
        });
        let (log_weights, weighted) = self.weigh();
        self.with_frame(|frame| {
            self.categories.for_each(|_, item| {
                self.isa.vectorize(CategoryBack {
                    state: self,
                    frame,
                    item,
                    learn: false,
                });
            });
        });
        self.advance_top(TopTask::Back);
        let gradient = self.gradient(&weighted.weights);
        LossAndGradient {
            log_weights,
            weighted,
            gradient,
        }
    }

    /// Gathers the gradient that the blocks hold.
    fn gradient(&self, weights: &[f64]) -> Guide {
        let mut gradient = self.empty_guide();
        let isa = self.isa;
        self.chunks.for_each(|_, chunk| {
            chunk.elasticity.write_gradient(isa, weights, &mut gradient);
            chunk.effect.write_gradient(isa, weights, &mut gradient);
        });
        self.categories
            .for_each(|_, category| category.time.write_gradient(isa, weights, &mut gradient));
        let top = self.top.read().unwrap_or_else(PoisonError::into_inner);
        top.category.write_gradient(isa, weights, &mut gradient);
        top.global.write_gradient(isa, weights, &mut gradient);
        if let Some(log_shape) = &top.log_shape {
            log_shape.write_gradient(isa, weights, &mut gradient);
        }
        if let Some(by_u) = &mut gradient.unconstrained_centredness {
            *by_u = top.by_centredness;
        }
        gradient
    }
}
