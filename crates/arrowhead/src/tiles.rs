//! Products of small matrices, packed so that the innermost loop reads memory in order.
//!
//! A tile is three vectors of rows. The accumulators of a tile, for as many columns as the register file
//! holds, stay in registers while the inner dimension is traversed.

use infermark_cpu_kernels::{Kernel, Simd};

/// Vectors of rows in a tile.
const VECTORS: usize = 3;

/// Rows of a tile.
pub(crate) const fn tile_rows<I: Simd>() -> usize {
    VECTORS * I::LANES
}

/// Columns that are accumulated at once: with three vectors of rows, 12 of 16 registers or 24 of 32.
const fn columns_at_once<I: Simd>() -> usize {
    if I::LANES == 8 { 8 } else { 4 }
}

/// Column vectors of length `rows`, the inner dimension, packed in tiles: entry `(row, column)` lies at
/// `(row / tile) * columns * tile + column * tile + row % tile`.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) values: Vec<f64>,
    /// A multiple of the tile.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    tile: usize,
}

impl Packed {
    pub(crate) fn new<I: Simd>(rows: usize, columns: usize) -> Self {
        let tile = tile_rows::<I>();
        let rows = rows.next_multiple_of(tile);
        Packed {
            values: vec![0.0; rows * columns],
            rows,
            columns,
            tile,
        }
    }

    /// The covariance of a border, packed with room for the right-hand side after it.
    pub(crate) fn with_margin<I: Simd>(covariance: &[f64], border: usize) -> Self {
        Self::square::<I>(covariance, border, border + 1)
    }

    /// A matrix of `rows` rows and at most as many columns, packed with zeros around it.
    pub(crate) fn of_columns<I: Simd>(columns: &[f64], rows: usize) -> Self {
        Self::square::<I>(columns, rows, rows)
    }

    /// Columns of `rows` rows in a square matrix of the given order.
    fn square<I: Simd>(columns: &[f64], rows: usize, order: usize) -> Self {
        let tile = tile_rows::<I>();
        let mut packed = Packed::new::<I>(order, order.next_multiple_of(tile));
        for (column, values) in columns.chunks_exact(rows).enumerate() {
            for (first, rows) in (0..rows).step_by(tile).zip(values.chunks(tile)) {
                let at = packed.place(first, column);
                packed.values[at..at + rows.len()].copy_from_slice(rows);
            }
        }
        packed
    }

    #[inline(always)]
    pub(crate) fn at(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.values[(row / self.tile) * self.columns * self.tile + column * self.tile + row % self.tile]
    }

    /// Multiplies some columns by a number.
    pub(crate) fn scale_columns(&mut self, first: usize, columns: usize, by: f64) {
        for tile in self.values.chunks_exact_mut(self.columns * self.tile) {
            let own = &mut tile[first * self.tile..(first + columns) * self.tile];
            own.iter_mut().for_each(|value| *value *= by);
        }
    }

    /// Adds some columns from `first` on, each multiplied by a number, to `to`.
    #[inline(always)]
    pub(crate) fn add_columns<const D: usize, I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        first: usize,
        by: [f64; D],
        to: &mut [f64],
    ) {
        let by = by.map(|by| isa.splat(by));
        for row in (0..to.len()).step_by(I::LANES) {
            let mut sum = isa.load(&to[row..]);
            for j in (0..D).rev() {
                sum = isa.mul_add(isa.load(&self.values[self.place(row, first + j)..]), by[j], sum);
            }
            isa.store(sum, &mut to[row..]);
        }
    }

    /// Index of a column's rows, from a multiple of the lanes on.
    #[inline(always)]
    pub(crate) fn place(&self, row: usize, column: usize) -> usize {
        (row / self.tile) * self.columns * self.tile + column * self.tile + row % self.tile
    }
}

/// Subtracts `V V'` from the lower triangle of `into` (order `v.rows`, column-major; whole tiles on its
/// diagonal), with `V` the first `columns` columns.
pub(crate) struct SubtractOuter<'a> {
    pub(crate) v: &'a Packed,
    pub(crate) columns: usize,
    pub(crate) into: &'a mut [f64],
}

impl<I: Simd<Scalar = f64>> Kernel<I> for SubtractOuter<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let tile = tile_rows::<I>();
        let (order, stride) = (self.v.rows, self.v.columns * tile);
        for (it, rows) in self.v.values.chunks_exact(stride).enumerate() {
            for (jt, columns) in self.v.values.chunks_exact(stride).enumerate().take(it + 1) {
                for first in (0..tile).step_by(columns_at_once::<I>()) {
                    let mut sums = [[isa.zero(); VECTORS]; 8];
                    let pairs = rows.chunks_exact(tile).zip(columns.chunks_exact(tile));
                    for (a, b) in pairs.take(self.columns) {
                        let a = [0, 1, 2].map(|v| isa.load(&a[v * I::LANES..]));
                        for c in 0..columns_at_once::<I>() {
                            let b = isa.splat(b[first + c]);
                            for v in 0..VECTORS {
                                sums[c][v] = isa.mul_add(a[v], b, sums[c][v]);
                            }
                        }
                    }
                    for c in 0..columns_at_once::<I>() {
                        let column = (jt * tile + first + c) * order + it * tile;
                        let into = &mut self.into[column..column + tile];
                        for v in 0..VECTORS {
                            let at = v * I::LANES;
                            isa.store(isa.sub(isa.load(&into[at..]), sums[c][v]), &mut into[at..]);
                        }
                    }
                }
            }
        }
    }
}

/// `out = A V`, with `A` symmetric of `v.rows` columns and the first `columns` columns of `V`, rounded up to
/// those processed at once.
pub(crate) struct TimesSymmetric<'a> {
    pub(crate) a: &'a Packed,
    pub(crate) v: &'a Packed,
    pub(crate) columns: usize,
    pub(crate) out: &'a mut Packed,
}

impl<I: Simd<Scalar = f64>> Kernel<I> for TimesSymmetric<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let all = self.v.rows / tile_rows::<I>();
        times(isa, (self.a, self.v), self.columns, self.out, |_| all);
    }
}

/// The same if the tiles of `A` above its diagonal are zero.
pub(crate) struct TimesLower<'a> {
    pub(crate) a: &'a Packed,
    pub(crate) v: &'a Packed,
    pub(crate) columns: usize,
    pub(crate) out: &'a mut Packed,
}

impl<I: Simd<Scalar = f64>> Kernel<I> for TimesLower<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        times(isa, (self.a, self.v), self.columns, self.out, |tile| tile + 1);
    }
}

/// `out = A V`, using from each row of tiles of `A` as many as `tiles` says.
#[inline(always)]
fn times<I: Simd<Scalar = f64>>(
    isa: I,
    (a, v): (&Packed, &Packed),
    columns: usize,
    out: &mut Packed,
    tiles: impl Fn(usize) -> usize,
) {
    let tile = tile_rows::<I>();
    let stride = v.columns * tile;
    let rows = a.values.chunks_exact(a.columns * tile);
    for (number, (a, out)) in rows.zip(out.values.chunks_exact_mut(stride)).enumerate() {
        for first in (0..columns).step_by(columns_at_once::<I>()) {
            let mut sums = [[isa.zero(); VECTORS]; 8];
            let inner = a
                .chunks_exact(tile * tile)
                .zip(v.values.chunks_exact(stride))
                .take(tiles(number));
            for (a, v) in inner {
                let v = &v[first * tile..(first + columns_at_once::<I>()) * tile];
                for (r, a) in a.chunks_exact(tile).enumerate() {
                    let a = [0, 1, 2].map(|v| isa.load(&a[v * I::LANES..]));
                    for c in 0..columns_at_once::<I>() {
                        let b = isa.splat(v[c * tile + r]);
                        for k in 0..VECTORS {
                            sums[c][k] = isa.mul_add(a[k], b, sums[c][k]);
                        }
                    }
                }
            }
            for c in 0..columns_at_once::<I>() {
                let out = &mut out[(first + c) * tile..(first + c + 1) * tile];
                for k in 0..VECTORS {
                    isa.store(sums[c][k], &mut out[k * I::LANES..]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_cpu_kernels::{ForSimd, SimdDispatch};
    use infermark_processor::InstructionSet;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    struct Both;

    impl ForSimd for Both {
        type Output = ();

        fn run<I: Simd>(self, isa: I) {
            let isa = isa.wide();
            let mut rng = StdRng::seed_from_u64(3);
            for (rows, used) in [(1, 1), (7, 2), (25, 9), (50, 128), (158, 126)] {
                let mut v = Packed::new::<I::Wide>(rows, 128);
                let plain: Vec<Vec<f64>> = (0..used)
                    .map(|_| (0..rows).map(|_| rng.random_range(-1.0..1.0)).collect())
                    .collect();
                for (k, column) in plain.iter().enumerate() {
                    for (r, value) in column.iter().enumerate() {
                        *v.at(r, k) = *value;
                    }
                }
                let order = v.rows;
                let mut outer = vec![0.0; order * order];
                isa.vectorize(SubtractOuter {
                    v: &v,
                    columns: used,
                    into: &mut outer,
                });
                let symmetric: Vec<f64> = (0..rows * rows)
                    .map(|at| ((at / rows) as f64 - (at % rows) as f64).cos())
                    .collect();
                let a = Packed::square::<I::Wide>(&symmetric, rows, rows);
                let mut out = Packed::new::<I::Wide>(rows, 128);
                isa.vectorize(TimesSymmetric {
                    a: &a,
                    v: &v,
                    columns: used,
                    out: &mut out,
                });
                for i in 0..rows {
                    for j in 0..=i {
                        let expected: f64 = plain.iter().map(|v| v[i] * v[j]).sum();
                        // Sums of at most 128 products of numbers below 1.
                        assert!((outer[j * order + i] + expected).abs() < 1e-12, "{rows} {i} {j}");
                    }
                    for (k, v) in plain.iter().enumerate() {
                        let expected: f64 = (0..rows).map(|j| symmetric[j * rows + i] * v[j]).sum();
                        assert!((*out.at(i, k) - expected).abs() < 1e-12, "{rows} {i} {k}");
                    }
                }
                // Entries above the diagonal are neither read nor written if they are zero.
                let of_lower = |at: usize| {
                    if at / rows <= at % rows {
                        symmetric[at]
                    } else {
                        0.0
                    }
                };
                let lower: Vec<f64> = (0..rows * rows).map(of_lower).collect();
                let a = Packed::square::<I::Wide>(&lower, rows, rows);
                isa.vectorize(TimesLower {
                    a: &a,
                    v: &v,
                    columns: used,
                    out: &mut out,
                });
                for i in 0..rows {
                    for (k, v) in plain.iter().enumerate() {
                        let expected: f64 = (0..rows).map(|j| lower[j * rows + i] * v[j]).sum();
                        assert!((*out.at(i, k) - expected).abs() < 1e-12, "{rows} {i} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_equal_plain_loops_on_every_instruction_set() {
        for set in InstructionSet::available() {
            set.run_f64(Both);
        }
    }
}
