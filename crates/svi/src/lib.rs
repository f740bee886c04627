//! What every SVI backend shares: where noise comes from, when a run has converged, and a run's books.

mod chart;
mod convergence;
mod ledger;
mod log_joint;
mod noise_source;

use infermark_backend::{BackendError, Run};
use infermark_model::guide::Guide;

pub use chart::Chart;
pub use convergence::ConvergenceWatch;
pub use ledger::{Ledger, Verdict};
pub use log_joint::log_joint_of;
pub use noise_source::{NoiseSource, Recording};

/// A run whose guide can be read: what following another implementation needs beyond the trait.
pub trait GuidedRun: Run {
    /// The guide's parameters now.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    fn guide(&self) -> Result<Guide, BackendError>;
}
