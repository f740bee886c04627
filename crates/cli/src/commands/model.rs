//! `infermark model`: the plate diagram.

mod picture;

use crate::answer::answer;
use crate::exit::Exit;
use crate::settings::{LikelihoodArguments, PriorArguments, SpecificationArguments};
use clap::{Args, ValueEnum};
use infermark_model::site::Axis;
use infermark_model::{Likelihood, Priors, Site, Specification};
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
        let model = Specification::from(self.model.model);
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
        answer(|out| out.write_all(text.as_bytes()))?;
        Ok(Exit::Done)
    }
}

/// What is drawn: the model with the words of its specification.
struct Drawing<'a> {
    priors: &'a Priors,
    likelihood: Likelihood,
    /// Prior mean of `product_effect`.
    effect_mean: String,
    /// The log price in a formula.
    log_price: &'static str,
    /// The log price in its node.
    price_node: &'static str,
}

impl Drawing<'_> {
    /// The sites of the likelihood on an axis.
    fn sites_on(&self, axis: Axis) -> impl Iterator<Item = Site> {
        let likelihood = self.likelihood;
        let has = move |site: &Site| site.is_of(likelihood) && site.axis() == axis;
        Site::ALL.into_iter().filter(has)
    }

    /// The sites that the counts depend on directly: those that are no other one's prior mean.
    fn leaves(&self) -> impl Iterator<Item = Site> {
        let likelihood = self.likelihood;
        let is_leaf = move |site: &Site| {
            site.is_of(likelihood) && Site::ALL.iter().all(|other| other.parent() != Some(*site))
        };
        Site::ALL.into_iter().filter(is_leaf)
    }

    /// The distributions, one line per site, and that of the counts.
    fn distributions(&self) -> Vec<String> {
        let of_site = |site: Site| {
            let mean = site.parent_in_symbols().unwrap_or_else(|| match site {
                Site::ProductEffect => self.effect_mean.clone(),
                _ => self.priors.constant_mean(site).to_string(),
            });
            format!("{} ~ Normal({mean}, {})", site.in_symbols(), self.priors.sd(site))
        };
        let sites = Site::ALL.into_iter().filter(|site| site.is_of(self.likelihood));
        let rate = format!(
            "exp(clip(product_a[i] {} + time_cat_effects[c(i),t] + product_effect[i], {}, {}))",
            self.log_price, self.priors.clip_low, self.priors.clip_high
        );
        let units = format!("units[i,t] ~ {}", self.likelihood.in_symbols(&rate));
        sites.map(of_site).chain([units]).collect()
    }

    fn dot(&self) -> String {
        let legend: String = self
            .distributions()
            .iter()
            .map(|line| format!("{line}\\l"))
            .collect();
        let on = |axis, separator: &str| {
            let names: Vec<String> = self
                .sites_on(axis)
                .map(|site| format!("{};", site.name()))
                .collect();
            names.join(separator)
        };
        let edges: String = self
            .leaves()
            .map(|leaf| {
                let mut line: Vec<&str> = std::iter::successors(Some(leaf), |site| site.parent())
                    .map(Site::name)
                    .collect();
                line.reverse();
                format!("  {} -> units;\n", line.join(" -> "))
            })
            .collect();
        format!(
            r#"digraph model {{
  graph [compound=true, fontname="sans-serif", labeljust=l, label="{legend}"];
  node [shape=ellipse, fontname="sans-serif"];
  {}
  subgraph cluster_category {{
    label="category c = 1..C"; style=rounded;
    {}
    subgraph cluster_time {{ label="period t = 1..T"; style=rounded; {} }}
  }}
  subgraph cluster_product {{
    label="product i = 1..N"; style=rounded;
    {}
    subgraph cluster_row {{
      label="row (i, t)"; style=rounded;
      price [shape=box, style=filled, fillcolor=lightgrey, label="{}"];
      units [style=filled, fillcolor=lightgrey];
    }}
  }}
{edges}  price -> units;
}}
"#,
            on(Axis::Scalar, " "),
            on(Axis::Category, " "),
            on(Axis::CategoryPeriod, " "),
            on(Axis::Product, " "),
            self.price_node,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
