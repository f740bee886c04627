//! The precision of a Gaussian, from the rows' weights and the priors: its diagonal, and its product with a
//! vector.

use super::Reference;
use super::expected::{ExpectedRow, Weight};
use infermark_model::Site;
use infermark_model::design::{along, at};

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
        let mut diagonal = vec![0.0; self.layout.latents()];
        self.for_each_prior(|j, parent, precision| {
            diagonal[j] += precision;
            if let Some(parent) = parent {
                diagonal[parent] += precision;
            }
        });
        diagonal
    }

    /// Calls `f(latent, latent that is its prior mean, prior precision)` for every latent.
    fn for_each_prior(&self, mut f: impl FnMut(usize, Option<usize>, f64)) {
        for site in self.layout.sites() {
            let precision = self.priors.sd(*site).powi(-2);
            for (k, j) in self.layout.range(*site).enumerate() {
                f(
                    j,
                    self.layout.parent(*site, k, self.panel.category_of()),
                    precision,
                );
            }
        }
    }

    /// The diagonal of `Q`, without what is added to the log shapes.
    pub(super) fn diagonal(&self, precision: &Precision) -> Vec<f64> {
        let mut diagonal = self.prior_diagonal();
        self.for_each_row(|product, index, row| {
            let (places, t, _) = self.places(product);
            let w = precision.rows[index].by_eta;
            for (j, x) in places.into_iter().zip(row.design()) {
                diagonal[j] += w * x * x;
            }
            diagonal[t + row.period] += w;
        });
        for (j, k) in self.layout.range(Site::LogShape).zip(&precision.curvature) {
            diagonal[j] += k;
        }
        diagonal
    }

    /// `Q x`.
    pub(super) fn times(&self, precision: &Precision, x: &[f64]) -> Vec<f64> {
        let layout = &self.layout;
        let mut out: Vec<f64> = self.prior_diagonal().iter().zip(x).map(|(q, x)| q * x).collect();
        self.for_each_prior(|j, parent, precision| {
            if let Some(parent) = parent {
                out[parent] -= precision * x[j];
                out[j] -= precision * x[parent];
            }
        });
        let has_shape = layout.likelihood.has_shape();
        self.for_each_row(|product, index, row| {
            let (places, t, s) = self.places(product);
            let Weight { by_eta, cross } = precision.rows[index];
            let eta = along(&at(x, places), &row.design()) + x[t + row.period];
            let mut by_eta = by_eta * eta;
            if has_shape {
                by_eta += cross * x[s];
                out[s] += cross * eta;
            }
            for (j, value) in places.into_iter().zip(row.design()) {
                out[j] += by_eta * value;
            }
            out[t + row.period] += by_eta;
        });
        let curvatures = precision.curvature.iter().zip(&precision.added);
        for (j, (k, added)) in layout.range(Site::LogShape).zip(curvatures) {
            out[j] += (k + added) * x[j];
        }
        out
    }
}
