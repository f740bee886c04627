//! The map from a guide's latents to the natural parameters.

use crate::recorder::STEADIER;
use infermark_backend::{BackendError, Cause, Posterior, Request};
use infermark_model::Likelihood;
use infermark_model::dispersion::{Dispersion, Variances};
use infermark_model::guide::{Guide, softplus};
use infermark_model::log_joint::LogJoint;
use infermark_model::objective::Objective;
use infermark_model::svi::{LossAndGradient, Noise, loss_and_gradient_in, loss_and_gradient_of};
use infermark_model::{Coordinates, IndependentRates, Orthogonal, Panel, Parameterization, Priors};
use std::sync::Arc;

/// The coordinates of a request's guide, on its panel.
#[derive(Debug, Clone)]
pub enum Chart {
    /// The natural parameters in one of their forms.
    Published(Parameterization),
    /// Those in which the latents are nearly independent.
    Orthogonal(Arc<Orthogonal>),
}

impl Chart {
    /// The chart that `request` asks for on `panel`.
    pub fn of(panel: &Panel, request: &Request) -> Self {
        match request.method.coordinates() {
            Coordinates::Published => Chart::Published(request.parameterization),
            Coordinates::Orthogonal => Chart::Orthogonal(Arc::new(Orthogonal::new(
                panel,
                request.likelihood,
                &request.priors,
            ))),
        }
    }

    /// The orthogonal coordinates, if the chart uses them.
    pub fn orthogonal(&self) -> Option<&Arc<Orthogonal>> {
        match self {
            Chart::Published(_) => None,
            Chart::Orthogonal(orthogonal) => Some(orthogonal),
        }
    }

    /// The form of the sites.
    pub fn parameterization(&self) -> Parameterization {
        match self {
            Chart::Published(parameterization) => *parameterization,
            Chart::Orthogonal(_) => Parameterization::Centered,
        }
    }

    /// The starting guide of a run of `request`.
    pub fn start(&self, panel: &Panel, request: &Request) -> Guide {
        match self {
            Chart::Published(parameterization) => Guide::start(
                &panel.layout_for(request.likelihood),
                *parameterization,
                request.seed,
            ),
            Chart::Orthogonal(orthogonal) => {
                orthogonal.start(panel, &request.priors, request.resolved_threads())
            }
        }
    }

    /// Loss and gradient of `guide` under `noise` from the plain iteration, the reference for fast ones.
    ///
    /// # Panics
    /// When a particle's noise is not of the guide's length.
    pub fn plain_iteration(
        &self,
        log_joint: &LogJoint<'_>,
        objective: Objective,
        guide: &Guide,
        noise: &Noise,
    ) -> LossAndGradient {
        match self {
            Chart::Published(parameterization) => {
                loss_and_gradient_of(log_joint, *parameterization, objective, guide, noise)
            }
            Chart::Orthogonal(orthogonal) => {
                loss_and_gradient_in(log_joint, orthogonal, objective, guide, noise)
            }
        }
    }

    /// How much more the counts vary than the posterior of `guide` predicts, with its latents independent in
    /// this chart. No level is stated, because its means still move with the noise of the last iterations.
    pub fn dispersion(
        &self,
        guide: &Guide,
        panel: &Panel,
        likelihood: Likelihood,
        priors: &Priors,
        threads: usize,
    ) -> Dispersion {
        let square = |sd: f64| sd * sd;
        let (mean, variances) = match self {
            Chart::Published(parameterization) => {
                let (mean, sd) = guide.natural_moments(panel, likelihood, priors, *parameterization);
                (mean, sd.into_iter().map(square).collect())
            }
            Chart::Orthogonal(orthogonal) => {
                let own: Vec<f64> = guide
                    .unconstrained_scale
                    .iter()
                    .map(|u| square(softplus(*u)))
                    .collect();
                (orthogonal.to_natural(&guide.loc), orthogonal.rate_variances(&own))
            }
        };
        let rates = match self {
            Chart::Published(_) => IndependentRates::natural(&variances),
            Chart::Orthogonal(orthogonal) => IndependentRates::orthogonal(&variances, orthogonal),
        };
        Dispersion::of(
            panel,
            priors,
            likelihood,
            &mean,
            Variances::Independent(rates),
            threads,
        )
        .without_level()
    }

    /// The posterior that a guide represents.
    ///
    /// # Errors
    /// [`BackendError::NoPosterior`] when a moment is not finite.
    pub fn posterior(
        &self,
        guide: &Guide,
        panel: &Panel,
        likelihood: Likelihood,
        priors: &Priors,
    ) -> Result<Posterior, BackendError> {
        let (mean, sd) = match self {
            Chart::Published(parameterization) => {
                guide.natural_moments(panel, likelihood, priors, *parameterization)
            }
            Chart::Orthogonal(orthogonal) => guide.orthogonal_moments(orthogonal),
        };
        if !mean.iter().chain(&sd).all(|m| m.is_finite()) {
            return Err(BackendError::NoPosterior(Cause::new(
                "parameters of the guide are not finite",
                STEADIER,
            )));
        }
        Ok(Posterior::normal(panel.layout_for(likelihood), mean, sd))
    }
}
