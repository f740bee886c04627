//! What SVI maximizes: the Renyi bound over K particles, or the plain ELBO.
//!
//! Source: Li and Turner, "Renyi Divergence Variational Inference", 2016; `alpha = 0` is the importance-weighted
//! bound of Burda, Grosse and Salakhutdinov, 2016.

use serde::{Deserialize, Serialize};

/// The objective. Its loss is minus the bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Objective {
    /// `loss = -(logsumexp_k((1-alpha) l_k) - ln K) / (1-alpha)`, weights proportional to `exp((1-alpha) l_k)`.
    Renyi {
        /// Order of the divergence; any finite number. At 1 the bound's limit, the ELBO, is used.
        alpha: f64,
    },
    /// `loss = -mean_k l_k`, equal weights.
    Elbo,
}

impl Default for Objective {
    fn default() -> Self {
        Objective::Renyi { alpha: 0.0 }
    }
}

/// The loss and the weights that combine the particles' gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// Minus the bound.
    pub loss: f64,
    /// One weight per particle, summing to one; the gradient of the loss is `-sum_k w_k grad l_k`.
    pub weights: Vec<f64>,
    /// `1 / sum_k w_k^2`, between 1 and K: the effective number of particles that the gradient averages.
    pub effective_particles: f64,
}

impl Objective {
    /// Loss and weights for the log-weights `l_k = ln p(y, z_k) - ln q(z_k)`.
    ///
    /// # Panics
    /// When there is no particle.
    pub fn weigh(&self, log_weights: &[f64]) -> Weighted {
        assert!(!log_weights.is_empty(), "at least one particle");
        let k = log_weights.len() as f64;
        match *self {
            Objective::Renyi { alpha } if alpha != 1.0 => {
                let scale = 1.0 - alpha;
                let top = log_weights
                    .iter()
                    .map(|l| scale * l)
                    .fold(f64::NEG_INFINITY, f64::max);
                let mut weights: Vec<f64> = log_weights.iter().map(|l| (scale * l - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                weights.iter_mut().for_each(|w| *w /= sum);
                let loss = -(top + sum.ln() - k.ln()) / scale;
                let effective_particles = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
                Weighted {
                    loss,
                    weights,
                    effective_particles,
                }
            }
            _ => Weighted {
                loss: -log_weights.iter().sum::<f64>() / k,
                weights: vec![1.0 / k; log_weights.len()],
                effective_particles: k,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_by_hand() {
        let l = [-3.0, -1.0, -2.0];
        let iw = Objective::default().weigh(&l);
        let sum: f64 = l.iter().map(|l| l.exp()).sum();
        assert!((iw.loss + (sum / 3.0).ln()).abs() < 1e-14);
        assert!((iw.weights[1] - (-1f64).exp() / sum).abs() < 1e-14);
        let elbo = Objective::Elbo.weigh(&l);
        assert!((elbo.loss - 2.0).abs() < 1e-14);
        assert_eq!(elbo, Objective::Renyi { alpha: 1.0 }.weigh(&l));
        // The bound falls as alpha grows, and meets the ELBO at one.
        let near = Objective::Renyi { alpha: 1.0 - 1e-6 }.weigh(&l);
        assert!((near.loss - elbo.loss).abs() < 1e-5);
        let half = Objective::Renyi { alpha: 0.5 }.weigh(&l);
        assert!(iw.loss < half.loss && half.loss < elbo.loss);
        let two = Objective::Renyi { alpha: 2.0 }.weigh(&l);
        assert!(two.loss > elbo.loss && two.weights[0] > two.weights[1]);
    }

    #[test]
    fn log_weights_of_real_size_stay_finite() {
        let w = Objective::default().weigh(&[-1e10, -1e10 - 1000.0]);
        assert_eq!(w.weights, [1.0, 0.0]);
        assert!((w.loss - 1e10 - 2f64.ln()).abs() < 1e-5);
        assert_eq!(w.effective_particles, 1.0);
    }
}
