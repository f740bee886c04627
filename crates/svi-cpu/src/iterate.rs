//! The iterations: a team of threads works through their phases.

use crate::batches::Batches;
use crate::phases::{CategoryBack, CategoryFold, CategoryPlace, ChunkPhase, ChunkShare, Top, TopTask};
use crate::state::{ChunkState, Frame, State, ThreadScratch};
use infermark_backend::BackendError;
use infermark_cpu_kernels::Simd;
use infermark_cpu_kernels::chunk::useful_threads;
use infermark_cpu_kernels::team::{Items, run_team};
use infermark_model::guide::Guide;
use infermark_model::objective::Weighted;
use infermark_model::svi::LossAndGradient;
use infermark_svi::{Decision, Link, Piece};
use std::sync::PoisonError;

/// A team's phases by their index; the items of those of categories are categories, of the others chunks.
pub(crate) const CHUNKS: usize = 0;
const CATEGORIES_FOLD: usize = 1;
pub(crate) const CATEGORIES_BACK: usize = 2;
pub(crate) const CATEGORIES_PLACE: usize = 3;
/// The pending step of the products, after the last iteration.
pub(crate) const SETTLE: usize = 4;
/// The products' shares of the gradient, where those are exchanged.
pub(crate) const SHARES: usize = 5;
const PHASES: usize = 6;

/// Work per thread and iteration, in row-particles, from which on a thread pays off. Measured on two cores
/// (AMD EPYC, AVX-512): a second thread breaks even at 12,000 row-particles in all, an iteration of 13 us,
/// and saves a fifth of it at 40,000.
const LEAST_WORK: usize = 20_000;

impl<I: Simd> State<I> {
    pub(crate) fn with_frame<R>(&self, f: impl FnOnce(&Frame) -> R) -> R {
        f(&self.frame.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn advance_top(&self, task: TopTask) {
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        if task == TopTask::Advance {
            frame.iteration += 1;
            // Products of a mini-batch have made their step.
            frame.step_pending = frame.batches.is_none();
        }
        if task != TopTask::Back {
            let iteration = frame.iteration;
            if let Some(batches) = &mut frame.batches {
                batches.go_to(iteration);
            }
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

    /// The number of threads, out of `threads`, that have enough work: at most one per chunk, with
    /// [`LEAST_WORK`] each.
    pub(crate) fn useful_threads(&self, threads: usize) -> usize {
        useful_threads(threads, self.chunks.len(), self.work, LEAST_WORK)
    }

    /// Adds up the log-weights of an iteration whose chunks are done: parts in their order, whatever the threads. Those of
    /// the products are `of_products` where they have been exchanged.
    pub(crate) fn log_weights(&self, of_products: Option<&[f64]>) -> Vec<f64> {
        let top = self.top.read().unwrap_or_else(PoisonError::into_inner);
        let mut total: Vec<f64> = top
            .log_weights
            .iter()
            .map(|l| l - self.panel.sums().ln_factorials)
            .collect();
        let mut add = |part: &[f64], scale: f64| {
            for (total, part) in total.iter_mut().zip(part) {
                *total += scale * part;
            }
        };
        self.categories.for_each(|_, item| add(&item.log_weights, 1.0));
        match of_products {
            Some(of_products) => add(of_products, 1.0),
            None => {
                let scale = self.with_frame(Frame::scale);
                self.each_chunk(|item| add(&item.log_weights, scale));
            }
        }
        total
    }

    /// Calls `f` with the log-weights of the chunks that the iteration passed over, in their order.
    fn each_chunk(&self, mut f: impl FnMut(&ChunkState<I>)) {
        self.with_frame(|frame| {
            (0..self.chunks.len())
                .map_while(|index| frame.chunk(index))
                .for_each(|chunk| f(&self.chunks.read(chunk)));
        });
    }

    /// Exchanges the sums over products with the other shards, after their fold. Returns whether any rank was interrupted.
    fn exchange(&self, link: &mut Link, interrupted: bool) -> Result<bool, BackendError> {
        let sums = link.sums().clone();
        let buffer = link.buffer_mut();
        buffer.fill(0.0);
        let log_weights = &mut buffer[sums.log_weights()];
        let scale = self.with_frame(Frame::scale);
        self.each_chunk(|item| {
            for (total, part) in log_weights.iter_mut().zip(&item.log_weights) {
                *total += scale * part;
            }
        });
        self.categories
            .for_each(|category, item| item.over_products.write(category, &sums, buffer));
        let interrupted = link.all_reduce(interrupted)?;
        self.categories
            .for_each(|category, item| item.over_products.read(category, &sums, link.buffer()));
        Ok(interrupted)
    }

    /// Weighs the particles of the iteration whose chunks are done.
    fn weigh(&self, link: Option<&Link>) -> (Vec<f64>, Weighted) {
        let of_products = link.map(|link| &link.buffer()[link.sums().log_weights()]);
        let log_weights = self.log_weights(of_products);
        let weighted = self.weigh_particles(&log_weights);
        (log_weights, weighted)
    }

    /// Weighs the particles by their log-weights, for the step of this iteration.
    pub(crate) fn weigh_particles(&self, log_weights: &[f64]) -> Weighted {
        let weighted = self.settings.objective.weigh(log_weights);
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        frame.weights.copy_from_slice(&weighted.weights);
        frame.scalars = self.settings.optimizer.scalars(u64::from(frame.iteration));
        if let Some(rate) = self.noise.learning_rate(frame.iteration) {
            frame.scalars.learning_rate = rate;
        }
        weighted
    }

    /// Carries out the items of a phase that a thread gets.
    fn work(&self, scratch: &mut ThreadScratch<I>, items: &mut Items<'_>) {
        let (state, phase) = (self, items.phase());
        self.with_frame(|frame| {
            for index in items {
                match phase {
                    CHUNKS | SETTLE => {
                        if let Some(chunk) = frame.chunk(index) {
                            self.isa.vectorize(ChunkPhase {
                                state,
                                frame,
                                item: &mut self.chunks.write(chunk),
                                scratch,
                                step_only: phase == SETTLE,
                            });
                        }
                    }
                    SHARES => self.isa.vectorize(ChunkShare {
                        frame,
                        item: &mut self.chunks.write(index),
                    }),
                    CATEGORIES_FOLD => self.isa.vectorize(CategoryFold {
                        state,
                        frame,
                        item: &mut self.categories.write(index),
                    }),
                    CATEGORIES_BACK => self.isa.vectorize(CategoryBack {
                        state,
                        frame,
                        item: &mut self.categories.write(index),
                        learn: frame.gradient.is_empty(),
                    }),
                    _ => self.isa.vectorize(CategoryPlace {
                        state,
                        frame,
                        item: &mut self.categories.write(index),
                    }),
                }
            }
        });
    }

    /// Leads a team of `threads` threads through phases that `lead` names.
    pub(crate) fn with_team<R>(&self, threads: usize, lead: impl FnOnce(&mut dyn FnMut(usize)) -> R) -> R {
        let most = |frame: &Frame| frame.batches.as_ref().map_or(self.chunks.len(), Batches::most);
        let (chunks, categories) = (self.with_frame(most), self.categories.len());
        let mut counts = [0; PHASES];
        (counts[CHUNKS], counts[SETTLE], counts[SHARES]) = (chunks, chunks, chunks);
        for phase in [CATEGORIES_FOLD, CATEGORIES_BACK, CATEGORIES_PLACE] {
            counts[phase] = categories;
        }
        run_team(
            self.useful_threads(threads),
            &counts,
            || ThreadScratch::new(self.isa, self.settings.particles),
            |scratch, items| self.work(scratch, items),
            lead,
        )
    }

    pub(crate) fn set_step_pending(&self, pending: bool) {
        self.frame
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .step_pending = pending;
    }

    /// Iterates on `threads` threads until `piece` is over; `link` connects one of several shards with the others.
    /// Afterwards every parameter has made the same steps; after [`Decision::Discard`] and after an error the state cannot be
    /// iterated further.
    pub(crate) fn iterate(
        &self,
        threads: usize,
        mut link: Option<&mut Link>,
        piece: &mut Piece<'_>,
    ) -> Result<(), BackendError> {
        let has_batches = self.settings.batch_products.is_some();
        self.with_team(threads, |phase| {
            loop {
                phase(CHUNKS);
                let interrupted = match &mut link {
                    None => piece.is_interrupted(),
                    Some(link) => {
                        phase(CATEGORIES_FOLD);
                        self.exchange(link, piece.is_interrupted())?
                    }
                };
                let (_, weighted) = self.weigh(link.as_deref());
                let decision = piece.record_at(
                    piece.seconds(),
                    weighted.loss,
                    weighted.effective_particles,
                    interrupted,
                );
                if decision == Decision::Discard {
                    return Ok(());
                }
                if has_batches {
                    // Before the next batch is another one.
                    self.set_step_pending(true);
                    phase(SETTLE);
                }
                phase(CATEGORIES_BACK);
                self.advance_top(TopTask::Advance);
                phase(CATEGORIES_PLACE);
                if decision == Decision::Stop {
                    break;
                }
            }
            phase(SETTLE);
            self.set_step_pending(false);
            Ok(())
        })
    }

    /// Loss and gradient at the current parameters under the noise of the current iteration, without a step.
    /// `link` is as for [`State::iterate`].
    pub(crate) fn loss_and_gradient(
        &self,
        threads: usize,
        mut link: Option<&mut Link>,
    ) -> Result<LossAndGradient, BackendError> {
        self.with_team(threads, |phase| {
            phase(CHUNKS);
            if link.is_some() {
                phase(CATEGORIES_FOLD);
            }
        });
        if let Some(link) = &mut link {
            self.exchange(link, false)?;
        }
        let (log_weights, weighted) = self.weigh(link.as_deref());
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
        Ok(LossAndGradient {
            log_weights,
            weighted,
            gradient,
        })
    }

    /// Gathers the gradient that the blocks hold.
    fn gradient(&self, weights: &[f64]) -> Guide {
        let mut gradient = self.empty_guide();
        let isa = self.isa;
        self.chunks.for_each(|_, chunk| {
            chunk.elasticity.write_gradient(isa, weights, &mut gradient);
            chunk.effect.write_gradient(isa, weights, &mut gradient);
        });
        self.categories.for_each(|_, category| {
            category.time.write_gradient(isa, weights, &mut gradient);
            if let Some(contrasts) = &category.contrasts {
                contrasts.write_gradient(isa, weights, &mut gradient);
            }
        });
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
