//! Iterations of a shard of rows, with all parameters: shares of the gradient are exchanged.

use crate::block::Block;
use crate::iterate::{CATEGORIES_BACK, CATEGORIES_PLACE, CHUNKS, SETTLE, SHARES};
use crate::phases::{TopTask, step_centredness, step_of};
use crate::state::{Frame, State, TopState};
use infermark_backend::BackendError;
use infermark_cpu_kernels::{Kernel, Simd};
use infermark_model::Site;
use infermark_model::svi::LossAndGradient;
use infermark_svi::{Decision, Piece, ReplicaLink};
use std::ops::Range;
use std::sync::PoisonError;

impl<I: Simd> State<I> {
    /// Iterates on `threads` threads until `piece` is over, as [`State::iterate`] does.
    pub(crate) fn iterate_replica(
        &self,
        threads: usize,
        link: &mut ReplicaLink,
        piece: &mut Piece<'_>,
    ) -> Result<(), BackendError> {
        self.with_team(threads, |phase| {
            loop {
                phase(CHUNKS);
                let mut log_weights = self.log_weights(None);
                let interrupted = link.all_reduce_log_weights(&mut log_weights, piece.is_interrupted())?;
                let weighted = self.weigh_particles(&log_weights);
                let decision = piece.record_at(
                    piece.seconds(),
                    weighted.loss,
                    weighted.effective_particles,
                    interrupted,
                );
                if decision == Decision::Discard {
                    return Ok(());
                }
                self.exchange_gradient(link, phase)?;
                self.step_hierarchy();
                self.advance_top(TopTask::Place);
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

    /// Loss and gradient at the current parameters, as [`State::loss_and_gradient`] finds them.
    pub(crate) fn loss_and_gradient_of_replica(
        &self,
        threads: usize,
        link: &mut ReplicaLink,
    ) -> Result<LossAndGradient, BackendError> {
        self.with_team(threads, |phase| {
            phase(CHUNKS);
            let mut log_weights = self.log_weights(None);
            link.all_reduce_log_weights(&mut log_weights, false)?;
            let weighted = self.weigh_particles(&log_weights);
            self.exchange_gradient(link, phase)?;
            let mut gradient = self.empty_guide();
            let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
            self.with_frame(|frame| {
                self.chunks.for_each(|_, chunk| {
                    let share = &frame.gradient[chunk.place.clone()];
                    let (of_elasticity, of_effect) = share.split_at(share.len() / 2);
                    chunk.elasticity.copy_share(of_elasticity, &mut gradient);
                    chunk.effect.copy_share(of_effect, &mut gradient);
                });
                self.each_hierarchy_block(&mut top, |block, place| {
                    block.copy_share(&frame.gradient[place], &mut gradient);
                });
            });
            if let Some(by_u) = &mut gradient.unconstrained_centredness {
                *by_u = top.by_centredness;
            }
            Ok(LossAndGradient {
                log_weights,
                weighted,
                gradient,
            })
        })
    }

    /// Computes the share of this shard and adds up those of all, once the particles are weighed.
    fn exchange_gradient(
        &self,
        link: &mut ReplicaLink,
        phase: &mut dyn FnMut(usize),
    ) -> Result<(), BackendError> {
        phase(CATEGORIES_BACK);
        self.advance_top(TopTask::Back);
        phase(SHARES);
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        let frame = &mut *frame;
        self.chunks.for_each(|_, chunk| {
            frame.gradient[chunk.place.clone()].copy_from_slice(&chunk.share);
        });
        let (gradient, weights, isa) = (&mut frame.gradient, &frame.weights, self.isa);
        let end = self.each_hierarchy_block(&mut top, |block, place| {
            block.write_share(isa, weights, &mut gradient[place]);
        });
        if self.learns_centredness() {
            gradient[end..].copy_from_slice(&top.by_centredness.reparameterized());
        }
        link.all_reduce_gradient(gradient)?;
        if self.learns_centredness() {
            for (site, by) in Site::REPARAMETERIZED.into_iter().zip(&gradient[end..]) {
                top.by_centredness[site] = *by;
            }
        }
        Ok(())
    }

    /// Makes the hierarchy's step; that of the products is pending from then on.
    fn step_hierarchy(&self) {
        let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        self.isa.vectorize(HierarchyStep {
            state: self,
            frame: &mut frame,
            top: &mut top,
        });
        frame.iteration += 1;
        frame.step_pending = true;
    }

    /// Calls `f` with the blocks above the products and their places in the gradient, behind the products'. Returns where the last ends.
    #[inline(always)]
    fn each_hierarchy_block(
        &self,
        top: &mut TopState<I::Scalar>,
        mut f: impl FnMut(&mut Block<I::Scalar>, Range<usize>),
    ) -> usize {
        let mut end = 4 * self.layout.products;
        let mut visit = |block: &mut Block<I::Scalar>| {
            let start = end;
            end += 2 * block.len();
            f(block, start..end);
        };
        for index in 0..self.categories.len() {
            let mut category = self.categories.write(index);
            visit(&mut category.time);
            if let Some(contrasts) = &mut category.contrasts {
                visit(&mut contrasts.level);
            }
        }
        visit(&mut top.category);
        visit(&mut top.global);
        if let Some(log_shape) = &mut top.log_shape {
            visit(log_shape);
        }
        end
    }
}

/// The step of everything above the products.
struct HierarchyStep<'a, I: Simd> {
    state: &'a State<I>,
    frame: &'a mut Frame,
    top: &'a mut TopState<I::Scalar>,
}

impl<I: Simd> Kernel<I> for HierarchyStep<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let HierarchyStep { state, frame, top } = self;
        let step = step_of(state, frame);
        state.each_hierarchy_block(top, |block, place| {
            block.step_by(isa, &step, &frame.gradient[place]);
        });
        step_centredness(state, frame, top);
    }
}
