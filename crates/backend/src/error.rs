//! Why a backend did not do what was asked.

/// An error of a backend.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// A setting out of its range: the request must change.
    #[error("{0}")]
    Request(String),
    /// The backend does not serve this method or device.
    #[error("backend {backend} cannot serve {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// The method or device asked for.
        what: String,
    },
    /// It does not fit: refused before anything was allocated.
    #[error("{what} needs {needed_bytes} bytes, and {device} has {available_bytes}")]
    Memory {
        /// What does not fit.
        what: String,
        /// Where.
        device: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes that are there.
        available_bytes: u64,
    },
    /// The state is no longer finite, or the sampler cannot go on: the run is over, what it had stays readable.
    #[error("the run failed at step {step}: {reason}")]
    Diverged {
        /// Steps completed.
        step: u64,
        /// What happened and what to try.
        reason: String,
    },
    /// There is no posterior yet.
    #[error("there is no posterior yet: {0}")]
    NoPosterior(String),
    /// The device failed.
    #[error("{device} failed: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Its message.
        reason: String,
    },
}
