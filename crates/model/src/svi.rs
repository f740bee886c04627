//! One SVI iteration as the published algorithm defines it, in plain `f64`: the reference for fast backends.

use crate::coordinates::Orthogonal;
use crate::guide::{Guide, sigmoid, softplus};
use crate::log_joint::{Gradient, LN_SQRT_2PI, LogJoint};
use crate::noise::{PARTICLES_PER_BLOCK, Stream};
use crate::objective::{Objective, Weighted};
use crate::optimizer::{AdamW, Moments};
use crate::panel::Panel;
use crate::parameterization::Parameterization;
use crate::priors::Priors;
use crate::site::{Layout, PerSite, Site};

/// The noise of one iteration: `eps[k]` has length [`Layout::latents`], one vector per particle.
pub type Noise = Vec<Vec<f64>>;

/// Draws an iteration's noise from its stream.
pub fn draw_noise(layout: &Layout, particles: usize, stream: Stream) -> Noise {
    (0..particles)
        .map(|k| {
            let group = (k / PARTICLES_PER_BLOCK) as u32;
            (0..layout.latents() as u64)
                .map(|latent| f64::from(stream.normals(latent, group)[k % PARTICLES_PER_BLOCK]))
                .collect()
        })
        .collect()
}

/// The loss, the particles and the gradient of the loss with respect to the guide's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct LossAndGradient {
    /// `l_k = ln p(y, z_k) - ln q(z_k)`, one per particle.
    pub log_weights: Vec<f64>,
    /// Loss, weights and effective particles.
    pub weighted: Weighted,
    /// Gradient of the loss, in the guide's own shape.
    pub gradient: Guide,
}

/// [`loss_and_gradient_of`] for the Poisson model.
///
/// # Panics
/// When a particle's noise is not of length [`Layout::latents`].
pub fn loss_and_gradient(
    panel: &Panel,
    priors: &Priors,
    parameterization: Parameterization,
    objective: Objective,
    guide: &Guide,
    noise: &Noise,
) -> LossAndGradient {
    let log_joint = LogJoint::new(panel, *priors);
    loss_and_gradient_of(&log_joint, parameterization, objective, guide, noise)
}

/// Loss and gradient of `guide` under `noise`: the total pathwise gradient with the particles' weights held fixed.
///
/// # Panics
/// When a particle's noise is not of length [`Layout::latents`].
pub fn loss_and_gradient_of(
    log_joint: &LogJoint<'_>,
    parameterization: Parameterization,
    objective: Objective,
    guide: &Guide,
    noise: &Noise,
) -> LossAndGradient {
    let centredness = guide.centredness(parameterization);
    weigh_particles(guide, objective, noise, |z| log_joint.at(z, &centredness))
}

/// [`loss_and_gradient_of`] for a guide in the coordinates of `orthogonal`.
///
/// # Panics
/// When a particle's noise is not of length [`Layout::latents`].
pub fn loss_and_gradient_in(
    log_joint: &LogJoint<'_>,
    orthogonal: &Orthogonal,
    objective: Objective,
    guide: &Guide,
    noise: &Noise,
) -> LossAndGradient {
    weigh_particles(guide, objective, noise, |z| {
        let (value, by_natural) = log_joint.natural(&orthogonal.to_natural(z));
        let gradient = Gradient {
            z: orthogonal.gradient(by_natural),
            centredness: PerSite::all(0.0),
        };
        (value + orthogonal.ln_jacobian(), gradient)
    })
}

/// Loss and gradient when `at` returns the log density of `z` and its gradient.
fn weigh_particles(
    guide: &Guide,
    objective: Objective,
    noise: &Noise,
    at: impl Fn(&[f64]) -> (f64, Gradient),
) -> LossAndGradient {
    let sigma: Vec<f64> = guide.unconstrained_scale.iter().map(|u| softplus(*u)).collect();
    let ln_sigma: f64 = sigma.iter().map(|s| s.ln()).sum();

    let mut log_weights = Vec::with_capacity(noise.len());
    let mut gradients = Vec::with_capacity(noise.len());
    for eps in noise {
        let z: Vec<f64> = guide
            .loc
            .iter()
            .zip(&sigma)
            .zip(eps)
            .map(|((m, s), e)| m + s * e)
            .collect();
        let (ln_p, gradient) = at(&z);
        let minus_ln_q = ln_sigma + eps.iter().map(|e| 0.5 * e * e + LN_SQRT_2PI).sum::<f64>();
        log_weights.push(ln_p + minus_ln_q);
        gradients.push(gradient);
    }

    let weighted = objective.weigh(&log_weights);
    let mut gradient = Guide {
        loc: vec![0.0; guide.loc.len()],
        unconstrained_scale: vec![0.0; guide.loc.len()],
        unconstrained_centredness: guide.unconstrained_centredness.map(|_| PerSite::all(0.0)),
    };
    for ((weight, particle), eps) in weighted.weights.iter().zip(&gradients).zip(noise) {
        for j in 0..guide.loc.len() {
            gradient.loc[j] -= weight * particle.z[j];
            gradient.unconstrained_scale[j] -=
                weight * (particle.z[j] * eps[j] + 1.0 / sigma[j]) * sigmoid(guide.unconstrained_scale[j]);
        }
        if let (Some(by_u), Some(u)) = (
            &mut gradient.unconstrained_centredness,
            &guide.unconstrained_centredness,
        ) {
            for s in Site::REPARAMETERIZED {
                let c = sigmoid(u[s]);
                by_u[s] -= weight * particle.centredness[s] * c * (1.0 - c);
            }
        }
    }
    LossAndGradient {
        log_weights,
        weighted,
        gradient,
    }
}

/// AdamW's moments for every parameter of a guide.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideMoments {
    loc: Vec<Moments>,
    unconstrained_scale: Vec<Moments>,
    unconstrained_centredness: PerSite<Moments>,
}

impl GuideMoments {
    /// Zero moments for a guide over `latents` latents.
    pub fn new(latents: usize) -> Self {
        GuideMoments {
            loc: vec![Moments::default(); latents],
            unconstrained_scale: vec![Moments::default(); latents],
            unconstrained_centredness: PerSite::default(),
        }
    }

    /// Moves `guide` one step down `gradient`; `iteration` counts from 0.
    pub fn step(&mut self, adam: &AdamW, iteration: u64, guide: &mut Guide, gradient: &Guide) {
        let scalars = adam.scalars(iteration);
        let vectors = [
            (&mut guide.loc, &gradient.loc, &mut self.loc),
            (
                &mut guide.unconstrained_scale,
                &gradient.unconstrained_scale,
                &mut self.unconstrained_scale,
            ),
        ];
        for (parameters, gradients, moments) in vectors {
            for ((p, g), m) in parameters.iter_mut().zip(gradients).zip(moments) {
                *p = adam.step(&scalars, *p, *g, m);
            }
        }
        if let (Some(parameters), Some(gradients)) = (
            &mut guide.unconstrained_centredness,
            &gradient.unconstrained_centredness,
        ) {
            for s in Site::REPARAMETERIZED {
                let moments = &mut self.unconstrained_centredness[s];
                parameters[s] = adam.step(&scalars, parameters[s], gradients[s], moments);
            }
        }
    }
}
