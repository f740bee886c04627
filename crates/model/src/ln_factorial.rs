//! `ln n!`, the constant of the Poisson likelihood.

use std::f64::consts::PI;
use std::sync::LazyLock;

const TABLE: usize = 256;

static SMALL: LazyLock<[f64; TABLE]> = LazyLock::new(|| {
    let mut table = [0.0; TABLE];
    for n in 2..TABLE {
        table[n] = table[n - 1] + (n as f64).ln();
    }
    table
});

/// `ln n!`, from a table below 256 and Stirling's series (three terms, truncation below 1e-17) from there.
pub fn ln_factorial(n: u32) -> f64 {
    if (n as usize) < TABLE {
        return SMALL[n as usize];
    }
    let x = f64::from(n);
    let r = 1.0 / x;
    let r2 = r * r;
    (x + 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + r * (1.0 / 12.0 - r2 * (1.0 / 360.0 - r2 / 1260.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stirling_meets_the_table_and_known_values() {
        // 255! by the table, 256! by the series: they must differ by ln 256.
        assert!((ln_factorial(256) - ln_factorial(255) - 256f64.ln()).abs() < 1e-11);
        assert_eq!(ln_factorial(0), 0.0);
        assert_eq!(ln_factorial(1), 0.0);
        // ln 1000! = 5912.128178488163 (OEIS A000142 in extended precision).
        assert!((ln_factorial(1000) - 5_912.128_178_488_163).abs() < 1e-10);
    }
}
