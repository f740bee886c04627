//! The iterations of a run: batches of launches, and the losses read between them.

use crate::fused::engine::{LOG_ENTRIES, Machine};
use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_svi::{Decision, GuideState, Iterate, Piece};
use std::time::Duration;

/// How long a batch lasts: reading its losses waits for the device, so it should be rare; an interruption or
/// an early stop takes effect between batches, so it should be short.
const BATCH: Duration = Duration::from_millis(50);

/// Iterations in batches whose size follows the time that they take.
pub(crate) struct Batches {
    machine: Box<dyn Machine>,
    batch: u64,
}

impl Batches {
    /// Those of a machine whose first iteration is placed.
    pub(crate) fn new(machine: Box<dyn Machine>) -> Self {
        Batches { machine, batch: 1 }
    }
}

impl Iterate for Batches {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let mut decision = Decision::Continue;
        while decision == Decision::Continue {
            let from = piece.seconds();
            let count = self.batch.min(piece.decides_in()).min(piece.left());
            let outcomes = self.machine.iterate(count as u32)?;
            let batch_seconds = piece.seconds() - from;
            let interrupted = piece.is_interrupted();
            let last = outcomes.len() - 1;
            for (i, outcome) in outcomes.iter().enumerate() {
                // What the batch has done is done: the run stops at its end, whatever iteration gave the reason.
                let answer = piece.record_at(
                    from + batch_seconds * (i + 1) as f64 / outcomes.len() as f64,
                    outcome.loss,
                    outcome.effective_particles,
                    interrupted && i == last,
                );
                if answer != Decision::Continue {
                    decision = answer;
                }
                if answer == Decision::Discard {
                    break;
                }
            }
            let ratio = BATCH.as_secs_f64() / batch_seconds.max(1e-6);
            let next = (count as f64 * ratio.clamp(0.5, 4.0)) as u64;
            self.batch = next.clamp(1, u64::from(LOG_ENTRIES));
        }
        self.machine.settle()
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        self.machine.guide()
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        self.machine.state().map(Some)
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        self.machine.restore(state, completed as u32)?;
        Ok(true)
    }
}
