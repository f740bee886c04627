//! One pass of a Gaussian method, as the parity check uses it.

/// The point at which a pass is made. Both vectors are natural parameters, of length
/// [`infermark_model::Layout::latents`] of the request's likelihood.
#[derive(Debug, Clone, Copy)]
pub struct GaussianPoint<'a> {
    /// Where the log joint is expanded, or the means of the Gaussian.
    pub mean: &'a [f64],
    /// The Gaussian's precision is that of the log joint here, without the clip; of a mean-field Gaussian its
    /// diagonal. Methods without a Gaussian before their pass, such as the search for a mode, ignore it.
    pub precision_at: &'a [f64],
}

/// The result of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianPass {
    /// The log joint at the mean, without the clip; for a variational method the evidence lower bound of the
    /// Gaussian.
    pub value: f64,
    /// Its gradient with respect to the means.
    pub gradient: Vec<f64>,
    /// The Newton step from the means: the inverse of the precision for the rows' new weights, times the gradient.
    pub step: Vec<f64>,
    /// Marginal variances: of the precision at the mean or, for a variational method, of the Gaussian.
    pub variance: Vec<f64>,
}
