//! One pass of a Gaussian method, as parity is checked with.

/// Where a pass is made. Both vectors are natural parameters, of length [`infermark_model::Layout::latents`] of the request's
/// likelihood.
#[derive(Debug, Clone, Copy)]
pub struct GaussianPoint<'a> {
    /// Where the log joint is expanded, or the means of the Gaussian.
    pub mean: &'a [f64],
    /// The Gaussian's precision is that of the log joint here, without the clip; of a mean-field Gaussian its diagonal. A method that
    /// has no Gaussian before its pass, as the search for a mode, takes no notice of it.
    pub precision_at: &'a [f64],
}

/// What a pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianPass {
    /// The log joint at the mean, without the clip; of a variational method the evidence lower bound of the Gaussian.
    pub value: f64,
    /// Its gradient with respect to the means.
    pub gradient: Vec<f64>,
    /// The Newton step from the means: the inverse of the precision for the rows' new weights, times the gradient.
    pub step: Vec<f64>,
    /// Marginal variances: of the precision at the mean; of a variational method those of the Gaussian.
    pub variance: Vec<f64>,
}
