//! The iterations that a run drives.

use crate::state::State;
use infermark_backend::BackendError;
use infermark_cpu_kernels::Simd;
use infermark_model::guide::Guide;
use infermark_svi::{Iterate, Piece};

/// The iterations of a state, on a team of threads.
pub(crate) struct Iterations<I: Simd> {
    /// Its first iteration is placed.
    pub(crate) state: State<I>,
    /// Threads that it can use.
    pub(crate) threads: usize,
}

impl<I: Simd> Iterate for Iterations<I> {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        self.state.iterate(self.threads, |weighted| {
            piece.record(weighted.loss, weighted.effective_particles)
        });
        Ok(())
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        Ok(self.state.guide())
    }
}
