//! A product's block: the precision of its D latents and their coupling to the border.
//!
//! A product has one coefficient for each of D - 1 regressors, in their order, and its effect, which is last. Today D is 2: the price
//! elasticity and the effect. Loops over D are unrolled by the compiler.

use crate::grid::Grid;
use crate::sites::BlockPriors;
use crate::tiles::Packed;
use infermark_cpu_kernels::Simd;
use std::array::from_fn;

/// A symmetric matrix over the latents of a product.
pub type BlockMatrix<const D: usize> = [[f64; D]; D];

/// Cholesky factor of a product's block `H`: the lower triangle by rows, zero above the diagonal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockFactor<const D: usize> {
    pub(crate) rows: [[f64; D]; D],
}

impl<const D: usize> BlockFactor<D> {
    /// The factor of a block that is not known yet.
    pub(crate) const UNKNOWN: Self = BlockFactor { rows: [[0.0; D]; D] };

    /// The factor of a block given by its lower triangle; `None` if that is not positive definite, or not
    /// finite.
    #[inline(always)]
    pub(crate) fn of(h: &BlockMatrix<D>) -> Option<Self> {
        let found = Self::unchecked(h);
        let is_sound = (0..D).all(|j| found.rows[j][j] > 0.0 && found.rows[j][j].is_finite());
        is_sound.then_some(found)
    }

    /// The same without a check, for a positive definite block; for any other the result is not finite, or
    /// zero on the diagonal.
    #[inline(always)]
    pub fn unchecked(h: &BlockMatrix<D>) -> Self {
        let mut rows = [[0.0; D]; D];
        for j in 0..D {
            for k in 0..=j {
                let mut left = h[j][k];
                for m in 0..k {
                    left -= rows[j][m] * rows[k][m];
                }
                rows[j][k] = if k < j { left / rows[k][k] } else { left.sqrt() };
            }
        }
        BlockFactor { rows }
    }

    /// The lower triangle by rows, zero above the diagonal.
    pub fn rows(&self) -> &BlockMatrix<D> {
        &self.rows
    }

    /// Whether it is the factor of a positive definite block.
    pub(crate) fn is_sound(&self) -> bool {
        let diagonal = (0..D).all(|j| self.rows[j][j] > 0.0);
        diagonal && self.rows.iter().flatten().all(|entry| entry.is_finite())
    }

    /// `L^-1 b`.
    #[inline(always)]
    pub fn forward(&self, mut b: [f64; D]) -> [f64; D] {
        for j in 0..D {
            for k in 0..j {
                b[j] -= self.rows[j][k] * b[k];
            }
            b[j] /= self.rows[j][j];
        }
        b
    }

    /// `L^-T y`.
    #[inline(always)]
    pub(crate) fn backward(&self, mut y: [f64; D]) -> [f64; D] {
        for j in (0..D).rev() {
            for k in j + 1..D {
                y[j] -= self.rows[k][j] * y[k];
            }
            y[j] /= self.rows[j][j];
        }
        y
    }

    /// `L' x`.
    #[inline(always)]
    pub fn transpose_times(&self, x: [f64; D]) -> [f64; D] {
        from_fn(|j| {
            let below = (j + 1..D).map(|k| self.rows[k][j] * x[k]);
            below.fold(self.rows[j][j] * x[j], |sum, own| sum + own)
        })
    }

    /// `ln det L`.
    pub(crate) fn ln_det(&self) -> f64 {
        (0..D).map(|j| self.rows[j][j].ln()).sum()
    }

    /// An entry of the block.
    pub(crate) fn entry(&self, j: usize, k: usize) -> f64 {
        (0..=j.min(k)).map(|m| self.rows[j][m] * self.rows[k][m]).sum()
    }
}

/// The factor of the block of the product whose rows and weights are in the grid, and the product's
/// information on its category's coefficients. With `K` the information of its rows and the prior of its
/// effect on its own coefficients, and `P` the precisions of these about the category's, it is
/// `P - P [H^-1] P = (K^-1 + P^-1)^-1`, [`parallel_sum`], which is `K` if `P` is so large that the difference
/// is lost.
#[inline(always)]
pub(crate) fn block<const D: usize, I: Simd<Scalar = f64>>(
    isa: I,
    grid: &Grid<D>,
    priors: &BlockPriors<D>,
) -> Option<(BlockFactor<D>, BlockMatrix<D>)> {
    let effect = D - 1;
    let mut level = isa.zero();
    let mut along = [isa.zero(); D];
    let mut squares = [[isa.zero(); D]; D];
    for t in (0..grid.weights.len()).step_by(I::LANES) {
        let w = isa.load(&grid.weights[t..]);
        level = isa.add(level, w);
        let mut x = [w; D];
        for j in 0..effect {
            x[j] = isa.load(&grid.design[j][t..]);
            let wx = isa.mul(w, x[j]);
            along[j] = isa.add(along[j], wx);
            for k in 0..=j {
                squares[j][k] = isa.mul_add(wx, x[k], squares[j][k]);
            }
        }
    }
    let level = isa.sum(level) + priors.product[effect];
    let mut sums = [level; D];
    for j in 0..effect {
        sums[j] = isa.sum(along[j]);
    }
    let along = sums;
    let mut h = [along; D];
    let mut own = [[0.0; D]; D];
    for j in 0..effect {
        for k in 0..=j {
            let square = isa.sum(squares[j][k]);
            h[j][k] = square;
            own[j][k] = square - along[j] * (along[k] / level);
            own[k][j] = own[j][k];
        }
        h[j][j] += priors.product[j];
        own[j][j] = own[j][j].max(0.0);
    }
    Some((BlockFactor::of(&h)?, parallel_sum(&own, &priors.product)))
}

/// `(K^-1 + P^-1)^-1` over the coefficients, `P` the diagonal of the precisions; zero in the row and the column of the effect.
///
/// It is computed as `(I + K P^-1)^-1 K`, in which no precision is so large that the rest is lost, by
/// elimination: the pivots are those of the symmetric `I + P^-1/2 K P^-1/2`, 1 and more.
#[inline(always)]
pub(crate) fn parallel_sum<const D: usize>(k: &BlockMatrix<D>, precisions: &[f64; D]) -> BlockMatrix<D> {
    let coefficients = D - 1;
    let mut matrix = [[0.0; D]; D];
    let mut sum = *k;
    for i in 0..coefficients {
        for j in 0..coefficients {
            let part = k[i][j] / precisions[j];
            matrix[i][j] = if i == j { 1.0 + part } else { part };
        }
    }
    for pivot in 0..coefficients {
        for i in pivot + 1..coefficients {
            let factor = matrix[i][pivot] / matrix[pivot][pivot];
            for j in 0..coefficients {
                matrix[i][j] -= factor * matrix[pivot][j];
                sum[i][j] -= factor * sum[pivot][j];
            }
        }
    }
    for i in (0..coefficients).rev() {
        for j in 0..coefficients {
            for m in i + 1..coefficients {
                sum[i][j] -= matrix[i][m] * sum[m][j];
            }
            sum[i][j] /= matrix[i][i];
        }
    }
    sum
}

/// The coupling of the product's latents to the log shape of its category.
#[inline(always)]
pub(crate) fn shape_coupling<const D: usize>(grid: &Grid<D>) -> [f64; D] {
    from_fn(|k| {
        if k + 1 < D {
            grid.cross.iter().zip(&grid.design[k]).map(|(c, x)| c * x).sum()
        } else {
            grid.cross.iter().sum()
        }
    })
}

/// `L^-1` for columns in vectors: reciprocals of the diagonal, and the negated entries below it.
struct InVectors<V, const D: usize> {
    over: [V; D],
    less: [[V; D]; D],
}

impl<V: Copy, const D: usize> InVectors<V, D> {
    #[inline(always)]
    fn new<I: Simd<Scalar = f64, V = V>>(isa: I, lower: &BlockFactor<D>) -> Self {
        let (mut over, mut less) = ([isa.zero(); D], [[isa.zero(); D]; D]);
        for j in 0..D {
            over[j] = isa.splat(1.0 / lower.rows[j][j]);
            for k in 0..j {
                less[j][k] = isa.splat(-lower.rows[j][k]);
            }
        }
        InVectors { over, less }
    }

    #[inline(always)]
    fn forward<I: Simd<Scalar = f64, V = V>>(&self, isa: I, mut b: [V; D]) -> [V; D] {
        for j in 0..D {
            for k in 0..j {
                b[j] = isa.mul_add(self.less[j][k], b[k], b[j]);
            }
            b[j] = isa.mul(b[j], self.over[j]);
        }
        b
    }
}

/// Writes `V = L^-1 B` of the product in the grid into its columns, from D k on: its periods, its category's
/// log shape if there is one, the category's coefficients, then `rhs`.
#[inline(always)]
pub(crate) fn write_coupling<const D: usize, I: Simd<Scalar = f64>>(
    isa: I,
    grid: &Grid<D>,
    lower: &BlockFactor<D>,
    priors: &BlockPriors<D>,
    shape: Option<[f64; D]>,
    rhs: [f64; D],
    (v, k, periods): (&mut Packed, usize, usize),
) {
    let inverse = InVectors::new(isa, lower);
    for t in (0..grid.weights.len()).step_by(I::LANES) {
        let w = isa.load(&grid.weights[t..]);
        let mut b = [w; D];
        for j in 0..D - 1 {
            b[j] = isa.mul(w, isa.load(&grid.design[j][t..]));
        }
        for (j, entry) in inverse.forward(isa, b).into_iter().enumerate() {
            let at = v.place(t, D * k + j);
            isa.store(entry, &mut v.values[at..]);
        }
    }
    let mut row = periods;
    let mut put = |entries: [f64; D]| {
        for (j, entry) in entries.into_iter().enumerate() {
            *v.at(row, D * k + j) = entry;
        }
        row += 1;
    };
    if let Some(shape) = shape {
        put(lower.forward(shape));
    }
    for coefficient in 0..D - 1 {
        let mut parent = [0.0; D];
        parent[coefficient] = -priors.product[coefficient];
        put(lower.forward(parent));
    }
    put(rhs);
}

/// `V C V'` of the product in the columns from D k on, with `y` equal to `C V'`.
#[inline(always)]
pub(crate) fn inner<const D: usize, I: Simd<Scalar = f64>>(
    isa: I,
    v: &Packed,
    y: &Packed,
    k: usize,
) -> BlockMatrix<D> {
    let tile = crate::tiles::tile_rows::<I>();
    let mut sums = [[isa.zero(); D]; D];
    for start in (0..v.rows).step_by(tile) {
        for at in (0..tile).step_by(I::LANES) {
            let (mut own, mut moved) = ([isa.zero(); D], [isa.zero(); D]);
            for j in 0..D {
                let place = v.place(start, D * k + j) + at;
                own[j] = isa.load(&v.values[place..]);
                moved[j] = isa.load(&y.values[place..]);
            }
            for i in 0..D {
                for j in i..D {
                    sums[i][j] = isa.mul_add(own[i], moved[j], sums[i][j]);
                }
            }
        }
    }
    let mut found = [[0.0; D]; D];
    for i in 0..D {
        for j in i..D {
            found[i][j] = isa.sum(sums[i][j]);
            found[j][i] = found[i][j];
        }
    }
    found
}

/// Covariance of a product's latents, `L^-T (I + V C V') L^-1`.
#[inline(always)]
pub(crate) fn block_covariance<const D: usize>(
    lower: &BlockFactor<D>,
    squares: BlockMatrix<D>,
) -> BlockMatrix<D> {
    let mut columns = squares;
    for (j, column) in columns.iter_mut().enumerate() {
        column[j] += 1.0;
        *column = lower.backward(*column);
    }
    let mut covariance = [[0.0; D]; D];
    for i in 0..D {
        let row = lower.backward(from_fn(|j| columns[j][i]));
        for j in i..D {
            covariance[i][j] = row[j];
            covariance[j][i] = row[j];
        }
    }
    covariance
}

/// The unit matrix.
pub(crate) fn identity<const D: usize>() -> BlockMatrix<D> {
    from_fn(|i| from_fn(|j| if i == j { 1.0 } else { 0.0 }))
}

/// Half of the variance of every row's log rate: with `u = L^-1 x`, where x are the row's regressors and 1,
/// `C` the covariance of the border, and `M = V C V'`, `var = u (I + M) u' - 2 u V C e_t + C_tt`.
#[inline(always)]
pub(crate) fn half_variances<const D: usize, I: Simd<Scalar = f64>>(
    isa: I,
    grid: &mut Grid<D>,
    lower: &BlockFactor<D>,
    squares: BlockMatrix<D>,
    (k, moved): (usize, &Packed),
    of_periods: &[f64],
) {
    let inverse = InVectors::new(isa, lower);
    let mut whole = [[isa.zero(); D]; D];
    for i in 0..D {
        whole[i][i] = isa.splat(0.5 * (1.0 + squares[i][i]));
        for j in i + 1..D {
            whole[i][j] = isa.splat(squares[i][j]);
        }
    }
    let (one, zero) = (isa.splat(1.0), isa.zero());
    for t in (0..of_periods.len()).step_by(I::LANES) {
        let mut x = [one; D];
        for j in 0..D - 1 {
            x[j] = isa.load(&grid.design[j][t..]);
        }
        let u = inverse.forward(isa, x);
        let mut half = isa.load(&of_periods[t..]);
        for i in (0..D).rev() {
            let mut by = isa.mul(whole[i][i], u[i]);
            for j in i + 1..D {
                by = isa.mul_add(whole[i][j], u[j], by);
            }
            by = isa.sub(by, isa.load(&moved.values[moved.place(t, D * k + i)..]));
            half = isa.mul_add(u[i], by, half);
        }
        // Rounding can give a slightly negative number.
        isa.store(isa.max(half, zero), &mut grid.half_variance[t..]);
    }
}

/// The sum of the products of entries, starting with the first.
#[inline(always)]
pub(crate) fn dot<const D: usize>(a: &[f64; D], b: &[f64; D]) -> f64 {
    let rest = a[1..].iter().zip(&b[1..]);
    rest.fold(a[0] * b[0], |sum, (a, b)| sum + a * b)
}
