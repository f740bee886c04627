//! Dense lower-triangular factors of the categories' blocks.

use crate::watch::Watch;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, MatMut, MatRef, Par};

/// Columns that are eliminated at once; a factorization can be stopped between these blocks.
const BLOCK: usize = 128;

/// Least remaining curvature of a log shape, as a fraction of what other parameters take of it.
const LEAST_OF_TAKEN: f64 = 0.5;

/// A lower triangle of order n, column-major in an n x n array whose upper triangle is zero.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lower {
    order: usize,
    values: Vec<f64>,
}

/// The end of a border's diagonal, after the periods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail<'a> {
    /// Whether there is a log shape, whose own precision may not be positive.
    pub(crate) has_shape: bool,
    /// Its own precision, with all else fixed.
    pub(crate) shape: f64,
    /// The least precision that it is assumed to have, with all else moving along.
    pub(crate) least_shape: f64,
    /// The precisions of the category's coefficients about the global ones, which the matrix does not
    /// contain.
    pub(crate) category_priors: &'a [f64],
}

/// The factor of a border.
#[derive(Debug, Clone)]
pub(crate) struct BorderFactor {
    pub(crate) lower: Lower,
    /// The information of products and periods on the category's coefficients, without their priors: the
    /// lower triangle by rows.
    pub(crate) informed: Vec<f64>,
    /// Whether the log shape's own precision was below the least one, which then replaces it.
    pub(crate) uses_fallback_curvature: bool,
}

impl Lower {
    /// The Cholesky factor of a border's matrix, given by its lower triangle, column-major; `None` if its
    /// periods' part is not positive definite, or `watch` stops it.
    ///
    /// The last entries of the diagonal do not include the priors of the category's coefficients. Those are
    /// added after elimination, so that neither is lost to the other's rounding: a prior sd of 1e-8 is a
    /// precision of 1e16.
    ///
    /// If the pivot of the log shape is below the least precision, the latter replaces it: the couplings
    /// stay, and a step along the gradient still goes up. The uncertainty of the shape adds `taken / pivot`
    /// to the relative variance along the parameters that it is coupled to, so the pivot is at least a
    /// fraction of `taken`. Source: Gill, Murray and Wright, "Practical Optimization", 1981, 4.4.2.
    pub(crate) fn of_border(
        mut values: Vec<f64>,
        order: usize,
        tail: Tail<'_>,
        watch: &Watch,
    ) -> Option<BorderFactor> {
        let coefficients = tail.category_priors.len();
        let first = order - coefficients;
        let hard = first - usize::from(tail.has_shape);
        let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(
            BLOCK.min(hard.max(1)),
            Par::Seq,
            Default::default(),
        ));
        for start in (0..hard).step_by(BLOCK) {
            let width = BLOCK.min(hard - start);
            let matrix = MatMut::from_column_major_slice_mut(&mut values, order, order);
            let (_, _, _, rest) = matrix.split_at_mut(start, start);
            let (mut corner, _, mut below, mut rest) = rest.split_at_mut(width, width);
            cholesky_in_place(
                corner.rb_mut(),
                Default::default(),
                Par::Seq,
                MemStack::new(&mut memory),
                Default::default(),
            )
            .ok()?;
            solve_lower_triangular_in_place(corner.rb(), below.rb_mut().transpose_mut(), Par::Seq);
            // The rest minus this block, by columns.
            let left = rest.nrows();
            for first in (0..left).step_by(BLOCK) {
                if watch.is_stopped() {
                    return None;
                }
                let columns = BLOCK.min(left - first);
                let (_, _, _, own) = rest.rb_mut().split_at_mut(first, first);
                let (square, _, under, _) = own.split_at_mut(columns, columns);
                let factors = below.rb().subrows(first, left - first);
                let (of_square, of_under) = factors.split_at_row(columns);
                matmul(
                    square,
                    BlockStructure::TriangularLower,
                    Accum::Add,
                    of_square,
                    BlockStructure::Rectangular,
                    of_square.transpose(),
                    BlockStructure::Rectangular,
                    -1.0,
                    Par::Seq,
                );
                faer::linalg::matmul::matmul(
                    under,
                    Accum::Add,
                    of_under,
                    of_square.transpose(),
                    -1.0,
                    Par::Seq,
                );
                watch.add(2 * (columns * (left - first) * width) as u64);
            }
        }
        let at = |row: usize, column: usize| column * order + row;
        let mut uses_fallback_curvature = false;
        if tail.has_shape {
            let pivot = at(hard, hard);
            let own = values[pivot];
            // The part of its curvature taken by the parameters eliminated before it.
            let taken = tail.shape - own;
            let least = tail.least_shape.max(LEAST_OF_TAKEN * taken);
            uses_fallback_curvature = own < least;
            values[pivot] = own.max(least).sqrt();
            for row in first..order {
                values[at(row, hard)] /= values[pivot];
                for column in first..=row {
                    values[at(row, column)] -= values[at(row, hard)] * values[at(column, hard)];
                }
            }
        }
        let mut informed = Vec::with_capacity(coefficients * (coefficients + 1) / 2);
        for row in first..order {
            for column in first..row {
                informed.push(values[at(row, column)]);
            }
            // This comes only from products, so it is negative only by rounding.
            informed.push(values[at(row, row)].max(0.0));
            values[at(row, row)] = tail.category_priors[row - first] + informed[informed.len() - 1];
        }
        for column in first..order {
            for row in column..order {
                let mut left = values[at(row, column)];
                for k in first..column {
                    left -= values[at(row, k)] * values[at(column, k)];
                }
                values[at(row, column)] = if row == column {
                    left.sqrt()
                } else {
                    left / values[at(column, column)]
                };
            }
        }
        for column in 0..order {
            values[column * order..column * order + column].fill(0.0);
        }
        values.iter().all(|v| v.is_finite()).then_some(BorderFactor {
            lower: Lower { order, values },
            informed,
            uses_fallback_curvature,
        })
    }

    /// The inverse, also a lower triangle; incomplete if `watch` stops it.
    pub(crate) fn inverse(&self, watch: &Watch) -> Self {
        let order = self.order;
        let mut values = vec![0.0; order * order];
        for start in (0..order).step_by(BLOCK) {
            if watch.is_stopped() {
                break;
            }
            let width = BLOCK.min(order - start);
            let whole = MatRef::from_column_major_slice(&self.values, order, order);
            let (_, _, _, own) = whole.split_at(start, start);
            let inverse = MatMut::from_column_major_slice_mut(&mut values, order, order);
            let (_, _, _, inverse) = inverse.split_at_mut(start, start);
            let (mut columns, _) = inverse.split_at_col_mut(width);
            for j in 0..width {
                columns[(j, j)] = 1.0;
            }
            solve_lower_triangular_in_place(own, columns, Par::Seq);
            watch.add(((order - start) * (order - start) * width) as u64);
        }
        Lower { order, values }
    }

    /// `R' R`, column-major, both triangles; incomplete if `watch` stops it.
    pub(crate) fn gram(&self, watch: &Watch) -> Vec<f64> {
        let order = self.order;
        let mut gram = vec![0.0; order * order];
        let factor = MatRef::from_column_major_slice(&self.values, order, order);
        for row in (0..order).step_by(BLOCK) {
            if watch.is_stopped() {
                break;
            }
            let rows = BLOCK.min(order - row);
            // Entries above the rows' own diagonal are zero.
            let of_rows = factor.submatrix(row, row, order - row, rows);
            let before = factor.submatrix(row, 0, order - row, row + rows);
            let into = MatMut::from_column_major_slice_mut(&mut gram, order, order);
            faer::linalg::matmul::matmul(
                into.submatrix_mut(row, 0, rows, row + rows),
                Accum::Replace,
                of_rows.transpose(),
                before,
                1.0,
                Par::Seq,
            );
            watch.add((2 * rows * (row + rows) * (order - row)) as u64);
        }
        for column in 0..order {
            for row in column + 1..order {
                gram[row * order + column] = gram[column * order + row];
            }
        }
        gram
    }

    /// The columns, with zeros above the diagonal.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.order)
    }

    /// The entries below and on the diagonal of a column.
    pub(crate) fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.order + j..(j + 1) * self.order]
    }

    /// An entry of the triangle.
    pub(crate) fn entry(&self, row: usize, column: usize) -> f64 {
        self.values[column * self.order + row]
    }

    /// `R^-1 b`, in place.
    pub(crate) fn forward(&self, b: &mut [f64]) {
        for j in 0..self.order {
            let column = self.column(j);
            let x = b[j] / column[0];
            b[j] = x;
            for (b, r) in b[j + 1..].iter_mut().zip(&column[1..]) {
                *b -= r * x;
            }
        }
    }

    /// `R^-T y`, in place.
    pub(crate) fn backward(&self, y: &mut [f64]) {
        for j in (0..self.order).rev() {
            let column = self.column(j);
            let below: f64 = column[1..].iter().zip(&y[j + 1..]).map(|(r, x)| r * x).sum();
            y[j] = (y[j] - below) / column[0];
        }
    }

    /// `R' x`, in place.
    pub(crate) fn transpose_times(&self, x: &mut [f64]) {
        for j in 0..self.order {
            x[j] = self.column(j).iter().zip(&x[j..]).map(|(r, x)| r * x).sum();
        }
    }

    /// `ln det R`.
    pub(crate) fn ln_det(&self) -> f64 {
        (0..self.order).map(|j| self.column(j)[0].ln()).sum()
    }
}

/// Floating-point operations per second of one thread in the work that dominates with many periods, the
/// factorization of a border; measured now, in about ten milliseconds.
pub fn operations_per_second() -> f64 {
    const ORDER: usize = 384;
    let mut values = vec![0.5; ORDER * ORDER];
    for j in 0..ORDER {
        values[j * ORDER + j] = ORDER as f64;
    }
    let tail = Tail {
        has_shape: false,
        shape: 0.0,
        least_shape: 0.0,
        category_priors: &[1.0],
    };
    let clock = std::time::Instant::now();
    let factor = Lower::of_border(values, ORDER, tail, &Watch::default());
    let seconds = clock.elapsed().as_secs_f64().max(1e-6);
    assert!(factor.is_some(), "a dominant diagonal is positive definite");
    (ORDER as f64).powi(3) / 3.0 / seconds
}
