//! Poisson counts: their distribution, and how they are drawn.

use super::row::{RowLikelihood, RowTerms, RowWeight};
use crate::ln_factorial::ln_factorial;
use rand::Rng;

/// Largest rate that is drawn from. Sixty standard deviations above it are still below 2^31.
pub const MAX_RATE: f64 = 2_144_000_000.0;

/// The distribution of Poisson counts: variance `mu`, the published model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Poisson;

impl RowLikelihood for Poisson {
    const NAME: &'static str = "poisson";
    const COUNTS: &'static str = "Poisson counts";
    const DESCRIPTION: &'static str = "Counts vary as much as their mean rate: the published model";
    const IS_EQUIDISPERSED: bool = true;
    const SYNTHETIC_PARAMETER: (f64, f64) = (0.0, 0.0);

    fn in_symbols(rate: &str) -> String {
        format!("Poisson({rate})")
    }

    fn new(_: f64) -> Self {
        Poisson
    }

    #[inline]
    fn terms(&self, units: u32, eta: f64) -> RowTerms {
        let (y, rate) = (f64::from(units), eta.exp());
        RowTerms {
            log_likelihood: y * eta - rate,
            by_eta: y - rate,
            by_parameter: 0.0,
        }
    }

    fn weight(&self, _: u32, eta: f64) -> RowWeight {
        RowWeight {
            by_eta: eta.exp(),
            cross: 0.0,
        }
    }

    /// The mean rate is `exp(mean + variance / 2)`; the other terms are linear.
    fn expected(&self, units: u32, mean: f64, variance: f64) -> Option<(RowTerms, RowWeight)> {
        let (y, rate) = (f64::from(units), (mean + 0.5 * variance).exp());
        let terms = RowTerms {
            log_likelihood: y * mean - rate,
            by_eta: y - rate,
            by_parameter: 0.0,
        };
        let weight = RowWeight {
            by_eta: rate,
            cross: 0.0,
        };
        Some((terms, weight))
    }

    #[inline(always)]
    fn variance_ratio(&self, _: f64) -> f64 {
        1.0
    }

    fn log_variance_by_parameter(&self, _: f64) -> f64 {
        0.0
    }

    fn parameter_of_scatter(_: f64, _: f64) -> f64 {
        0.0
    }

    fn draw<R: Rng + ?Sized>(&self, rate: f64, rng: &mut R) -> Result<u32, f64> {
        if rate <= MAX_RATE {
            Ok(poisson(rng, rate))
        } else {
            Err(rate)
        }
    }
}

/// Rate from which transformed rejection is used; its constants hold from 10.
const REJECTION_FROM: f64 = 10.0;

/// A number in [0, 1) with 53 random bits.
pub fn unit(rng: &mut (impl Rng + ?Sized)) -> f64 {
    (rng.next_u64() >> 11) as f64 * 2f64.powi(-53)
}

/// A count with mean `rate`, which must be positive and at most [`MAX_RATE`].
///
/// Source: below 10 inversion by sequential search; from there algorithm PTRS of W. Hoermann, "The transformed
/// rejection method for generating Poisson random variables", Insurance: Mathematics and Economics 12 (1993).
pub fn poisson(rng: &mut (impl Rng + ?Sized), rate: f64) -> u32 {
    if rate < REJECTION_FROM {
        return by_inversion(rng, rate);
    }
    let b = 0.931 + 2.53 * rate.sqrt();
    let a = -0.059 + 0.024_83 * b;
    let v_r = 0.9277 - 3.6224 / (b - 2.0);
    loop {
        let u = unit(rng) - 0.5;
        let v = unit(rng);
        let us = 0.5 - u.abs();
        let k = ((2.0 * a / us + b) * u + rate + 0.43).floor();
        if us >= 0.07 && v <= v_r {
            return k as u32;
        }
        if k < 0.0 || k > f64::from(i32::MAX) || (us < 0.013 && v > us) {
            continue;
        }
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let hat = (v * inverse_alpha / (a / (us * us) + b)).ln();
        if hat <= k * rate.ln() - rate - ln_factorial(k as u32) {
            return k as u32;
        }
    }
}

fn by_inversion(rng: &mut (impl Rng + ?Sized), rate: f64) -> u32 {
    let mut left = unit(rng);
    let mut probability = (-rate).exp();
    let mut k = 0u32;
    // The search ends where probabilities no longer change the sum: beyond 60 for rates below 10.
    while left >= probability && k < 100 {
        left -= probability;
        k += 1;
        probability *= rate / f64::from(k);
    }
    k
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Chi-square statistic of `n` draws with rate `drawn` against counts with rate `rate`, over bins that expect at
    /// least 20 each, and its limit.
    fn chi_square(drawn: f64, rate: f64, n: usize) -> (f64, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(drawn.to_bits());
        let mut draws: Vec<u32> = (0..n).map(|_| poisson(&mut rng, drawn)).collect();
        draws.sort_unstable();
        let low = (rate - 10.0 * rate.sqrt() - 10.0).max(0.0) as u32;
        let high = (rate + 10.0 * rate.sqrt() + 30.0) as u32;
        assert!(draws[0] >= low && draws[n - 1] <= high);
        let (mut statistic, mut bins) = (0.0, 0.0f64);
        let (mut expected, mut remaining, mut first) = (0.0, n as f64, 0);
        for k in low..=high {
            expected += n as f64 * (f64::from(k) * rate.ln() - rate - ln_factorial(k)).exp();
            // The last bin takes the whole tail.
            let last = remaining - expected < 20.0 || k == high;
            if expected >= 20.0 || last {
                let expected_here = if last { remaining } else { expected };
                let end = if last {
                    n
                } else {
                    draws.partition_point(|d| *d <= k)
                };
                statistic += ((end - first) as f64 - expected_here).powi(2) / expected_here;
                bins += 1.0;
                (remaining, first, expected) = (remaining - expected_here, end, 0.0);
                if last {
                    break;
                }
            }
        }
        let freedom = bins - 1.0;
        assert!(freedom >= 1.0);
        // Normal approximation of chi-square: five standard deviations, one false alarm in millions.
        (statistic, freedom + 5.0 * (2.0 * freedom).sqrt() + 10.0)
    }

    #[test]
    fn counts_have_the_poisson_distribution() {
        for rate in [0.02, 0.7, 3.0, 9.99, 10.0, 11.5, 37.0, 250.0, 4000.0] {
            let (statistic, limit) = chi_square(rate, rate, 200_000);
            assert!(
                statistic < limit,
                "rate {rate}: chi-square {statistic}, limit {limit}"
            );
        }
    }

    #[test]
    fn a_wrong_rate_is_seen_by_the_statistic() {
        // Draws of a rate 1% off: the test above can fail.
        let (statistic, limit) = chi_square(37.37, 37.0, 200_000);
        assert!(statistic > limit, "chi-square {statistic}, limit {limit}");
    }

    #[test]
    fn large_rates_have_the_right_moments() {
        for rate in [1e6, 4.851_65e8, MAX_RATE] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let n = 100_000;
            let z: Vec<f64> = (0..n)
                .map(|_| (f64::from(poisson(&mut rng, rate)) - rate) / rate.sqrt())
                .collect();
            let mean = z.iter().sum::<f64>() / f64::from(n);
            let variance = z.iter().map(|z| z * z).sum::<f64>() / f64::from(n);
            // Five standard errors of mean and variance of a standard normal.
            assert!(mean.abs() < 5.0 / f64::from(n).sqrt(), "{rate}: mean {mean}");
            assert!(
                (variance - 1.0).abs() < 5.0 * (2.0 / f64::from(n)).sqrt(),
                "{rate}: variance {variance}"
            );
        }
    }
}
