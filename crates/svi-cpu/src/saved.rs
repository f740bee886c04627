//! The state of a run written out for a checkpoint, and put back.

use crate::block::Block;
use crate::state::{State, TopState};
use infermark_cpu_kernels::Simd;
use infermark_model::guide::Guide;
use infermark_model::optimizer::Moments;
use infermark_model::{Centredness, PerSite};
use infermark_svi::GuideState;
use std::sync::PoisonError;

impl<S> TopState<S> {
    /// Its blocks.
    fn blocks_mut(&mut self) -> impl Iterator<Item = &mut Block<S>> {
        [&mut self.category, &mut self.global]
            .into_iter()
            .chain(&mut self.log_shape)
    }
}

impl<I: Simd> State<I> {
    /// The guide's parameters and the optimizer's moments, between iterations. Entries of products of other shards are 0.
    pub(crate) fn saved(&self) -> GuideState {
        let mut state = GuideState::filled_with(&self.empty_guide());
        self.chunks.for_each(|_, chunk| {
            chunk.elasticity.write_state(&mut state);
            chunk.effect.write_state(&mut state);
        });
        self.categories.for_each(|_, category| {
            category.time.write_state(&mut state);
            if let Some(contrasts) = &category.contrasts {
                contrasts.write_state(&mut state);
            }
        });
        let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
        top.blocks_mut().for_each(|block| block.write_state(&mut state));
        let moments = &top.centredness_moments;
        let values = [
            top.unconstrained_centredness,
            PerSite::from_fn(|site| moments[site].first),
            PerSite::from_fn(|site| moments[site].second),
        ];
        for (part, values) in state.parts_mut().into_iter().zip(values) {
            if let Some(of_part) = &mut part.unconstrained_centredness {
                *of_part = values;
            }
        }
        state
    }

    /// Puts `state` in place, as of `completed` iterations, and prepares the next.
    pub(crate) fn restore(&self, state: &GuideState, completed: u32) {
        self.chunks.for_each(|_, chunk| {
            chunk.elasticity.read_state(state);
            chunk.effect.read_state(state);
        });
        self.categories.for_each(|_, category| {
            category.time.read_state(state);
            if let Some(contrasts) = &mut category.contrasts {
                contrasts.read_state(state);
            }
        });
        {
            let mut top = self.top.write().unwrap_or_else(PoisonError::into_inner);
            top.blocks_mut().for_each(|block| block.read_state(state));
            let mut frame = self.frame.write().unwrap_or_else(PoisonError::into_inner);
            frame.iteration = completed;
            if let Some(batches) = &mut frame.batches {
                let steps = batches.steps(completed);
                self.chunks.for_each(|index, chunk| chunk.steps = steps[index]);
            }
            let of = |part: &Guide| part.unconstrained_centredness;
            if let [Some(u), Some(first), Some(second)] = state.parts().map(of) {
                top.unconstrained_centredness = u;
                top.centredness_moments = PerSite::from_fn(|site| Moments {
                    first: first[site],
                    second: second[site],
                });
                frame.transforms = Centredness::from_unconstrained(&u).transforms(&self.priors);
            }
        }
        self.place_first();
    }
}
