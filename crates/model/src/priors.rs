//! Prior means and standard deviations, and the bounds at which the log rate is clipped.

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

impl Priors {
    /// The published settings.
    pub const PUBLISHED: Priors = Priors {
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
    };
}

impl Default for Priors {
    fn default() -> Self {
        Priors::PUBLISHED
    }
}

/// One of the settings, as tables refer to it.
#[derive(Debug, Clone, Copy)]
pub struct PriorSetting {
    /// Its name in files.
    pub name: &'static str,
    /// Its value.
    pub get: fn(&Priors) -> f64,
    /// Mutable access to its value.
    pub get_mut: fn(&mut Priors) -> &mut f64,
}

/// The [`PriorSetting`] of a field.
macro_rules! setting {
    ($field:ident) => {
        PriorSetting {
            name: stringify!($field),
            get: |priors: &Priors| priors.$field,
            get_mut: |priors: &mut Priors| &mut priors.$field,
        }
    };
}
pub(crate) use setting;

/// The reason for refusing prior settings.
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
