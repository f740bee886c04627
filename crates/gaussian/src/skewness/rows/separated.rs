//! The tight rows at all nodes of the rule for pairs at once.
//!
//! `exp(p u_j + q s_k + b) = exp(b) exp(p u_j) exp(q s_k)`: summed over rows it is the product of two matrices of nine by rows, whose
//! entries cost a row 9 exponentials and 8 reciprocals in the place of 81 exponentials. The rest of the sum is a quadratic polynomial in
//! `(u, s)`, whose coefficients are sums over rows, too.
//!
//! Rates and polynomial all but cancel. So they do row by row at a single node, where the same rates are rounded: either way the sum
//! is off by less than about `1e-15 (1 + |p_r u_j| + |q_r s_k| + |b_r|)` of what each row has in the two parts. The leverage of a row,
//! at least `lambda_r (p_r^2 + q_r^2)`, is below 1, so that exponents are small where rates are large. A weight is then off by a part of 1e-9
//! of itself where a million is sold, and moments are by no more.

use super::columns::Columns;
use crate::gauss_hermite::{NINE, axes};
use infermark_cpu_kernels::{Kernel, Simd};
use std::f64::consts::LOG2_E;

/// The largest exponent of a factor: divisions are as good as they say up to 1e30, and products of three factors are far from the ends
/// of the numbers.
pub(super) const MOST_EXPONENT: f64 = 60.0;

/// Vectors of rows whose factors are held at a time, in 9 KiB at most.
const BLOCK: usize = 8;

/// Nodes of either axis that are summed together: nine sums and what they are made of stay in registers.
const TILE: usize = 3;

// Factors at mirrored nodes are reciprocals.
const _: () = {
    let mut j = 0;
    while j < 9 {
        assert!(NINE[j].0 == -NINE[8 - j].0);
        j += 1;
    }
};

/// What the tight rows add at the nodes: a polynomial less the rates there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Separated {
    pub(super) rates: [f64; 81],
    /// Coefficients of 1, u, s, u^2, u s and s^2.
    pub(super) polynomial: [f64; 6],
}

impl Separated {
    pub(super) fn at(&self, node: usize) -> f64 {
        let [u, s] = axes(node).map(|place| NINE[place].0);
        let [one, of_u, of_s, of_uu, of_us, of_ss] = self.polynomial;
        // What is largest first: it cancels.
        (one - self.rates[node]) + u * (of_u + of_uu * u + of_us * s) + s * (of_s + of_ss * s)
    }
}

/// Whether no factor has an exponent beyond [`MOST_EXPONENT`].
pub(super) fn separates(rows: &Columns) -> bool {
    // Without a branch, which would keep the compiler from vectors.
    let within = |exponents: &[f64], most: f64| exponents.iter().fold(true, |all, x| all & (x.abs() <= most));
    let by_most = MOST_EXPONENT / NINE[8].0;
    within(&rows.by_first, by_most) & within(&rows.by_second, by_most) & within(&rows.at_zero, MOST_EXPONENT)
}

/// Separates the sum over rows, where that [`separates`].
pub(super) struct Separate<'a>(pub(super) &'a Columns);

impl<I: Simd<Scalar = f64>> Kernel<I> for Separate<'_> {
    type Output = Separated;

    #[inline(always)]
    fn run(self, isa: I) -> Separated {
        let Separate(rows) = self;
        let mut sums = [[isa.zero(); 9]; 9];
        let mut polynomial = [isa.zero(); 6];
        // By vector of rows and node.
        let mut first = [[isa.zero(); 9]; BLOCK];
        let mut second = [[isa.zero(); 9]; BLOCK];
        for start in (0..rows.rate.len()).step_by(BLOCK * I::LANES) {
            let vectors = BLOCK.min((rows.rate.len() - start) / I::LANES);
            for v in 0..vectors {
                let r = start + v * I::LANES;
                let at_zero = isa.mul(isa.load(&rows.at_zero[r..]), isa.splat(LOG2_E));
                let raised = isa.mul(isa.load(&rows.raised[r..]), isa.exp2(at_zero));
                first[v] = factors(isa, isa.load(&rows.by_first[r..]), raised);
                second[v] = factors(isa, isa.load(&rows.by_second[r..]), isa.splat(1.0));
                polynomial = with_expansion(isa, rows, r, polynomial);
            }
            for j in (0..9).step_by(TILE) {
                for k in (0..9).step_by(TILE) {
                    add_tile(isa, &first[..vectors], &second[..vectors], [j, k], &mut sums);
                }
            }
        }
        let mut rates = [0.0; 81];
        for (node, rate) in rates.iter_mut().enumerate() {
            let [j, k] = axes(node);
            *rate = isa.sum(sums[j][k]);
        }
        Separated {
            rates,
            polynomial: polynomial.map(|sum| isa.sum(sum)),
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

/// The polynomial with `lambda (1 + m + m^2 / 2)` of the rows from place r.
#[inline(always)]
fn with_expansion<I: Simd<Scalar = f64>>(
    isa: I,
    rows: &Columns,
    r: usize,
    polynomial: [I::V; 6],
) -> [I::V; 6] {
    let (p, q) = (isa.load(&rows.by_first[r..]), isa.load(&rows.by_second[r..]));
    let (rate, b) = (isa.load(&rows.rate[r..]), isa.load(&rows.at_zero[r..]));
    let half = isa.mul(isa.splat(0.5), rate);
    // lambda (1 + b), its derivative at zero.
    let slope = isa.mul_add(rate, b, rate);
    let at_zero = isa.mul_add(isa.mul(half, b), b, slope);
    let [one, of_u, of_s, of_uu, of_us, of_ss] = polynomial;
    [
        isa.add(one, at_zero),
        isa.mul_add(slope, p, of_u),
        isa.mul_add(slope, q, of_s),
        isa.mul_add(isa.mul(half, p), p, of_uu),
        isa.mul_add(isa.mul(rate, p), q, of_us),
        isa.mul_add(isa.mul(half, q), q, of_ss),
    ]
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
