//! The content of the diagram: sites, distributions and edges, and its Graphviz form.

use infermark_model::design::{COEFFICIENTS, Coefficient};
use infermark_model::{Axis, Likelihood, Priors, Site};

/// The model to draw, with the wording of its specification.
pub(super) struct Drawing<'a> {
    pub(super) priors: &'a Priors,
    pub(super) likelihood: Likelihood,
    /// Prior mean of `product_effect`.
    pub(super) effect_mean: String,
    pub(super) coefficients: [Coefficient; COEFFICIENTS.len()],
}

impl Drawing<'_> {
    /// The sites of the likelihood on an axis.
    pub(super) fn sites_on(&self, axis: Axis) -> impl Iterator<Item = Site> {
        let likelihood = self.likelihood;
        let has = move |site: &Site| site.is_of(likelihood) && site.axis() == axis;
        Site::ALL.into_iter().filter(has)
    }

    /// The sites that the counts depend on directly: those that are not the prior mean of another.
    pub(super) fn leaves(&self) -> impl Iterator<Item = Site> {
        let likelihood = self.likelihood;
        let is_leaf = move |site: &Site| {
            site.is_of(likelihood) && Site::ALL.iter().all(|other| other.parent() != Some(*site))
        };
        Site::ALL.into_iter().filter(is_leaf)
    }

    /// The distributions, one line per site, and that of the counts.
    pub(super) fn distributions(&self) -> Vec<String> {
        let of_site = |site: Site| {
            let mean = site.parent_in_symbols().unwrap_or_else(|| match site {
                Site::ProductEffect => self.effect_mean.clone(),
                _ => self.priors.constant_mean(site).to_string(),
            });
            format!("{} ~ Normal({mean}, {})", site.in_symbols(), self.priors.sd(site))
        };
        let sites = Site::ALL.into_iter().filter(|site| site.is_of(self.likelihood));
        let terms: String = self
            .coefficients
            .iter()
            .map(|of| format!("{} {} + ", of.product.in_symbols(), of.symbols))
            .collect();
        let rate = format!(
            "exp(clip({terms}time_cat_effects[c(i),t] + product_effect[i], {}, {}))",
            self.priors.clip_low, self.priors.clip_high
        );
        let units = format!("units[i,t] ~ {}", self.likelihood.in_symbols(&rate));
        sites.map(of_site).chain([units]).collect()
    }

    pub(super) fn dot(&self) -> String {
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
        let of_regressors = |line: &dyn Fn(&Coefficient) -> String| -> String {
            self.coefficients.iter().map(line).collect()
        };
        let regressors = of_regressors(&|of| {
            format!(
                "      {} [shape=box, style=filled, fillcolor=lightgrey, label=\"{}\"];\n",
                of.name, of.label
            )
        });
        let of_rate = of_regressors(&|of| format!("  {} -> units;\n", of.name));
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
{regressors}      units [style=filled, fillcolor=lightgrey];
    }}
  }}
{edges}{of_rate}}}
"#,
            on(Axis::Scalar, " "),
            on(Axis::Category, " "),
            on(Axis::CategoryPeriod, " "),
            on(Axis::Product, " "),
        )
    }
}
