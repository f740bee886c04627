//! Rows of a group, in columns of whole vectors.

/// Entries are padded to a multiple of the widest vector.
pub(super) const PAD: usize = 16;

/// A row of a group.
#[derive(Debug, Clone, Copy)]
pub(in crate::skewness) struct Row<const D: usize> {
    /// `lambda`, its weight in the precision.
    pub(in crate::skewness) rate: f64,
    /// Variance of its log rate.
    pub(in crate::skewness) variance: f64,
    /// Derivative of `d` with respect to the whitened coordinates.
    pub(in crate::skewness) by: [f64; D],
    /// Shift of the mean of `d` at their origin, to first order.
    pub(in crate::skewness) shift: f64,
}

impl<const D: usize> Row<D> {
    /// Variance of the log rate given the coordinates.
    pub(super) fn noise(&self) -> f64 {
        let left = self.by.iter().fold(self.variance, |left, by| left - by * by);
        left.max(0.0)
    }
}

/// Rows in columns.
#[derive(Debug)]
pub(super) struct Columns<const D: usize> {
    pub(super) rate: Vec<f64>,
    /// The multiplier of `exp(d)`.
    pub(super) raised: Vec<f64>,
    /// Derivatives of `d`, by coordinate.
    pub(super) by: [Vec<f64>; D],
    pub(super) at_zero: Vec<f64>,
    /// The square root of `n`.
    pub(super) sd: Vec<f64>,
    /// Its index among the rows as they were given; not padded.
    pub(super) came: Vec<usize>,
}

impl<const D: usize> Columns<D> {
    pub(super) fn with_capacity(rows: usize) -> Self {
        let column = || Vec::with_capacity(rows);
        Columns {
            rate: column(),
            raised: column(),
            by: std::array::from_fn(|_| column()),
            at_zero: column(),
            sd: column(),
            came: Vec::with_capacity(rows),
        }
    }

    pub(super) fn push(&mut self, came: usize, row: &Row<D>, at_zero: f64, log_raised: f64) {
        self.came.push(came);
        self.rate.push(row.rate);
        self.raised.push(row.rate * log_raised.exp());
        for (column, by) in self.by.iter_mut().zip(row.by) {
            column.push(by);
        }
        self.at_zero.push(at_zero);
        self.sd.push(row.noise().sqrt());
    }

    /// Pads with rows of rate zero to whole vectors.
    pub(super) fn pad(&mut self) {
        let length = self.rate.len().next_multiple_of(PAD);
        let others = [&mut self.rate, &mut self.raised, &mut self.at_zero, &mut self.sd];
        for column in others.into_iter().chain(&mut self.by) {
            column.resize(length, 0.0);
        }
    }
}
