//! The potential scale reduction of split chains.

use crate::sums::{sum, sum_of_squares_about};

/// Mean and variance (divisor `n - 1`) of a row.
pub(crate) fn mean_and_variance(row: &[f64]) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = sum(row) / n;
    let variance = sum_of_squares_about(row, mean) / (n - 1.0);
    (mean, variance)
}

/// R-hat of rows of `length` draws each: `sqrt((B / W + n - 1) / n)`, B between and W within the rows.
pub(crate) fn rhat(rows: &[f64], length: usize) -> f64 {
    let mut means = Vec::with_capacity(rows.len() / length);
    let mut within = 0.0;
    for row in rows.chunks_exact(length) {
        let (mean, variance) = mean_and_variance(row);
        means.push(mean);
        within += variance;
    }
    within /= means.len() as f64;
    rhat_of_moments(&means, within, length as f64)
}

/// R-hat of rows with these means, mean variance `within` and `length` draws each.
pub(crate) fn rhat_of_moments(means: &[f64], within: f64, length: f64) -> f64 {
    let between = length * mean_and_variance(means).1;
    ((between / within + length - 1.0) / length).sqrt()
}
