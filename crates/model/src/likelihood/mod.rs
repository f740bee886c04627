//! The distribution of the counts given their mean rate.
//!
//! | file | holds |
//! |---|---|
//! | `row` | [`RowLikelihood`]: the likelihood of one row, in plain `f64` |
//! | [`poisson`] | Poisson counts |
//! | [`negative_binomial`] | negative-binomial counts, stable for every shape |
//!
//! A new likelihood is a file here, a variant of [`Likelihood`] and an arm of [`Likelihood::visit`]; its own
//! parameter, if it has one, is a site that no other likelihood has ([`SITES`](crate::site::SITES)).

pub mod negative_binomial;
pub mod poisson;
mod row;

use negative_binomial::Shape;
use poisson::Poisson;
pub use row::{RowLikelihood, RowTerms, RowWeight};
use serde::{Deserialize, Serialize};

/// How a count varies about its mean rate `mu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Likelihood {
    /// `Poisson(mu)`: variance `mu`. The published model.
    #[default]
    Poisson,
    /// `NegativeBinomial(mu, r)`: variance `mu + mu^2 / r`, with a shape `r` of each category, see [`negative_binomial`].
    NegativeBinomial,
}

/// An operation that is generic over the type of a likelihood.
pub trait LikelihoodVisitor {
    /// The result.
    type Output;

    /// Runs it for the likelihood `L`.
    fn visit<L: RowLikelihood>(self) -> Self::Output;
}

impl Likelihood {
    /// All likelihoods, in the order of the variants.
    pub const ALL: [Likelihood; 2] = [Likelihood::Poisson, Likelihood::NegativeBinomial];

    /// Runs `visitor` with the type of this likelihood: code that is generic over [`RowLikelihood`] is
    /// selected here, once for all rows.
    #[inline(always)]
    pub fn visit<V: LikelihoodVisitor>(self, visitor: V) -> V::Output {
        match self {
            Likelihood::Poisson => visitor.visit::<Poisson>(),
            Likelihood::NegativeBinomial => visitor.visit::<Shape>(),
        }
    }

    /// The name in files and in the command.
    pub fn name(self) -> &'static str {
        struct Name;
        impl LikelihoodVisitor for Name {
            type Output = &'static str;

            fn visit<L: RowLikelihood>(self) -> &'static str {
                L::NAME
            }
        }
        self.visit(Name)
    }

    /// The likelihood with this name.
    pub fn named(name: &str) -> Option<Likelihood> {
        Likelihood::ALL
            .into_iter()
            .find(|likelihood| likelihood.name() == name)
    }

    /// The name of the counts in tables and plots.
    pub fn counts(self) -> &'static str {
        struct Counts;
        impl LikelihoodVisitor for Counts {
            type Output = &'static str;

            fn visit<L: RowLikelihood>(self) -> &'static str {
                L::COUNTS
            }
        }
        self.visit(Counts)
    }

    /// A description of the counts, in one sentence for the command's help.
    pub fn description(self) -> &'static str {
        struct Description;
        impl LikelihoodVisitor for Description {
            type Output = &'static str;

            fn visit<L: RowLikelihood>(self) -> &'static str {
                L::DESCRIPTION
            }
        }
        self.visit(Description)
    }

    /// The distribution of a count as a formula: `Poisson(rate)` for the text `rate`.
    pub fn in_symbols(self, rate: &str) -> String {
        struct Symbols<'a>(&'a str);
        impl LikelihoodVisitor for Symbols<'_> {
            type Output = String;

            fn visit<L: RowLikelihood>(self) -> String {
                L::in_symbols(self.0)
            }
        }
        self.visit(Symbols(rate))
    }

    /// Whether the variance of a count is its mean rate.
    pub fn is_equidispersed(self) -> bool {
        struct IsEquidispersed;
        impl LikelihoodVisitor for IsEquidispersed {
            type Output = bool;

            fn visit<L: RowLikelihood>(self) -> bool {
                L::IS_EQUIDISPERSED
            }
        }
        self.visit(IsEquidispersed)
    }

    /// [`RowLikelihood::parameter_of_scatter`].
    pub fn parameter_of_scatter(self, excess: f64, squares: f64) -> f64 {
        struct OfScatter(f64, f64);
        impl LikelihoodVisitor for OfScatter {
            type Output = f64;

            fn visit<L: RowLikelihood>(self) -> f64 {
                L::parameter_of_scatter(self.0, self.1)
            }
        }
        self.visit(OfScatter(excess, squares))
    }

    /// [`RowLikelihood::SYNTHETIC_PARAMETER`].
    pub fn synthetic_parameter(self) -> (f64, f64) {
        struct Synthetic;
        impl LikelihoodVisitor for Synthetic {
            type Output = (f64, f64);

            fn visit<L: RowLikelihood>(self) -> (f64, f64) {
                L::SYNTHETIC_PARAMETER
            }
        }
        self.visit(Synthetic)
    }
}

#[cfg(test)]
mod tests;
