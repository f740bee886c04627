//! The mean-field guide: an independent `Normal(loc, softplus(u))` for every `z`, and its posterior in closed form.

use crate::coordinates::Orthogonal;
use crate::likelihood::Likelihood;
use crate::noise::{START_ITERATION, Stream};
use crate::panel::Panel;
use crate::parameterization::{Centredness, Parameterization};
use crate::priors::Priors;
use crate::site::{Layout, PerSite};
use serde::{Deserialize, Serialize};

/// Standard deviation of every normal at the start.
pub const START_SCALE: f64 = 0.1;

/// `loc` starts uniform in `[-START_RADIUS, START_RADIUS]`.
pub const START_RADIUS: f64 = 2.0;

/// `ln(1 + e^u)`, without overflow or cancellation.
pub fn softplus(u: f64) -> f64 {
    u.max(0.0) + (-u.abs()).exp().ln_1p()
}

/// The inverse of [`softplus`] for positive `sigma`.
pub fn softplus_inverse(sigma: f64) -> f64 {
    sigma + (-(-sigma).exp_m1()).ln()
}

/// `1 / (1 + e^-u)`.
pub fn sigmoid(u: f64) -> f64 {
    1.0 / (1.0 + (-u).exp())
}

impl Centredness {
    /// `c = sigmoid(u)` of the unconstrained values of the sites that have a choice of form.
    pub fn from_unconstrained(u: &PerSite<f64>) -> Self {
        Centredness::new(u.reparameterized().map(sigmoid))
    }
}

/// Parameters of the guide: what the optimizer moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guide {
    /// Means of `z`, in the order of [`Layout`].
    pub loc: Vec<f64>,
    /// Unconstrained scales: the standard deviation of `z` is `softplus(u)`.
    pub unconstrained_scale: Vec<f64>,
    /// Unconstrained centredness of each site, `c = sigmoid(u)`; only [`Parameterization::Learned`] has it. 0
    /// for the sites without a choice of form.
    pub unconstrained_centredness: Option<PerSite<f64>>,
}

impl Guide {
    /// The start values: `loc` uniform in [-2, 2] from the noise of the seed, standard deviation 0.1,
    /// centredness 0.5.
    pub fn start(layout: &Layout, parameterization: Parameterization, seed: u64) -> Self {
        let stream = Stream {
            seed,
            iteration: START_ITERATION,
        };
        let radius = START_RADIUS as f32;
        Guide {
            loc: (0..layout.latents() as u64)
                .map(|latent| f64::from(radius * (2.0 * stream.uniforms(latent, 0)[0] - 1.0)))
                .collect(),
            unconstrained_scale: vec![softplus_inverse(START_SCALE); layout.latents()],
            unconstrained_centredness: (parameterization == Parameterization::Learned)
                .then_some(PerSite::all(0.0)),
        }
    }

    /// Centredness of every site now.
    pub fn centredness(&self, parameterization: Parameterization) -> Centredness {
        match self.unconstrained_centredness {
            Some(u) => Centredness::from_unconstrained(&u),
            None => parameterization.start(),
        }
    }

    /// Mean and standard deviation of every natural parameter, in the order of [`Layout`].
    ///
    /// A value is linear in `z` and in its parent's value, so its law under the guide is normal, in closed form.
    pub fn natural_moments(
        &self,
        panel: &Panel,
        likelihood: Likelihood,
        priors: &Priors,
        parameterization: Parameterization,
    ) -> (Vec<f64>, Vec<f64>) {
        let layout = panel.layout_for(likelihood);
        let centredness = self.centredness(parameterization);
        let transforms = centredness.transforms(priors);
        let mean = centredness.to_natural(&self.loc, panel.category_of(), &layout, priors);
        let mut variance: Vec<f64> = vec![0.0; layout.latents()];
        for site in layout.sites() {
            let transform = &transforms[*site];
            let inherited = transform.mean_coefficient().powi(2);
            for (k, j) in layout.range(*site).enumerate() {
                let parent = layout.parent(*site, k, panel.category_of());
                let own = transform.stretch * softplus(self.unconstrained_scale[j]);
                variance[j] = own * own + inherited * parent.map_or(0.0, |parent| variance[parent]);
            }
        }
        (mean, variance.into_iter().map(f64::sqrt).collect())
    }
}

impl Guide {
    /// [`Guide::natural_moments`] of a guide in the coordinates of `orthogonal`.
    pub fn orthogonal_moments(&self, orthogonal: &Orthogonal) -> (Vec<f64>, Vec<f64>) {
        let own: Vec<f64> = self
            .unconstrained_scale
            .iter()
            .map(|u| softplus(*u).powi(2))
            .collect();
        let variance = orthogonal.natural_variances(&own);
        (
            orthogonal.to_natural(&self.loc),
            variance.into_iter().map(f64::sqrt).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_and_its_inverse() {
        for sigma in [1e-8, 0.1, 1.0, 30.0] {
            assert!((softplus(softplus_inverse(sigma)) / sigma - 1.0).abs() < 1e-12);
        }
        assert!((softplus_inverse(0.1) + 2.252_168_461_044_091).abs() < 1e-14);
        assert_eq!(softplus(1000.0), 1000.0);
        assert!(softplus(-700.0) > 0.0);
    }

    #[test]
    fn start_values_are_uniform_and_depend_on_the_seed_alone() {
        let layout = Layout::new(2000, 3, 5);
        let guide = Guide::start(&layout, Parameterization::Learned, 3);
        assert!(guide.loc.iter().all(|l| l.abs() <= 2.0));
        let n = guide.loc.len() as f64;
        let mean = guide.loc.iter().sum::<f64>() / n;
        // The standard deviation of U(-2, 2) is 2 / sqrt(3).
        assert!(mean.abs() < 5.0 * 2.0 / (3.0 * n).sqrt());
        assert_eq!(guide, Guide::start(&layout, Parameterization::Learned, 3));
        assert_ne!(guide.loc, Guide::start(&layout, Parameterization::Learned, 4).loc);
    }
}
