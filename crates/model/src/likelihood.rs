//! The law of the counts given their mean rate.

use serde::{Deserialize, Serialize};

/// How a count varies about its mean rate `mu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// `Poisson(mu)`: variance `mu`. The published model.
    #[default]
    Poisson,
    /// `NegativeBinomial(mu, r)`: variance `mu + mu^2 / r`, with a shape `r` of each category, see
    /// [`negative_binomial`](crate::negative_binomial).
    NegativeBinomial,
}

impl Likelihood {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Likelihood::Poisson => "poisson",
            Likelihood::NegativeBinomial => "negative-binomial",
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
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let name: StrDeserializer<'_, Error> = likelihood.name().into_deserializer();
            assert_eq!(Likelihood::deserialize(name), Ok(likelihood));
        }
    }
}
