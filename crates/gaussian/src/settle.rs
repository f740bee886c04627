//! The best Gaussian of a product's latents, its coefficients and its effect, with all else fixed.
//!
//! If a product has hardly any sales, the variance `v` of its log rates is large, and a weight
//! `exp(eta + v / 2)` implies another variance than the one at which it is evaluated: steps that move means
//! and weights in turn overshoot or stall. Given the border, the bound of one product is a function of the
//! mean `m` and the covariance `S` of its D latents,
//!
//! ```text
//! sum_t E l_t(eta_t) - (m - prior)' P (m - prior) / 2 - tr(P S) / 2 + ln det S / 2,    eta_t ~ Normal(z_t' m + tau_t, z_t' S z_t + r_t),
//! ```
//!
//! `z_t` the regressors and 1, `r_t` what the border adds to the variance. Under Poisson counts it is concave in (m, S) together, so that Newton's
//! steps with a line search find its maximum from anywhere. At the optimum of the whole bound nothing moves.

mod own_weight;
#[cfg(test)]
mod tests;

use crate::design::{LATENTS, along, at, prior_means, prior_precisions};
use infermark_arrowhead::{BlockMatrix, ProductRows};
use infermark_model::{Panel, Priors};
use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use own_weight::{Means, OwnWeight, finite_exp};

/// Largest number of Newton steps. From rates far too high each goes down by a factor of e.
pub(crate) const STEPS: usize = 60;

/// Shortest fraction of a step that is tried.
const SHORTEST: f64 = 1e-4;

/// The squared Newton decrement that is small enough: this fraction of the first, because other passes
/// follow, and at most this fraction of a nat.
const ENOUGH: f64 = 1e-4;

/// The decrement below which rounding decides.
const ROUNDING: f64 = 1e-14;

/// Mean and covariance of a product's latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Normal<const D: usize> {
    pub(crate) mean: [f64; D],
    pub(crate) covariance: BlockMatrix<D>,
}

/// The prior given the border, with independent latents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prior<const D: usize> {
    pub(crate) mean: [f64; D],
    pub(crate) precision: [f64; D],
}

/// A row of the product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<const D: usize> {
    /// The regressors and 1: the multipliers of the latents in the log rate.
    pub(crate) design: [f64; D],
    pub(crate) units: f64,
    /// Effect of its period.
    pub(crate) effect: f64,
    /// Previous variance of its log rate.
    pub(crate) variance: f64,
    /// Its previous weight.
    pub(crate) weight: f64,
}

/// The products that a pass has settled.
#[derive(Debug)]
pub(crate) struct Settled<const D: usize = LATENTS> {
    /// Means as bits, none if a product was not settled: only one thread works on a product at a time.
    products: Vec<[AtomicU64; D]>,
}

impl<const D: usize> Settled<D> {
    pub(crate) fn new(products: usize) -> Self {
        let cell = || AtomicU64::new(f64::NAN.to_bits());
        Settled {
            products: (0..products).map(|_| from_fn(|_| cell())).collect(),
        }
    }

    pub(crate) fn put(&self, product: usize, mean: [f64; D]) {
        for (cell, mean) in self.products[product].iter().zip(mean) {
            cell.store(mean.to_bits(), Ordering::Relaxed);
        }
    }

    /// The means of the settled products.
    pub(crate) fn means(&self) -> impl Iterator<Item = (usize, [f64; D])> + '_ {
        let of = |cell: &AtomicU64| f64::from_bits(cell.load(Ordering::Relaxed));
        let all = self.products.iter().enumerate();
        all.map(move |(i, cells)| (i, cells.each_ref().map(of)))
            .filter(|(_, mean)| !mean[0].is_nan())
    }
}

/// Largest number of unknowns of a product, means and covariances: that of three latents.
const MOST_UNKNOWNS: usize = 9;

/// Means and covariances of D latents.
const fn unknowns(latents: usize) -> usize {
    latents + latents * (latents + 1) / 2
}

/// Row and column of the covariances on and above the diagonal, in their order among the unknowns.
fn covariances<const D: usize>() -> impl Iterator<Item = [usize; 2]> + Clone {
    (0..D).flat_map(|j| (j..D).map(move |k| [j, k]))
}

/// Variance of a log rate from the latents, `z' S z`.
#[inline(always)]
pub(crate) fn variance_along<const D: usize>(design: &[f64; D], covariance: &BlockMatrix<D>) -> f64 {
    let mut sum = 0.0;
    for j in 0..D {
        sum += design[j] * design[j] * covariance[j][j];
        for k in j + 1..D {
            sum += 2.0 * design[j] * design[k] * covariance[j][k];
        }
    }
    sum
}

/// The determinant of some rows and columns of a matrix, by expansion; only for a few rows.
fn minor<const D: usize>(matrix: &BlockMatrix<D>, rows: &[usize], columns: &[usize]) -> f64 {
    let Some((row, rows)) = rows.split_first() else {
        return 1.0;
    };
    let mut sum = 0.0;
    for (at, column) in columns.iter().enumerate() {
        let mut others = [0; D];
        let others = &mut others[..rows.len()];
        let left = columns.iter().filter(|other| *other != column);
        others.iter_mut().zip(left).for_each(|(to, other)| *to = *other);
        let own = matrix[*row][*column] * minor(matrix, rows, others);
        sum += if at % 2 == 0 { own } else { -own };
    }
    sum
}

/// The indices below D but for one.
fn without<const D: usize>(index: usize) -> [usize; D] {
    from_fn(|k| if k < index { k } else { k + 1 })
}

/// The inverse of a positive definite matrix, and its determinant; none if it is not positive definite.
fn inverse<const D: usize>(matrix: &BlockMatrix<D>) -> Option<(BlockMatrix<D>, f64)> {
    let all: [usize; D] = from_fn(|k| k);
    let leading = |order: usize| minor(matrix, &all[..order], &all[..order]);
    let determinant = leading(D);
    let mut found = [[0.0; D]; D];
    for [j, k] in covariances::<D>() {
        let own = minor(matrix, &without::<D>(k)[..D - 1], &without::<D>(j)[..D - 1]);
        found[j][k] = if (j + k) % 2 == 0 { own } else { -own } / determinant;
        found[k][j] = found[j][k];
    }
    let is_one = (1..D).all(|order| leading(order) > 0.0) && determinant > 0.0;
    let is_finite = found.iter().flatten().all(|entry| entry.is_finite());
    (is_one && is_finite).then_some((found, determinant))
}

/// Value, gradient and minus the Hessian (lower triangle) at a Gaussian, in the order of means and covariances.
struct At {
    value: f64,
    gradient: [f64; MOST_UNKNOWNS],
    curvature: [[f64; MOST_UNKNOWNS]; MOST_UNKNOWNS],
}

/// A product, with all else fixed.
pub(crate) struct Product<Rows, Of, const D: usize> {
    pub(crate) prior: Prior<D>,
    pub(crate) rows: Rows,
    /// Variance of a log rate due to the product's own latents, given the border, from which on it is
    /// settled.
    pub(crate) least_variance: f64,
    /// Largest number of steps once at most a nat is left to be gained.
    pub(crate) few: usize,
    /// Means over a normal log rate, computed from the row, its mean, and its variances due to the latents
    /// and to the border.
    pub(crate) of: Of,
}

/// A product's position: the panel, the point of evaluation, and what the pass gives to its rows.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a, const D: usize = LATENTS> {
    pub(crate) panel: &'a Panel,
    pub(crate) priors: &'a Priors,
    pub(crate) point: &'a [f64],
    pub(crate) rows: &'a ProductRows<'a, D>,
    /// Weights before.
    pub(crate) weights: &'a [f64],
}

impl<'a> Place<'a, LATENTS> {
    /// The product's Gaussian before and after settling, as [`Product::settle`] finds it with these values of its
    /// fields.
    #[inline(always)]
    pub(crate) fn settle(
        self,
        least_variance: f64,
        few: usize,
        of: impl Fn(&Row<LATENTS>, f64, [f64; 2]) -> Means,
    ) -> Option<[Normal<LATENTS>; 2]> {
        let product = Product {
            prior: self.prior(),
            rows: self.rows(),
            least_variance,
            few,
            of,
        };
        product.settle(self.means())
    }

    /// The means of the product's latents.
    fn means(&self) -> [f64; LATENTS] {
        at(self.point, self.panel.layout().product_places(self.rows.product))
    }

    /// Their prior given the border.
    fn prior(&self) -> Prior<LATENTS> {
        Prior {
            mean: prior_means(self.priors, self.panel.layout(), self.point, self.rows.category),
            precision: prior_precisions(self.priors),
        }
    }

    /// The product's rows.
    fn rows(self) -> impl Iterator<Item = Row<LATENTS>> + Clone + 'a {
        let first = self.panel.layout().time_index(self.rows.category, 0);
        self.panel.product_rows(self.rows.product).map(move |row| Row {
            design: row.design(),
            units: f64::from(row.units),
            effect: self.point[first + row.period],
            variance: 2.0 * self.rows.half_variance[row.period],
            weight: self.weights[row.period],
        })
    }
}

impl<Rows, Of, const D: usize> Product<Rows, Of, D>
where
    Rows: Iterator<Item = Row<D>> + Clone,
    Of: Fn(&Row<D>, f64, [f64; 2]) -> Means,
{
    /// Number of means and covariances.
    const UNKNOWNS: usize = unknowns(D);

    /// Its Gaussian with these means before and after settling; none if its variance is small, or a number is
    /// not finite.
    pub(crate) fn settle(&self, mean: [f64; D]) -> Option<[Normal<D>; 2]> {
        const { assert!(unknowns(D) <= MOST_UNKNOWNS, "for more latents there is no room") };
        let mut precision = [[0.0; D]; D];
        for k in 0..D {
            precision[k][k] = self.prior.precision[k];
        }
        for row in self.rows.clone() {
            let x = &row.design;
            for [j, k] in covariances::<D>() {
                precision[j][k] += row.weight * x[j] * x[k];
                precision[k][j] = precision[j][k];
            }
        }
        let before = Normal {
            mean,
            covariance: inverse(&precision)?.0,
        };
        let own = |row: Row<D>| variance_along(&row.design, &before.covariance);
        if self.rows.clone().map(own).fold(0.0, f64::max) < self.least_variance {
            return None;
        }
        Some([before, self.settle_from(&before, before)?])
    }

    /// The Gaussian that maximizes the bound, searched from `normal`.
    fn settle_from(&self, before: &Normal<D>, mut normal: Normal<D>) -> Option<Normal<D>> {
        let mut at = self.at(&normal, before)?;
        let mut enough = ROUNDING;
        for made in 0..STEPS {
            let step = solve(&at.curvature, at.gradient, Self::UNKNOWNS)?;
            let slope: f64 = step[..Self::UNKNOWNS]
                .iter()
                .zip(at.gradient)
                .map(|(s, g)| s * g)
                .sum();
            if made == 0 {
                enough = (ENOUGH * slope.min(1.0)).max(ROUNDING);
            }
            if slope < enough || (made >= self.few && slope < 1.0) {
                break;
            }
            let mut part = 1.0;
            let found = loop {
                let next = normal.moved(&step, part);
                let there = self.at(&next, before);
                // Rounding of the value must not decide.
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
            (normal, at) = found;
        }
        Some(normal)
    }

    fn at(&self, normal: &Normal<D>, before: &Normal<D>) -> Option<At> {
        let (q, determinant) = inverse(&normal.covariance)?;
        let Prior { mean, precision } = &self.prior;
        let from: [f64; D] = from_fn(|k| normal.mean[k] - mean[k]);
        let (mut spread, mut squares) = (determinant.ln(), 0.0);
        let mut gradient = [0.0; MOST_UNKNOWNS];
        for k in 0..D {
            spread -= precision[k] * normal.covariance[k][k];
            squares += precision[k] * from[k] * from[k];
            gradient[k] = -precision[k] * from[k];
        }
        let mut value = 0.5 * spread - 0.5 * squares;
        for (by, [j, k]) in gradient[D..].iter_mut().zip(covariances::<D>()) {
            *by = if j == k {
                0.5 * (q[j][j] - precision[j])
            } else {
                q[j][k]
            };
        }
        // Sums of the responses times products of four of the regressors and 1, in their order.
        let mut powers = [[[[0.0; D]; D]; D]; D];
        for row in self.rows.clone() {
            let x = &row.design;
            let eta = along(&normal.mean, x) + row.effect;
            let means = (self.of)(&row, eta, variances(row.variance, x, normal, before));
            value += means.value;
            for k in 0..D {
                gradient[k] += means.slope * x[k];
            }
            let mut at = D;
            for j in 0..D {
                for k in j..D {
                    gradient[at] -= half_if(j == k) * means.weight * x[j] * x[k];
                    at += 1;
                }
            }
            for i in 0..D {
                let first = means.response * x[i];
                for j in i..D {
                    let second = first * x[j];
                    for k in j..D {
                        let third = second * x[k];
                        for l in k..D {
                            powers[i][j][k][l] += third * x[l];
                        }
                    }
                }
            }
        }
        let power = |mut of: [usize; 4]| {
            of.sort_unstable();
            powers[of[0]][of[1]][of[2]][of[3]]
        };
        let mut curvature = [[0.0; MOST_UNKNOWNS]; MOST_UNKNOWNS];
        let effect = D - 1;
        for j in 0..D {
            for k in 0..j {
                curvature[j][k] = power([j, k, effect, effect]);
            }
            curvature[j][j] = precision[j] + power([j, j, effect, effect]);
        }
        for (own, [j, k]) in covariances::<D>().enumerate() {
            for mean in 0..D {
                curvature[D + own][mean] = half_if(j == k) * power([j, k, mean, effect]);
            }
            for (other, [l, m]) in covariances::<D>().enumerate().take(own + 1) {
                // Half the trace of the product for the two entries, `Q E Q E'`.
                let of_entropy = match (j == k, l == m) {
                    (true, true) => 0.5 * q[j][l] * q[j][l],
                    (true, false) => q[j][l] * q[j][m],
                    (false, true) => q[j][l] * q[k][l],
                    (false, false) => q[j][m] * q[k][l] + q[j][l] * q[k][m],
                };
                let of_rows = half_if(j == k) * half_if(l == m) * power([j, k, l, m]);
                curvature[D + own][D + other] = of_entropy + of_rows;
            }
        }
        value.is_finite().then_some(At {
            value,
            gradient,
            curvature,
        })
    }
}

/// The multiplicity of an entry of the covariance, in halves: once on the diagonal, twice elsewhere.
fn half_if(is_diagonal: bool) -> f64 {
    if is_diagonal { 0.5 } else { 1.0 }
}

impl<const D: usize> Normal<D> {
    /// The Gaussian moved by a fraction of a step, with means before covariances.
    fn moved(&self, step: &[f64], part: f64) -> Self {
        let mut moved = *self;
        let (of_mean, of_covariance) = step.split_at(D);
        moved
            .mean
            .iter_mut()
            .zip(of_mean)
            .for_each(|(m, s)| *m += part * s);
        for ([j, k], s) in covariances::<D>().zip(of_covariance) {
            moved.covariance[j][k] += part * s;
            moved.covariance[k][j] = moved.covariance[j][k];
        }
        moved
    }
}

/// Variances of a row's log rate due to the latents, and due to the border given them; under `before` their
/// sum is `variance`.
pub(crate) fn variances<const D: usize>(
    variance: f64,
    design: &[f64; D],
    normal: &Normal<D>,
    before: &Normal<D>,
) -> [f64; 2] {
    let of = |normal: &Normal<D>| variance_along(design, &normal.covariance);
    [of(normal), (variance - of(before)).max(0.0)]
}

/// Solves with a Cholesky factor of the lower triangle; none if the matrix is not positive definite.
fn solve(
    matrix: &[[f64; MOST_UNKNOWNS]; MOST_UNKNOWNS],
    right: [f64; MOST_UNKNOWNS],
    unknowns: usize,
) -> Option<[f64; MOST_UNKNOWNS]> {
    let mut lower = *matrix;
    for j in 0..unknowns {
        for i in j..unknowns {
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
    for i in 0..unknowns {
        let sum: f64 = (0..i).map(|k| lower[i][k] * x[k]).sum();
        x[i] = (x[i] - sum) / lower[i][i];
    }
    for i in (0..unknowns).rev() {
        let sum: f64 = (i + 1..unknowns).map(|k| lower[k][i] * x[k]).sum();
        x[i] = (x[i] - sum) / lower[i][i];
    }
    Some(x)
}
