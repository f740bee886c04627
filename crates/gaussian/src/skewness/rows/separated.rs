//! The tight rows at all nodes of the rule at once, where it has two dimensions or more.
//!
//! `exp(p u_j + q s_k + b) = exp(b) exp(p u_j) exp(q s_k)`: summed over rows it is the product of two
//! matrices of nine by rows, whose entries cost 9 exponentials and 8 reciprocals per row instead of 81
//! exponentials. The rest of the sum is a quadratic polynomial in `(u, s)`, whose coefficients are sums over
//! rows, too. In D dimensions this holds for the last two axes at each node of the others, whose factors
//! multiply `exp(b)`.
//!
//! Rates and polynomial nearly cancel. They also do so row by row at a single node, with the same rounded
//! rates: either way the error of the sum is below about `1e-15 (1 + |p_r u_j| + |q_r s_k| + |b_r|)` relative
//! to each row's contribution to the two parts. The leverage of a row, at least `lambda_r (p_r^2 + q_r^2)`,
//! is below 1, so that exponents are small where rates are large. The relative error of a weight is then 1e-9
//! where a million units are sold, and that of moments is no larger.

use super::columns::Columns;
use crate::gauss_hermite::{NINE, axes, nodes};
use infermark_cpu_kernels::{Kernel, Simd};
use std::f64::consts::LOG2_E;

/// The largest exponent of a factor: divisions have their stated accuracy up to 1e30, and products of D + 1
/// factors, for a few dimensions, are far from overflow and underflow.
pub(super) const MOST_EXPONENT: f64 = 60.0;

/// Vectors of rows whose factors are held at a time, in at most 9 KiB.
const BLOCK: usize = 8;

/// Nodes of either of the last axes that are summed together: nine sums and what they are made of stay in registers.
const TILE: usize = 3;

// Factors at mirrored nodes are reciprocals.
const _: () = {
    let mut j = 0;
    while j < 9 {
        assert!(NINE[j].0 == -NINE[8 - j].0);
        j += 1;
    }
};

/// The contribution of the tight rows at the nodes: a polynomial minus the rates there.
#[derive(Debug, Clone)]
pub(super) struct Separated<const D: usize> {
    /// Rates by node.
    pub(super) rates: Vec<f64>,
    pub(super) polynomial: Polynomial<f64, D>,
}

/// A quadratic polynomial: its constant, and the coefficients of `u_j` and of `u_j u_k`, k from j on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polynomial<V, const D: usize> {
    pub(super) constant: V,
    pub(super) linear: [V; D],
    pub(super) quadratic: [[V; D]; D],
}

impl<const D: usize> Separated<D> {
    pub(super) fn at(&self, node: usize) -> f64 {
        let u = axes::<D>(node).map(|place| NINE[place].0);
        let of = &self.polynomial;
        // The largest terms first, because they cancel.
        let mut sum = of.constant - self.rates[node];
        for j in 0..D {
            let mut slope = of.linear[j];
            for k in j..D {
                slope += of.quadratic[j][k] * u[k];
            }
            sum += u[j] * slope;
        }
        sum
    }
}

/// Whether the rule has two dimensions or more, and no factor has an exponent beyond [`MOST_EXPONENT`].
pub(super) fn separates<const D: usize>(rows: &Columns<D>) -> bool {
    // Without a branch, which would prevent vectorization.
    let within = |exponents: &[f64], most: f64| exponents.iter().fold(true, |all, x| all & (x.abs() <= most));
    let by_most = MOST_EXPONENT / NINE[8].0;
    D > 1 && rows.by.iter().all(|column| within(column, by_most)) && within(&rows.at_zero, MOST_EXPONENT)
}

/// Separates the sum over rows, if it [`separates`].
pub(super) struct Separate<'a, const D: usize>(pub(super) &'a Columns<D>);

impl<I: Simd<Scalar = f64>, const D: usize> Kernel<I> for Separate<'_, D> {
    type Output = Separated<D>;

    #[inline(always)]
    fn run(self, isa: I) -> Separated<D> {
        let Separate(rows) = self;
        let mut polynomial = Polynomial {
            constant: isa.zero(),
            linear: [isa.zero(); D],
            quadratic: [[isa.zero(); D]; D],
        };
        let mut rates = Vec::with_capacity(nodes(D));
        let (outer, last) = rows.by.split_at(D - 2);
        // By vector of rows and node.
        let mut first = [[isa.zero(); 9]; BLOCK];
        let mut second = [[isa.zero(); 9]; BLOCK];
        for node in 0..nodes(D - 2) {
            // The indices on the outer axes are the last of these.
            let places = axes::<D>(node);
            let mut sums = [[isa.zero(); 9]; 9];
            for start in (0..rows.rate.len()).step_by(BLOCK * I::LANES) {
                let vectors = BLOCK.min((rows.rate.len() - start) / I::LANES);
                for v in 0..vectors {
                    let r = start + v * I::LANES;
                    let at_zero = isa.mul(isa.load(&rows.at_zero[r..]), isa.splat(LOG2_E));
                    let mut raised = isa.mul(isa.load(&rows.raised[r..]), isa.exp2(at_zero));
                    for (by, place) in outer.iter().zip(&places[2..]) {
                        let at = isa.splat(LOG2_E * NINE[*place].0);
                        raised = isa.mul(raised, isa.exp2(isa.mul(isa.load(&by[r..]), at)));
                    }
                    first[v] = factors(isa, isa.load(&last[0][r..]), raised);
                    second[v] = factors(isa, isa.load(&last[1][r..]), isa.splat(1.0));
                    if node == 0 {
                        polynomial = with_expansion(isa, rows, r, polynomial);
                    }
                }
                for j in (0..9).step_by(TILE) {
                    for k in (0..9).step_by(TILE) {
                        add_tile(isa, &first[..vectors], &second[..vectors], [j, k], &mut sums);
                    }
                }
            }
            for row in &sums {
                for sum in row {
                    rates.push(isa.sum(*sum));
                }
            }
        }
        Separated {
            rates,
            polynomial: Polynomial {
                constant: isa.sum(polynomial.constant),
                linear: polynomial.linear.map(|sum| isa.sum(sum)),
                quadratic: polynomial.quadratic.map(|row| row.map(|sum| isa.sum(sum))),
            },
        }
    }
}

/// `scale exp(by u)` at the nodes of an axis.
#[inline(always)]
fn factors<I: Simd<Scalar = f64>>(isa: I, by: I::V, scale: I::V) -> [I::V; 9] {
    let mut factors = [scale; 9];
    for j in 5..9 {
        let factor = isa.exp2(isa.mul(by, isa.splat(LOG2_E * NINE[j].0)));
        factors[j] = isa.mul(scale, factor);
        factors[8 - j] = isa.div(scale, factor);
    }
    factors
}

/// Adds `lambda (1 + m + m^2 / 2)` of the rows from index r to the polynomial.
#[inline(always)]
fn with_expansion<I: Simd<Scalar = f64>, const D: usize>(
    isa: I,
    rows: &Columns<D>,
    r: usize,
    mut polynomial: Polynomial<I::V, D>,
) -> Polynomial<I::V, D> {
    let (rate, b) = (isa.load(&rows.rate[r..]), isa.load(&rows.at_zero[r..]));
    let half = isa.mul(isa.splat(0.5), rate);
    // lambda (1 + b), its derivative at zero.
    let slope = isa.mul_add(rate, b, rate);
    let at_zero = isa.mul_add(isa.mul(half, b), b, slope);
    polynomial.constant = isa.add(polynomial.constant, at_zero);
    for j in 0..D {
        let p = isa.load(&rows.by[j][r..]);
        polynomial.linear[j] = isa.mul_add(slope, p, polynomial.linear[j]);
        for k in j..D {
            let by = isa.mul(if j == k { half } else { rate }, p);
            let q = isa.load(&rows.by[k][r..]);
            polynomial.quadratic[j][k] = isa.mul_add(by, q, polynomial.quadratic[j][k]);
        }
    }
    polynomial
}

/// Adds the products of factors at the nodes from (j, k).
#[inline(always)]
fn add_tile<I: Simd<Scalar = f64>>(
    isa: I,
    first: &[[I::V; 9]],
    second: &[[I::V; 9]],
    [j, k]: [usize; 2],
    sums: &mut [[I::V; 9]; 9],
) {
    let mut tile = [[isa.zero(); TILE]; TILE];
    for (first, second) in first.iter().zip(second) {
        for a in 0..TILE {
            for b in 0..TILE {
                tile[a][b] = isa.mul_add(first[j + a], second[k + b], tile[a][b]);
            }
        }
    }
    for a in 0..TILE {
        for b in 0..TILE {
            sums[j + a][k + b] = isa.add(sums[j + a][k + b], tile[a][b]);
        }
    }
}
