//! The incomplete gamma function: tails of chi-squared and normal variables.

use std::f64::consts::PI;

/// `ln Gamma(x)` of a positive `x`: Stirling's series from 16 on, and the recurrence below it.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut below) = (x, 0.0);
    while x < 16.0 {
        below += x.ln();
        x += 1.0;
    }
    let r = 1.0 / (x * x);
    let series = (1.0 / 12.0 - r * (1.0 / 360.0 - r * (1.0 / 1260.0 - r / 1680.0))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - below
}

/// The probabilities that a gamma variable of shape `a` and scale 1 is below `x`, and above it. The smaller one is as exact as
/// `ln Gamma` is, about 1e-9 of itself for shapes up to 1e5.
///
/// Source: NIST Digital Library of Mathematical Functions, 8.11.4 (the series, below the mean) and 8.9.2 (the continued
/// fraction, above it, by Lentz' method).
pub(crate) fn tails(a: f64, x: f64) -> (f64, f64) {
    if x <= 0.0 {
        return (0.0, 1.0);
    }
    if x.is_infinite() {
        return (1.0, 0.0);
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut k) = (1.0 / a, 1.0 / a, a);
        while term > 1e-17 * sum {
            k += 1.0;
            term *= x / k;
            sum += term;
        }
        let below = (front * sum).min(1.0);
        (below, 1.0 - below)
    } else {
        let mut b = x + 1.0 - a;
        let mut c = 1e300;
        let mut d = 1.0 / b;
        let mut value = d;
        for k in 1..1_000_000 {
            let coefficient = -f64::from(k) * (f64::from(k) - a);
            b += 2.0;
            d = 1.0 / (coefficient * d + b);
            c = b + coefficient / c;
            value *= c * d;
            if (c * d - 1.0).abs() < 1e-15 {
                break;
            }
        }
        let above = (front * value).min(1.0);
        (1.0 - above, above)
    }
}

/// `P(|Z| >= z)` of a standard normal.
pub(crate) fn normal_two_sided_tail(z: f64) -> f64 {
    tails(0.5, 0.5 * z * z).1
}

/// The sums of `n` squared standard normals with this probability below, and with this probability above.
pub(crate) fn chi_squared_bounds(probability: f64, n: f64) -> (f64, f64) {
    let at = |inside: &dyn Fn((f64, f64)) -> bool| {
        let (mut low, mut high) = (0.0, 2.0 * n + 100.0);
        while !inside(tails(0.5 * n, 0.5 * high)) {
            high *= 2.0;
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if inside(tails(0.5 * n, 0.5 * middle)) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    };
    (
        at(&|(below, _)| below >= probability),
        at(&|(_, above)| above <= probability),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normal_cdf::normal_cdf;

    #[test]
    fn tails_of_closed_forms() {
        for x in [0.01_f64, 0.7, 2.0, 9.0, 300.0] {
            // Shape 1 is the exponential; shape 3 a sum of three.
            assert!((tails(1.0, x).1 / (-x).exp() - 1.0).abs() < 1e-12, "{x}");
            let three = (-x).exp() * (1.0 + x + 0.5 * x * x);
            assert!((tails(3.0, x).1 / three - 1.0).abs() < 1e-12, "{x}");
            let (below, above) = tails(7.5, x);
            assert!((below + above - 1.0).abs() < 1e-15);
        }
        for z in [0.1, 1.0, 3.0, 6.0] {
            let expected = 2.0 * normal_cdf(-z);
            assert!((normal_two_sided_tail(z) - expected).abs() < 1e-14 + 1e-6 * expected);
        }
        // Mills' ratio far out: 2 phi(z) / z (1 - 1 / z^2 + 3 / z^4).
        let z = 30.0_f64;
        let far =
            2.0 / (2.0 * PI).sqrt() * (-0.5 * z * z).exp() / z * (1.0 - 1.0 / (z * z) + 3.0 / z.powi(4));
        assert!((normal_two_sided_tail(z) / far - 1.0).abs() < 1e-7);
        assert_eq!(
            (tails(3.0, 0.0), tails(3.0, f64::INFINITY)),
            ((0.0, 1.0), (1.0, 0.0))
        );
    }

    #[test]
    fn known_chi_squared_quantiles() {
        // Tables: 10 degrees of freedom, 2.5% on either side; 100 of them, 0.5%.
        let (low, high) = chi_squared_bounds(0.025, 10.0);
        assert!(
            (low - 3.246_97).abs() < 1e-5 && (high - 20.483_18).abs() < 1e-5,
            "{low} {high}"
        );
        let (low, high) = chi_squared_bounds(0.005, 100.0);
        assert!(
            (low - 67.327_56).abs() < 1e-4 && (high - 140.169_49).abs() < 1e-4,
            "{low} {high}"
        );
        // Of many degrees, Wilson and Hilferty's cube root.
        let n = 50_000.0;
        let (_, high) = chi_squared_bounds(0.001, n);
        let cube = n * (1.0 - 2.0 / (9.0 * n) + 3.090_232 * (2.0 / (9.0 * n)).sqrt()).powi(3);
        assert!((high / cube - 1.0).abs() < 1e-6, "{high} {cube}");
    }
}
