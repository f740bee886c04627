//! The log joint from an SVI iteration.

use crate::NoiseSource;
use infermark_backend::{BackendError, Method, Request};
use infermark_model::Coordinates;
use infermark_model::guide::{Guide, START_SCALE};
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::objective::Objective;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Parameterization};

/// The log joint and its gradient at the natural parameters `point`, from a backend's `iteration`: for one
/// particle without noise, the log-weight is the log joint plus the guide's known constant.
///
/// # Errors
/// [`BackendError::Request`] when the point is not of the panel's length, and whatever `iteration` returns.
pub fn log_joint_of(
    panel: &Panel,
    request: &Request,
    point: &[f64],
    iteration: impl FnOnce(&Request, &Guide, NoiseSource) -> Result<LossAndGradient, BackendError>,
) -> Result<(f64, Vec<f64>), BackendError> {
    let mut request = request.clone();
    request.parameterization = Parameterization::Centered;
    if let Method::Svi(settings) = &mut request.method {
        settings.particles = 1;
        settings.objective = Objective::Elbo;
        settings.coordinates = Coordinates::Published;
    }
    request.check_point(panel, point)?;
    let layout = panel.layout_for(request.likelihood);
    let latents = layout.latents();
    let mut guide = Guide::start(&layout, Parameterization::Centered, 0);
    guide.loc.copy_from_slice(point);
    let noise = NoiseSource::recorded(vec![vec![vec![0.0; latents]]]);
    let result = iteration(&request, &guide, noise)?;
    let minus_ln_q = latents as f64 * (START_SCALE.ln() + LN_SQRT_2PI);
    let gradient = result.gradient.loc.iter().map(|g| -g).collect();
    Ok((result.log_weights[0] - minus_ln_q, gradient))
}
