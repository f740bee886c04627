//! The likelihood of one row.

use rand::Rng;

/// Units of a row stay below this.
pub(super) const UNITS_BOUND: f64 = (1u64 << 31) as f64;

/// The log likelihood of one count and its first derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowTerms {
    /// `ln p(y) + ln y!`: the constant of the counts is added once per panel.
    pub log_likelihood: f64,
    /// With respect to `eta`, the log of the mean rate.
    pub by_eta: f64,
    /// With respect to the likelihood's own parameter; 0 without one, and where it is held at a bound.
    pub by_parameter: f64,
}

/// Minus the second derivatives of the log likelihood of one count: the row's contribution to a precision.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RowWeight {
    /// Twice with respect to `eta`.
    pub by_eta: f64,
    /// With respect to `eta` and the likelihood's own parameter.
    pub cross: f64,
}

/// The distribution of a count given the log `eta` of its mean rate, including the parameter of its category.
///
/// This is the plain `f64` reference; fused kernels have their own loops and are compared with it. A
/// likelihood is a type that implements this, a variant of [`Likelihood`](super::Likelihood) and an arm of
/// [`Likelihood::visit`](super::Likelihood::visit).
pub trait RowLikelihood: Copy {
    /// The name in files and in the command.
    const NAME: &'static str;

    /// The name of the counts in tables and plots: "Poisson counts".
    const COUNTS: &'static str;

    /// A description of the counts, in one sentence for the command's help.
    const DESCRIPTION: &'static str;

    /// Whether the variance of a count is its mean rate.
    const IS_EQUIDISPERSED: bool;

    /// Mean and standard deviation of the likelihood's own parameter in panels of the published process,
    /// which has no priors; not used by a likelihood without one.
    const SYNTHETIC_PARAMETER: (f64, f64);

    /// The distribution as a formula: `Poisson(rate)` for the text `rate`.
    fn in_symbols(rate: &str) -> String;

    /// The distribution with the own parameter of a category, which a likelihood without one ignores.
    fn new(parameter: f64) -> Self;

    /// Log likelihood and first derivatives of the count `units` at `eta`.
    fn terms(&self, units: u32, eta: f64) -> RowTerms;

    /// Minus the second derivatives of the same.
    fn weight(&self, units: u32, eta: f64) -> RowWeight;

    /// The means of both over `eta ~ Normal(mean, variance)`, where they have a closed form.
    fn expected(&self, units: u32, mean: f64, variance: f64) -> Option<(RowTerms, RowWeight)>;

    /// The variance of a count over its mean rate.
    fn variance_ratio(&self, eta: f64) -> f64;

    /// The derivative of the log variance of a count with respect to the own parameter; 0 without one.
    fn log_variance_by_parameter(&self, eta: f64) -> f64;

    /// A rough value of the own parameter for rows that scatter about rates `mu`: `excess` is the sum of
    /// `(y - mu)^2 - y`, `squares` that of `mu^2`. Not used by a likelihood without one.
    fn parameter_of_scatter(excess: f64, squares: f64) -> f64;

    /// Draws a count with mean `rate`.
    ///
    /// # Errors
    /// The approximate number of units, if it is not below 2^31.
    fn draw<R: Rng + ?Sized>(&self, rate: f64, rng: &mut R) -> Result<u32, f64>;
}
