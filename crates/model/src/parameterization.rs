//! Centred, learned and non-centred forms of a location-scale site (NumPyro's `LocScaleReparam`).
//!
//! A site with prior `Normal(m, s)` and centredness `c` in `[0, 1]` is inferred as `z ~ Normal(c m, s^c)`, and its
//! value is `m + s^(1-c) (z - c m)`. `c = 1` is the centred form, `c = 0` the non-centred one.
//!
//! Source: Gorinova, Moore and Hoffman, "Automatic Reparameterisation of Probabilistic Programs", 2020.

use crate::priors::Priors;
use crate::site::{Layout, Site};
use serde::{Deserialize, Serialize};

/// Which form the sites are inferred in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Parameterization {
    /// `c = 1`: what the published code ran.
    #[default]
    Centered,
    /// One scalar `c = sigmoid(u)` a site, optimized with the guide from `c = 0.5`: what the published code wrote.
    /// Under NUTS it stays at its start value.
    Learned,
    /// `c = 0`.
    Noncentered,
}

impl Parameterization {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Parameterization::Centered => "centered",
            Parameterization::Learned => "learned",
            Parameterization::Noncentered => "noncentered",
        }
    }

    /// Centredness of every site at the start.
    pub const fn start(self) -> Centredness {
        Centredness(match self {
            Parameterization::Centered => [1.0; 5],
            Parameterization::Learned => [0.5; 5],
            Parameterization::Noncentered => [0.0; 5],
        })
    }
}

/// Centredness `c` of each site, in the order of [`Site::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Centredness(pub [f64; 5]);

/// A site's transform from `z` to its value, for one value of `c`: `value = m + stretch * (z - c m)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocScale {
    /// `c`.
    pub centredness: f64,
    /// `ln s` of the site's prior.
    pub ln_sd: f64,
    /// `s^(1-c)`.
    pub stretch: f64,
    /// `s^(-2c)`: precision of `z` under its prior.
    pub precision: f64,
}

impl LocScale {
    /// The transform of a site with prior standard deviation `sd`.
    pub fn new(sd: f64, centredness: f64) -> Self {
        let ln_sd = sd.ln();
        LocScale {
            centredness,
            ln_sd,
            stretch: ((1.0 - centredness) * ln_sd).exp(),
            precision: (-2.0 * centredness * ln_sd).exp(),
        }
    }

    /// The value of `z` when the prior mean is `mean`.
    pub fn value(&self, z: f64, mean: f64) -> f64 {
        mean + self.stretch * (z - self.centredness * mean)
    }

    /// The `z` of a value: the inverse of [`LocScale::value`].
    pub fn z(&self, value: f64, mean: f64) -> f64 {
        self.centredness * mean + (value - mean) / self.stretch
    }

    /// Coefficient of the mean in the value, `1 - c s^(1-c)`.
    pub fn mean_coefficient(&self) -> f64 {
        1.0 - self.centredness * self.stretch
    }
}

impl Centredness {
    /// The transforms of all sites.
    pub fn transforms(&self, priors: &Priors) -> [LocScale; 5] {
        Site::ALL.map(|site| LocScale::new(priors.sd(site), self.0[site.index()]))
    }

    /// Natural parameters of a flat vector of `z`; both have length [`Layout::latents`].
    pub fn to_natural(&self, z: &[f64], category_of: &[u32], layout: &Layout, priors: &Priors) -> Vec<f64> {
        self.map(z, category_of, layout, priors, |t, z, mean| {
            let value = t.value(z, mean);
            (value, value)
        })
    }

    /// The flat vector of `z` of natural parameters: the inverse of [`Centredness::to_natural`].
    pub fn from_natural(
        &self,
        value: &[f64],
        category_of: &[u32],
        layout: &Layout,
        priors: &Priors,
    ) -> Vec<f64> {
        self.map(value, category_of, layout, priors, |t, value, mean| {
            (t.z(value, mean), value)
        })
    }

    /// Walks the sites parents first; `f(transform, entry, mean)` gives the output and the natural value.
    fn map(
        &self,
        from: &[f64],
        category_of: &[u32],
        layout: &Layout,
        priors: &Priors,
        f: impl Fn(&LocScale, f64, f64) -> (f64, f64),
    ) -> Vec<f64> {
        let transforms = self.transforms(priors);
        let mut out = vec![0.0; from.len()];
        let (global, category_start) = (layout.start(Site::GlobalA), layout.start(Site::CategoryA));
        let value;
        (out[global], value) = f(
            &transforms[Site::GlobalA.index()],
            from[global],
            priors.global_a_mean,
        );
        let mut category_value = vec![0.0; layout.categories];
        for c in 0..layout.categories {
            (out[category_start + c], category_value[c]) = f(
                &transforms[Site::CategoryA.index()],
                from[category_start + c],
                value,
            );
        }
        for (i, c) in category_of.iter().enumerate() {
            let a = layout.start(Site::ProductA) + i;
            out[a] = f(
                &transforms[Site::ProductA.index()],
                from[a],
                category_value[*c as usize],
            )
            .0;
        }
        for (site, mean) in [
            (Site::ProductEffect, priors.product_effect_mean),
            (Site::TimeCatEffects, priors.time_cat_effects_mean),
        ] {
            for j in layout.range(site) {
                out[j] = f(&transforms[site.index()], from[j], mean).0;
            }
        }
        // No parent, no choice of form: `z` is the value.
        let log_shape = layout.range(Site::LogShape);
        out[log_shape.clone()].copy_from_slice(&from[log_shape]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::Likelihood;

    #[test]
    fn to_natural_and_back() {
        let layout = Layout::new(4, 2, 3).with_likelihood(Likelihood::NegativeBinomial);
        let priors = Priors {
            product_effect_mean: 0.7,
            ..Priors::default()
        };
        let category_of = [1, 0, 1, 1];
        let z: Vec<f64> = (0..layout.latents()).map(|i| (i as f64 * 0.7).sin()).collect();
        for c in [0.0, 0.3, 0.5, 1.0] {
            let centredness = Centredness([c; 5]);
            let value = centredness.to_natural(&z, &category_of, &layout, &priors);
            let back = centredness.from_natural(&value, &category_of, &layout, &priors);
            for (a, b) in z.iter().zip(&back) {
                assert!((a - b).abs() < 1e-13, "{a} {b}");
            }
            if c == 1.0 {
                assert!(value.iter().zip(&z).all(|(v, z)| (v - z).abs() < 1e-15));
            }
        }
    }
}
