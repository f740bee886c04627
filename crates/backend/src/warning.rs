//! What a reader of a posterior must know: data in a program, a sentence in a file.

mod gaussian;
mod nuts;
mod svi;

use crate::remedy::{Alternatives, Cause, Choice, Remedy};
use infermark_model::Coordinates;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

pub use gaussian::{GaussianWarning, ShapeShiftWarning};
pub use nuts::NutsWarning;
pub use svi::SviWarning;

/// A warning of a run.
///
/// Its text is a sentence that ends with the [`Warning::remedies`], if any. Files hold that text, and what is read from one is the
/// text alone, as [`Warning::Other`] without remedies.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// The approximation is mean-field in coordinates in which the posterior is correlated.
    MeanField,
    /// A warning of SVI.
    Svi(SviWarning),
    /// A warning of NUTS.
    Nuts(NutsWarning),
    /// A warning of a Gaussian method.
    Gaussian(GaussianWarning),
    /// Any other, for instance one from a file.
    Other(Cause),
}

impl Warning {
    /// What helps: alternatives, the best first.
    pub fn remedies(&self) -> Vec<Remedy> {
        match self {
            Warning::MeanField => vec![Remedy::Choose(Choice::Coordinates(Coordinates::Orthogonal))],
            Warning::Svi(warning) => warning.remedies(),
            Warning::Nuts(warning) => warning.remedies(),
            Warning::Gaussian(warning) => warning.remedies(),
            Warning::Other(cause) => cause.remedies.clone(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::MeanField => f.write_str(
                "The approximation is mean-field: it ignores the correlations of the posterior, so its intervals are far too narrow \
                 where elasticities and effects are correlated; in orthogonal coordinates they are not",
            ),
            Warning::Svi(warning) => warning.write_facts(f),
            Warning::Nuts(warning) => warning.write_facts(f),
            Warning::Gaussian(warning) => warning.write_facts(f),
            Warning::Other(cause) => return write!(f, "{cause}"),
        }?;
        match &self.remedies()[..] {
            [] => f.write_str("."),
            remedies => write!(f, "; {}.", Alternatives(remedies)),
        }
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Warning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Warning::Other(String::deserialize(deserializer)?.into()))
    }
}

impl From<SviWarning> for Warning {
    fn from(warning: SviWarning) -> Self {
        Warning::Svi(warning)
    }
}

impl From<NutsWarning> for Warning {
    fn from(warning: NutsWarning) -> Self {
        Warning::Nuts(warning)
    }
}

impl From<GaussianWarning> for Warning {
    fn from(warning: GaussianWarning) -> Self {
        Warning::Gaussian(warning)
    }
}

impl From<Cause> for Warning {
    fn from(cause: Cause) -> Self {
        Warning::Other(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remedy::Setting;

    #[test]
    fn a_warning_is_a_sentence_that_ends_with_its_remedies() {
        let still_falling = Warning::Svi(SviWarning::StillFalling).to_string();
        assert!(
            still_falling.starts_with("The loss was still falling")
                && still_falling.ends_with("; ask for more iterations."),
            "{still_falling}"
        );
        let one = Warning::Nuts(NutsWarning::OneChain);
        assert_eq!(one.remedies(), [Remedy::Raise(Setting::Chains)]);
    }
}
