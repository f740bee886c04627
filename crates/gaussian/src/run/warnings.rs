//! Reasons not to trust a run.

use super::GaussianRun;
use crate::skewness::MOST_SHIFT;
use infermark_backend::{GaussianWarning, Method, Warning};
use infermark_model::Coordinates;

/// Fraction of the rows near the lower clip bound beyond which there is a warning.
const MOST_NEAR_LOWER_BOUND: f64 = 0.05;

/// Distance of the mode from a mean, in standard deviations, from which on the correction may miss a tenth of
/// a standard deviation.
const NOTICED_SHIFT: f64 = 0.75;

/// Largest number of products and categories that a warning names.
const NAMED: usize = 5;

impl GaussianRun {
    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = Vec::new();
        let layout = self.counts.layout();
        if !self.report.converged {
            let not_converged = GaussianWarning::NotConverged {
                state: self.state,
                newton_steps: self.report.newton_steps,
                variational_steps: self.report.variational_steps,
                has_posterior: self.posterior.is_some(),
            };
            warnings.push(not_converged.into());
        }
        if self.uses_fallback_curvature {
            warnings.push(GaussianWarning::Indefinite.into());
        }
        if self.mean_shift > MOST_SHIFT {
            warnings.push(GaussianWarning::TooSkewed.into());
        } else if self.mean_shift > NOTICED_SHIFT {
            warnings.push(GaussianWarning::ShiftedMode { by: self.mean_shift }.into());
        }
        if self.lone_categories > 0 {
            let lone = GaussianWarning::LoneCategories {
                lone: self.lone_categories,
                categories: layout.categories,
            };
            warnings.push(lone.into());
        }
        if let Some(shift) = &self.shape_shift {
            let label = self.counts.panel().categories().get(shift.category);
            warnings.push(shift.warning(label, layout.categories).into());
        }
        if self.near_lower_bound > MOST_NEAR_LOWER_BOUND {
            let share = self.near_lower_bound;
            warnings.push(GaussianWarning::NearLowerBound { share }.into());
        }
        let left_out = &self.report.left_out_products;
        if !left_out.is_empty() {
            let products = self.counts.panel().products();
            let first = left_out.iter().take(NAMED);
            let left_out = GaussianWarning::LeftOut {
                left_out: left_out.len(),
                products: layout.products,
                named: first.map(|i| products.get(*i).to_string()).collect(),
            };
            warnings.push(left_out.into());
        }
        if let Method::Meanfield(settings) = &self.request.method
            && settings.coordinates == Coordinates::Published
        {
            warnings.push(Warning::MeanField);
        }
        warnings
    }
}
