//! The state of a run, to go on from later.

use serde::{Deserialize, Serialize};

/// The state of a run between two calls of [`Run::advance`](crate::Run::advance), from which
/// [`Backend::resume`](crate::Backend::resume) goes on, in another process as well. Panel and request are not in it: whoever
/// resumes gives them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Name of the backend that wrote it; no other reads it.
    pub backend: String,
    /// Version of the state's format, the backend's own.
    pub format: u32,
    /// Steps done.
    pub completed: u64,
    /// The state, in the backend's format.
    pub state: Vec<u8>,
}
