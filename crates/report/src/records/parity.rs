//! The result of comparing a backend with the reference.

use infermark_backend::Precision;
use infermark_model::Likelihood;
use serde::{Deserialize, Serialize};

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityCheck {
    /// What was compared, and where.
    pub quantity: String,
    /// Relative error; `None` when the backend's value is not a finite number.
    pub error: Option<f64>,
    /// Largest error that passes.
    pub tolerance: f64,
    /// Whether it passed.
    pub passed: bool,
}

/// All comparisons of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParityRecord {
    /// On which rows: the panel itself, or a part of it.
    pub panel: String,
    /// Their number.
    pub rows: usize,
    /// Precision whose tolerances hold.
    pub precision: Precision,
    /// Likelihood under which it was compared; records from before this field existed are Poisson.
    #[serde(default)]
    pub likelihood: Likelihood,
    /// What was compared, in words.
    #[serde(default)]
    pub compared: String,
    /// The comparisons.
    pub checks: Vec<ParityCheck>,
    /// Largest relative error of the log joint; none for the variational Gaussian methods, whose runs do not
    /// end there.
    pub log_joint_relative_error: Option<f64>,
    /// Largest norm-wise relative error of the log joint's gradient, or of the evidence lower bound's.
    pub gradient_relative_error: Option<f64>,
    /// Relative error of the loss; for the variational Gaussian methods that of the evidence lower bound.
    pub loss_relative_error: Option<f64>,
    /// Largest error of a difference between two log-weights, in nats.
    pub log_weight_error: Option<f64>,
}

impl ParityRecord {
    /// Whether every comparison passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }

    /// What did not pass, in words.
    pub fn failures(&self) -> String {
        let failures: Vec<String> = self
            .checks
            .iter()
            .filter(|c| !c.passed)
            .map(|c| match c.error {
                Some(error) => format!(
                    "{} is off by {error:.1e}, allowed {:.0e}",
                    c.quantity, c.tolerance
                ),
                None => format!("{} is not a finite number", c.quantity),
            })
            .collect();
        failures.join("; ")
    }

    /// Adds a comparison; returns its error where that is a finite number.
    pub fn check(&mut self, quantity: String, error: f64, tolerance: f64) -> Option<f64> {
        let error = error.is_finite().then_some(error);
        self.checks.push(ParityCheck {
            quantity,
            error,
            tolerance,
            passed: error.is_some_and(|e| e <= tolerance),
        });
        error
    }
}
