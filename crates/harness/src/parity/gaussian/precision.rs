//! The precision of a Gaussian, from the rows' weights and the priors: its diagonal, and its product with a
//! vector.

use super::Reference;
use super::expected::{ExpectedRow, Weight};
use infermark_model::site::Site;

/// A precision: the rows' weights in the panel's order, and the log shapes' own curvature by category.
#[derive(Debug, Clone)]
pub(super) struct Precision {
    pub(super) rows: Vec<Weight>,
    pub(super) curvature: Vec<f64>,
    /// The counts' expected information on the log shapes.
    pub(super) told: Vec<f64>,
    /// The addition to the log shapes' curvature if the least one replaces it.
    pub(super) added: Vec<f64>,
}

impl Reference<'_> {
    /// The precision of expected rows.
    pub(super) fn precision(&self, rows: &[ExpectedRow]) -> Precision {
        let mut curvature = vec![0.0; self.layout.categories];
        let mut told = curvature.clone();
        self.for_each_row(|product, index, _| {
            let category = self.panel.category_of()[product] as usize;
            curvature[category] += rows[index].curvature;
            told[category] += rows[index].told;
        });
        Precision {
            rows: rows.iter().map(|row| row.weight).collect(),
            curvature,
            told,
            added: vec![0.0; self.layout.categories],
        }
    }

    /// The priors' part of the precision's diagonal.
    pub(super) fn prior_diagonal(&self) -> Vec<f64> {
        let (layout, priors) = (&self.layout, &self.priors);
        let mut diagonal = vec![0.0; layout.latents()];
        for site in layout.sites() {
            diagonal[layout.range(*site)].fill(priors.sd(*site).powi(-2));
        }
        diagonal[0] += layout.categories as f64 * priors.category_a_sd.powi(-2);
        for c in self.panel.category_of() {
            diagonal[layout.start(Site::CategoryA) + *c as usize] += priors.product_a_sd.powi(-2);
        }
        diagonal
    }

    /// The diagonal of `Q`, without what is added to the log shapes.
    pub(super) fn diagonal(&self, precision: &Precision) -> Vec<f64> {
        let mut diagonal = self.prior_diagonal();
        self.for_each_row(|product, index, row| {
            let (a, e, t, _) = self.places(product);
            let w = precision.rows[index].by_eta;
            diagonal[a] += w * row.log_price * row.log_price;
            diagonal[e] += w;
            diagonal[t + row.period] += w;
        });
        for (j, k) in self.layout.range(Site::LogShape).zip(&precision.curvature) {
            diagonal[j] += k;
        }
        diagonal
    }

    /// `Q x`.
    pub(super) fn times(&self, precision: &Precision, x: &[f64]) -> Vec<f64> {
        let (layout, priors) = (&self.layout, &self.priors);
        let mut out: Vec<f64> = self.prior_diagonal().iter().zip(x).map(|(q, x)| q * x).collect();
        for c in 0..layout.categories {
            let category = layout.start(Site::CategoryA) + c;
            out[0] -= priors.category_a_sd.powi(-2) * x[category];
            out[category] -= priors.category_a_sd.powi(-2) * x[0];
        }
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let (a, category) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::CategoryA) + *c as usize,
            );
            out[a] -= priors.product_a_sd.powi(-2) * x[category];
            out[category] -= priors.product_a_sd.powi(-2) * x[a];
        }
        let has_shape = layout.likelihood.has_shape();
        self.for_each_row(|product, index, row| {
            let (a, e, t, s) = self.places(product);
            let Weight { by_eta, cross } = precision.rows[index];
            let eta = x[a] * row.log_price + x[e] + x[t + row.period];
            let mut by_eta = by_eta * eta;
            if has_shape {
                by_eta += cross * x[s];
                out[s] += cross * eta;
            }
            out[a] += by_eta * row.log_price;
            out[e] += by_eta;
            out[t + row.period] += by_eta;
        });
        let curvatures = precision.curvature.iter().zip(&precision.added);
        for (j, (k, added)) in layout.range(Site::LogShape).zip(curvatures) {
            out[j] += (k + added) * x[j];
        }
        out
    }
}
