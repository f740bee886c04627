//! Dense lower-triangular factors of the categories' blocks.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{MatMut, MatRef, Par};

/// A lower triangle of order n, column-major in an n x n array whose upper triangle is zero.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lower {
    order: usize,
    values: Vec<f64>,
}

impl Lower {
    /// The Cholesky factor of a symmetric matrix that is given by its lower triangle, column-major; `None` where it is not
    /// positive definite.
    pub(crate) fn cholesky(mut values: Vec<f64>, order: usize) -> Option<Self> {
        let matrix = MatMut::from_column_major_slice_mut(&mut values, order, order);
        let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(
            order,
            Par::Seq,
            Default::default(),
        ));
        cholesky_in_place(
            matrix,
            Default::default(),
            Par::Seq,
            MemStack::new(&mut memory),
            Default::default(),
        )
        .ok()?;
        for column in 0..order {
            values[column * order..column * order + column].fill(0.0);
        }
        values
            .iter()
            .all(|v| v.is_finite())
            .then_some(Lower { order, values })
    }

    /// The inverse, a lower triangle too.
    pub(crate) fn inverse(&self) -> Self {
        let mut values = vec![0.0; self.order * self.order];
        invert_lower_triangular(
            MatMut::from_column_major_slice_mut(&mut values, self.order, self.order),
            MatRef::from_column_major_slice(&self.values, self.order, self.order),
            Par::Seq,
        );
        Lower {
            order: self.order,
            values,
        }
    }

    /// The entries below and on the diagonal of a column.
    pub(crate) fn column(&self, j: usize) -> &[f64] {
        &self.values[j * self.order + j..(j + 1) * self.order]
    }

    /// The last entry of the diagonal.
    pub(crate) fn last(&self) -> f64 {
        self.values[self.order * self.order - 1]
    }

    /// `R^-1 b`, where it lies.
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

    /// `R^-T y`, where it lies.
    pub(crate) fn backward(&self, y: &mut [f64]) {
        for j in (0..self.order).rev() {
            let column = self.column(j);
            let below: f64 = column[1..].iter().zip(&y[j + 1..]).map(|(r, x)| r * x).sum();
            y[j] = (y[j] - below) / column[0];
        }
    }

    /// `R' x`, where it lies.
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
