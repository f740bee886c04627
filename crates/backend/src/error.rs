//! Why a backend did not do what was asked.

use crate::remedy::{Alternatives, Cause, Remedy, Setting};
use infermark_communicator::CommunicationError;
use infermark_memory::{Shortage, gigabytes};
use infermark_model::TooManyShards;
use infermark_processor::InstructionSetMissing;

/// An error of a backend.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// A setting out of its range: the request must change.
    #[error("{0}")]
    Request(Cause),
    /// The backend does not serve this method or device.
    #[error("backend {backend} cannot serve {what}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// The method or device asked for, and what is served instead.
        what: Cause,
    },
    /// The request does not fit in memory; it is refused before anything is allocated.
    #[error("{what} needs {}, and {device} leaves {}; {}", gigabytes(*needed_bytes), gigabytes(*available_bytes), Alternatives(remedies))]
    Memory {
        /// What does not fit.
        what: String,
        /// The device, or the limit of this process's memory.
        device: String,
        /// Bytes needed.
        needed_bytes: u64,
        /// Bytes available.
        available_bytes: u64,
        /// What helps: alternatives, at least one.
        remedies: Vec<Remedy>,
    },
    /// The state is no longer finite, or the sampler cannot go on: the run is over, but its state stays
    /// readable.
    #[error("the run failed at step {step}: {reason}")]
    Diverged {
        /// Steps completed.
        step: u64,
        /// What happened and what to try.
        reason: Cause,
    },
    /// There is no posterior yet.
    #[error("there is no posterior yet: {0}")]
    NoPosterior(Cause),
    /// Another rank of the run has gone, or does not answer.
    #[error("{0}")]
    Communication(CommunicationError),
    /// The device failed.
    #[error("{device} failed: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Its message.
        reason: String,
    },
}

impl BackendError {
    /// The error for too little memory on the CPU.
    pub fn short_of_memory(shortage: Shortage, remedies: impl Into<Vec<Remedy>>) -> Self {
        BackendError::Memory {
            what: shortage.what,
            device: shortage.available.bound.to_string(),
            needed_bytes: shortage.needed_bytes,
            available_bytes: shortage.available.bytes,
            remedies: remedies.into(),
        }
    }

    /// The error of a system that does not start a thread for each shard.
    pub fn short_of_threads(error: &std::io::Error) -> Self {
        BackendError::request(format!(
            "a thread for each shard cannot be started ({error}); ask for fewer shards, or raise the limit of processes"
        ))
    }

    /// What made several ranks end with these results: why a rank has gone, rather than that it has gone.
    ///
    /// # Errors
    /// That one.
    pub fn first_cause<T>(ends: &[Result<T, BackendError>]) -> Result<(), BackendError> {
        let failures = || ends.iter().filter_map(|end| end.as_ref().err());
        let is_cause = |error: &&BackendError| !matches!(error, BackendError::Communication(_));
        match failures().find(is_cause).or_else(|| failures().next()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The error for a request that must change.
    pub fn request(cause: impl Into<Cause>) -> Self {
        BackendError::Request(cause.into())
    }

    /// What helps: alternatives, the best first. They end the error's text.
    pub fn remedies(&self) -> &[Remedy] {
        match self {
            BackendError::Request(cause) | BackendError::NoPosterior(cause) => &cause.remedies,
            BackendError::Unsupported { what, .. } => &what.remedies,
            BackendError::Diverged { reason, .. } => &reason.remedies,
            BackendError::Memory { remedies, .. } => remedies,
            BackendError::Communication(_) | BackendError::Device { .. } => &[],
        }
    }
}

impl From<CommunicationError> for BackendError {
    fn from(error: CommunicationError) -> Self {
        BackendError::Communication(error)
    }
}

impl From<TooManyShards> for BackendError {
    fn from(TooManyShards { shards, parts, cut }: TooManyShards) -> Self {
        BackendError::request(Cause::new(
            format!("{parts} {}s cannot be cut into {shards} shards", cut.name()),
            [Remedy::Lower(Setting::Shards)],
        ))
    }
}

impl From<InstructionSetMissing> for BackendError {
    fn from(missing: InstructionSetMissing) -> Self {
        BackendError::request(missing.to_string())
    }
}
