//! The plate diagram as a picture.

use super::drawing::Drawing;
use infermark_model::{Axis, Site};

const NODE_HALF_WIDTH: f64 = 68.0;
const NODE_HALF_HEIGHT: f64 = 24.0;

/// Centre of the first column of nodes, and the distance to the next.
const FIRST_COLUMN: f64 = 170.0;
const COLUMN: f64 = 150.0;

/// Heights of the rows of nodes: scalars, categories, products, and what a row of the panel has.
const SCALARS: f64 = 50.0;
const CATEGORIES: f64 = 160.0;
const PRODUCTS: f64 = 310.0;
const ROWS: f64 = 430.0;

struct Node {
    text: &'static str,
    site: Option<Site>,
    x: f64,
    y: f64,
    is_observed: bool,
}

/// Text, x, y, width, height.
type Plate = (&'static str, f64, f64, f64, f64);

/// Where everything is.
struct Picture {
    nodes: Vec<Node>,
    /// Edges, by index of the nodes.
    edges: Vec<(usize, usize)>,
    plates: [Plate; 4],
}

impl Picture {
    fn new(drawing: &Drawing<'_>) -> Self {
        let count = |axis| drawing.sites_on(axis).count();
        // The plate of the periods is at the right end, a column's width from the categories' own nodes.
        let columns = (count(Axis::Category) + count(Axis::CategoryPeriod) + 1)
            .max(count(Axis::Product) + 1)
            .max(drawing.coefficients.len() + 2);
        let last = FIRST_COLUMN + COLUMN * (columns - 1) as f64;
        let mut nodes = Vec::new();
        for (axis, y) in [
            (Axis::Scalar, SCALARS),
            (Axis::Category, CATEGORIES),
            (Axis::CategoryPeriod, CATEGORIES),
            (Axis::Product, PRODUCTS),
        ] {
            for (k, site) in drawing.sites_on(axis).enumerate() {
                let x = match axis {
                    Axis::CategoryPeriod => last - COLUMN * k as f64,
                    _ => FIRST_COLUMN + COLUMN * k as f64,
                };
                nodes.push(Node {
                    text: site.name(),
                    site: Some(site),
                    x,
                    y,
                    is_observed: false,
                });
            }
        }
        let place = |site| nodes.iter().position(|node| node.site == Some(site));
        let units = nodes.len();
        let of_regressors = (0..drawing.coefficients.len()).map(|k| (units + 1 + k, units));
        let of_parents = nodes.iter().enumerate().filter_map(|(to, node)| {
            let parent = node.site?.parent()?;
            Some((place(parent)?, to))
        });
        let leaves: Vec<Site> = drawing.leaves().collect();
        let is_leaf = |node: &Node| node.site.is_some_and(|site| leaves.contains(&site));
        let of_leaves = (0..units)
            .filter(|from| is_leaf(&nodes[*from]))
            .map(|from| (from, units));
        let edges = of_parents.chain(of_leaves).chain(of_regressors).collect();
        let regressors = drawing.coefficients.iter().enumerate();
        let regressors = regressors.map(|(k, of)| (of.label, FIRST_COLUMN + COLUMN * k as f64));
        for (text, x) in std::iter::once(("units", last)).chain(regressors) {
            nodes.push(Node {
                text,
                site: None,
                x,
                y: ROWS,
                is_observed: true,
            });
        }
        Picture {
            nodes,
            edges,
            plates: [
                ("category c = 1..C", 60.0, 100.0, last + 70.0, 142.0),
                ("period t = 1..T", last - 100.0, 115.0, 215.0, 100.0),
                ("product i = 1..N", 60.0, 255.0, last + 70.0, 262.0),
                ("row (i, t)", 75.0, 380.0, last + 40.0, 105.0),
            ],
        }
    }

    fn body(&self) -> String {
        let mut body = String::new();
        for (text, x, y, width, height) in self.plates {
            body += &format!(
                "  <rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"none\" stroke=\"#777\"/>\n  \
                 <text x=\"{}\" y=\"{}\" font-size=\"12\" fill=\"#555\" text-anchor=\"end\">{text}</text>\n",
                x + width - 10.0,
                y + height - 8.0
            );
        }
        for (from, to) in &self.edges {
            let (from, to) = (&self.nodes[*from], &self.nodes[*to]);
            let (sx, sy) = on_edge(from.x, from.y, to.x, to.y);
            let (ex, ey) = on_edge(to.x, to.y, from.x, from.y);
            body += &format!(
                "  <line x1=\"{sx:.1}\" y1=\"{sy:.1}\" x2=\"{ex:.1}\" y2=\"{ey:.1}\" stroke=\"#333\" marker-end=\"url(#arrow)\"/>\n"
            );
        }
        for Node {
            text,
            x,
            y,
            is_observed,
            ..
        } in &self.nodes
        {
            let fill = if *is_observed { "#ddd" } else { "#fff" };
            body += &format!(
                "  <ellipse cx=\"{x}\" cy=\"{y}\" rx=\"{NODE_HALF_WIDTH}\" ry=\"{NODE_HALF_HEIGHT}\" fill=\"{fill}\" stroke=\"#333\"/>\n  \
                 <text x=\"{x}\" y=\"{}\" font-size=\"14\" text-anchor=\"middle\">{text}</text>\n",
                y + 5.0
            );
        }
        body
    }
}

/// The whole picture, with the distributions below it.
pub(super) fn svg(drawing: &Drawing<'_>) -> String {
    let lines = drawing.distributions();
    let height = 557 + 20 * lines.len();
    let mut body = Picture::new(drawing).body();
    for (line, text) in lines.iter().enumerate() {
        let y = 552 + 20 * line;
        body +=
            &format!("  <text x=\"60\" y=\"{y}\" font-size=\"12\" font-family=\"monospace\">{text}</text>\n");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1000 {height}\" width=\"1000\" height=\"{height}\" font-family=\"sans-serif\">\n  \
         <defs><marker id=\"arrow\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0L10 5L0 10z\" fill=\"#333\"/></marker></defs>\n  \
         <rect width=\"1000\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Where the line from one node's centre to another's leaves the first one's ellipse.
fn on_edge(x: f64, y: f64, to_x: f64, to_y: f64) -> (f64, f64) {
    let (dx, dy) = (to_x - x, to_y - y);
    let scale = 1.0 / ((dx / NODE_HALF_WIDTH).powi(2) + (dy / NODE_HALF_HEIGHT).powi(2)).sqrt();
    (x + scale * dx, y + scale * dy)
}
