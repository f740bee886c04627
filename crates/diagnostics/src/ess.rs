//! Effective sample size by Geyer's initial monotone sequence.

use crate::autocovariance::MeanAutocovariance;
use crate::rhat::mean_and_variance;
use crate::sums::range;

/// Effective sample size of rows of `length` draws each; `rows.len()` when all draws are equal.
///
/// Source: Vehtari et al. 2021, section 3.2; Geyer, "Practical Markov chain Monte Carlo", 1992. The details (which
/// pairs enter, the floor of the autocorrelation time at `1 / log10(draws)`) are ArviZ's.
pub(crate) fn effective_sample_size(
    rows: &[f64],
    length: usize,
    autocovariance: &mut MeanAutocovariance,
    rho: &mut Vec<f64>,
) -> f64 {
    let count = rows.len() as f64;
    let (low, high) = range(rows);
    if high - low < 1e-15 {
        return count;
    }
    let n = length as f64;
    let means = autocovariance.load(rows, length);
    let mean_variance = autocovariance.at(0) * n / (n - 1.0);
    let mut total_variance = mean_variance * (n - 1.0) / n;
    if means.len() > 1 {
        total_variance += mean_and_variance(&means).1;
    }
    let mut correlation = |lag: usize| 1.0 - (mean_variance - autocovariance.at(lag)) / total_variance;

    // rho[t] is the autocorrelation at lag t; pairs (t + 1, t + 2) enter while their sum is positive.
    rho.clear();
    let (mut even, mut odd) = (1.0, correlation(1));
    rho.extend([even, odd]);
    let mut t = 1;
    while t + 3 < length && even + odd > 0.0 {
        even = correlation(t + 1);
        odd = correlation(t + 2);
        rho.extend(if even + odd >= 0.0 {
            [even, odd]
        } else {
            [0.0, 0.0]
        });
        t += 2;
    }
    // The last pair whose sum was positive ends at `last`; one more even lag may enter after it.
    let last = t as isize - 2;
    if even > 0.0 {
        rho[(last + 1) as usize] = even;
    }
    let mut t = 1;
    while t as isize <= last - 2 {
        if rho[t + 1] + rho[t + 2] > rho[t - 1] + rho[t] {
            let mean = (rho[t - 1] + rho[t]) / 2.0;
            rho[t + 1] = mean;
            rho[t + 2] = mean;
        }
        t += 2;
    }
    let after = (last + 1) as usize;
    let time = -1.0 + 2.0 * rho[..after].iter().sum::<f64>() + rho[after];
    if rho.iter().any(|r| r.is_nan()) {
        return f64::NAN;
    }
    count / time.max(1.0 / count.log10())
}
