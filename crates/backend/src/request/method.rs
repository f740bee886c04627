//! Inference methods with their settings.

use super::gaussian::{LaplaceSettings, MeanfieldSettings, StructuredViSettings};
use super::nuts::NutsSettings;
use super::svi::SviSettings;
use crate::method_kind::MethodKind;
use crate::precision::Precision;
use infermark_model::objective::Objective;
use infermark_model::{Coordinates, Parameterization};
use serde::{Deserialize, Serialize};

/// An inference method with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// Stochastic variational inference with a mean-field guide.
    Svi(SviSettings),
    /// The No-U-Turn sampler.
    Nuts(NutsSettings),
    /// The Gaussian at the posterior mode.
    Laplace(LaplaceSettings),
    /// The Gaussian with the model's own block-arrowhead precision that maximizes the evidence lower bound.
    #[serde(rename = "structured-vi")]
    StructuredVi(StructuredViSettings),
    /// The mean-field Gaussian that maximizes the evidence lower bound, in closed form.
    Meanfield(MeanfieldSettings),
}

impl Method {
    /// The method without its settings.
    pub const fn kind(&self) -> MethodKind {
        match self {
            Method::Svi(_) => MethodKind::Svi,
            Method::Nuts(_) => MethodKind::Nuts,
            Method::Laplace(_) => MethodKind::Laplace,
            Method::StructuredVi(_) => MethodKind::StructuredVi,
            Method::Meanfield(_) => MethodKind::Meanfield,
        }
    }

    /// The name in the command and in files.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// The coordinates of a mean-field guide; every other method uses the published ones.
    pub const fn coordinates(&self) -> Coordinates {
        match self {
            Method::Svi(svi) => svi.coordinates,
            Method::Meanfield(meanfield) => meanfield.coordinates,
            _ => Coordinates::Published,
        }
    }

    /// Floating-point type of the passes over the panel; only SVI has a choice.
    pub const fn precision(&self) -> Precision {
        match self {
            Method::Svi(svi) => svi.precision,
            _ => Precision::F64,
        }
    }

    /// Points at which a step evaluates every row: SVI's particles; 1 for every other method.
    pub const fn particles(&self) -> usize {
        match self {
            Method::Svi(svi) => svi.particles,
            _ => 1,
        }
    }

    /// The method in words, with its coordinates where it has a choice of them: `SVI, orthogonal coordinates`.
    pub const fn words(&self) -> &'static str {
        let facts = self.kind().facts();
        match self.coordinates() {
            Coordinates::Published => facts.words,
            Coordinates::Orthogonal => facts.words_orthogonal,
        }
    }

    /// The settings that determine the speed, in words: `f32, centered, Renyi alpha 0, K = 4`.
    pub fn short_settings(&self, parameterization: Parameterization) -> String {
        let (precision, form) = (self.precision().name(), parameterization.name());
        match self {
            Method::Svi(svi) => {
                let form = match svi.coordinates {
                    Coordinates::Published => form,
                    orthogonal => orthogonal.name(),
                };
                format!(
                    "{precision}, {form}, {}, K = {}",
                    objective_in_words(&svi.objective),
                    svi.particles
                )
            }
            Method::Nuts(nuts) => format!("{precision}, {form}, {} chains", nuts.chains),
            other => match other.coordinates() {
                Coordinates::Published => precision.to_owned(),
                orthogonal => format!("{precision}, {}", orthogonal.name()),
            },
        }
    }
}

/// `Renyi alpha 0` or `ELBO`.
pub fn objective_in_words(objective: &Objective) -> String {
    match objective {
        Objective::Renyi { alpha } => format!("Renyi alpha {alpha}"),
        Objective::Elbo => "ELBO".into(),
    }
}

impl MethodKind {
    /// The method with its default settings; SVI's are the published ones.
    pub fn default_method(self) -> Method {
        match self {
            MethodKind::Svi => Method::Svi(SviSettings::default()),
            MethodKind::Nuts => Method::Nuts(NutsSettings::default()),
            MethodKind::Laplace => Method::Laplace(LaplaceSettings::default()),
            MethodKind::StructuredVi => Method::StructuredVi(StructuredViSettings::default()),
            MethodKind::Meanfield => Method::Meanfield(MeanfieldSettings::default()),
        }
    }

    /// The settings with which the method is measured, in the order of the table: for SVI the published
    /// algorithm and the same in orthogonal coordinates, for NUTS the diagonal metric, whose gradients are
    /// compared with those of other programs.
    pub fn benchmark_settings(self) -> Vec<BenchmarkSettings> {
        let once = |method| BenchmarkSettings {
            method,
            by_threads: false,
            shards: 1,
        };
        match self {
            MethodKind::Svi => vec![
                BenchmarkSettings {
                    method: self.default_method(),
                    by_threads: true,
                    shards: 1,
                },
                // It runs beyond the end of its schedule: iterations are timed, and a fast device soon
                // reaches the end.
                once(Method::Svi(SviSettings {
                    iterations: SviSettings::default().iterations,
                    ..SviSettings::orthogonal()
                })),
            ],
            MethodKind::Nuts => vec![once(Method::Nuts(NutsSettings::diagonal()))],
            other => vec![once(other.default_method())],
        }
    }
}

/// A method with the settings that it is measured with.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchmarkSettings {
    /// The method and its settings.
    pub method: Method,
    /// Whether it is measured with every requested number of CPU threads; otherwise only with the largest.
    pub by_threads: bool,
    /// Shards of the panel.
    pub shards: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_goes_by_one_name() {
        for kind in MethodKind::ALL {
            let method = kind.default_method();
            assert_eq!(method.kind(), kind);
            assert_eq!(method.name(), kind.name());
            let named = MethodKind::ALL.iter().filter(|other| other.name() == kind.name());
            assert_eq!(named.count(), 1);
            // A method that is timed as a whole has no useful rate per step, and draws come one by one.
            assert!(!(kind.is_fitted_whole() && kind.has_draws()));
            let measured = kind.benchmark_settings();
            assert!(!measured.is_empty() && measured.iter().all(|case| case.method.kind() == kind));
        }
    }

    #[test]
    fn settings_in_words_are_those_that_a_speed_depends_on() {
        let in_words = |method: Method| method.short_settings(Parameterization::Learned);
        assert_eq!(
            in_words(MethodKind::Svi.default_method()),
            "f32, learned, Renyi alpha 0, K = 4"
        );
        assert_eq!(
            in_words(Method::Svi(SviSettings::orthogonal())),
            "f32, orthogonal, Renyi alpha 0, K = 4"
        );
        assert_eq!(
            in_words(MethodKind::Nuts.default_method()),
            "f64, learned, 4 chains"
        );
        assert_eq!(in_words(MethodKind::Laplace.default_method()), "f64");
        let orthogonal = Method::Meanfield(MeanfieldSettings {
            coordinates: Coordinates::Orthogonal,
            ..MeanfieldSettings::default()
        });
        assert_eq!(orthogonal.words(), "mean-field optimum, orthogonal coordinates");
        assert_eq!(in_words(orthogonal), "f64, orthogonal");
    }
}
