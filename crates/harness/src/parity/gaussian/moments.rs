//! Determinant and covariances of a Gaussian, by eliminating products, borders and the top one after the other.

use super::Reference;
use super::expected::Weight;
use super::precision::Precision;
use infermark_model::Site;
use infermark_model::design::{COEFFICIENTS, PRODUCT_LATENTS, PRODUCT_SITES, along};
use std::array::from_fn;

/// Least precision of a log shape: fractions of the counts' expected information on it, and of its curvature
/// that other parameters take.
const LEAST_OF_TOLD: f64 = 0.25;
const LEAST_OF_TAKEN: f64 = 0.5;

/// Coefficients of a product.
const COUNT: usize = COEFFICIENTS.len();

/// The moments of a Gaussian with a given precision.
pub(super) struct Moments {
    pub(super) ln_det: f64,
    /// See [`Precision::added`].
    pub(super) added: Vec<f64>,
    /// Variances of the latents.
    pub(super) variance: Vec<f64>,
    /// Variances of the rows' log rates.
    pub(super) row_variance: Vec<f64>,
    /// Covariance of each product's coefficients with their category's, and of each category's with the global
    /// ones.
    with_category: Vec<[f64; COUNT]>,
    with_global: Vec<[f64; COUNT]>,
}

/// A product, eliminated.
struct Eliminated {
    ln_det: f64,
    /// The inverse of its block of the precision.
    inverse: Dense,
    /// Its couplings with the border of its category, and these times the inverse.
    couplings: Vec<[f64; PRODUCT_LATENTS]>,
    shares: Vec<[f64; PRODUCT_LATENTS]>,
}

impl Reference<'_> {
    /// The precision of the prior of a site.
    fn prior_precision(&self, site: Site) -> f64 {
        self.priors.sd(site).powi(-2)
    }

    /// Length of a category's border: its periods, its log shape if there is one, and its coefficients. The
    /// second number is the position of the first coefficient.
    fn border(&self) -> (usize, usize) {
        let first = self.layout.periods + usize::from(self.layout.likelihood.has_shape());
        (first + COUNT, first)
    }

    /// A product's part of the precision; `None` if it is not positive definite.
    fn eliminated(&self, product: usize, precision: &Precision) -> Option<Eliminated> {
        let (border, first) = self.border();
        let shape = self.layout.periods;
        let mut block = Dense::new(PRODUCT_LATENTS);
        for (k, site) in PRODUCT_SITES.into_iter().enumerate() {
            *block.at(k, k) = self.prior_precision(site);
        }
        let mut couplings = vec![[0.0; PRODUCT_LATENTS]; border];
        for (k, of) in COEFFICIENTS.iter().enumerate() {
            couplings[first + k][k] = -self.prior_precision(of.product);
        }
        for (index, row) in self
            .panel
            .row_range(product)
            .zip(self.panel.product_rows(product))
        {
            let (design, Weight { by_eta, cross }) = (row.design(), precision.rows[index]);
            for (j, k) in pairs() {
                *block.at(j, k) += by_eta * design[j] * design[k];
            }
            couplings[row.period] = design.map(|x| by_eta * x);
            if self.layout.likelihood.has_shape() {
                for (to, x) in couplings[shape].iter_mut().zip(design) {
                    *to += cross * x;
                }
            }
        }
        let (inverse, ln_det) = block.inverse()?;
        let times = |of: &[f64; PRODUCT_LATENTS]| {
            from_fn(|j| (0..PRODUCT_LATENTS).map(|k| inverse.get(j, k) * of[k]).sum())
        };
        Some(Eliminated {
            ln_det,
            shares: couplings.iter().map(times).collect(),
            inverse,
            couplings,
        })
    }

    /// Determinant and covariances; `None` where the precision is not positive definite.
    pub(super) fn moments(&self, precision: &Precision) -> Option<Moments> {
        let layout = &self.layout;
        let (mut schur, mut ln_det) = self.borders(precision)?;
        let added = self.least_of_shapes(precision, &mut schur)?;
        // Borders, then the top.
        let (border, first) = self.border();
        let above = COEFFICIENTS.map(|of| self.prior_precision(of.category));
        let mut top = Dense::new(COUNT);
        for (k, of) in COEFFICIENTS.iter().enumerate() {
            *top.at(k, k) = self.prior_precision(of.global) + layout.categories as f64 * above[k];
        }
        let mut inverses = Vec::with_capacity(schur.len());
        for schur in schur {
            let (inverse, own) = schur.inverse()?;
            ln_det += own;
            for (j, k) in (0..COUNT).flat_map(|j| (0..COUNT).map(move |k| (j, k))) {
                *top.at(j, k) -= above[j] * above[k] * inverse.get(first + j, first + k);
            }
            inverses.push(inverse);
        }
        let (top, own) = top.inverse()?;
        ln_det += own;
        let mut moments = Moments {
            ln_det,
            added,
            variance: vec![0.0; layout.latents()],
            row_variance: vec![0.0; self.panel.rows()],
            with_category: vec![[0.0; COUNT]; layout.products],
            with_global: vec![[0.0; COUNT]; layout.categories],
        };
        for (k, of) in COEFFICIENTS.iter().enumerate() {
            moments.variance[layout.start(of.global)] = top.get(k, k);
        }
        for (c, inverse) in inverses.iter_mut().enumerate() {
            // Covariances of the border with the top.
            let with_top: Vec<[f64; COUNT]> = (0..border)
                .map(|j| {
                    from_fn(|l| {
                        (0..COUNT)
                            .map(|k| inverse.get(j, first + k) * above[k] * top.get(k, l))
                            .sum()
                    })
                })
                .collect();
            moments.with_global[c] = from_fn(|k| with_top[first + k][k]);
            let columns: Vec<[f64; COUNT]> = (0..border)
                .map(|j| from_fn(|k| above[k] * inverse.get(j, first + k)))
                .collect();
            for (j, k) in (0..border).flat_map(|j| (0..border).map(move |k| (j, k))) {
                *inverse.at(j, k) += (0..COUNT).map(|l| with_top[j][l] * columns[k][l]).sum::<f64>();
            }
            for t in 0..layout.periods {
                moments.variance[layout.time_index(c, t)] = inverse.get(t, t);
            }
            if layout.likelihood.has_shape() {
                moments.variance[layout.start(Site::LogShape) + c] =
                    inverse.get(layout.periods, layout.periods);
            }
            for (k, of) in COEFFICIENTS.iter().enumerate() {
                moments.variance[layout.start(of.category) + c] = inverse.get(first + k, first + k);
            }
        }
        for (i, c) in self.panel.category_of().iter().enumerate() {
            self.add_product(i, &inverses[*c as usize], precision, &mut moments)?;
        }
        Some(moments)
    }

    /// The Schur complements of the borders, and the log determinant of the products' blocks.
    fn borders(&self, precision: &Precision) -> Option<(Vec<Dense>, f64)> {
        let layout = &self.layout;
        let ((border, first), shape) = (self.border(), layout.periods);
        let has_shape = layout.likelihood.has_shape();
        let mut schur: Vec<Dense> = (0..layout.categories).map(|_| Dense::new(border)).collect();
        for (c, schur) in schur.iter_mut().enumerate() {
            for t in 0..layout.periods {
                *schur.at(t, t) = self.prior_precision(Site::TimeCatEffects);
            }
            if has_shape {
                *schur.at(shape, shape) = self.prior_precision(Site::LogShape) + precision.curvature[c];
            }
            for (k, of) in COEFFICIENTS.iter().enumerate() {
                *schur.at(first + k, first + k) = self.prior_precision(of.category);
            }
        }
        let mut ln_det = 0.0;
        for (i, c) in self.panel.category_of().iter().enumerate() {
            let schur = &mut schur[*c as usize];
            let product = self.eliminated(i, precision)?;
            ln_det += product.ln_det;
            for (index, row) in self.panel.row_range(i).zip(self.panel.product_rows(i)) {
                let Weight { by_eta, cross } = precision.rows[index];
                *schur.at(row.period, row.period) += by_eta;
                if has_shape {
                    *schur.at(shape, row.period) += cross;
                    *schur.at(row.period, shape) += cross;
                }
            }
            for (k, of) in COEFFICIENTS.iter().enumerate() {
                *schur.at(first + k, first + k) += self.prior_precision(of.product);
            }
            for (j, own) in product.couplings.iter().enumerate() {
                for (k, share) in product.shares.iter().enumerate() {
                    *schur.at(j, k) -= own.iter().zip(share).map(|(a, b)| a * b).sum::<f64>();
                }
            }
        }
        Some((schur, ln_det))
    }

    /// The addition, by category, that gives each log shape its least precision once products and periods are
    /// eliminated.
    fn least_of_shapes(&self, precision: &Precision, schur: &mut [Dense]) -> Option<Vec<f64>> {
        let (periods, shape) = (self.layout.periods, self.layout.periods);
        let mut added = vec![0.0; self.layout.categories];
        if !self.layout.likelihood.has_shape() {
            return Some(added);
        }
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
            let prior = self.prior_precision(Site::LogShape);
            let taken = prior + precision.curvature[c] - own;
            let least = prior + LEAST_OF_TOLD * precision.told[c];
            added[c] = (least.max(LEAST_OF_TAKEN * taken) - own).max(0.0);
            *schur.at(shape, shape) += added[c];
        }
        Some(added)
    }

    /// The moments of a product and of its rows, given the covariance of its category's border.
    fn add_product(
        &self,
        product: usize,
        of_border: &Dense,
        precision: &Precision,
        moments: &mut Moments,
    ) -> Option<()> {
        let (border, first) = self.border();
        let Eliminated {
            inverse: mut own,
            shares,
            ..
        } = self.eliminated(product, precision)?;
        // Covariances of the product's latents with the border.
        let mut with_border = vec![[0.0; PRODUCT_LATENTS]; border];
        for (j, with) in with_border.iter_mut().enumerate() {
            for (k, share) in shares.iter().enumerate() {
                let c = of_border.get(k, j);
                for (with, share) in with.iter_mut().zip(share) {
                    *with -= share * c;
                }
            }
            for (k, l) in pairs() {
                *own.at(k, l) -= with[k] * shares[j][l];
            }
        }
        let (places, t, _) = self.places(product);
        for (k, j) in places.into_iter().enumerate() {
            moments.variance[j] = own.get(k, k);
        }
        moments.with_category[product] = from_fn(|k| with_border[first + k][k]);
        let rows = self.panel.product_rows(product);
        for (index, row) in self.panel.row_range(product).zip(rows) {
            let (design, with) = (row.design(), with_border[row.period]);
            let of_product: f64 = pairs().map(|(j, k)| design[j] * design[k] * own.get(j, k)).sum();
            moments.row_variance[index] =
                of_product + 2.0 * along(&with, &design) + moments.variance[t + row.period];
        }
        Some(())
    }

    /// `tr(P Sigma)`, P the priors' part of the precision.
    pub(super) fn prior_trace(&self, moments: &Moments) -> f64 {
        let diagonal = self.prior_diagonal();
        let mut trace: f64 = diagonal.iter().zip(&moments.variance).map(|(p, v)| p * v).sum();
        for (k, of) in COEFFICIENTS.iter().enumerate() {
            for with in &moments.with_global {
                trace -= 2.0 * self.prior_precision(of.category) * with[k];
            }
            for with in &moments.with_category {
                trace -= 2.0 * self.prior_precision(of.product) * with[k];
            }
        }
        debug_assert_eq!(diagonal.len(), self.layout.latents());
        trace
    }
}

/// Rows and columns of a product's block.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..PRODUCT_LATENTS).flat_map(|j| (0..PRODUCT_LATENTS).map(move |k| (j, k)))
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
