//! The common parts of all SVI backends: the source of noise, the convergence criterion, the recorder of a
//! run, and the run behind the trait, which drives an implementation of [`Iterate`] on some hardware.

mod chart;
mod convergence;
mod guide_state;
mod log_joint;
mod noise_source;
mod recorder;
mod replica;
mod run;
mod shard;

use infermark_backend::{BackendError, Run};
use infermark_model::guide::Guide;

pub use chart::Chart;
pub use convergence::ConvergenceWatch;
pub use guide_state::GuideState;
pub use log_joint::log_joint_of;
pub use noise_source::{NoiseSource, Recording};
pub use recorder::{Decision, RunRecorder};
pub use replica::ReplicaLink;
pub use run::{Follower, Iterate, Piece, RunSetup, SavedRun, SviRun};
pub use shard::{Link, ShardEngine, ShardIterate, ShardSetup, Sums};

/// A run whose guide can be read, which is needed to follow another implementation.
pub trait GuidedRun: Run {
    /// The guide's parameters now.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    fn guide(&self) -> Result<Guide, BackendError>;
}
