//! Warnings of the Gaussian methods.

use crate::method_kind::MethodKind;
use crate::progress::RunState;
use crate::remedy::{Remedy, Setting};
use std::fmt;

/// A warning of a Gaussian method.
#[derive(Debug, Clone, PartialEq)]
pub enum GaussianWarning {
    /// The last step was not within the tolerance.
    NotConverged {
        /// State of the run.
        state: RunState,
        /// Newton steps.
        newton_steps: u64,
        /// Variational steps.
        variational_steps: u64,
        /// Whether there is a posterior nevertheless.
        has_posterior: bool,
    },
    /// The precision is not positive definite along the shape of a category.
    Indefinite,
    /// The mode is far from the mean, which is corrected to first order.
    ShiftedMode {
        /// The largest distance, in standard deviations.
        by: f64,
    },
    /// The mode is too far from the mean for a correction.
    TooSkewed,
    /// Categories of one product with few sales.
    LoneCategories {
        /// Such categories.
        lone: usize,
        /// All categories.
        categories: usize,
    },
    /// The joint mode has other shapes than the posterior.
    ShapeShift(ShapeShiftWarning),
    /// Rows have rates near the lower clip bound or below it.
    NearLowerBound {
        /// Their share of all rows.
        share: f64,
    },
    /// Products are left out because of counts at the upper clip bound.
    LeftOut {
        /// Such products.
        left_out: usize,
        /// All products.
        products: usize,
        /// Names of the first of them.
        named: Vec<String>,
    },
}

/// The category whose log shape at the joint mode is farthest from its mean over the posterior of the log rates.
#[derive(Debug, Clone, PartialEq)]
pub struct ShapeShiftWarning {
    /// The category's label.
    pub category: String,
    /// Estimate of the mean less the mode of the log shape; too large where its size is above `known`.
    pub by: f64,
    /// The largest size that is known.
    pub known: f64,
    /// The same in standard deviations.
    pub in_sds: f64,
    /// How much too wide intervals of rates and elasticities are there, as a fraction; too narrow where negative.
    pub too_wide: f64,
    /// Categories that are off by half a standard deviation or more.
    pub shifted: usize,
    /// All categories.
    pub categories: usize,
}

impl GaussianWarning {
    pub(super) fn remedies(&self) -> Vec<Remedy> {
        let nuts = Remedy::method(MethodKind::Nuts);
        let structured = Remedy::method(MethodKind::StructuredVi);
        match self {
            GaussianWarning::NotConverged {
                state: RunState::Finished,
                ..
            } => vec![Remedy::Raise(Setting::Steps), nuts],
            GaussianWarning::NotConverged { .. } => Vec::new(),
            GaussianWarning::ShiftedMode { .. } | GaussianWarning::ShapeShift(_) => vec![structured],
            GaussianWarning::TooSkewed => vec![structured, nuts],
            GaussianWarning::Indefinite
            | GaussianWarning::LoneCategories { .. }
            | GaussianWarning::NearLowerBound { .. } => vec![nuts],
            GaussianWarning::LeftOut { .. } => vec![nuts, Remedy::Raise(Setting::ClipHigh)],
        }
    }

    pub(super) fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GaussianWarning::NotConverged {
                state,
                newton_steps,
                variational_steps,
                has_posterior,
            } => {
                let what = match state {
                    RunState::Finished => "the limit of steps was met",
                    RunState::Failed => "the search failed",
                    _ => "the run was stopped",
                };
                let found = if *has_posterior {
                    "means and intervals are not to be trusted"
                } else {
                    "there is no posterior yet"
                };
                write!(
                    f,
                    "Not converged: {what} after {newton_steps} Newton and {variational_steps} variational steps; {found}"
                )
            }
            GaussianWarning::Indefinite => f.write_str(
                "The precision where the search ended is not positive definite along the shape of a category, and the size of that \
                 curvature stands in for it: the intervals are not to be trusted",
            ),
            GaussianWarning::ShiftedMode { by } => write!(
                f,
                "The mode of category and period effects is up to {by:.1} standard deviations from their mean, for which means are \
                 corrected to first order. Of that a tenth to a quarter may be left out; the means of structured-vi need no such \
                 correction"
            ),
            GaussianWarning::TooSkewed => f.write_str(
                "The posterior is too skewed for an expansion about its mode: means and intervals are those of the normal at the mode, \
                 not corrected, and not to be trusted",
            ),
            GaussianWarning::LoneCategories { lone, categories } => write!(
                f,
                "{lone} of {categories} categories have one product, of few sales. There the skewness of the posterior is corrected \
                 less well: period effects may be off by 0.3 standard deviations, and where most categories are such, global_a and \
                 category_a by 0.15; NUTS has no such error"
            ),
            GaussianWarning::ShapeShift(shift) => shift.write_facts(f),
            GaussianWarning::NearLowerBound { share } => write!(
                f,
                "{:.0}% of the rows have rates near the lower bound of the log rate or below it. The Gaussian methods do not know \
                 that bound, NUTS does: where most rows of a product are near it, its intervals are not to be trusted",
                100.0 * share
            ),
            GaussianWarning::LeftOut {
                left_out,
                products,
                named,
            } => write!(
                f,
                "{left_out} of {products} products have counts at the upper bound of the log rate ({}{}), which say only that it is \
                 above. For such a product the Gaussian methods use only that its highest count is at the bound, and leave out all of \
                 its rows, which NUTS uses: its own elasticity is no more than its category's, the other products are not biased by it",
                named.join(", "),
                if *left_out > named.len() { ", ..." } else { "" }
            ),
        }
    }
}

impl ShapeShiftWarning {
    fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, many) = (self.by > 0.0, self.by.abs() > self.known);
        let direction = if low { "low" } else { "high" };
        write!(
            f,
            "The joint mode is not where the shapes are: its log shape of {} is too {direction} ",
            self.category
        )?;
        if many {
            write!(f, "by more than {}", self.known)?;
        } else {
            write!(
                f,
                "by about {:.2}, {:.1} of its standard deviations",
                self.by.abs(),
                self.in_sds
            )?;
        }
        write!(
            f,
            ", compared with the mean over the posterior of the log rates ({} of {} categories are off by half a standard deviation \
             or more); ",
            self.shifted, self.categories
        )?;
        let percent = (100.0 * self.too_wide.abs()).round();
        if percent < 1.0 {
            f.write_str("the rates and elasticities hardly depend on it there")?;
        } else {
            write!(
                f,
                "intervals of rates and elasticities are too {} there, by {}{percent:.0}%",
                if self.too_wide > 0.0 { "wide" } else { "narrow" },
                if many { "more than " } else { "about " },
            )?;
        }
        f.write_str(
            ". There are few rows for each parameter, which are fitted to the rows' own scatter; structured-vi averages",
        )
    }
}
