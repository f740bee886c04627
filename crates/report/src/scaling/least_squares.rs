//! Least squares of a few coefficients that cannot be negative, in closed form.

/// The largest number of coefficients.
const MOST: usize = 4;

/// Columns are not told apart where the squared sine of the angle between one and the others is below this.
const LEAST_PIVOT: f64 = 1e-9;

/// Coefficients `c >= 0` that minimize the sum over the rows of `((row . c - value) / value)^2`: every row counts by its relative
/// error. A column whose entries are all 0 has the coefficient 0. `None` where the rows do not determine the coefficients.
///
/// With few coefficients all sets of positive ones can be tried; the best is the solution, since the problem is convex.
pub(super) fn relative_least_squares<const N: usize>(rows: &[([f64; N], f64)]) -> Option<[f64; N]> {
    assert!(N <= MOST, "a few coefficients");
    // Relative errors are plain ones of rows divided by their value; columns are scaled to length 1.
    let scaled: Vec<[f64; N]> = rows.iter().map(|(row, value)| row.map(|x| x / value)).collect();
    let lengths: [f64; N] =
        std::array::from_fn(|k| scaled.iter().map(|row| row[k] * row[k]).sum::<f64>().sqrt());
    let there = |k: usize| lengths[k] > 0.0;
    let unit: Vec<[f64; N]> = scaled
        .iter()
        .map(|row| std::array::from_fn(|k| if there(k) { row[k] / lengths[k] } else { 0.0 }))
        .collect();
    let every: Vec<usize> = (0..N).filter(|k| there(*k)).collect();
    solve(&unit, &every)?;
    let mut best: Option<(f64, [f64; N])> = None;
    for set in 1..1usize << N {
        let columns: Vec<usize> = (0..N).filter(|k| set >> k & 1 == 1).collect();
        if !columns.iter().all(|k| there(*k)) {
            continue;
        }
        let Some(solution) = solve(&unit, &columns).filter(|s| s.iter().all(|c| *c >= 0.0)) else {
            continue;
        };
        let residual = unit
            .iter()
            .map(|row| {
                let fitted: f64 = row.iter().zip(&solution).map(|(x, c)| x * c).sum();
                (fitted - 1.0).powi(2)
            })
            .sum();
        if best.is_none_or(|(least, _)| residual < least) {
            best = Some((residual, solution));
        }
    }
    let (_, solution) = best?;
    Some(std::array::from_fn(|k| {
        if there(k) { solution[k] / lengths[k] } else { 0.0 }
    }))
}

/// The coefficients of these columns that bring every row closest to 1, the others 0; `None` where they are not determined.
fn solve<const N: usize>(rows: &[[f64; N]], columns: &[usize]) -> Option<[f64; N]> {
    let n = columns.len();
    // The normal equations, with the right side as the last column.
    let mut m = vec![vec![0.0; n + 1]; n];
    for (i, a) in columns.iter().enumerate() {
        for (j, b) in columns.iter().enumerate() {
            m[i][j] = rows.iter().map(|row| row[*a] * row[*b]).sum();
        }
        m[i][n] = rows.iter().map(|row| row[*a]).sum();
    }
    // Gauss-Jordan; columns of length 1 make a positive definite matrix with pivots up to 1.
    for k in 0..n {
        if m[k][k] < LEAST_PIVOT {
            return None;
        }
        let pivot = m[k].clone();
        for (i, row) in m.iter_mut().enumerate() {
            let factor = if i == k {
                1.0 - 1.0 / pivot[k]
            } else {
                row[k] / pivot[k]
            };
            for (x, p) in row.iter_mut().zip(&pivot) {
                *x -= factor * p;
            }
        }
    }
    let mut solution = [0.0; N];
    for (i, column) in columns.iter().enumerate() {
        solution[*column] = m[i][n];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1e-12)
    }

    #[test]
    fn known_coefficients_are_recovered_over_scales() {
        let truth = [2.5e-10, 3e-5, 7e-6];
        let rows: Vec<([f64; 3], f64)> = [(1e4, 0.0), (1e6, 0.0), (1e8, 0.0), (5e5, 1.0), (5e7, 1.0)]
            .map(|(n, several)| {
                let row = [n, 1.0, several];
                (row, row.iter().zip(truth).map(|(x, c)| x * c).sum())
            })
            .to_vec();
        let found = relative_least_squares(&rows).unwrap();
        assert!(
            found.iter().zip(truth).all(|(a, b)| (a - b).abs() < 1e-6 * b),
            "{found:?}"
        );
    }

    #[test]
    fn relative_errors_count_alike() {
        // One coefficient c over values 1 and 3 of equal rows: sum of (c - 1)^2 + (c/3 - 1)^2 is least at 1.2.
        let [c] = relative_least_squares(&[([1.0], 1.0), ([1.0], 3.0)]).unwrap();
        assert!(close(c, 1.2), "{c}");
    }

    #[test]
    fn no_coefficient_is_negative() {
        // The line through (1, 1) and (2, 3) has the intercept -1: without it (c - 1)^2 + (2 c / 3 - 1)^2 is least at 15 / 13.
        let found = relative_least_squares(&[([1.0, 1.0], 1.0), ([2.0, 1.0], 3.0)]).unwrap();
        assert!(close(found[0], 15.0 / 13.0) && found[1] == 0.0, "{found:?}");
    }

    #[test]
    fn what_the_rows_do_not_determine_is_not_made_up() {
        assert_eq!(
            relative_least_squares(&[([1.0, 2.0], 1.0), ([2.0, 4.0], 2.0)]),
            None
        );
        assert_eq!(relative_least_squares(&[([1.0, 2.0], 1.0)]), None);
        // A column that no row has is 0.
        let found = relative_least_squares(&[([1.0, 0.0], 2.0), ([2.0, 0.0], 4.0)]).unwrap();
        assert!(close(found[0], 2.0) && found[1] == 0.0);
    }
}
