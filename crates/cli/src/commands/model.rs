//! `infermark model`: the plate diagram.

use crate::answer::answer;
use crate::exit::Exit;
use crate::settings::{PriorArguments, SpecificationArguments};
use clap::{Args, ValueEnum};
use infermark_model::{Priors, Specification};

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
}

impl ModelArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let model = Specification::from(self.model.model);
        let given = self.priors.given()?;
        let priors = given.over(model.constant_priors())?;
        let words = Words {
            effect_mean: match model {
                Specification::Sales if !given.has("product_effect_mean") => "log median units".to_owned(),
                _ => priors.product_effect_mean.to_string(),
            },
            log_price: match model {
                Specification::Sales => "ln(price[i,t] / usual_price[i])",
                _ => "ln price[i,t]",
            },
            node: match model {
                Specification::Sales => "ln relative price",
                _ => "ln price",
            },
        };
        let text = match self.format {
            Format::Dot => dot(&priors, &words),
            Format::Svg => svg(&priors, &words),
        };
        answer(|out| out.write_all(text.as_bytes()))?;
        Ok(Exit::Done)
    }
}

/// How a model names its prices and what the product effects are about.
struct Words {
    /// Prior mean of `product_effect`.
    effect_mean: String,
    /// The log price in a formula.
    log_price: &'static str,
    /// The log price in its node.
    node: &'static str,
}

/// The distributions, one line a site.
fn distributions(p: &Priors, words: &Words) -> [String; 6] {
    [
        format!("global_a ~ Normal({}, {})", p.global_a_mean, p.global_a_sd),
        format!("category_a[c] ~ Normal(global_a, {})", p.category_a_sd),
        format!("product_a[i] ~ Normal(category_a[c(i)], {})", p.product_a_sd),
        format!(
            "product_effect[i] ~ Normal({}, {})",
            words.effect_mean, p.product_effect_sd
        ),
        format!(
            "time_cat_effects[c,t] ~ Normal({}, {})",
            p.time_cat_effects_mean, p.time_cat_effects_sd
        ),
        format!(
            "units[i,t] ~ Poisson(exp(clip(product_a[i] {} + time_cat_effects[c(i),t] + product_effect[i], {}, {})))",
            words.log_price, p.clip_low, p.clip_high
        ),
    ]
}

fn dot(priors: &Priors, words: &Words) -> String {
    let node = words.node;
    let legend: String = distributions(priors, words)
        .iter()
        .map(|line| format!("{line}\\l"))
        .collect();
    format!(
        r#"digraph model {{
  graph [compound=true, fontname="sans-serif", labeljust=l, label="{legend}"];
  node [shape=ellipse, fontname="sans-serif"];
  global_a;
  subgraph cluster_category {{
    label="category c = 1..C"; style=rounded;
    category_a;
    subgraph cluster_time {{ label="period t = 1..T"; style=rounded; time_cat_effects; }}
  }}
  subgraph cluster_product {{
    label="product i = 1..N"; style=rounded;
    product_a; product_effect;
    subgraph cluster_row {{
      label="row (i, t)"; style=rounded;
      price [shape=box, style=filled, fillcolor=lightgrey, label="{node}"];
      units [style=filled, fillcolor=lightgrey];
    }}
  }}
  global_a -> category_a -> product_a -> units;
  product_effect -> units;
  time_cat_effects -> units;
  price -> units;
}}
"#
    )
}

/// The node of the log price, which each model names.
const PRICE: &str = "ln price";

/// A node of the picture: text, centre, whether it is observed.
const NODES: [(&str, f64, f64, bool); 7] = [
    ("global_a", 170.0, 50.0, false),
    ("category_a", 170.0, 160.0, false),
    ("time_cat_effects", 470.0, 160.0, false),
    ("product_a", 170.0, 310.0, false),
    ("product_effect", 320.0, 310.0, false),
    ("units", 470.0, 430.0, true),
    (PRICE, 170.0, 430.0, true),
];

/// Edges by index of [`NODES`].
const EDGES: [(usize, usize); 6] = [(0, 1), (1, 3), (2, 5), (3, 5), (4, 5), (6, 5)];

/// Plates: text, x, y, width, height.
const PLATES: [(&str, f64, f64, f64, f64); 4] = [
    ("category c = 1..C", 60.0, 100.0, 540.0, 142.0),
    ("period t = 1..T", 370.0, 115.0, 215.0, 100.0),
    ("product i = 1..N", 60.0, 255.0, 540.0, 262.0),
    ("row (i, t)", 75.0, 380.0, 510.0, 105.0),
];

const NODE_HALF_WIDTH: f64 = 68.0;
const NODE_HALF_HEIGHT: f64 = 24.0;

fn svg(priors: &Priors, words: &Words) -> String {
    let mut body = String::new();
    for (text, x, y, width, height) in PLATES {
        body += &format!(
            "  <rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"none\" stroke=\"#777\"/>\n  \
             <text x=\"{}\" y=\"{}\" font-size=\"12\" fill=\"#555\" text-anchor=\"end\">{text}</text>\n",
            x + width - 10.0,
            y + height - 8.0
        );
    }
    for (from, to) in EDGES {
        let ((_, x1, y1, _), (_, x2, y2, _)) = (NODES[from], NODES[to]);
        let (sx, sy) = on_edge(x1, y1, x2, y2);
        let (ex, ey) = on_edge(x2, y2, x1, y1);
        body += &format!(
            "  <line x1=\"{sx:.1}\" y1=\"{sy:.1}\" x2=\"{ex:.1}\" y2=\"{ey:.1}\" stroke=\"#333\" marker-end=\"url(#arrow)\"/>\n"
        );
    }
    for (text, x, y, observed) in NODES {
        let text = if text == PRICE { words.node } else { text };
        let fill = if observed { "#ddd" } else { "#fff" };
        body += &format!(
            "  <ellipse cx=\"{x}\" cy=\"{y}\" rx=\"{NODE_HALF_WIDTH}\" ry=\"{NODE_HALF_HEIGHT}\" fill=\"{fill}\" stroke=\"#333\"/>\n  \
             <text x=\"{x}\" y=\"{}\" font-size=\"14\" text-anchor=\"middle\">{text}</text>\n",
            y + 5.0
        );
    }
    for (line, text) in distributions(priors, words).iter().enumerate() {
        let y = 552 + 20 * line;
        body +=
            &format!("  <text x=\"60\" y=\"{y}\" font-size=\"12\" font-family=\"monospace\">{text}</text>\n");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 677\" width=\"1000\" height=\"677\" font-family=\"sans-serif\">\n  \
         <defs><marker id=\"arrow\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0L10 5L0 10z\" fill=\"#333\"/></marker></defs>\n  \
         <rect width=\"1000\" height=\"677\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Where the line from one node's centre to another's leaves the first one's ellipse.
fn on_edge(x: f64, y: f64, to_x: f64, to_y: f64) -> (f64, f64) {
    let (dx, dy) = (to_x - x, to_y - y);
    let scale = 1.0 / ((dx / NODE_HALF_WIDTH).powi(2) + (dy / NODE_HALF_HEIGHT).powi(2)).sqrt();
    (x + scale * dx, y + scale * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_name_every_site_with_its_distribution() {
        let priors = Priors {
            product_a_sd: 2.5,
            ..Priors::default()
        };
        let words = Words {
            effect_mean: "0".to_owned(),
            log_price: "ln price[i,t]",
            node: "ln price",
        };
        for text in [dot(&priors, &words), svg(&priors, &words)] {
            for site in infermark_model::Site::ALL {
                assert!(text.contains(site.name()));
            }
            assert!(text.contains("Normal(category_a[c(i)], 2.5)"));
            assert!(text.contains("Normal(-2, 1)"));
        }
    }
}
