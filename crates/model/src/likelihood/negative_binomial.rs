//! The log likelihood of a negative-binomial count, stable for every shape.
//!
//! A count `y` with mean `mu` and shape `r` has variance `mu + mu^2 / r` and
//!
//! ```text
//! ln p(y) = ln Gamma(y + r) - ln Gamma(r) - ln y! + r ln r + y ln mu - (y + r) ln(r + mu)
//! ```
//!
//! whose terms cancel where `r` is large. Here it is the Poisson log likelihood plus terms that vanish as `r`
//! grows, with `w = mu / r`:
//!
//! ```text
//! ln p(y) = (y ln mu - mu - ln y!) + rise(y, r) - y ln(1 + w) - r (ln(1 + w) - w)
//! rise(y, r) = ln Gamma(y + r) - ln Gamma(r) - y ln r = sum_{j < y} ln(1 + j / r)
//! ```
//!
//! `rise` is summed for the first [`TERMS`] terms; from there on Stirling's series holds to the last digit.
//!
//! Source: Lawless, "Negative binomial and mixed Poisson regression", 1987 (the sum over `j`); NIST Digital Library of
//! Mathematical Functions, 5.11 (the series).

use super::row::{RowLikelihood, RowTerms, RowWeight, UNITS_BOUND};
use rand::Rng;
use rand_distr::{Distribution, Gamma};

/// The log of a shape is held within these bounds, far outside any prior: above, the counts are Poisson to
/// the last digit; below, all but one in 1e17 of them are zero.
pub const LOG_SHAPE_BOUND: f64 = 40.0;

/// Terms of `rise` that are summed one by one. At an argument of 16 the series is off by 1e-16.
pub const TERMS: u32 = 16;

/// Below this `ln(1 + u) - u` is taken from its series.
const SMALL: f64 = 0.125;

/// The shape of a category, from its unbounded logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// `ln r`, held within [`LOG_SHAPE_BOUND`].
    pub ln: f64,
    /// `r`.
    pub value: f64,
    /// Whether it is not held at a bound, so that it has a derivative.
    pub is_free: bool,
}

impl Shape {
    /// The shape for a `log_shape`.
    pub fn new(log_shape: f64) -> Self {
        let ln = log_shape.clamp(-LOG_SHAPE_BOUND, LOG_SHAPE_BOUND);
        Shape {
            ln,
            value: ln.exp(),
            is_free: ln == log_shape,
        }
    }
}

/// The log likelihood of one count and its derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CountTerm {
    /// `ln p(y) + ln y!`.
    pub log_likelihood: f64,
    /// Derivative with respect to the log of the mean.
    pub by_eta: f64,
    /// Derivative with respect to the log of the shape, whether held or not.
    pub by_log_shape: f64,
}

impl CountTerm {
    /// The term of the count `y` whose log mean is `eta`.
    pub fn new(y: u32, eta: f64, shape: &Shape) -> Self {
        let (y, r, mu) = (f64::from(y), shape.value, eta.exp());
        let w = (eta - shape.ln).exp();
        let ln_1p = w.ln_1p();
        let excess = ln_1p_excess(w);
        // With a shape smaller than the mean, mu itself would have to cancel.
        let (by_count, by_shape) = if w < 0.5 {
            (
                y * (eta - ln_1p) - mu - r * excess,
                r * (excess + w * w / (1.0 + w)),
            )
        } else {
            (y * eta - (y + r) * ln_1p, r * (ln_1p - w / (1.0 + w)))
        };
        CountTerm {
            log_likelihood: by_count + rise(y, r),
            by_eta: (y - mu) / (1.0 + w),
            by_log_shape: rise_slope(y, r) + y * w / (1.0 + w) - by_shape,
        }
    }
}

/// `ln Gamma(y + r) - ln Gamma(r) - y ln r` of a whole `y >= 0`.
pub fn rise(y: f64, r: f64) -> f64 {
    let terms = f64::from(TERMS);
    let sum = whole_below(y).map(|j| (j / r).ln_1p()).sum::<f64>();
    if y <= terms {
        return sum;
    }
    let (beyond, _) = RiseBySeries::new(r + terms).at(y - terms);
    sum + (y - terms) * (terms / r).ln_1p() + beyond
}

/// The derivative of [`rise`] with respect to `ln r`: `-sum_{j < y} j / (r + j)`.
pub fn rise_slope(y: f64, r: f64) -> f64 {
    let terms = f64::from(TERMS);
    let sum = whole_below(y).map(|j| -j / (r + j)).sum::<f64>();
    if y <= terms {
        return sum;
    }
    let (_, beyond) = RiseBySeries::new(r + terms).at(y - terms);
    sum - (y - terms) * terms / (r + terms) + r * beyond
}

/// The whole numbers from 1 to below `y` and [`TERMS`].
fn whole_below(y: f64) -> impl Iterator<Item = f64> {
    (1..TERMS).map(f64::from).take_while(move |j| *j < y)
}

/// [`rise`] and its derivative with respect to `r`, for one `r >= 16`, from Stirling's series.
#[derive(Debug, Clone, Copy)]
pub struct RiseBySeries {
    r: f64,
    remainder: f64,
    remainder_slope: f64,
}

impl RiseBySeries {
    /// The series at the argument `r`.
    pub fn new(r: f64) -> Self {
        RiseBySeries {
            r,
            remainder: stirling_remainder(r),
            remainder_slope: stirling_remainder_slope(r),
        }
    }

    /// The rise of `y >= 0` and its derivative with respect to `r`.
    #[inline]
    pub fn at(&self, y: f64) -> (f64, f64) {
        let (r, u) = (self.r, y / self.r);
        let excess = ln_1p_excess(u);
        let leading = if u < 0.5 {
            (r + y - 0.5) * excess + (y - 0.5) * u
        } else {
            // Here u would have to cancel.
            (r + y - 0.5) * u.ln_1p() - y
        };
        let value = leading + stirling_remainder(r + y) - self.remainder;
        let slope = excess + y / (2.0 * r * (r + y)) + stirling_remainder_slope(r + y) - self.remainder_slope;
        (value, slope)
    }
}

/// `ln(1 + u) - u` for `u >= 0`, without cancellation.
pub fn ln_1p_excess(u: f64) -> f64 {
    if u >= SMALL {
        return u.ln_1p() - u;
    }
    // ln(1 + u) = 2 atanh(s) with s = u / (2 + u), and 2 s - u = -u s.
    let s = u / (2.0 + u);
    let s2 = s * s;
    let series = 1.0 / 3.0
        + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0 + s2 * (1.0 / 11.0 + s2 * (1.0 / 13.0)))));
    -u * s + 2.0 * s * s2 * series
}

/// `ln Gamma(x) - ((x - 1/2) ln x - x + ln(2 pi) / 2)` for `x >= 16`.
fn stirling_remainder(x: f64) -> f64 {
    let t = 1.0 / (x * x);
    (1.0 / 12.0 - t * (1.0 / 360.0 - t * (1.0 / 1260.0 - t * (1.0 / 1680.0 - t / 1188.0)))) / x
}

/// The derivative of [`stirling_remainder`].
fn stirling_remainder_slope(x: f64) -> f64 {
    let t = 1.0 / (x * x);
    -t * (1.0 / 12.0 - t * (1.0 / 120.0 - t * (1.0 / 252.0 - t * (1.0 / 240.0 - t / 132.0))))
}

/// The variance of a count over its mean: `1 + mu / r`.
pub fn variance_ratio(eta: f64, shape: &Shape) -> f64 {
    1.0 + (eta - shape.ln).exp()
}

/// The distribution of negative-binomial counts of one category.
impl RowLikelihood for Shape {
    const NAME: &'static str = "negative-binomial";
    const COUNTS: &'static str = "negative-binomial counts";
    const DESCRIPTION: &'static str = "Counts vary more: variance mean + mean^2 / shape, with a shape of each category, \
                                       log_shape ~ Normal(3, 3)";
    const IS_EQUIDISPERSED: bool = false;
    /// A shape of 7.4, from 2.8 to 20 in the middle 95% of categories.
    const SYNTHETIC_PARAMETER: (f64, f64) = (2.0, 0.5);

    fn in_symbols(rate: &str) -> String {
        format!("NegativeBinomial({rate}, exp(log_shape[c(i)]))")
    }

    fn new(parameter: f64) -> Self {
        Shape::new(parameter)
    }

    #[inline]
    fn terms(&self, units: u32, eta: f64) -> RowTerms {
        let term = CountTerm::new(units, eta, self);
        RowTerms {
            log_likelihood: term.log_likelihood,
            by_eta: term.by_eta,
            by_parameter: if self.is_free { term.by_log_shape } else { 0.0 },
        }
    }

    fn weight(&self, units: u32, eta: f64) -> RowWeight {
        let (y, w, mu) = (f64::from(units), (eta - self.ln).exp(), eta.exp());
        RowWeight {
            by_eta: (mu + y * w) / (1.0 + w).powi(2),
            cross: -(y - mu) * w / (1.0 + w).powi(2),
        }
    }

    fn expected(&self, _: u32, _: f64, _: f64) -> Option<(RowTerms, RowWeight)> {
        None
    }

    #[inline(always)]
    fn variance_ratio(&self, eta: f64) -> f64 {
        variance_ratio(eta, self)
    }

    fn log_variance_by_parameter(&self, eta: f64) -> f64 {
        let w = (eta - self.ln).exp();
        -w / (1.0 + w)
    }

    /// The moment estimate, between 1 and 1,000.
    fn parameter_of_scatter(excess: f64, squares: f64) -> f64 {
        (squares / excess.max(1e-3 * squares)).clamp(1.0, 1e3).ln()
    }

    /// A Poisson count whose rate is gamma distributed about its mean.
    fn draw<R: Rng + ?Sized>(&self, rate: f64, rng: &mut R) -> Result<u32, f64> {
        let about_one = Gamma::new(self.value, 1.0 / self.value).expect("shape and scale are positive");
        let rate = rate * about_one.sample(rng);
        // The rate is zero if the gamma variate underflows, as with a tiny shape.
        let count = if rate > 0.0 {
            rand_distr::Poisson::new(rate).map_or(rate, |law| law.sample(rng))
        } else {
            0.0
        };
        if count >= UNITS_BOUND {
            Err(count)
        } else {
            Ok(count as u32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Count, log mean, log shape; value and both derivatives, from mpmath with 60 digits.
    #[allow(clippy::excessive_precision)] // As mpmath printed them.
    const KNOWN: [(u32, f64, f64, f64, f64, f64); 13] = [
        (
            0,
            -4.0,
            -3.0,
            -0.015596381053502192,
            -0.013389804932698451,
            -0.002206576120803739,
        ),
        (
            0,
            20.0,
            -5.0,
            -0.16844867497723026,
            -0.006737946998991891,
            -0.16171072797823835,
        ),
        (
            1,
            0.3,
            2.0,
            -1.1075664131382115,
            -0.2958177741219664,
            0.05603739037002095,
        ),
        (
            7,
            2.0,
            1.5,
            6.135705850398059,
            -0.14688449979027512,
            0.31804507558292316,
        ),
        (
            16,
            2.5,
            0.0,
            26.83073462310733,
            0.28958906036114035,
            0.5122501985753032,
        ),
        (
            17,
            3.0,
            -10.0,
            20.671384964560737,
            -6.9743140795597204e-06,
            0.9995702567179179,
        ),
        (
            500,
            6.0,
            1.6,
            2604.8538925405037,
            1.1712575994762835,
            0.3919384451944162,
        ),
        (
            100_000_000,
            18.4,
            14.0,
            1742067816.3435268,
            24824.92213495108,
            -252.25943974149962,
        ),
        (
            2_000_000_000,
            20.0,
            -2.0,
            40832826022.650536,
            0.422558335219301,
            0.5491094690481411,
        ),
        (
            123_456,
            3.0,
            14.0,
            376476.27613922965,
            123433.85290779817,
            -5931.899256493049,
        ),
        (
            3,
            18.420680743952367,
            14.0,
            -5330663.935349244,
            -1188313.5385625847,
            -4142389.3609287348,
        ),
        (
            40,
            3.5,
            20.0,
            106.88454804893087,
            6.884547571395775,
            -7.62317469882406e-09,
        ),
        (
            40,
            3.5,
            39.0,
            106.88454804130768,
            6.884548041307684,
            -4.2711117110859406e-17,
        ),
    ];

    #[test]
    fn terms_equal_known_values() {
        for (y, eta, log_shape, value, by_eta, by_log_shape) in KNOWN {
            let term = CountTerm::new(y, eta, &Shape::new(log_shape));
            // Ten units in the last place of the result, and of the terms that cancel: the value is a
            // difference of terms of the size y eta, the derivatives of terms of the size y and y w / (1 +
            // w).
            let unit = 10.0 * f64::EPSILON;
            let size = f64::from(y);
            let close = |found: f64, known: f64, size: f64, what: &str| {
                assert!(
                    (found - known).abs() <= unit * (known.abs() + size),
                    "{what} of {y}, {eta}, {log_shape}: {found} {known}"
                );
            };
            close(term.log_likelihood, value, size * eta.abs(), "value");
            close(term.by_eta, by_eta, size, "by eta");
            let w = (eta - log_shape).exp();
            close(term.by_log_shape, by_log_shape, size * w / (1.0 + w), "by shape");
        }
    }

    #[test]
    fn the_rise_is_its_sum_across_the_switch_to_the_series() {
        for r in [1e-9, 0.3, 7.0, 1e3, 1.2e6, 1e17] {
            let (mut sum, mut slope) = (0.0, 0.0);
            for y in 0..3000 {
                let count = f64::from(y);
                // The plain sums round at every term.
                let tolerance = 1e-13 * sum;
                assert!(
                    (rise(count, r) - sum).abs() <= tolerance,
                    "{y} {r}: {} {sum}",
                    rise(count, r)
                );
                let tolerance = 1e-13 * -slope;
                assert!(
                    (rise_slope(count, r) - slope).abs() <= tolerance,
                    "{y} {r} {slope}"
                );
                sum += (count / r).ln_1p();
                slope -= count / (r + count);
            }
        }
    }

    #[test]
    fn a_large_shape_is_poisson() {
        // The difference is (y - (y - mu)^2) / (2 r), plus terms of order 1 / r^2.
        for (y, eta) in [(0, -4.0), (0, 3.0), (3, 1.0), (50, 4.0), (1000, 6.5)] {
            let (count, mu) = (f64::from(y), f64::exp(eta));
            let poisson = count * eta - mu;
            for log_shape in [16.0, 20.0, 30.0] {
                let shape = Shape::new(log_shape);
                let term = CountTerm::new(y, eta, &shape);
                let first_order = (count - (count - mu).powi(2)) / (2.0 * shape.value);
                let next = (count + mu).powi(3) / shape.value.powi(2) + 1e-15 * (count * eta.abs() + mu);
                assert!((term.log_likelihood - poisson + first_order).abs() < next);
                assert!((term.by_eta - (count - mu)).abs() <= (count + mu) * mu / shape.value + 1e-12);
                assert!((term.by_log_shape - first_order).abs() < next);
            }
        }
    }

    #[test]
    fn a_shape_beyond_its_bound_is_held() {
        for (log_shape, ln, is_free) in [(3.0, 3.0, true), (-41.0, -40.0, false), (1e300, 40.0, false)] {
            let shape = Shape::new(log_shape);
            assert_eq!((shape.ln, shape.is_free), (ln, is_free));
            assert_eq!(shape.value, ln.exp());
        }
        assert!(Shape::new(f64::NAN).value.is_nan());
    }
}
