//! The design of a calibration.

use infermark_model::{Likelihood, Priors, PriorsError};
use serde::{Deserialize, Serialize};

/// Priors under which counts are moderate, 1.5 to 1,700 expected units in the middle 95% of rows, and no log rate is clipped.
///
/// Prices are drawn about ln price = 6.2, which multiplies the spread of every elasticity: the published
/// priors put most log rates beyond the clip. The likelihood is the clipped one, so a sampler is exact there
/// too, but approximations by a Gaussian would be judged on rows without information. Here the log rate has
/// mean 3.9 (50 units) and standard deviation 1.8, of which the prices make the larger part.
/// Negative-binomial counts have a shape of 7.4, from 2.8 to 20 in the middle 95% of categories.
pub const MODERATE_PRIORS: Priors = Priors {
    global_a_mean: -2.0,
    global_a_sd: 0.1,
    category_a_sd: 0.1,
    product_a_sd: 0.15,
    product_effect_mean: 16.2,
    product_effect_sd: 0.5,
    time_cat_effects_mean: 0.0,
    time_cat_effects_sd: 0.3,
    log_shape_mean: 2.0,
    log_shape_sd: 0.5,
    ..Priors::PUBLISHED
};

/// Replications to be drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Design {
    /// Priors that the true parameters are drawn from.
    pub priors: Priors,
    /// Distribution of the counts.
    #[serde(default)]
    pub likelihood: Likelihood,
    /// N, products of a panel.
    pub products: usize,
    /// T, periods of a panel; every product has all of them.
    pub periods: usize,
    /// C, categories that products fall into at random; one that stays empty is absent from the panel.
    pub categories: usize,
    /// Replications.
    pub replications: usize,
    /// Seed of everything: of parameters, panels, fits and the choice of latents.
    pub seed: u64,
}

impl Default for Design {
    fn default() -> Self {
        Design {
            priors: MODERATE_PRIORS,
            likelihood: Likelihood::Poisson,
            products: 12,
            periods: 10,
            categories: 2,
            replications: 200,
            seed: 0,
        }
    }
}

/// Most replications of a design: the exact test's cost grows with their square.
const MOST_REPLICATIONS: usize = 100_000;

/// Why a design cannot be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DesignError {
    /// A number is zero or too large.
    #[error("the number of {what} is {value}; give 1 to {most}")]
    Size {
        /// The setting.
        what: &'static str,
        /// What was given.
        value: usize,
        /// The largest possible.
        most: usize,
    },
    /// The priors are invalid.
    #[error(transparent)]
    Priors(#[from] PriorsError),
}

impl Design {
    /// Checks every setting; sizes of panels that memory does not hold are refused when they are drawn.
    ///
    /// # Errors
    /// [`DesignError`] names the first that is out of its range.
    pub fn validate(&self) -> Result<(), DesignError> {
        for (what, value, most) in [
            ("replications", self.replications, MOST_REPLICATIONS),
            ("products", self.products, 1 << 20),
            ("periods", self.periods, 1 << 16),
            ("categories", self.categories, 1 << 16),
        ] {
            if !(1..=most).contains(&value) {
                return Err(DesignError::Size { what, value, most });
            }
        }
        Ok(self.priors.validate()?)
    }
}
