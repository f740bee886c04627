//! Settings of the Gaussian methods.

use crate::error::BackendError;
use infermark_model::Coordinates;
use serde::{Deserialize, Serialize};

/// Settings of the Laplace approximation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaplaceSettings {
    /// Largest number of Newton steps.
    pub steps: u64,
    /// The mode is found when half the squared Newton decrement, the log density still to be gained, is below this.
    pub tolerance: f64,
    /// Whether means, and the marginals of products and periods with few sales, are corrected for skewness.
    pub skewness_correction: bool,
}

impl Default for LaplaceSettings {
    fn default() -> Self {
        LaplaceSettings {
            steps: 50,
            tolerance: 1e-9,
            skewness_correction: true,
        }
    }
}

impl LaplaceSettings {
    pub(super) fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

/// Settings of structured Gaussian VI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StructuredViSettings {
    /// Largest number of steps, not counting those to the mode that the iteration starts from.
    pub steps: u64,
    /// The optimum is found when no mean moves by more than this many of its standard deviations in a step, nor any log
    /// standard deviation by more than this.
    pub tolerance: f64,
    /// Whether the marginals of products and periods with few sales are corrected for skewness.
    #[serde(default)]
    pub skewness_correction: bool,
}

impl Default for StructuredViSettings {
    fn default() -> Self {
        StructuredViSettings {
            steps: 500,
            tolerance: 1e-5,
            skewness_correction: true,
        }
    }
}

impl StructuredViSettings {
    pub(super) fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

/// Settings of the mean-field Gaussian whose bound has a closed form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanfieldSettings {
    /// As [`SviSettings::coordinates`](super::SviSettings::coordinates).
    #[serde(default)]
    pub coordinates: Coordinates,
    /// As [`StructuredViSettings::steps`].
    pub steps: u64,
    /// As [`StructuredViSettings::tolerance`].
    pub tolerance: f64,
}

impl Default for MeanfieldSettings {
    fn default() -> Self {
        MeanfieldSettings {
            coordinates: Coordinates::Published,
            steps: 500,
            tolerance: 1e-5,
        }
    }
}

impl MeanfieldSettings {
    pub(super) fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

fn check_steps(steps: u64, tolerance: f64) -> Result<(), BackendError> {
    if !(1..=1_000_000).contains(&steps) {
        return Err(BackendError::request(format!(
            "steps is {steps}; give 1 to 1000000"
        )));
    }
    if !(1e-12..1.0).contains(&tolerance) {
        return Err(BackendError::request(format!(
            "tolerance is {tolerance}; give a number from 1e-12 to below 1"
        )));
    }
    Ok(())
}
