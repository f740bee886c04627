//! The Gaussian with the arrow's precision that maximizes the evidence lower bound.
//!
//! For `q = Normal(m, Q^-1)` the mean of a row's log likelihood is `y eta - exp(eta + v / 2) - ln y!`, `eta` and `v` mean and
//! variance of the log rate; the clip is ignored. Where the bound is stationary its precision is the arrow matrix
//! of the weights `exp(eta + v / 2)` and its gradient by `m` vanishes; both are iterated together.
//!
//! Source: Ormerod and Wand, "Gaussian variational approximate inference for generalized linear mixed models", 2012.

use crate::newton::{ModeError, ModeSettings, find_mode};
use crate::rates::at_point;
use infermark_arrow::{ArrowFactor, Marginals, ProductMoments};
use infermark_model::Panel;
use infermark_model::priors::Priors;
use std::sync::Arc;

/// When the iteration ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StructuredSettings {
    /// Fixed-point steps at most.
    pub steps: usize,
    /// The fit is found when no mean moves by more than this many of its standard deviations, nor any log standard
    /// deviation by more than this.
    pub tolerance: f64,
    /// The search for the mode that it starts from.
    pub mode: ModeSettings,
}

impl Default for StructuredSettings {
    fn default() -> Self {
        StructuredSettings {
            steps: 100,
            tolerance: 1e-6,
            mode: ModeSettings::default(),
        }
    }
}

/// The fit.
#[derive(Debug)]
pub struct StructuredFit {
    /// Means of the natural parameters, in the order of [`infermark_model::Layout`].
    pub mean: Vec<f64>,
    /// Their marginal second moments.
    pub marginals: Marginals,
    /// The evidence lower bound, without Monte Carlo error; the clip is ignored.
    pub elbo: f64,
    /// Fixed-point steps made.
    pub steps: usize,
    /// Whether the last step was within the tolerance.
    pub converged: bool,
    /// The precision.
    pub factor: ArrowFactor,
}

/// Half the variance of every row's log rate under the factor's Gaussian, in the panel's order.
fn half_variances(panel: &Panel, factor: &ArrowFactor) -> Vec<f64> {
    let of_product = |i: usize, moments: ProductMoments<'_>| -> Vec<f64> {
        panel
            .product_rows(i)
            .map(|row| {
                let (x, t) = (row.log_price, row.period);
                let own = x * x * moments.elasticity + 2.0 * x * moments.covariance + moments.effect;
                let with = x * moments.elasticity_with_periods[t] + moments.effect_with_periods[t];
                0.5 * (own + 2.0 * with + moments.periods[t])
            })
            .collect()
    };
    factor.for_each_product(of_product).concat()
}

/// Fits the Gaussian, starting from the mode.
///
/// # Errors
/// When a precision is not positive definite or the bound is not finite.
pub fn fit_structured(
    panel: &Arc<Panel>,
    priors: &Priors,
    settings: &StructuredSettings,
) -> Result<StructuredFit, ModeError> {
    let threads = settings.mode.threads;
    let mode = find_mode(panel, priors, &settings.mode)?;
    let (mut mean, mut factor) = (mode.point, mode.factor);
    let mut marginals = factor.marginals();
    let mut steps = 0;
    loop {
        let half = half_variances(panel, &factor);
        let here = at_point(panel, priors, &mean, Some(&half), threads);
        if !here.value.is_finite() {
            return Err(ModeError::NotFinite(here.value, steps));
        }
        // tr(Q Sigma) = L, of which the rows have sum w v; the rest is the priors' part of the mean log prior.
        let latents = mean.len() as f64;
        let of_rows: f64 = here.weights.iter().zip(&half).map(|(w, h)| 2.0 * w * h).sum();
        let next = ArrowFactor::new(panel, *priors, &here.weights, threads)?;
        let mut step = here.gradient;
        next.solve(&mut step);
        let next_marginals = next.marginals();
        let moved = step
            .iter()
            .zip(&next_marginals.variance)
            .map(|(s, v)| s.abs() / v.sqrt())
            .chain(
                next_marginals
                    .variance
                    .iter()
                    .zip(&marginals.variance)
                    .map(|(new, old)| 0.5 * (new / old).ln().abs()),
            )
            .fold(0.0, f64::max);
        mean.iter_mut().zip(&step).for_each(|(m, s)| *m += s);
        (factor, marginals) = (next, next_marginals);
        steps += 1;
        let converged = moved < settings.tolerance;
        if converged || steps == settings.steps {
            let entropy = 0.5 * latents * (1.0 + (2.0 * std::f64::consts::PI).ln()) - 0.5 * factor.ln_det();
            return Ok(StructuredFit {
                mean,
                marginals,
                elbo: here.value - 0.5 * (latents - of_rows) + entropy,
                steps,
                converged,
                factor,
            });
        }
    }
}
