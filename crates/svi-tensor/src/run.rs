//! The iterations that a run drives.

use crate::descent::Descend;
use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_svi::{Decision, Iterate, Piece};

/// Iteration after iteration. The log-weights are read after each, as a training loop does that watches its loss.
pub(crate) struct Descents(pub(crate) Box<dyn Descend>);

impl Iterate for Descents {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        loop {
            let weighted = self.0.iterate()?;
            if piece.record(weighted.loss, weighted.effective_particles) != Decision::Continue {
                return self.0.wait();
            }
        }
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        self.0.guide()
    }
}
