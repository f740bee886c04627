//! The limit of the machine's memory.

use serde::{Deserialize, Serialize};

/// The measured limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// Bytes per second that all threads together read from memory, the best of the passes.
    pub read_bytes_per_second: f64,
    /// Threads that read.
    pub threads: usize,
    /// Bytes that they read in a pass, all together; far more than the caches hold.
    pub array_bytes: usize,
}
