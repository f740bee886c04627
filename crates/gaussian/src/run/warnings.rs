//! Reasons not to trust a run.

use super::GaussianRun;
use crate::skewness::MOST_SHIFT;
use infermark_backend::{Method, RunState};
use infermark_model::Coordinates;

/// Fraction of the rows near the lower clip bound beyond which there is a warning.
const MOST_NEAR_LOWER_BOUND: f64 = 0.05;

/// Distance of the mode from a mean, in standard deviations, from which on the correction may miss a tenth of
/// a standard deviation.
const NOTICED_SHIFT: f64 = 0.75;

/// Largest number of products and categories that a warning names.
const NAMED: usize = 5;

impl GaussianRun {
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.report.converged {
            let (what, remedy) = match self.state {
                RunState::Finished => (
                    "the limit of steps was met",
                    " Raise --steps, or take --method nuts.",
                ),
                RunState::Failed => ("the search failed", ""),
                _ => ("the run was stopped", ""),
            };
            let found = if self.posterior.is_some() {
                "means and intervals are not to be trusted"
            } else {
                "there is no posterior yet"
            };
            warnings.push(format!(
                "Not converged: {what} after {} Newton and {} variational steps; {found}.{remedy}",
                self.report.newton_steps, self.report.variational_steps
            ));
        }
        if self.uses_fallback_curvature {
            warnings.push(
                "The precision where the search ended is not positive definite along the shape of a category, and the size of that \
                 curvature stands in for it: the intervals are not to be trusted; --method nuts needs no such precision."
                    .into(),
            );
        }
        if self.mean_shift > NOTICED_SHIFT {
            let by = self.mean_shift;
            warnings.push(if by <= MOST_SHIFT {
                format!(
                    "The mode of category and period effects is up to {by:.1} standard deviations from their mean, for which means are corrected \
                     to first order. Of that a tenth to a quarter may be left out: take --method structured-vi, whose means need no such \
                     correction."
                )
            } else {
                "The posterior is too skewed for an expansion about its mode: means and intervals are those of the normal at the mode, not \
                 corrected, and not to be trusted. Take --method structured-vi or nuts."
                    .to_owned()
            });
        }
        if self.lone_categories > 0 {
            warnings.push(format!(
                "{} of {} categories have one product, of few sales. There the skewness of the posterior is corrected less well: period effects may \
                 be off by 0.3 standard deviations, and where most categories are such, global_a and category_a by 0.15; --method nuts has no \
                 such error.",
                self.lone_categories,
                self.counts.layout().categories
            ));
        }
        if let Some(shift) = &self.shape_shift {
            let categories = self.counts.panel().categories();
            warnings.push(shift.warning(categories.get(shift.category), self.counts.layout().categories));
        }
        if self.near_lower_bound > MOST_NEAR_LOWER_BOUND {
            warnings.push(format!(
                "{:.0}% of the rows have rates near the lower bound of the log rate or below it. The Gaussian methods do not know \
                 that bound: where most rows of a product are near it, its intervals are not to be trusted; --method nuts has it.",
                100.0 * self.near_lower_bound
            ));
        }
        let left_out = &self.report.left_out_products;
        if !left_out.is_empty() {
            let names: Vec<String> = left_out
                .iter()
                .take(NAMED)
                .map(|i| self.counts.panel().products().get(*i).to_string())
                .collect();
            warnings.push(format!(
                "{} of {} products have counts at the upper bound of the log rate ({}{}), which say only that it is above. Of such a \
                 product the Gaussian methods take that its highest count is at the bound, and leave out all of its rows: its own \
                 elasticity is no more than its category's, the other products are not biased by it. --method nuts takes all rows; \
                 so does a larger clip_high.",
                left_out.len(),
                self.counts.layout().products,
                names.join(", "),
                if left_out.len() > NAMED { ", ..." } else { "" }
            ));
        }
        if let Method::Meanfield(settings) = &self.request.method
            && settings.coordinates == Coordinates::Published
        {
            warnings.push(
                "The Gaussian is mean-field: it ignores the correlations of the posterior, so its intervals are far too \
                 narrow where elasticities and effects are correlated; in orthogonal coordinates they are not \
                 (--coordinates orthogonal)."
                    .into(),
            );
        }
        warnings
    }
}
