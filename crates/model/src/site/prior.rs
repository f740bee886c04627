//! The prior of each site.

use super::table::{PriorMean, SITES, Site};
use crate::priors::{Priors, PriorsError};

impl Priors {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`PriorsError`] names the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), PriorsError> {
        for spec in SITES {
            let value = (spec.sd.get)(self);
            if !(value > 0.0 && value.is_finite()) {
                return Err(PriorsError::StandardDeviation {
                    site: spec.name,
                    value,
                });
            }
        }
        for spec in SITES {
            if let PriorMean::Setting(setting) = spec.mean {
                let value = (setting.get)(self);
                if !value.is_finite() {
                    return Err(PriorsError::Mean {
                        site: spec.name,
                        value,
                    });
                }
            }
        }
        let (low, high) = (self.clip_low, self.clip_high);
        if !(low < high && low >= -80.0 && high <= 80.0) {
            return Err(PriorsError::Clip { low, high });
        }
        Ok(())
    }

    /// Prior mean of a site without a parent; 0 for a site with one.
    pub fn constant_mean(&self, site: Site) -> f64 {
        match site.spec().mean {
            PriorMean::Setting(setting) => (setting.get)(self),
            PriorMean::Parent(_) => 0.0,
        }
    }

    /// Prior standard deviation of a site about its mean.
    pub fn sd(&self, site: Site) -> f64 {
        (site.spec().sd.get)(self)
    }

    /// The setting that holds [`Priors::sd`] of a site.
    pub fn sd_mut(&mut self, site: Site) -> &mut f64 {
        (site.spec().sd.get_mut)(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        assert!(Priors::default().validate().is_ok());
        for site in Site::ALL {
            let mut bad = Priors::default();
            *bad.sd_mut(site) = 0.0;
            assert!(bad.validate().unwrap_err().to_string().contains(site.name()));
            assert_eq!(bad.sd(site), 0.0);
        }
        let bad = Priors {
            clip_low: 3.0,
            clip_high: 3.0,
            ..Priors::default()
        };
        assert!(matches!(bad.validate(), Err(PriorsError::Clip { .. })));
        for (bad, site) in [
            (
                Priors {
                    global_a_mean: f64::NAN,
                    ..Priors::default()
                },
                Site::GlobalA,
            ),
            (
                Priors {
                    log_shape_mean: f64::INFINITY,
                    ..Priors::default()
                },
                Site::LogShape,
            ),
        ] {
            let error = bad.validate().unwrap_err();
            assert!(matches!(error, PriorsError::Mean { .. }));
            assert!(error.to_string().contains(site.name()));
        }
        let bad = Priors {
            log_shape_sd: -1.0,
            ..Priors::default()
        };
        assert!(bad.validate().unwrap_err().to_string().contains("log_shape"));
    }
}
