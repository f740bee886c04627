//! Prior means and standard deviations, and the bounds at which the log rate is clipped.

use crate::site::Site;
use serde::{Deserialize, Serialize};

/// Settings of the model. The defaults are the published ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Priors {
    /// Mean of `global_a`.
    pub global_a_mean: f64,
    /// Standard deviation of `global_a`.
    pub global_a_sd: f64,
    /// Standard deviation of `category_a` about `global_a`.
    pub category_a_sd: f64,
    /// Standard deviation of `product_a` about its category's `category_a`.
    pub product_a_sd: f64,
    /// Mean of `product_effect`.
    pub product_effect_mean: f64,
    /// Standard deviation of `product_effect`.
    pub product_effect_sd: f64,
    /// Mean of `time_cat_effects`.
    pub time_cat_effects_mean: f64,
    /// Standard deviation of `time_cat_effects`.
    pub time_cat_effects_sd: f64,
    /// Mean of `log_shape`, of the negative-binomial likelihood.
    pub log_shape_mean: f64,
    /// Standard deviation of `log_shape`.
    pub log_shape_sd: f64,
    /// Lower bound of the log rate.
    pub clip_low: f64,
    /// Upper bound of the log rate.
    pub clip_high: f64,
}

impl Default for Priors {
    fn default() -> Self {
        Priors {
            global_a_mean: -2.0,
            global_a_sd: 1.0,
            category_a_sd: 1.0,
            product_a_sd: 2.0,
            product_effect_mean: 0.0,
            product_effect_sd: 3.0,
            time_cat_effects_mean: 0.0,
            time_cat_effects_sd: 3.0,
            log_shape_mean: 3.0,
            log_shape_sd: 3.0,
            clip_low: -4.0,
            clip_high: 20.0,
        }
    }
}

/// Why prior settings were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PriorsError {
    /// A standard deviation is zero, negative or not finite.
    #[error("the prior standard deviation of {site} is {value}; it must be a positive finite number")]
    StandardDeviation {
        /// The site's name.
        site: &'static str,
        /// What was given.
        value: f64,
    },
    /// A mean is not finite.
    #[error("the prior mean of {site} is {value}; it must be a finite number")]
    Mean {
        /// The site's name.
        site: &'static str,
        /// What was given.
        value: f64,
    },
    /// The clip bounds are not an interval, or `exp` of the upper one overflows single precision.
    #[error(
        "the clip bounds are {low} and {high}; they must be finite, the lower below the upper, within -80 and 80"
    )]
    Clip {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
    },
}

impl Priors {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`PriorsError`] names the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), PriorsError> {
        for site in Site::ALL.into_iter().chain([Site::LogShape]) {
            let value = self.sd(site);
            if !(value > 0.0 && value.is_finite()) {
                return Err(PriorsError::StandardDeviation {
                    site: site.name(),
                    value,
                });
            }
        }
        for (site, value) in [
            (Site::GlobalA, self.global_a_mean),
            (Site::ProductEffect, self.product_effect_mean),
            (Site::TimeCatEffects, self.time_cat_effects_mean),
            (Site::LogShape, self.log_shape_mean),
        ] {
            if !value.is_finite() {
                return Err(PriorsError::Mean {
                    site: site.name(),
                    value,
                });
            }
        }
        let (low, high) = (self.clip_low, self.clip_high);
        if !(low < high && low >= -80.0 && high <= 80.0) {
            return Err(PriorsError::Clip { low, high });
        }
        Ok(())
    }

    /// Prior mean of a site that has no parent; 0 of one that has.
    pub const fn constant_mean(&self, site: Site) -> f64 {
        match site {
            Site::GlobalA => self.global_a_mean,
            Site::CategoryA | Site::ProductA => 0.0,
            Site::ProductEffect => self.product_effect_mean,
            Site::TimeCatEffects => self.time_cat_effects_mean,
            Site::LogShape => self.log_shape_mean,
        }
    }

    /// Prior standard deviation of a site about its mean.
    pub const fn sd(&self, site: Site) -> f64 {
        match site {
            Site::GlobalA => self.global_a_sd,
            Site::CategoryA => self.category_a_sd,
            Site::ProductA => self.product_a_sd,
            Site::ProductEffect => self.product_effect_sd,
            Site::TimeCatEffects => self.time_cat_effects_sd,
            Site::LogShape => self.log_shape_sd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        assert!(Priors::default().validate().is_ok());
        let bad = Priors {
            product_a_sd: 0.0,
            ..Priors::default()
        };
        assert!(bad.validate().unwrap_err().to_string().contains("product_a"));
        let bad = Priors {
            clip_low: 3.0,
            clip_high: 3.0,
            ..Priors::default()
        };
        assert!(matches!(bad.validate(), Err(PriorsError::Clip { .. })));
        let bad = Priors {
            global_a_mean: f64::NAN,
            ..Priors::default()
        };
        assert!(matches!(bad.validate(), Err(PriorsError::Mean { .. })));
        for bad in [
            Priors {
                log_shape_sd: -1.0,
                ..Priors::default()
            },
            Priors {
                log_shape_mean: f64::INFINITY,
                ..Priors::default()
            },
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains("log_shape"));
        }
    }
}
