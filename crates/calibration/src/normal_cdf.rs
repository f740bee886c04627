//! The standard normal's distribution function.

use std::f64::consts::PI;

/// `P(Z <= x)` of a standard normal, with an absolute error below 1e-15; 0 or 1 beyond 9 standard deviations.
///
/// Source: Marsaglia, "Evaluating the normal distribution", Journal of Statistical Software 11(4), 2004: the Taylor series
/// of `(cdf - 1/2) / density`, whose terms have one sign.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut before, mut term, mut odd) = (x, f64::NAN, x, 1.0);
    while sum != before {
        before = sum;
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    (0.5 + sum * density).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_diagnostics::normal_quantile;

    #[test]
    fn it_is_the_inverse_of_the_quantile_function() {
        for i in 1..1000 {
            let p = f64::from(i) / 1000.0;
            assert!((normal_cdf(normal_quantile(p)) - p).abs() < 1e-14, "{p}");
        }
        assert_eq!(normal_cdf(0.0), 0.5);
        // Abramowitz and Stegun, table 26.1.
        assert!((normal_cdf(-3.0) - 1.349_898_031_630_095e-3).abs() < 1e-15);
        assert!((normal_cdf(6.0) - (1.0 - 9.865_876e-10)).abs() < 1e-15);
        assert_eq!((normal_cdf(-40.0), normal_cdf(f64::INFINITY)), (0.0, 1.0));
    }
}
