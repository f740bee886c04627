//! The law of the counts given their mean rate.

pub mod negative_binomial;

use serde::{Deserialize, Serialize};

/// How a count varies about its mean rate `mu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// `Poisson(mu)`: variance `mu`. The published model.
    #[default]
    Poisson,
    /// `NegativeBinomial(mu, r)`: variance `mu + mu^2 / r`, with a shape `r` of each category, see
    /// [`negative_binomial`].
    NegativeBinomial,
}

impl Likelihood {
    /// All of them, in the order of the type.
    pub const ALL: [Likelihood; 2] = [Likelihood::Poisson, Likelihood::NegativeBinomial];

    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Likelihood::Poisson => "poisson",
            Likelihood::NegativeBinomial => "negative-binomial",
        }
    }

    /// The likelihood of a name.
    pub fn named(name: &str) -> Option<Likelihood> {
        Likelihood::ALL
            .into_iter()
            .find(|likelihood| likelihood.name() == name)
    }

    /// The law of a count whose mean rate is `rate`, as text: `Poisson(rate)`.
    pub fn in_symbols(self, rate: &str) -> String {
        match self {
            Likelihood::Poisson => format!("Poisson({rate})"),
            Likelihood::NegativeBinomial => format!("NegativeBinomial({rate}, exp(log_shape[c(i)]))"),
        }
    }

    /// What the counts are, in a sentence.
    pub const fn description(self) -> &'static str {
        match self {
            Likelihood::Poisson => "Counts vary as much as their mean rate: the published model",
            Likelihood::NegativeBinomial => {
                "Counts vary more: variance mean + mean^2 / shape, with a shape of each category, log_shape ~ Normal(3, 3)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    #[test]
    fn names_in_files_are_the_commands() {
        for likelihood in Likelihood::ALL {
            let name: StrDeserializer<'_, Error> = likelihood.name().into_deserializer();
            assert_eq!(Likelihood::deserialize(name), Ok(likelihood));
            assert_eq!(Likelihood::named(likelihood.name()), Some(likelihood));
        }
    }
}
