//! Warnings of SVI.

use crate::error::BackendError;
use crate::remedy::{Remedy, Setting};
use std::fmt;

/// A warning of SVI.
#[derive(Debug, Clone, PartialEq)]
pub enum SviWarning {
    /// The loss of this iteration is not finite; its step was left out.
    NotFinite {
        /// The iteration, from 1.
        iteration: u64,
    },
    /// The run failed.
    Failed {
        /// Iterations completed before.
        completed: u64,
        /// Why.
        error: BackendError,
    },
    /// The run is not at its end.
    Unfinished {
        /// Iterations completed.
        completed: u64,
        /// Iterations asked for.
        iterations: u64,
    },
    /// The criterion of the early stop was not met.
    StillFalling,
    /// The state could not be read from the device.
    DeviceLost(BackendError),
}

impl SviWarning {
    pub(super) fn remedies(&self) -> Vec<Remedy> {
        match self {
            SviWarning::StillFalling => vec![Remedy::Raise(Setting::Iterations)],
            // An error ends with its own.
            SviWarning::NotFinite { .. }
            | SviWarning::Failed { .. }
            | SviWarning::Unfinished { .. }
            | SviWarning::DeviceLost(_) => Vec::new(),
        }
    }

    pub(super) fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SviWarning::NotFinite { iteration } => write!(
                f,
                "The loss left the finite numbers at iteration {iteration}, whose step was left out"
            ),
            SviWarning::Failed { completed, error } => {
                write!(f, "The run failed after iteration {completed}: {error}")
            }
            SviWarning::Unfinished {
                completed,
                iterations,
            } => write!(f, "Unfinished: {completed} of {iterations} iterations were done"),
            SviWarning::StillFalling => f.write_str(
                "The loss was still falling at the last iteration: means may be a part of a standard deviation and more from where \
                 they belong",
            ),
            SviWarning::DeviceLost(error) => {
                write!(f, "The device no longer answers: {error}")
            }
        }
    }
}
