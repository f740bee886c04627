//! What every SVI backend shares: where noise comes from, when a run has converged, and a run's books.

mod convergence;
mod ledger;
mod log_joint;
mod noise_source;

use infermark_backend::{BackendError, Posterior, Run};
use infermark_model::Likelihood;
use infermark_model::guide::Guide;
use infermark_model::panel::Panel;
use infermark_model::parameterization::Parameterization;
use infermark_model::priors::Priors;

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

/// The posterior that a guide stands for.
///
/// # Errors
/// [`BackendError::NoPosterior`] when a moment is not finite.
pub fn posterior_of(
    guide: &Guide,
    panel: &Panel,
    likelihood: Likelihood,
    priors: &Priors,
    parameterization: Parameterization,
) -> Result<Posterior, BackendError> {
    let (mean, sd) = guide.natural_moments(panel, likelihood, priors, parameterization);
    if !mean.iter().chain(&sd).all(|m| m.is_finite()) {
        return Err(BackendError::NoPosterior(
            "parameters of the guide are not finite; try a lower learning rate, or --precision f64".into(),
        ));
    }
    Ok(Posterior::normal(panel.layout_for(likelihood), mean, sd))
}
