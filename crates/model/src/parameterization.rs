//! Centred, learned and non-centred forms of a location-scale site (NumPyro's `LocScaleReparam`).
//!
//! A site with prior `Normal(m, s)` and centredness `c` in `[0, 1]` is inferred as `z ~ Normal(c m, s^c)`, and its
//! value is `m + s^(1-c) (z - c m)`. `c = 1` is the centred form, `c = 0` the non-centred one.
//!
//! Source: Gorinova, Moore and Hoffman, "Automatic Reparameterisation of Probabilistic Programs", 2020.

use crate::priors::Priors;
use crate::site::{Layout, PerSite, Site};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which form the sites are inferred in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Parameterization {
    /// `c = 1`: what the published code actually ran.
    #[default]
    Centered,
    /// One scalar `c = sigmoid(u)` per site, optimized with the guide from `c = 0.5`: what the published code
    /// intended. Under NUTS it stays at its start value.
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
    pub fn start(self) -> Centredness {
        Centredness::all(match self {
            Parameterization::Centered => 1.0,
            Parameterization::Learned => 0.5,
            Parameterization::Noncentered => 0.0,
        })
    }
}

/// Centredness `c` of each site; 1 for those without a choice of form.
///
/// In files it is a list with one entry for each of [`Site::REPARAMETERIZED`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Centredness(PerSite<f64>);

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

impl Serialize for Centredness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.chosen().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Centredness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[f64; Site::REPARAMETERIZED.len()]>::deserialize(deserializer).map(Centredness::new)
    }
}

impl Centredness {
    /// The centredness of each of [`Site::REPARAMETERIZED`].
    pub fn new(chosen: [f64; Site::REPARAMETERIZED.len()]) -> Self {
        Centredness(PerSite::from_reparameterized(chosen, 1.0))
    }

    /// The same centredness of every site that has a choice of form.
    pub fn all(c: f64) -> Self {
        Centredness::new([c; Site::REPARAMETERIZED.len()])
    }

    /// The centredness of each of [`Site::REPARAMETERIZED`], in their order.
    pub fn chosen(&self) -> [f64; Site::REPARAMETERIZED.len()] {
        self.0.reparameterized()
    }

    /// The transforms of all sites.
    pub fn transforms(&self, priors: &Priors) -> PerSite<LocScale> {
        PerSite::from_fn(|site| LocScale::new(priors.sd(site), self.0[site]))
    }

    /// Natural parameters of a flat vector of `z`; both have length [`Layout::latents`].
    pub fn to_natural(&self, z: &[f64], category_of: &[u32], layout: &Layout, priors: &Priors) -> Vec<f64> {
        self.map(
            z,
            category_of,
            layout,
            priors,
            |values, parent| values[parent],
            LocScale::value,
        )
    }

    /// The flat vector of `z` of natural parameters: the inverse of [`Centredness::to_natural`].
    pub fn from_natural(
        &self,
        value: &[f64],
        category_of: &[u32],
        layout: &Layout,
        priors: &Priors,
    ) -> Vec<f64> {
        self.map(
            value,
            category_of,
            layout,
            priors,
            |_, parent| value[parent],
            LocScale::z,
        )
    }

    /// Maps the entries of `from` by `f(transform, entry, mean)`, parents first; `value_of(done, parent)` is
    /// the natural value of a parent whose entry of the output `done` is complete.
    fn map(
        &self,
        from: &[f64],
        category_of: &[u32],
        layout: &Layout,
        priors: &Priors,
        value_of: impl Fn(&[f64], usize) -> f64,
        f: impl Fn(&LocScale, f64, f64) -> f64,
    ) -> Vec<f64> {
        let transforms = self.transforms(priors);
        // A site without a choice of form is its own value.
        let mut out = from.to_vec();
        for site in layout.sites().iter().filter(|site| site.is_reparameterized()) {
            let constant = priors.constant_mean(*site);
            for (k, j) in layout.range(*site).enumerate() {
                let mean = match layout.parent(*site, k, category_of) {
                    Some(parent) => value_of(&out, parent),
                    None => constant,
                };
                out[j] = f(&transforms[*site], from[j], mean);
            }
        }
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
            let centredness = Centredness::all(c);
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
