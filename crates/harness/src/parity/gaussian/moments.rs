//! Determinant and covariances of a Gaussian, by eliminating products, borders and the top one after the other.

use super::Reference;
use super::expected::Weight;
use super::precision::Precision;
use infermark_model::site::Site;

/// Least precision of a log shape: fractions of the counts' expected information on it, and of its curvature
/// that other parameters take.
const LEAST_OF_TOLD: f64 = 0.25;
const LEAST_OF_TAKEN: f64 = 0.5;

/// The moments of a Gaussian with a given precision.
pub(super) struct Moments {
    pub(super) ln_det: f64,
    /// See [`Precision::added`].
    pub(super) added: Vec<f64>,
    /// Variances of the latents.
    pub(super) variance: Vec<f64>,
    /// Variances of the rows' log rates.
    pub(super) row_variance: Vec<f64>,
    /// Covariance of each product's elasticity with its category's, and of each category's with the global one.
    pub(super) with_category: Vec<f64>,
    pub(super) with_global: Vec<f64>,
}

impl Reference<'_> {
    /// Determinant and covariances; `None` where the precision is not positive definite.
    pub(super) fn moments(&self, precision: &Precision) -> Option<Moments> {
        let (layout, priors) = (&self.layout, &self.priors);
        let periods = layout.periods;
        let has_shape = layout.likelihood.has_shape();
        let (shape, last) = (periods, periods + usize::from(has_shape));
        let border = last + 1;
        let of = |sd: f64| sd.powi(-2);
        // Products, eliminated: inverses of their blocks, and the Schur complements of the borders.
        let mut schur: Vec<Dense> = (0..layout.categories).map(|_| Dense::new(border)).collect();
        for (c, schur) in schur.iter_mut().enumerate() {
            for t in 0..periods {
                *schur.at(t, t) = of(priors.time_cat_effects_sd);
            }
            if has_shape {
                *schur.at(shape, shape) = of(priors.log_shape_sd) + precision.curvature[c];
            }
            *schur.at(last, last) = of(priors.category_a_sd);
        }
        let mut ln_det = 0.0;
        let couplings = |product: usize| {
            let mut block = [of(priors.product_a_sd), 0.0, of(priors.product_effect_sd)];
            let mut b = vec![[0.0; 2]; border];
            b[last][0] = -of(priors.product_a_sd);
            for (index, row) in self
                .panel
                .row_range(product)
                .zip(self.panel.product_rows(product))
            {
                let (x, Weight { by_eta, cross }) = (row.log_price, precision.rows[index]);
                block[0] += by_eta * x * x;
                block[1] += by_eta * x;
                block[2] += by_eta;
                b[row.period] = [by_eta * x, by_eta];
                if has_shape {
                    b[shape][0] += cross * x;
                    b[shape][1] += cross;
                }
            }
            // Without the cancellation of the determinant: the effect's part that the elasticity leaves.
            let ratio = block[1] / block[0];
            let rest = block[2] - ratio * block[1];
            let inverse = [1.0 / block[0] + ratio * ratio / rest, -ratio / rest, 1.0 / rest];
            let w: Vec<[f64; 2]> = b
                .iter()
                .map(|[a, e]| [inverse[0] * a + inverse[1] * e, inverse[1] * a + inverse[2] * e])
                .collect();
            (block[0] * rest, inverse, b, w)
        };
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let schur = &mut schur[*c as usize];
            let (determinant, _, b, w) = couplings(i);
            if determinant.is_nan() || determinant <= 0.0 {
                return None;
            }
            ln_det += determinant.ln();
            for (index, row) in self.panel.row_range(i).zip(self.panel.product_rows(i)) {
                let Weight { by_eta, cross } = precision.rows[index];
                *schur.at(row.period, row.period) += by_eta;
                if has_shape {
                    *schur.at(shape, row.period) += cross;
                    *schur.at(row.period, shape) += cross;
                }
            }
            *schur.at(last, last) += of(priors.product_a_sd);
            for (j, b) in b.iter().enumerate() {
                for (k, w) in w.iter().enumerate() {
                    *schur.at(j, k) -= b[0] * w[0] + b[1] * w[1];
                }
            }
        }
        // The log shapes, once products and periods are eliminated, have a least precision.
        let mut added = vec![0.0; layout.categories];
        if has_shape {
            for (c, schur) in schur.iter_mut().enumerate() {
                let mut of_periods = Dense::new(periods);
                for (t, s) in (0..periods).flat_map(|t| (0..periods).map(move |s| (t, s))) {
                    *of_periods.at(t, s) = schur.get(t, s);
                }
                let (inverse, _) = of_periods.inverse()?;
                let mut own = schur.get(shape, shape);
                for (t, s) in (0..periods).flat_map(|t| (0..periods).map(move |s| (t, s))) {
                    own -= schur.get(shape, t) * inverse.get(t, s) * schur.get(shape, s);
                }
                let taken = of(priors.log_shape_sd) + precision.curvature[c] - own;
                let least = of(priors.log_shape_sd) + LEAST_OF_TOLD * precision.told[c];
                added[c] = (least.max(LEAST_OF_TAKEN * taken) - own).max(0.0);
                *schur.at(shape, shape) += added[c];
            }
        }
        // Borders, then the top.
        let coupling = -of(priors.category_a_sd);
        let mut top = of(priors.global_a_sd) + layout.categories as f64 * of(priors.category_a_sd);
        let mut inverses = Vec::with_capacity(schur.len());
        for schur in schur {
            let (inverse, own) = schur.inverse()?;
            ln_det += own;
            top -= coupling * coupling * inverse.get(last, last);
            inverses.push(inverse);
        }
        if top.is_nan() || top <= 0.0 {
            return None;
        }
        ln_det += top.ln();
        let mut moments = Moments {
            ln_det,
            added,
            variance: vec![0.0; layout.latents()],
            row_variance: vec![0.0; self.panel.rows()],
            with_category: vec![0.0; layout.products],
            with_global: vec![0.0; layout.categories],
        };
        moments.variance[0] = 1.0 / top;
        for (c, inverse) in inverses.iter_mut().enumerate() {
            moments.with_global[c] = -coupling * inverse.get(last, last) / top;
            let column: Vec<f64> = (0..border).map(|j| inverse.get(j, last)).collect();
            for j in 0..border {
                for k in 0..border {
                    *inverse.at(j, k) += coupling * coupling * column[j] * column[k] / top;
                }
            }
            for t in 0..periods {
                moments.variance[layout.time_index(c, t)] = inverse.get(t, t);
            }
            if has_shape {
                moments.variance[layout.start(Site::LogShape) + c] = inverse.get(shape, shape);
            }
            moments.variance[layout.start(Site::CategoryA) + c] = inverse.get(last, last);
        }
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let covariance = &inverses[*c as usize];
            let (_, inverse, _, w) = couplings(i);
            // Covariances of the pair with the border.
            let mut with_border = vec![[0.0; 2]; border];
            let mut own = inverse;
            for (j, with) in with_border.iter_mut().enumerate() {
                for (k, w) in w.iter().enumerate() {
                    let c = covariance.get(k, j);
                    with[0] -= w[0] * c;
                    with[1] -= w[1] * c;
                }
                own[0] -= with[0] * w[j][0];
                own[1] -= with[0] * w[j][1];
                own[2] -= with[1] * w[j][1];
            }
            let (a, e, t, _) = self.places(i);
            moments.variance[a] = own[0];
            moments.variance[e] = own[2];
            moments.with_category[i] = with_border[last][0];
            for (index, row) in self.panel.row_range(i).zip(self.panel.product_rows(i)) {
                let x = row.log_price;
                let with = with_border[row.period];
                moments.row_variance[index] = x * x * own[0]
                    + 2.0 * x * own[1]
                    + own[2]
                    + 2.0 * (x * with[0] + with[1])
                    + moments.variance[t + row.period];
            }
        }
        Some(moments)
    }

    /// `tr(P Sigma)`, P the priors' part of the precision.
    pub(super) fn prior_trace(&self, moments: &Moments) -> f64 {
        let (layout, priors) = (&self.layout, &self.priors);
        let diagonal = self.prior_diagonal();
        let mut trace: f64 = diagonal.iter().zip(&moments.variance).map(|(p, v)| p * v).sum();
        for with in &moments.with_global {
            trace -= 2.0 * priors.category_a_sd.powi(-2) * with;
        }
        for with in &moments.with_category {
            trace -= 2.0 * priors.product_a_sd.powi(-2) * with;
        }
        debug_assert_eq!(diagonal.len(), layout.latents());
        trace
    }
}

/// A symmetric matrix, whole: the border of a category.
struct Dense {
    order: usize,
    entries: Vec<f64>,
}

impl Dense {
    fn new(order: usize) -> Self {
        Dense {
            order,
            entries: vec![0.0; order * order],
        }
    }

    fn get(&self, row: usize, column: usize) -> f64 {
        self.entries[row * self.order + column]
    }

    fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.entries[row * self.order + column]
    }

    /// The inverse and the log of the determinant, by Cholesky's factor; `None` where there is none.
    fn inverse(mut self) -> Option<(Dense, f64)> {
        let n = self.order;
        let mut ln_det = 0.0;
        for j in 0..n {
            for k in 0..j {
                let factor = self.get(j, k);
                for i in j..n {
                    let product = factor * self.get(i, k);
                    *self.at(i, j) -= product;
                }
            }
            let pivot = self.get(j, j);
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            ln_det += pivot.ln();
            for i in j..n {
                *self.at(i, j) /= pivot.sqrt();
            }
        }
        // Column by column: forward, then back.
        let mut inverse = Dense::new(n);
        let mut x = vec![0.0; n];
        for column in 0..n {
            x.fill(0.0);
            x[column] = 1.0;
            for i in column..n {
                let known: f64 = (column..i).map(|k| self.get(i, k) * x[k]).sum();
                x[i] = (x[i] - known) / self.get(i, i);
            }
            for i in (0..n).rev() {
                let known: f64 = (i + 1..n).map(|k| self.get(k, i) * x[k]).sum();
                x[i] = (x[i] - known) / self.get(i, i);
            }
            for (row, value) in x.iter().enumerate() {
                *inverse.at(row, column) = *value;
            }
        }
        Some((inverse, ln_det))
    }
}
