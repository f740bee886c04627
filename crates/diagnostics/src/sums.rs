//! Sums over rows with eight partial sums, which the compiler keeps in vector registers: one alone waits for itself at
//! every addition.

const LANES: usize = 8;

/// `sum_i f(x_i)`.
#[inline(always)]
fn sum_of(row: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let eights = row.chunks_exact(LANES);
    let rest: f64 = eights.remainder().iter().map(|x| f(*x)).sum();
    for eight in eights {
        for k in 0..LANES {
            sums[k] += f(eight[k]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The sum of a row.
pub(crate) fn sum(row: &[f64]) -> f64 {
    sum_of(row, |x| x)
}

/// The sum of squared distances from `centre`.
pub(crate) fn sum_of_squares_about(row: &[f64], centre: f64) -> f64 {
    sum_of(row, |x| (x - centre) * (x - centre))
}

/// The scalar product of two rows of one length.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a8, b8) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a8.zip(b8) {
        for k in 0..LANES {
            sums[k] += x[k] * y[k];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// Smallest and largest entry; `NaN` is not among them.
pub(crate) fn range(row: &[f64]) -> (f64, f64) {
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let eights = row.chunks_exact(LANES);
    let rest = eights.remainder();
    let mut take = |k: usize, x: f64| {
        low[k] = if x < low[k] { x } else { low[k] };
        high[k] = if x > high[k] { x } else { high[k] };
    };
    for eight in eights {
        for (k, x) in eight.iter().enumerate() {
            take(k, *x);
        }
    }
    for x in rest {
        take(0, *x);
    }
    (
        low.into_iter().fold(f64::INFINITY, f64::min),
        high.into_iter().fold(f64::NEG_INFINITY, f64::max),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_counts_once_whatever_the_length() {
        for length in [0usize, 1, 7, 8, 9, 41] {
            let row: Vec<f64> = (1..=length).map(|i| i as f64).collect();
            let n = length as f64;
            // Whole numbers: exact in any order.
            assert_eq!(sum(&row), n * (n + 1.0) / 2.0);
            assert_eq!(dot(&row, &row), n * (n + 1.0) * (2.0 * n + 1.0) / 6.0);
            assert_eq!(sum_of_squares_about(&row, 0.0), dot(&row, &row));
            if length > 0 {
                assert_eq!(range(&row), (1.0, n));
            }
        }
    }
}
