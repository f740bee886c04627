//! The reference for the passes of the Gaussian methods: plain loops over the rows, dense algebra for each border.
//!
//! Everything that a pass gives to a run is computed again from the definitions: means over the rows from
//! their closed form, or by the trapezoid rule where there is none; `ln det Q` and covariances by eliminating
//! products, borders and the top one after the other; a step is checked by `Q step = gradient`. Nothing here
//! is shared with the methods.
//!
//! Definitions of the methods' own are repeated here: which products they leave out, the term that represents
//! one of those, by how much a weight changes in a step, and the least precision of a log shape.
//!
//! | module | holds |
//! |---|---|
//! | `expected` | means over a row's log rate |
//! | `precision` | the precision, row by row |
//! | `moments` | its determinant, and the covariances |

mod expected;
mod moments;
mod precision;

use expected::ExpectedRow;
use infermark_backend::{BackendError, GaussianPass, GaussianPoint};
use infermark_model::design::{PRODUCT_LATENTS, along};
use infermark_model::ln_factorial::ln_factorial;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::{Layout, Likelihood, Panel, Priors, Row, Site};
use precision::Precision;

/// The largest factor by which the variational methods let a weight change in a step, in a pass and in the
/// reference for the step.
const MOST_CHANGE: f64 = 8.0;

/// Standard deviations below the rate at the upper clip bound from which a Poisson count is at the bound: its product is left out.
const AT_BOUND: f64 = 8.0;

/// The kind of Gaussian of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// None: the log joint at a point.
    Point,
    /// The one with the arrowhead's precision.
    Structured,
    /// The one with independent latents.
    MeanField,
}

/// Priors whose clip holds no log rate: what the Gaussian methods evaluate.
pub(super) fn without_clip(priors: &Priors) -> Priors {
    Priors {
        clip_low: f64::NEG_INFINITY,
        clip_high: f64::INFINITY,
        ..*priors
    }
}

/// The least Poisson count at the upper clip bound.
fn least_at_bound(priors: &Priors) -> f64 {
    let rate = priors.clip_high.exp();
    rate - AT_BOUND * rate.sqrt()
}

pub(super) struct Reference<'a> {
    panel: &'a Panel,
    priors: Priors,
    layout: Layout,
    /// For each product that is left out, the row that is at the bound.
    at_bound: Vec<Option<usize>>,
    /// The log of the least count at the bound.
    log_least: f64,
}

impl<'a> Reference<'a> {
    pub(super) fn new(panel: &'a Panel, priors: &Priors, likelihood: Likelihood) -> Self {
        Reference {
            panel,
            priors: *priors,
            layout: panel.layout_for(likelihood),
            at_bound: (0..panel.layout().products)
                .map(|product| {
                    let highest = panel.row_range(product).max_by_key(|row| panel.units()[*row])?;
                    let is_at = likelihood.is_equidispersed()
                        && f64::from(panel.units()[highest]) >= least_at_bound(priors);
                    is_at.then_some(highest)
                })
                .collect(),
            log_least: least_at_bound(priors).ln(),
        }
    }

    /// How many products are left out.
    pub(super) fn left_out(&self) -> usize {
        self.at_bound.iter().flatten().count()
    }

    /// The log joint without the clip, and its gradient.
    pub(super) fn log_joint(&self, point: &[f64]) -> (f64, Vec<f64>) {
        self.value(point, &self.expected(point, None))
    }

    /// The mean log joint of expected rows, without the priors' mean, and its gradient.
    fn value(&self, point: &[f64], rows: &[ExpectedRow]) -> (f64, Vec<f64>) {
        let (mut value, mut gradient) = self.prior(point);
        let has_shape = self.layout.likelihood.has_shape();
        self.for_each_row(|product, index, row| {
            let (places, t, s) = self.places(product);
            let found = rows[index];
            value += found.value;
            if self.at_bound[product].is_none() {
                value -= ln_factorial(row.units);
            }
            for (j, x) in places.into_iter().zip(row.design()) {
                gradient[j] += found.by_eta * x;
            }
            gradient[t + row.period] += found.by_eta;
            if has_shape {
                gradient[s] += found.by_log_shape;
            }
        });
        (value, gradient)
    }

    /// Latents of a product: its own, the first period of its category, the category's log shape.
    fn places(&self, product: usize) -> ([usize; PRODUCT_LATENTS], usize, usize) {
        let category = self.panel.category_of()[product] as usize;
        (
            self.layout.product_places(product),
            self.layout.time_index(category, 0),
            self.layout.start(Site::LogShape) + category,
        )
    }

    /// Calls `f(product, row's index, row)` for every row.
    fn for_each_row(&self, mut f: impl FnMut(usize, usize, Row)) {
        for product in 0..self.layout.products {
            for (index, row) in self
                .panel
                .row_range(product)
                .zip(self.panel.product_rows(product))
            {
                f(product, index, row);
            }
        }
    }

    /// The priors' part of the log joint and of its gradient.
    fn prior(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let mut value = 0.0;
        let mut gradient = vec![0.0; point.len()];
        let (layout, priors) = (&self.layout, &self.priors);
        for site in layout.sites() {
            let sd = priors.sd(*site);
            for (k, j) in layout.range(*site).enumerate() {
                let parent = layout.parent(*site, k, self.panel.category_of());
                let mean = parent.map_or(priors.constant_mean(*site), |parent| point[parent]);
                let z = (point[j] - mean) / sd;
                value -= 0.5 * z * z + sd.ln() + LN_SQRT_2PI;
                gradient[j] -= z / sd;
                if let Some(parent) = parent {
                    gradient[parent] += z / sd;
                }
            }
        }
        (value, gradient)
    }

    /// The expected results of a pass of `kind` at `at`, with the precision for its step.
    ///
    /// # Errors
    /// When a precision is not positive definite.
    fn pass(&self, kind: Kind, at: GaussianPoint<'_>) -> Result<(GaussianPass, Precision), BackendError> {
        let indefinite = || BackendError::Diverged {
            step: 0,
            reason: "the reference's precision is not positive definite".into(),
        };
        let latents = self.layout.latents() as f64;
        let rows_before = self.expected(at.precision_at, None);
        let before = self.precision(&rows_before);
        // The Gaussian: variances of latents and rows, and the contribution of its spread to the value in
        // addition to the rows' own.
        let (variance, row_variance, spread) = match kind {
            Kind::Point => (Vec::new(), None, 0.0),
            Kind::Structured => {
                let moments = self.moments(&before).ok_or_else(indefinite)?;
                // The log shape's part of E ln p, to second order: of tr(Q Sigma) = L it is what rows and priors leave.
                let of_rows: f64 = before
                    .rows
                    .iter()
                    .zip(&moments.row_variance)
                    .map(|(w, v)| w.by_eta * v)
                    .sum();
                let of_priors = self.prior_trace(&moments);
                let of_shapes = match self.layout.likelihood.has_shape() {
                    false => 0.0,
                    true => latents - of_rows - of_priors,
                };
                let entropy = latents * (LN_SQRT_2PI + 0.5) - 0.5 * moments.ln_det;
                let spread = entropy - 0.5 * (of_priors + of_shapes);
                (moments.variance, Some(moments.row_variance), spread)
            }
            Kind::MeanField => {
                let variance: Vec<f64> = self.diagonal(&before).iter().map(|q| 1.0 / q).collect();
                let mut of_rows = vec![0.0; self.panel.rows()];
                self.for_each_row(|product, index, row| {
                    let (places, t, _) = self.places(product);
                    let squares = row.design().map(|x| x * x);
                    of_rows[index] = along(&places.map(|j| variance[j]), &squares) + variance[t + row.period];
                });
                let entropy: f64 = variance.iter().map(|v| LN_SQRT_2PI + 0.5 + 0.5 * v.ln()).sum();
                let diagonal = self.prior_diagonal();
                let of_priors: f64 = diagonal.iter().zip(&variance).map(|(p, v)| p * v).sum();
                let spread = entropy - 0.5 * of_priors;
                (variance, Some(of_rows), spread)
            }
        };
        let rows = self.expected(at.mean, row_variance.as_deref());
        let mut after = self.precision(&rows);
        let (mut value, gradient) = self.value(at.mean, &rows);
        value += spread;
        if kind == Kind::MeanField {
            // The log shape is fixed at its mean: to second order its variance costs this.
            for (j, k) in self.layout.range(Site::LogShape).zip(&after.curvature) {
                value -= 0.5 * variance[j] * k;
            }
        }
        if let (Kind::Structured, Some(of_rows)) = (kind, &row_variance) {
            for product in 0..self.layout.products {
                let rows = self.panel.row_range(product);
                let most = of_rows[rows.clone()].iter().copied().fold(0.0, f64::max);
                // Under the negative binomial the first step of a product makes this power of the change.
                let part = match self.layout.likelihood.has_shape() {
                    false => 1.0,
                    true => 1.0 / (1.0 + 0.25 * most),
                };
                for row in rows {
                    let (after, before) = (&mut after.rows[row].by_eta, before.rows[row].by_eta);
                    let bounded = after.clamp(before / MOST_CHANGE, before * MOST_CHANGE);
                    *after = match before > 0.0 {
                        true => before * (bounded / before).powf(part),
                        false => bounded,
                    };
                }
            }
        }
        let variance = if kind == Kind::Point || self.layout.likelihood.has_shape() {
            let moments = self.moments(&after).ok_or_else(indefinite)?;
            after.added = moments.added;
            if kind == Kind::Point {
                moments.variance
            } else {
                variance
            }
        } else {
            variance
        };
        let pass = GaussianPass {
            value,
            gradient,
            step: Vec::new(),
            variance,
        };
        Ok((pass, after))
    }

    /// Relative errors of a pass: of value, gradient, step and variances.
    ///
    /// # Errors
    /// When a precision is not positive definite.
    pub(super) fn errors(
        &self,
        kind: Kind,
        at: GaussianPoint<'_>,
        got: &GaussianPass,
    ) -> Result<[f64; 4], BackendError> {
        let (expected, precision) = self.pass(kind, at)?;
        // The step in the metric of the precision, where its length is the predicted gain: the residual of
        // `Q step = gradient` relative to the gradient, both weighted by the diagonal.
        let scale = self.diagonal(&precision);
        let weighed = |of: &[f64]| -> Vec<f64> { of.iter().zip(&scale).map(|(g, q)| g / q.sqrt()).collect() };
        let solved = match got.step.len() == expected.gradient.len() {
            true => self.times(&precision, &got.step),
            false => Vec::new(),
        };
        let variances = match got.variance.len() == expected.variance.len() {
            false => f64::NAN,
            true => got
                .variance
                .iter()
                .zip(&expected.variance)
                .map(|(got, expected)| (got / expected - 1.0).abs())
                .fold(
                    0.0,
                    |worst: f64, e| if e > worst || e.is_nan() { e } else { worst },
                ),
        };
        Ok([
            (got.value - expected.value).abs() / expected.value.abs(),
            super::norm_wise_error(&got.gradient, &expected.gradient),
            super::norm_wise_error(&weighed(&solved), &weighed(&expected.gradient)),
            variances,
        ])
    }
}
