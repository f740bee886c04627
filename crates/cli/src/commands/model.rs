//! `infermark model`: the plate diagram.

mod drawing;
mod picture;

use crate::exit::Exit;
use crate::output::print;
use crate::settings::{LikelihoodArguments, PriorArguments, SpecificationArguments};
use clap::{Args, ValueEnum};
use drawing::Drawing;
use infermark_model::Specification;
use picture::svg;

/// Formats of the diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Graphviz.
    Dot,
    /// A picture.
    Svg,
}

/// Arguments of `model`.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Format.
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
    #[command(flatten)]
    model: SpecificationArguments,
    #[command(flatten)]
    priors: PriorArguments,
    #[command(flatten)]
    likelihood: LikelihoodArguments,
}

impl ModelArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let model = self.model.model;
        let given = self.priors.given()?;
        let priors = given.over(model.constant_priors())?;
        let drawing = Drawing {
            priors: &priors,
            likelihood: self.likelihood.likelihood,
            effect_mean: match model {
                Specification::Sales if !given.has("product_effect_mean") => "log median units".to_owned(),
                _ => priors.product_effect_mean.to_string(),
            },
            log_price: match model {
                Specification::Sales => "ln(price[i,t] / usual_price[i])",
                _ => "ln price[i,t]",
            },
            price_node: match model {
                Specification::Sales => "ln relative price",
                _ => "ln price",
            },
        };
        let text = match self.format {
            Format::Dot => drawing.dot(),
            Format::Svg => svg(&drawing),
        };
        print(|out| out.write_all(text.as_bytes()))?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::{Likelihood, Priors, Site};

    fn drawing(priors: &Priors, likelihood: Likelihood) -> Drawing<'_> {
        Drawing {
            priors,
            likelihood,
            effect_mean: "0".to_owned(),
            log_price: "ln price[i,t]",
            price_node: "ln price",
        }
    }

    #[test]
    fn both_formats_name_every_site_with_its_distribution() {
        let priors = Priors {
            product_a_sd: 2.5,
            ..Priors::default()
        };
        for likelihood in Likelihood::ALL {
            let drawing = drawing(&priors, likelihood);
            for text in [drawing.dot(), svg(&drawing)] {
                for site in Site::ALL {
                    let line = format!("{} ~ Normal(", site.in_symbols());
                    assert_eq!(text.contains(&line), site.is_of(likelihood), "{line}");
                }
                assert!(text.contains("Normal(category_a[c(i)], 2.5)"));
                assert!(text.contains("Normal(-2, 1)"));
                let law = likelihood.in_symbols("exp(clip(");
                let law = law.split("exp(clip(").next().unwrap();
                assert!(text.contains(&format!("units[i,t] ~ {law}exp(clip(product_a[i] ")));
            }
        }
    }

    #[test]
    fn every_leaf_points_at_the_counts() {
        let priors = Priors::default();
        let poisson = drawing(&priors, Likelihood::Poisson).dot();
        assert!(
            poisson.contains("  global_a -> category_a -> product_a -> units;\n  product_effect -> units;\n")
        );
        assert!(!poisson.contains("log_shape"));
        let negative_binomial = drawing(&priors, Likelihood::NegativeBinomial).dot();
        assert!(negative_binomial.contains("  log_shape -> units;\n"));
        assert!(negative_binomial.contains("category_a; log_shape;\n"));
        assert!(negative_binomial.contains(", exp(log_shape[c(i)]))"));
    }
}
