//! Student's t distribution.

use crate::gamma::ln_gamma;
use std::f64::consts::PI;

/// `P(|T| >= t)` of Student's t with `degrees` degrees of freedom, to a relative error of about 1e-10 in the tails.
///
/// Source: NIST Digital Library of Mathematical Functions, 8.17.22 (the continued fraction of the incomplete beta function),
/// evaluated by Lentz' method.
pub(crate) fn two_sided_tail(t: f64, degrees: f64) -> f64 {
    if t.is_nan() {
        return f64::NAN;
    }
    let squared = t * t;
    if squared == 0.0 {
        return 1.0;
    }
    if squared.is_infinite() {
        return 0.0;
    }
    let (a, b) = (0.5 * degrees, 0.5);
    // x^a (1 - x)^b / B(a, b) with x = degrees / (degrees + t^2).
    let ln_x = -(squared / degrees).ln_1p();
    let ln_rest = -(degrees / squared).ln_1p();
    let ln_beta = ln_gamma(a) + 0.5 * PI.ln() - ln_gamma(a + 0.5);
    let front = (a * ln_x + b * ln_rest - ln_beta).exp();
    let tail = if ln_x.exp() < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(ln_x.exp(), a, b) / a
    } else {
        1.0 - front * continued_fraction(ln_rest.exp(), b, a) / b
    };
    tail.clamp(0.0, 1.0)
}

/// The `t` with `P(|T| >= t) = probability`, a probability in (0, 1).
pub(crate) fn critical(probability: f64, degrees: f64) -> f64 {
    let mut high = 1.0;
    while two_sided_tail(high, degrees) > probability {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if two_sided_tail(middle, degrees) > probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The continued fraction of the incomplete beta function; it converges fast for `x < (a + 1) / (a + b + 2)`.
fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        for coefficient in [
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        ] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            value *= c * d;
        }
        if (c * d - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normal_cdf::normal_cdf;

    #[test]
    fn tails_of_one_and_two_degrees_are_closed_forms() {
        for t in [0.01_f64, 0.3, 1.0, 3.0, 40.0, 1e4] {
            let cauchy = 2.0 / PI * (1.0 / t).atan();
            assert!((two_sided_tail(t, 1.0) / cauchy - 1.0).abs() < 1e-10, "{t}");
            let r = (2.0 + t * t).sqrt();
            let two = 2.0 / (r * (r + t));
            assert!((two_sided_tail(t, 2.0) / two - 1.0).abs() < 1e-10, "{t}");
        }
        assert_eq!(
            (two_sided_tail(0.0, 5.0), two_sided_tail(f64::INFINITY, 5.0)),
            (1.0, 0.0)
        );
    }

    #[test]
    fn known_quantiles() {
        // Tables of Student's t, two-sided 5% and 0.1%.
        for (degrees, five_percent, one_in_1000) in
            [(9.0, 2.262_157, 4.780_913), (120.0, 1.979_930, 3.373_454)]
        {
            assert!((critical(0.05, degrees) - five_percent).abs() < 1e-6);
            assert!((critical(0.001, degrees) - one_in_1000).abs() < 1e-6);
        }
        // Of many degrees it is the normal.
        assert!((two_sided_tail(3.0, 1e9) / (2.0 * normal_cdf(-3.0)) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn far_tails_keep_their_digits() {
        // The density of four degrees is 12 / (4 + t^2)^(5/2): far out both tails together are 6 / t^4.
        let p = two_sided_tail(1e20, 4.0);
        assert!((p / 6e-80 - 1.0).abs() < 1e-9, "{p}");
    }
}
