//! Sample quantiles.

/// The `p` quantile of ascending values, by linear interpolation between the order statistics (type 7 of Hyndman and
/// Fan; the default of R and NumPy). `NaN` when there is no value.
///
/// # Panics
/// When `p` is not in `[0, 1]`.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    assert!((0.0..=1.0).contains(&p), "quantile at {p}");
    match sorted {
        [] => f64::NAN,
        [one] => *one,
        _ => {
            let n = sorted.len() as f64;
            // In this order of operations the result has the rounding of scipy's `mquantiles`, so that a tie with an
            // order statistic falls on the same side.
            let position = n * p + (1.0 - p);
            let below = position.clamp(1.0, n - 1.0).floor();
            let share = (position - below).clamp(0.0, 1.0);
            let k = below as usize;
            (1.0 - share) * sorted[k - 1] + share * sorted[k]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_statistics_and_between_them() {
        let x = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!(quantile(&x, 0.0), 1.0);
        assert_eq!(quantile(&x, 0.5), 4.0);
        assert_eq!(quantile(&x, 1.0), 16.0);
        assert_eq!(quantile(&x, 0.125), 1.5);
        assert_eq!(quantile(&[3.0], 0.9), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
