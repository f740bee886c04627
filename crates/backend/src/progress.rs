//! Where a run is.

use serde::{Deserialize, Serialize};

/// What one step of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepUnit {
    /// An iteration of an optimizer.
    Iterations,
    /// A draw of one chain, warm-up included.
    Draws,
    /// A Newton step, or one of a fixed-point iteration.
    Steps,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// It can be advanced.
    Running,
    /// It did all steps that were asked for.
    Finished,
    /// It met its convergence criterion earlier.
    Converged,
    /// It was interrupted; it can be advanced further.
    Interrupted,
    /// It cannot go on.
    Failed,
}

impl RunState {
    /// Whether the run has come to its end by itself.
    pub const fn is_complete(self) -> bool {
        matches!(self, RunState::Finished | RunState::Converged)
    }
}

/// The progress of a run at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub completed: u64,
    /// Steps asked for.
    pub total: u64,
    /// What a step is.
    pub unit: StepUnit,
    /// State of the run.
    pub state: RunState,
    /// One line for the progress bar: the loss and effective particles, or depths and divergences.
    pub note: String,
}
