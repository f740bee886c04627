//! The posterior mode by damped Newton steps.

use crate::rates::{AtPoint, at_point, start};
use infermark_arrow::{ArrowFactor, FactorError};
use infermark_model::Panel;
use infermark_model::priors::Priors;
use std::sync::Arc;

/// When a search for the mode ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModeSettings {
    /// Newton steps at most.
    pub steps: usize,
    /// The mode is found when half the squared Newton decrement, the log density still to be gained, is below this.
    pub tolerance: f64,
    /// Threads.
    pub threads: usize,
}

impl Default for ModeSettings {
    fn default() -> Self {
        ModeSettings {
            steps: 50,
            tolerance: 1e-9,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

/// Why there is no mode.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModeError {
    /// The precision could not be factored.
    #[error(transparent)]
    Factor(#[from] FactorError),
    /// The log joint is not finite.
    #[error("the log joint is {0} at step {1}")]
    NotFinite(f64, usize),
}

/// The mode, and the factor of the precision there.
#[derive(Debug)]
pub struct Mode {
    /// Natural parameters, in the order of [`infermark_model::Layout`].
    pub point: Vec<f64>,
    /// The log joint.
    pub log_joint: f64,
    /// Norm of its gradient.
    pub gradient_norm: f64,
    /// Half the squared Newton decrement, `g' Q^-1 g / 2`, at the point.
    pub decrement: f64,
    /// Newton steps made.
    pub steps: usize,
    /// Whether the decrement is within the tolerance.
    pub converged: bool,
    /// The precision at the point.
    pub factor: ArrowFactor,
}

/// Finds the mode.
///
/// # Errors
/// When a precision is not positive definite or the log joint is not finite.
pub fn find_mode(panel: &Arc<Panel>, priors: &Priors, settings: &ModeSettings) -> Result<Mode, ModeError> {
    let evaluate = |point: &[f64]| at_point(panel, priors, point, None, settings.threads);
    let mut point = start(panel, priors);
    let mut here = evaluate(&point);
    let mut steps = 0;
    loop {
        if !here.value.is_finite() {
            return Err(ModeError::NotFinite(here.value, steps));
        }
        let AtPoint {
            weights,
            value,
            gradient,
        } = here;
        let factor = ArrowFactor::new(panel, *priors, &weights, settings.threads)?;
        let mut step = gradient.clone();
        factor.solve(&mut step);
        let slope: f64 = step.iter().zip(&gradient).map(|(s, g)| s * g).sum();
        let decrement = 0.5 * slope;
        let converged = decrement < settings.tolerance;
        if converged || steps == settings.steps {
            return Ok(Mode {
                point,
                log_joint: value,
                gradient_norm: gradient.iter().map(|g| g * g).sum::<f64>().sqrt(),
                decrement,
                steps,
                converged,
                factor,
            });
        }
        drop(factor);
        // Halve until the log joint rises by a part of what the slope promises.
        let mut length = 1.0;
        here = loop {
            let there: Vec<f64> = point.iter().zip(&step).map(|(p, s)| p + length * s).collect();
            let found = evaluate(&there);
            // Below this the sums' own rounding decides.
            if found.value >= value + 1e-4 * length * slope - 1e-12 * value.abs() || length < 1e-6 {
                point = there;
                break found;
            }
            length *= 0.5;
        };
        steps += 1;
    }
}
