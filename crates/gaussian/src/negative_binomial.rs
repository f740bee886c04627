//! Negative-binomial rows for the arrowhead's pass.
//!
//! With `w = mu / r` a row has the derivatives `(y - mu) / (1 + w)` with respect to its log rate,
//! `-(mu + y w) / (1 + w)^2` for the second, and the mixed one with the log shape, `(y - mu) w / (1 + w)^2`,
//! whose mean is zero. Under a Gaussian the means of all of them are computed with a Gauss-Hermite rule over
//! the log rate; the log shape is fixed at its mean, about which the bound is exact to second order. Terms
//! that depend only on a count and the shape are summed over the distinct counts of a category.
//!
//! Away from the mode the second derivative with respect to the log shape may have either sign, whether or
//! not the other parameters move along; the arrowhead's factor uses its absolute value there.

use crate::averaging::{Averaging, MOST_CHANGE};
use crate::design::{LATENTS, along, at, prior_means, prior_precisions};
use crate::gauss_hermite::{NINE, ONE, THREE};
use crate::settle::{self, Normal, Place};
use infermark_arrowhead::{Partition, ProductRows, ProductTerms, Rates};
use infermark_cpu_kernels::{DistinctCounts, Simd};
use infermark_model::Panel;
use infermark_model::negative_binomial::{Shape, ln_1p_excess};
use infermark_model::{Layout, Priors, Site};
use std::array::from_fn;

/// Variance of a log rate below which it is taken as fixed at its mean.
const STANDS: f64 = 1e-10;
/// Variance below which three nodes are enough: the rule's next term is `v^3 / 48` of a sixth derivative.
const NARROW: f64 = 0.02;

/// Variance of a log rate due to the product's own pair from which on the product is settled. Rows cost more
/// than Poisson ones, and the pace handles smaller variances.
const UNSETTLED: f64 = 0.5;

/// Steps to settle a pair once at most a nat is left to be gained: its Hessian is not exact, and more passes
/// follow.
const FEW: usize = 3;

/// The largest log rate, up and down, that rows are evaluated at.
const MOST_LOG_RATE: f64 = 200.0;

/// Half the step in the log shape for central differences of the slope of the counts' own part; the error is
/// of the order of its square.
const SLOPE_STEP: f64 = 1e-4;

/// Negative-binomial rows at a point.
#[derive(Debug)]
pub(crate) struct NegativeBinomialRates<'a> {
    panel: &'a Panel,
    priors: &'a Priors,
    layout: Layout,
    point: &'a [f64],
    averaging: Averaging<'a>,
    shapes: Vec<Shape>,
    counts: &'a [Vec<DistinctCounts>],
}

impl<'a> NegativeBinomialRates<'a> {
    pub(crate) fn new(
        walk: &'a Partition,
        priors: &'a Priors,
        counts: &'a [Vec<DistinctCounts>],
        point: &'a [f64],
        averaging: Averaging<'a>,
    ) -> Self {
        let layout = walk.layout();
        NegativeBinomialRates {
            panel: walk.panel(),
            priors,
            layout,
            point,
            averaging,
            shapes: point[layout.range(Site::LogShape)]
                .iter()
                .map(|s| Shape::new(*s))
                .collect(),
            counts,
        }
    }

    /// The contribution of a category's counts to the value, and to its derivative with respect to the log
    /// shape.
    pub(crate) fn of_counts(&self, category: usize) -> (f64, f64) {
        self.rise(category, self.shapes[category].value)
    }

    fn rise(&self, category: usize, r: f64) -> (f64, f64) {
        let counts = self.counts[category].iter().map(|counts| counts.rise(r));
        counts.fold((0.0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1))
    }
}

/// A row without the terms that depend only on its count and the shape.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    value: f64,
    by_eta: f64,
    /// The part of that from the rate: `-mu / (1 + w)`.
    by_rate: f64,
    /// Minus the second derivatives: with respect to the log rate, and mixed with the log shape.
    weight: f64,
    cross: f64,
    by_shape: f64,
    /// Minus the second derivative with respect to the log shape.
    curvature: f64,
    /// The expected information of a count on the log shape: half the square of the derivative of its log
    /// variance, `(w / (1 + w))^2 / 2`, as for a normal with the same mean and variance.
    expected: f64,
}

impl Row {
    #[inline]
    fn new(y: f64, eta: f64, shape: &Shape) -> Self {
        let r = shape.value;
        // Beyond, products of powers would overflow; a search that gets here turns back.
        let eta = eta.clamp(-MOST_LOG_RATE, MOST_LOG_RATE);
        let w = (eta - shape.ln).exp();
        let mu = w * r;
        let ln_1p = w.ln_1p();
        let over = 1.0 / (1.0 + w);
        // As in the model's own term, which explains the cancellation for large shapes.
        let (value, shape_part, curvature) = if w < 0.5 {
            let excess = ln_1p_excess(w);
            (
                y * (eta - ln_1p) - mu - r * excess,
                r * (excess + w * w * over),
                r * (excess + w * w * w * over * over),
            )
        } else {
            (
                y * eta - (y + r) * ln_1p,
                r * (ln_1p - w * over),
                r * (ln_1p - w * over - w * w * over * over),
            )
        };
        Row {
            value,
            by_eta: (y - mu) * over,
            by_rate: -mu * over,
            weight: (mu + y * w) * over * over,
            cross: -(y - mu) * w * over * over,
            by_shape: y * w * over - shape_part,
            curvature: y * w * over * over + curvature,
            expected: 0.5 * (w * over) * (w * over),
        }
    }

    /// The mean over a normal log rate.
    fn mean(y: f64, eta: f64, variance: f64, shape: &Shape) -> Self {
        let rule: &[(f64, f64)] = match variance {
            v if v < STANDS => &ONE,
            v if v < NARROW => &THREE,
            _ => &NINE,
        };
        let sd = variance.max(0.0).sqrt();
        let mut mean = Row::default();
        for (node, weight) in rule {
            let row = Row::new(y, eta + node * sd, shape);
            mean.value += weight * row.value;
            mean.by_eta += weight * row.by_eta;
            mean.by_rate += weight * row.by_rate;
            mean.weight += weight * row.weight;
            mean.cross += weight * row.cross;
            mean.by_shape += weight * row.by_shape;
            mean.curvature += weight * row.curvature;
            mean.expected += weight * row.expected;
        }
        mean
    }
}

/// Sum of the weights of a category's rows at a point, with this log shape instead, over the products of a walk.
pub(crate) fn weight_of_rows(walk: &Partition, point: &[f64], category: usize, log_shape: f64) -> f64 {
    let (panel, layout) = (walk.panel(), walk.layout());
    let shape = Shape::new(log_shape);
    let of_product = |i: usize| {
        let latents = at(point, layout.product_places(i));
        let of_row = move |row: infermark_model::Row| {
            let effect = point[layout.time_index(category, row.period)];
            let eta = along(&latents, &row.design()) + effect;
            Row::new(f64::from(row.units), eta, &shape).weight
        };
        panel.product_rows(i).map(of_row).sum::<f64>()
    };
    let products = panel.category_of().iter().enumerate();
    let own = products.filter(|(i, of)| **of as usize == category && walk.is_walked(*i));
    own.map(|(i, _)| of_product(i)).sum()
}

impl Row {
    /// Reduces the derivatives to those of a row with a smaller rate if the weight exceeds its limit: a
    /// gradient without a matching weight would overshoot.
    fn bound(&mut self, most: f64) {
        if self.weight <= most {
            return;
        }
        let part = most / self.weight;
        self.by_eta -= (1.0 - part) * self.by_rate;
        for of_rate in [
            &mut self.by_rate,
            &mut self.weight,
            &mut self.cross,
            &mut self.by_shape,
            &mut self.curvature,
            &mut self.expected,
        ] {
            *of_rate *= part;
        }
    }
}

impl NegativeBinomialRates<'_> {
    /// The latents of a product before and after it is settled.
    #[inline(never)]
    fn settled(&self, rows: &ProductRows<'_>, weights: &[f64]) -> Option<[Normal<LATENTS>; 2]> {
        let shape = &self.shapes[rows.category];
        let place = Place {
            panel: self.panel,
            priors: self.priors,
            point: self.point,
            rows,
            weights,
        };
        place.settle(UNSETTLED, FEW, |row, eta, [own, rest]| {
            let mean = Row::mean(row.units, eta, own + rest, shape);
            settle::Means {
                value: mean.value,
                slope: mean.by_eta,
                weight: mean.weight,
                response: mean.weight,
            }
        })
    }
}

impl Rates for NegativeBinomialRates<'_> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        _isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    ) -> ProductTerms {
        let i = rows.product;
        let places = self.layout.product_places(i);
        let time = self.layout.time_index(rows.category, 0);
        let mut latents = at(self.point, places);
        let shape = &self.shapes[rows.category];
        let (mut value, mut by) = (0.0, [0.0; LATENTS]);
        let mut by_log_shape = [0.0; 3];
        let (mut wanted, mut given) = (0.0, 0.0);
        let settled = self.averaging.settles(&rows, UNSETTLED).and_then(|settled| {
            let pairs = self.settled(&rows, weights)?;
            settled.put(i, pairs[1].mean);
            Some(pairs)
        });
        if let Some([_, to]) = settled {
            latents = to.mean;
        }
        let pace = match self.averaging {
            Averaging::Structured {
                part,
                pace: Some(pace),
                ..
            } => {
                // Over the rows only: entries without a row depend on the width of a vector.
                let of_rows = self
                    .panel
                    .product_rows(i)
                    .map(|row| rows.half_variance[row.period]);
                let most = of_rows.fold(0.0, f64::max);
                let first = if settled.is_some() {
                    1.0
                } else {
                    1.0 / (1.0 + 0.5 * most)
                };
                let of_product = pace.part(i, first);
                Some((pace, of_product, part * of_product))
            }
            _ => None,
        };
        cross.fill(0.0);
        if !matches!(self.averaging, Averaging::Structured { .. }) {
            weights.fill(0.0);
        }
        for row in self.panel.product_rows(i) {
            let (t, design) = (row.period, row.design());
            let eta = along(&latents, &design) + self.point[time + t];
            let units = f64::from(row.units);
            let variance = match self.averaging {
                Averaging::Point => 0.0,
                Averaging::Structured { .. } => 2.0 * rows.half_variance[t],
                Averaging::Independent(independent) => {
                    let v = independent.variances;
                    along(&at(v, places), &independent.squares(i, design)) + v[time + t]
                }
            };
            let mut found = Row::mean(units, eta, variance, shape);
            value += found.value;
            if let Some([from, to]) = &settled {
                let [own, rest] = settle::variances(2.0 * rows.half_variance[t], &design, to, from);
                found = Row::mean(units, eta, own + rest, shape);
            } else if matches!(self.averaging, Averaging::Structured { .. }) {
                found.bound(weights[t] * MOST_CHANGE);
            }
            for (by, x) in by.iter_mut().zip(design) {
                *by += found.by_eta * x;
            }
            by_period[t] += found.by_eta;
            by_log_shape[0] += found.by_shape;
            by_log_shape[1] += found.curvature;
            by_log_shape[2] += found.expected;
            cross[t] = found.cross;
            weights[t] = match self.averaging {
                Averaging::Structured { part, .. } => {
                    let before = weights[t];
                    // tr(Q Sigma) without the priors' part.
                    value += before * rows.half_variance[t];
                    let bounded = if settled.is_some() {
                        found.weight
                    } else {
                        found.weight.clamp(before / MOST_CHANGE, before * MOST_CHANGE)
                    };
                    wanted += bounded;
                    given += before;
                    let part = pace.map_or(part, |(_, _, part)| part);
                    if part == 1.0 || before <= 0.0 {
                        bounded
                    } else {
                        before * (bounded / before).powf(part)
                    }
                }
                _ => found.weight,
            };
        }
        if let Some((pace, part, made)) = pace {
            pace.take(i, (wanted / given).ln(), part, made);
        }
        let means = prior_means(self.priors, self.layout, self.point, rows.category);
        let precisions = prior_precisions(self.priors);
        ProductTerms {
            value,
            gradient: from_fn(|k| by[k] - (latents[k] - means[k]) * precisions[k]),
            shape: by_log_shape,
        }
    }

    fn shape_curvature(&self, category: usize) -> f64 {
        let r = self.shapes[category].value;
        let slope = |step: f64| self.rise(category, r * step.exp()).1;
        -(slope(SLOPE_STEP) - slope(-SLOPE_STEP)) / (2.0 * SLOPE_STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::negative_binomial::CountTerm;

    #[test]
    fn a_row_is_the_models_and_its_second_derivatives_are_differences_of_its_first() {
        for (y, eta, log_shape) in [
            (0u32, -3.0, 1.0),
            (1, 0.2, -2.0),
            (7, 2.5, 0.5),
            (40, 3.0, 6.0),
            (15, 9.0, 2.0),
            (9, 1.0, 12.0),
        ] {
            let at = |eta: f64, log_shape: f64| Row::new(f64::from(y), eta, &Shape::new(log_shape));
            let row = at(eta, log_shape);
            let term = CountTerm::new(y, eta, &Shape::new(log_shape));
            let rise = infermark_model::negative_binomial::rise(f64::from(y), log_shape.exp());
            let close = |found: f64, expected: f64, what: &str| {
                assert!(
                    (found - expected).abs() < 1e-7 * expected.abs() + 1e-8,
                    "{what} of {y} at {eta}, {log_shape}: {found} {expected}"
                );
            };
            close(row.value + rise, term.log_likelihood, "value");
            close(row.by_eta, term.by_eta, "slope");
            // Central differences, with errors of the square of the step and the values' rounding divided by
            // it.
            let h = 1e-5;
            let by_eta =
                |f: fn(&Row) -> f64| (f(&at(eta + h, log_shape)) - f(&at(eta - h, log_shape))) / (2.0 * h);
            let by_shape =
                |f: fn(&Row) -> f64| (f(&at(eta, log_shape + h)) - f(&at(eta, log_shape - h))) / (2.0 * h);
            close(row.weight, -by_eta(|r| r.by_eta), "weight");
            close(row.cross, -by_shape(|r| r.by_eta), "cross");
            close(row.by_shape, by_shape(|r| r.value), "by the log shape");
            close(row.curvature, -by_shape(|r| r.by_shape), "curvature");
        }
    }
}
