//! The best Gaussian of a product's pair, (elasticity, effect), with all else as it is.
//!
//! Where a product has hardly a sale the variance `v` of its log rates is large, and a weight `exp(eta + v / 2)` asks for another
//! variance than the one that it is taken at: steps that move means and weights in turn overshoot, or creep. Given the border, the
//! bound of one product is a function of the mean `m` and the covariance `S` of its pair,
//!
//! ```text
//! sum_t E l_t(eta_t) - (m - prior)' P (m - prior) / 2 - tr(P S) / 2 + ln det S / 2,    eta_t ~ Normal(z_t' m + tau_t, z_t' S z_t + r_t),
//! ```
//!
//! `z_t = (x_t, 1)`, `r_t` what the border adds to the variance. Under Poisson counts it is concave in (m, S) together, so that Newton's
//! steps with a line search find its maximum from anywhere. At the optimum of the whole bound nothing moves.

use infermark_arrowhead::ProductRows;
use infermark_model::Panel;
use infermark_model::priors::Priors;
use infermark_model::site::Site;
use std::sync::atomic::{AtomicU64, Ordering};

/// Newton steps at most. From rates far too high each goes down by a factor of e.
pub(crate) const STEPS: usize = 60;

/// Shortest part of a step that is tried.
const SHORTEST: f64 = 1e-4;

/// The squared Newton decrement that is enough: a part of the first, as other passes follow, and no more than this part of a nat.
const ENOUGH: f64 = 1e-4;

/// The one below which rounding decides.
const ROUNDING: f64 = 1e-14;

/// Mean and covariance of a pair: of the elasticity, of both, of the effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    pub(crate) mean: [f64; 2],
    pub(crate) covariance: [f64; 3],
}

/// The prior given the border, with independent latents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prior {
    pub(crate) mean: [f64; 2],
    pub(crate) precision: [f64; 2],
}

impl Prior {
    /// Of a product in a category of this elasticity.
    pub(crate) fn new(priors: &Priors, category_a: f64) -> Self {
        Prior {
            mean: [category_a, priors.product_effect_mean],
            precision: [priors.product_a_sd.powi(-2), priors.product_effect_sd.powi(-2)],
        }
    }
}

/// A row of the product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) log_price: f64,
    pub(crate) units: f64,
    /// Effect of its period.
    pub(crate) effect: f64,
    /// Variance of its log rate before.
    pub(crate) variance: f64,
    /// Its weight before.
    pub(crate) weight: f64,
}

/// Means of a row's log likelihood, its slope by the log rate and minus its curvature, over a normal log rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    pub(crate) value: f64,
    pub(crate) slope: f64,
    pub(crate) weight: f64,
    /// Minus the derivative of the slope by the log rate, all that follows it taken along.
    pub(crate) response: f64,
}

/// A Poisson row's weight, the mean of its rate, beside what it tells of its own period.
///
/// Given the pair, the row's log rate varies by `rest` with the border, of which the row itself has a part: with another weight `w` in
/// the place of `before` it is `rho = rest / (1 + rest (w - before))`. So the weight is the solution of
/// `ln w = log_rate + rho / 2`, `log_rate` having half of the pair's variance in it. The row's part of the bound is the largest over
/// `rho` of `-w + ln(rho) / 2 - rho (1 / rest - before) / 2`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnWeight {
    pub(crate) weight: f64,
    rho: f64,
    /// `1 / rest - before`; none where the row has no part in its own variance.
    precision: Option<f64>,
}

impl OwnWeight {
    pub(crate) fn new(log_rate: f64, rest: f64, before: f64) -> Self {
        if rest < LEAST_REST {
            return OwnWeight {
                weight: finite_exp(log_rate + 0.5 * rest),
                rho: rest,
                precision: None,
            };
        }
        let precision = (rest.recip() - before).max(0.0);
        // It rises from a line to another far below: Newton's steps are kept between bounds, which close in on the solution.
        let rho = |weight: f64| 1.0 / (precision + weight);
        let mut bounds = [log_rate, log_rate + 0.5 * rho(finite_exp(log_rate))];
        let mut u = (log_rate + 0.5 * rest).clamp(bounds[0], bounds[1]);
        for _ in 0..STEPS {
            let weight = finite_exp(u);
            let rho = rho(weight);
            let off = u - log_rate - 0.5 * rho;
            bounds[usize::from(off > 0.0)] = u;
            let step = off / (1.0 + 0.5 * weight * rho * rho);
            u -= step;
            if u < bounds[0] || u > bounds[1] {
                u = 0.5 * (bounds[0] + bounds[1]);
            } else if step.abs() < 1e-12 {
                break;
            }
        }
        let weight = finite_exp(u);
        OwnWeight {
            weight,
            rho: rho(weight),
            precision: Some(precision),
        }
    }

    /// Means of a row of so many units whose mean log rate is `eta`.
    pub(crate) fn means(&self, units: f64, eta: f64) -> Means {
        let OwnWeight { weight, rho, .. } = *self;
        let (of_border, response) = match self.precision {
            Some(precision) => (
                0.5 * (rho.ln() - precision * rho),
                weight / (1.0 + 0.5 * weight * rho * rho),
            ),
            None => (0.0, weight),
        };
        Means {
            value: units * eta - weight + of_border,
            slope: units - weight,
            weight,
            response,
        }
    }
}

/// Variance with the border below which a row's own part in it changes nothing.
const LEAST_REST: f64 = 1e-3;

/// `exp` within the finite numbers.
pub(crate) fn finite_exp(x: f64) -> f64 {
    x.clamp(-690.0, 690.0).exp()
}

/// The pairs that a pass has settled.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Means as bits, none where a product was not: each product is one thread's at a time.
    products: Vec<[AtomicU64; 2]>,
}

impl Settled {
    pub(crate) fn new(products: usize) -> Self {
        let cell = || AtomicU64::new(f64::NAN.to_bits());
        Settled {
            products: (0..products).map(|_| [cell(), cell()]).collect(),
        }
    }

    pub(crate) fn put(&self, product: usize, mean: [f64; 2]) {
        for (cell, mean) in self.products[product].iter().zip(mean) {
            cell.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    /// The means of those that were settled.
    pub(crate) fn means(&self) -> impl Iterator<Item = (usize, [f64; 2])> + '_ {
        let of = |cell: &AtomicU64| f64::from_bits(cell.load(Ordering::Relaxed));
        let all = self.products.iter().enumerate();
        all.map(move |(i, [a, e])| (i, [of(a), of(e)]))
            .filter(|(_, mean)| !mean[0].is_nan())
    }
}

/// `(x^2, 2 x, 1)`: the coefficients of the covariance in the variance of a log rate.
fn along(x: f64) -> [f64; 3] {
    [x * x, 2.0 * x, 1.0]
}

fn dot<const N: usize>(a: [f64; N], b: [f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The inverse of a positive definite matrix of two rows; none where it is not one.
fn inverse([xx, xy, yy]: [f64; 3]) -> Option<[f64; 3]> {
    let determinant = xx * yy - xy * xy;
    let found = [yy, -xy, xx].map(|entry| entry / determinant);
    (determinant > 0.0 && xx > 0.0 && found.iter().all(|entry| entry.is_finite())).then_some(found)
}

/// Value, gradient and minus the Hessian (lower triangle) at a pair, in the order of means and covariances.
struct At {
    value: f64,
    gradient: [f64; 5],
    curvature: [[f64; 5]; 5],
}

/// A product with all else as it is.
pub(crate) struct Product<Rows, Of> {
    pub(crate) prior: Prior,
    pub(crate) rows: Rows,
    /// Variance of a log rate from the product's own pair, given the border, from which it is settled.
    pub(crate) least_variance: f64,
    /// Steps at most once a nat is left to be gained.
    pub(crate) few: usize,
    /// Means over a normal log rate, from the row, its mean, and its variance with the pair and with the border.
    pub(crate) of: Of,
}

/// Where a product is: the panel, what is evaluated there, and what the pass hands its rows.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) panel: &'a Panel,
    pub(crate) priors: &'a Priors,
    pub(crate) point: &'a [f64],
    pub(crate) rows: &'a ProductRows<'a>,
    /// Weights before.
    pub(crate) weights: &'a [f64],
}

impl<'a> Place<'a> {
    /// The means of the product's pair.
    pub(crate) fn pair(&self) -> [f64; 2] {
        let layout = self.panel.layout();
        [Site::ProductA, Site::ProductEffect].map(|site| self.point[layout.start(site) + self.rows.product])
    }

    /// The prior of the pair given the border.
    pub(crate) fn prior(&self) -> Prior {
        let category_a = self.panel.layout().start(Site::CategoryA) + self.rows.category;
        Prior::new(self.priors, self.point[category_a])
    }

    /// The product's rows.
    pub(crate) fn rows(self) -> impl Iterator<Item = Row> + Clone + 'a {
        let first = self.panel.layout().time_index(self.rows.category, 0);
        self.panel.product_rows(self.rows.product).map(move |row| Row {
            log_price: row.log_price,
            units: f64::from(row.units),
            effect: self.point[first + row.period],
            variance: 2.0 * self.rows.half_variance[row.period],
            weight: self.weights[row.period],
        })
    }
}

impl<Rows, Of> Product<Rows, Of>
where
    Rows: Iterator<Item = Row> + Clone,
    Of: Fn(&Row, f64, [f64; 2]) -> Means,
{
    /// Its pair before, of these means, and after; none where its variance is small, or a number is not finite.
    pub(crate) fn settle(&self, mean: [f64; 2]) -> Option<[Pair; 2]> {
        let [pa, pe] = self.prior.precision;
        let mut precision = [pa, 0.0, pe];
        for row in self.rows.clone() {
            let x = row.log_price;
            precision[0] += row.weight * x * x;
            precision[1] += row.weight * x;
            precision[2] += row.weight;
        }
        let before = Pair {
            mean,
            covariance: inverse(precision)?,
        };
        let own = |row: Row| dot(along(row.log_price), before.covariance);
        if self.rows.clone().map(own).fold(0.0, f64::max) < self.least_variance {
            return None;
        }
        Some([before, self.settle_from(&before, before)?])
    }

    /// The pair where the bound is largest, sought from `pair`.
    fn settle_from(&self, before: &Pair, mut pair: Pair) -> Option<Pair> {
        let mut at = self.at(&pair, before)?;
        let mut enough = ROUNDING;
        for made in 0..STEPS {
            let step = solve(&at.curvature, at.gradient)?;
            let slope = dot(step, at.gradient);
            if made == 0 {
                enough = (ENOUGH * slope.min(1.0)).max(ROUNDING);
            }
            if slope < enough || (made >= self.few && slope < 1.0) {
                break;
            }
            let mut part = 1.0;
            let found = loop {
                let [a, e, aa, ae, ee] = step.map(|s| part * s);
                let next = Pair {
                    mean: [pair.mean[0] + a, pair.mean[1] + e],
                    covariance: [
                        pair.covariance[0] + aa,
                        pair.covariance[1] + ae,
                        pair.covariance[2] + ee,
                    ],
                };
                let there = self.at(&next, before);
                // Rounding of the value decides nothing.
                let rises =
                    |at_next: &At| at_next.value >= at.value + 1e-4 * part * slope - 1e-12 * at.value.abs();
                if let Some(there) = there.filter(rises) {
                    break Some((next, there));
                }
                part *= 0.5;
                if part < SHORTEST {
                    break None;
                }
            };
            let Some(found) = found else { break };
            (pair, at) = found;
        }
        Some(pair)
    }

    fn at(&self, pair: &Pair, before: &Pair) -> Option<At> {
        let [q_aa, q_ae, q_ee] = inverse(pair.covariance)?;
        let [pa, pe] = self.prior.precision;
        let [aa, ae, ee] = pair.covariance;
        let from = [
            pair.mean[0] - self.prior.mean[0],
            pair.mean[1] - self.prior.mean[1],
        ];
        let mut value = 0.5 * ((aa * ee - ae * ae).ln() - pa * aa - pe * ee)
            - 0.5 * (pa * from[0] * from[0] + pe * from[1] * from[1]);
        let mut gradient = [
            -pa * from[0],
            -pe * from[1],
            0.5 * (q_aa - pa),
            q_ae,
            0.5 * (q_ee - pe),
        ];
        // Sums of the responses times powers of the log price.
        let mut powers = [0.0; 5];
        for row in self.rows.clone() {
            let x = row.log_price;
            let eta = pair.mean[0] * x + pair.mean[1] + row.effect;
            let means = (self.of)(&row, eta, variances(row.variance, x, pair, before));
            value += means.value;
            gradient[0] += means.slope * x;
            gradient[1] += means.slope;
            gradient[2] -= 0.5 * means.weight * x * x;
            gradient[3] -= means.weight * x;
            gradient[4] -= 0.5 * means.weight;
            let mut power = means.response;
            for sum in &mut powers {
                *sum += power;
                power *= x;
            }
        }
        let [w, wx, wxx, wx3, wx4] = powers;
        let curvature = [
            [pa + wxx, 0.0, 0.0, 0.0, 0.0],
            [wx, pe + w, 0.0, 0.0, 0.0],
            [0.5 * wx3, 0.5 * wxx, 0.5 * q_aa * q_aa + 0.25 * wx4, 0.0, 0.0],
            [
                wxx,
                wx,
                q_aa * q_ae + 0.5 * wx3,
                q_ae * q_ae + q_aa * q_ee + wxx,
                0.0,
            ],
            [
                0.5 * wx,
                0.5 * w,
                0.5 * q_ae * q_ae + 0.25 * wxx,
                q_ae * q_ee + 0.5 * wx,
                0.5 * q_ee * q_ee + 0.25 * w,
            ],
        ];
        value.is_finite().then_some(At {
            value,
            gradient,
            curvature,
        })
    }
}

/// Variances of a log rate at log price `x` with the pair, and with the border given it; all of it under `before` is `variance`.
pub(crate) fn variances(variance: f64, x: f64, pair: &Pair, before: &Pair) -> [f64; 2] {
    let of = |pair: &Pair| dot(along(x), pair.covariance);
    [of(pair), (variance - of(before)).max(0.0)]
}

/// Solves by a Cholesky factor of the lower triangle; none where it is not positive definite.
fn solve(matrix: &[[f64; 5]; 5], right: [f64; 5]) -> Option<[f64; 5]> {
    let mut lower = *matrix;
    for j in 0..5 {
        for i in j..5 {
            let sum: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let left = lower[i][j] - sum;
            lower[i][j] = if i == j {
                if left <= 0.0 || !left.is_finite() {
                    return None;
                }
                left.sqrt()
            } else {
                left / lower[j][j]
            };
        }
    }
    let mut x = right;
    for i in 0..5 {
        let sum: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (x[i] - sum) / lower[i][i];
    }
    for i in (0..5).rev() {
        let sum: f64 = (i + 1..5).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - sum) / lower[i][i];
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: Prior = Prior {
        mean: [-1.5, 2.0],
        precision: [1.5, 0.1],
    };

    fn product(
        prices: [f64; 6],
        units: [f64; 6],
    ) -> Product<std::vec::IntoIter<Row>, impl Fn(&Row, f64, [f64; 2]) -> Means> {
        let rows = prices.iter().zip(units).enumerate().map(|(t, (x, units))| Row {
            log_price: *x,
            units,
            effect: 0.3 * (t as f64).sin(),
            variance: 40.0,
            weight: 0.01,
        });
        Product {
            prior: PRIOR,
            rows: rows.collect::<Vec<_>>().into_iter(),
            least_variance: 0.2,
            few: STEPS,
            of: |row: &Row, eta: f64, [own, rest]: [f64; 2]| {
                OwnWeight::new(eta + 0.5 * own, rest, row.weight).means(row.units, eta)
            },
        }
    }

    /// The bound as it is written above.
    fn bound<Of: Fn(&Row, f64, [f64; 2]) -> Means>(
        product: &Product<std::vec::IntoIter<Row>, Of>,
        before: &Pair,
        at: [f64; 5],
    ) -> f64 {
        let [a, e, aa, ae, ee] = at;
        let variance = |row: &Row, [aa, ae, ee]: [f64; 3]| {
            aa * row.log_price * row.log_price + 2.0 * ae * row.log_price + ee
        };
        let rows: f64 = product
            .rows
            .clone()
            .map(|row| {
                let of_border = row.variance - variance(&row, before.covariance);
                let eta = a * row.log_price + e + row.effect;
                // The largest over the border's part of the variance, which the row itself makes smaller.
                let own = variance(&row, [aa, ae, ee]);
                let of = |rho: f64| {
                    let precision = 1.0 / of_border - row.weight;
                    0.5 * (rho.ln() - precision * rho) - (eta + 0.5 * (own + rho)).exp()
                };
                let grid = (-4000..=1000).map(|k| of(of_border * (f64::from(k) * 2e-3).exp()));
                row.units * eta + grid.fold(f64::NEG_INFINITY, f64::max)
            })
            .sum();
        let [pa, pe] = PRIOR.precision;
        let from = [a - PRIOR.mean[0], e - PRIOR.mean[1]];
        rows - 0.5 * (pa * (from[0] * from[0] + aa) + pe * (from[1] * from[1] + ee))
            + 0.5 * (aa * ee - ae * ae).ln()
    }

    #[test]
    fn a_settled_pair_is_where_the_bound_is_largest() {
        let low = [0.1, -0.2, 0.0, -0.3, 0.05, 0.2];
        let high = low.map(|x| x + 5.5);
        for (prices, units, start) in [
            (low, [0.0; 6], [-1.5, 2.0]),
            (low, [0.0, 1.0, 0.0, 2.0, 0.0, 0.0], [-1.5, 2.0]),
            (low, [0.0; 6], [-1.5, 8.0]),
            (high, [0.0; 6], [1.0, 2.0]),
            (high, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [-1.5, -3.0]),
        ] {
            let product = product(prices, units);
            let found = product.settle(start);
            let [before, mut pair] = found.unwrap_or_else(|| panic!("{prices:?} {units:?} {start:?}"));
            // As passes follow each other, from what the one before has found.
            for _ in 0..6 {
                pair = product.settle_from(&before, pair).unwrap();
            }
            let [aa, ae, ee] = pair.covariance;
            let at = [pair.mean[0], pair.mean[1], aa, ae, ee];
            let there = bound(&product, &before, at);
            let sds = [aa.sqrt(), ee.sqrt(), aa, (aa * ee - ae * ae).sqrt(), ee];
            for (k, sd) in sds.into_iter().enumerate() {
                for by in [-0.02 * sd, 0.02 * sd] {
                    let mut moved = at;
                    moved[k] += by;
                    let change = bound(&product, &before, moved) - there;
                    // The grid is coarse: 1e-6 of curvature in each of six rows.
                    assert!(change < 1e-5, "{k}: {change} by {by} at {at:?}");
                }
            }
        }
    }

    #[test]
    fn a_product_of_many_sales_is_left_alone() {
        let mut product = product([0.1; 6], [50.0; 6]);
        let rows = product.rows.map(|row| Row { weight: 50.0, ..row });
        product.rows = rows.collect::<Vec<_>>().into_iter();
        assert_eq!(product.settle([-1.5, 4.0]), None);
    }
}
