//! The excess of one product, and the limit of sums of excesses; the documentation of the parent module
//! derives both.

use super::FittedRows;
use super::eight::{Eight, sums};

/// Variance of the log price over its mean square below which a product's price did not change.
const CONSTANT_PRICE: f64 = 1e-12;

/// The limit that a sum of excesses with this variance exceeds with a probability of at most `level`.
pub(super) fn limit(variance: f64, level: f64) -> f64 {
    let k = 0.5 * variance;
    // x - k ln(1 + x / k) rises and is convex: Newton's steps from above stay above.
    let target = -2.0 * level.ln();
    let mut x = 2.0 * target + (2.0 * k * target).sqrt();
    loop {
        let step = (x - k * (x / k).ln_1p() - target) * (k + x) / x;
        x -= step;
        // NaN also ends the loop.
        if step.is_nan() || step < 1e-12 * x {
            return x;
        }
    }
}

/// `U` of a product, its variance under Poisson counts, and its mean under a dispersion of 2.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProductExcess {
    pub(super) value: f64,
    pub(super) variance: f64,
    pub(super) weight: f64,
}

/// Shares, standardized prices and weights of the rows of a product.
#[derive(Clone, Copy)]
struct Places {
    per_rate: f64,
    units: f64,
    centre: f64,
    scale: f64,
}

// Always inlined, so that they are compiled for the instruction set of the pass.
impl Places {
    /// p, u and g of the module documentation.
    #[inline(always)]
    fn of(&self, x: Eight, rate: Eight) -> [Eight; 3] {
        let p = rate * self.per_rate;
        [
            p,
            (x - self.centre) * self.scale,
            Eight::of(1.0) / (p * self.units + 1.0),
        ]
    }

    #[inline(always)]
    fn moments(&self, y: Eight, x: Eight, rate: Eight) -> [Eight; 6] {
        let [p, u, g] = self.of(x, rate);
        let (gp2, taken, one) = (g * p * p, u * u + 1.0, Eight::of(1.0));
        [
            u * y,
            gp2,
            gp2 * u,
            gp2 * u * u,
            g * gp2 * (one - p * 2.0 * taken),
            g * p * (one - p * taken),
        ]
    }

    #[inline(always)]
    fn value(&self, y: Eight, x: Eight, rate: Eight, slope: f64, [a0, a1, a2]: [f64; 3]) -> Eight {
        let [p, u, g] = self.of(x, rate);
        let residual = y - p * self.units * (u * slope + 1.0);
        let q = g * (Eight::of(1.0) - p * 2.0 * (u * u + 1.0)) + a0 + u * (u * a2 + 2.0 * a1);
        g * residual * residual - y * q
    }
}

/// See the module documentation. All zero unless there are two units and two rows.
#[inline(always)]
pub(super) fn excess(rows: &FittedRows) -> ProductExcess {
    let columns = [&rows.units, &rows.regressors[0], &rows.rate].map(Vec::as_slice);
    let [units, rate] = sums(columns, |[units, _, rate]| [units, rate]);
    if units < 2.0 || rows.units.len() < 2 {
        return ProductExcess::default();
    }
    let per_rate = 1.0 / rate;
    let [centre, size] = sums(columns, |[_, x, rate]| {
        let px = rate * per_rate * x;
        [px, px * x]
    });
    let [spread] = sums(columns, |[_, x, rate]| {
        [rate * per_rate * ((x - centre) * (x - centre))]
    });
    let scale = if spread > CONSTANT_PRICE * size.max(1.0) {
        1.0 / spread.sqrt()
    } else {
        0.0
    };
    let places = Places {
        per_rate,
        units,
        centre,
        scale,
    };
    let [slope, a0, a1, a2, own, weight] = sums(columns, |[y, x, rate]| places.moments(y, x, rate));
    let (slope, weight) = (slope / units, weight * units);
    let [value] = sums(columns, |[y, x, rate]| {
        [places.value(y, x, rate, slope, [a0, a1, a2])]
    });
    // Rounding may give a negative number if the rows are saturated.
    let variance = 2.0 * units * (units - 1.0) * (own + a0 * a0 + 2.0 * a1 * a1 + a2 * a2);
    let tells = variance > SATURATED * units && weight > SATURATED * units && value.is_finite();
    if !tells {
        return ProductExcess::default();
    }
    ProductExcess {
        value,
        variance,
        weight,
    }
}

/// Variance of `U` per unit below which level and slope explain a product's rows completely.
const SATURATED: f64 = 1e-9;
