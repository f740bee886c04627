//! The exact test of uniformity based on the empirical distribution function, and its simultaneous band.
//!
//! At each point `z_k = k / K` the number of `n` values at or below it is binomial under uniformity. Its two-sided tail
//! probability is `2 min(P(X <= x), P(X >= x))`; the statistic is the smallest one over all points. The count is a Markov chain
//! along the points, so the probability that all of them stay within given bounds is a sum over paths, without simulation.
//!
//! Source: Sailynoja, Buerkner and Vehtari, "Graphical test for discrete uniformity and its applications in goodness-of-fit
//! evaluation and multiple sample comparison", Statistics and Computing 32, 2022, whose optimization method this is.

/// K: the distribution function is evaluated at the points `k / K`, `0 < k < K`.
pub const CELLS: usize = 100;

/// Below this, a probability is dominated by the rounding of the sum over paths; Bonferroni's bound is used
/// instead.
const SMALLEST_EXACT: f64 = 1e-9;

/// How far apart two tail probabilities may be by rounding alone, relative.
const ROUNDING: f64 = 1e-9;

/// The test for a number of values.
#[derive(Debug, Clone)]
pub struct EcdfTest {
    values: usize,
    /// `ln k!`, `k = 0..=values`.
    ln_factorial: Vec<f64>,
    /// Two-sided tail probability of every count, `[k - 1][count]`.
    tails: Vec<Vec<f64>>,
}

/// The result of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uniformity {
    /// The smallest two-sided tail probability over the points.
    pub statistic: f64,
    /// Probability of a statistic as small under uniformity: exact above 1e-9, below it an upper bound.
    pub p_value: f64,
}

/// Bounds that the distribution function of uniform values leaves nowhere with the probability `1 - level`.
#[derive(Debug, Clone, PartialEq)]
pub struct Band {
    /// Probability of leaving it, the allowed one: counts are discrete, so that the true one is a little below.
    pub level: f64,
    /// Smallest and largest share of values at or below `k / CELLS`, for `k = 1..CELLS`.
    pub shares: Vec<(f64, f64)>,
}

impl EcdfTest {
    /// The test for `values` values, at least one.
    pub fn new(values: usize) -> Self {
        Self::at(values, (1..CELLS).map(|k| k as f64 / CELLS as f64))
    }

    /// The test at `points`, ascending in (0, 1).
    fn at(values: usize, points: impl Iterator<Item = f64>) -> Self {
        let mut ln_factorial = vec![0.0; values + 1];
        for k in 1..=values {
            ln_factorial[k] = ln_factorial[k - 1] + (k as f64).ln();
        }
        let mut test = EcdfTest {
            values,
            ln_factorial,
            tails: Vec::new(),
        };
        test.tails = points.map(|z| test.tails_at(z)).collect();
        test
    }

    /// Tests values in `[0, 1]`.
    ///
    /// # Panics
    /// When the number of values is not that of the test.
    pub fn test(&self, values: &[f64]) -> Uniformity {
        let statistic = self.statistic(values);
        Uniformity {
            statistic,
            p_value: self.p_value(statistic),
        }
    }

    /// The smallest two-sided tail probability over the points.
    ///
    /// # Panics
    /// When the number of values is not that of the test.
    pub(crate) fn statistic(&self, values: &[f64]) -> f64 {
        assert_eq!(values.len(), self.values, "values of the test");
        counts(values)
            .into_iter()
            .zip(&self.tails)
            .map(|(count, tails)| tails[count])
            .fold(1.0, f64::min)
    }

    /// The band whose leaving is a p-value of at most `level`, for a level in (0, 1).
    pub fn band(&self, level: f64) -> Band {
        let allowed = self.critical(level);
        let n = self.values as f64;
        let shares = (0..self.tails.len()).map(|k| {
            let (low, high) = self.bounds(k, allowed).unwrap_or((0, self.values));
            (low as f64 / n, high as f64 / n)
        });
        Band {
            level,
            shares: shares.collect(),
        }
    }

    /// The largest statistic whose p-value is at most `level`.
    pub(crate) fn critical(&self, level: f64) -> f64 {
        // Bonferroni's bound is allowed; the level itself, at a single point, is the most that can be.
        let (mut allowed, mut refused) = (level / CELLS as f64, level);
        for _ in 0..40 {
            let middle = (allowed * refused).sqrt();
            if self.p_value(middle) <= level {
                allowed = middle;
            } else {
                refused = middle;
            }
        }
        allowed
    }

    /// `P(statistic <= s)` under uniformity.
    fn p_value(&self, s: f64) -> f64 {
        let at_most = self.tails.len() as f64 * s;
        if at_most < SMALLEST_EXACT {
            return at_most;
        }
        (1.0 - self.inside(s)).clamp(0.0, 1.0)
    }

    /// The counts at point `k` whose tail probability is above `s`: one interval, since the tails fall on both sides.
    fn bounds(&self, k: usize, s: f64) -> Option<(usize, usize)> {
        let within = |tail: &f64| *tail > s * (1.0 + ROUNDING);
        let low = self.tails[k].iter().position(within)?;
        Some((low, self.tails[k].iter().rposition(within)?))
    }

    /// Probability that every count has a tail probability above `s`.
    fn inside(&self, s: f64) -> f64 {
        // Probability of each count at the last point, all before it within their bounds; from `first` on.
        let (mut first, mut paths) = (0, vec![1.0]);
        for k in 0..self.tails.len() {
            let Some((low, high)) = self.bounds(k, s) else {
                return 0.0;
            };
            // Of the values above the last point, each falls into the next cell with this probability.
            let p = 1.0 / (CELLS - k) as f64;
            let mut next = vec![0.0; high - low + 1];
            for (offset, path) in paths.iter().enumerate() {
                let before = first + offset;
                for count in before.max(low)..=high {
                    next[count - low] += path * self.binomial(count - before, self.values - before, p);
                }
            }
            (first, paths) = (low, next);
        }
        paths.iter().sum()
    }

    /// `P(X = k)` of a binomial with `n` at most the number of values.
    fn binomial(&self, k: usize, n: usize, p: f64) -> f64 {
        let ways = self.ln_factorial[n] - self.ln_factorial[k] - self.ln_factorial[n - k];
        (ways + k as f64 * p.ln() + (n - k) as f64 * (-p).ln_1p()).exp()
    }

    fn tails_at(&self, z: f64) -> Vec<f64> {
        let n = self.values;
        let probability: Vec<f64> = (0..=n).map(|k| self.binomial(k, n, z)).collect();
        let mut tails = vec![0.0; n + 1];
        let mut sum = 0.0;
        for k in 0..=n {
            sum += probability[k];
            tails[k] = 2.0 * sum;
        }
        sum = 0.0;
        for k in (0..=n).rev() {
            sum += probability[k];
            tails[k] = f64::min(tails[k], 2.0 * sum);
        }
        tails
    }
}

/// Values at or below `k / CELLS`, for `k = 1..CELLS`.
fn counts(values: &[f64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (1..CELLS)
        .map(|k| sorted.partition_point(|v| *v <= k as f64 / CELLS as f64))
        .collect()
}

/// Smallest and largest count of a binomial of `trials` and `probability` whose two-sided tail probability is above `level`.
pub fn binomial_interval(trials: usize, probability: f64, level: f64) -> (usize, usize) {
    let test = EcdfTest::at(trials, std::iter::once(probability));
    test.bounds(0, level).unwrap_or((0, trials))
}

/// Share of `values` at or below `k / CELLS`, for `k = 1..CELLS`: what a [`Band`] is compared with.
pub fn ecdf(values: &[f64]) -> Vec<f64> {
    let n = values.len().max(1) as f64;
    counts(values).into_iter().map(|count| count as f64 / n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn one_value_by_hand() {
        let test = EcdfTest::new(1);
        // A value in the first or the last cell has the tail 2 * 0.01 at that cell's edge: two cells of a hundred.
        for value in [0.005, 0.995] {
            let found = test.test(&[value]);
            assert!((found.statistic - 0.02).abs() < 1e-12, "{found:?}");
            assert!((found.p_value - 0.02).abs() < 1e-12, "{found:?}");
        }
        // In the middle nothing is more ordinary.
        assert!((test.test(&[0.495]).p_value - 1.0).abs() < 1e-9);
    }

    #[test]
    fn uniform_values_are_rejected_as_often_as_stated() {
        let mut rng = StdRng::seed_from_u64(1);
        for n in [7, 60, 300] {
            let test = EcdfTest::new(n);
            let repeats = 4_000;
            let mut rejected = [0.0; 3];
            let levels = [0.01, 0.1, 0.5];
            let critical = levels.map(|level| test.critical(level));
            for _ in 0..repeats {
                let values: Vec<f64> = (0..n).map(|_| rng.random::<f64>()).collect();
                let statistic = test.statistic(&values);
                for (critical, rejected) in critical.iter().zip(&mut rejected) {
                    if statistic <= *critical {
                        *rejected += 1.0;
                    }
                }
            }
            for ((level, critical), rejected) in levels.into_iter().zip(critical).zip(rejected) {
                let exact = test.p_value(critical);
                let error = (exact * (1.0 - exact) / f64::from(repeats)).sqrt();
                let share = rejected / f64::from(repeats);
                // Four standard errors about the exact probability, which is at most the level.
                assert!(exact <= level, "n {n}, level {level}: {exact}");
                assert!(
                    (share - exact).abs() < 4.0 * error,
                    "n {n}, level {level}: {share}, not {exact}"
                );
            }
        }
    }

    #[test]
    fn leaving_the_band_is_a_small_p_value() {
        let mut rng = StdRng::seed_from_u64(2);
        let test = EcdfTest::new(80);
        let level = 0.2;
        let band = test.band(level);
        let mut left = 0;
        for _ in 0..300 {
            let values: Vec<f64> = (0..80).map(|_| rng.random::<f64>()).collect();
            let outside = ecdf(&values)
                .iter()
                .zip(&band.shares)
                .any(|(share, (low, high))| share < low || share > high);
            assert_eq!(outside, test.test(&values).p_value <= level);
            left += usize::from(outside);
        }
        assert!((20..100).contains(&left), "{left} of 300 at a level of {level}");
    }

    #[test]
    fn every_common_defect_is_seen() {
        let n = 200;
        let test = EcdfTest::new(n);
        let even: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
        assert!(test.test(&even).p_value > 0.999);
        let seen = |name: &str, defect: &dyn Fn(f64) -> f64| {
            let values: Vec<f64> = even.iter().map(|u| defect(*u)).collect();
            let p = test.test(&values).p_value;
            assert!(p < 1e-4, "{name}: {p}");
        };
        seen("shifted", &|u| u.powf(1.5));
        seen("too narrow", &|u| {
            0.5 + 0.5 * (2.0 * u - 1.0).signum() * (2.0 * u - 1.0).abs().powf(0.4)
        });
        seen("too wide", &|u| 0.5 + 0.5 * (2.0 * u - 1.0).powi(3));
        seen("all equal", &|_| 0.3);
        // Far below what rounding leaves of one: Bonferroni's bound.
        let p = test.test(&vec![0.0; n]).p_value;
        assert!(p < 1e-100, "{p}");
    }

    #[test]
    fn many_values_are_tested_quickly_enough() {
        let n = 5_000;
        let even: Vec<f64> = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
        let test = EcdfTest::new(n);
        assert!(test.test(&even).p_value > 0.999);
        let band = test.band(0.01);
        // Kolmogorov's half width at 1% is 1.63 / sqrt(n); this band is its like in the middle, and narrow at the ends.
        let (low, high) = band.shares[CELLS / 2 - 1];
        let width = 0.5 * (high - low) * (n as f64).sqrt();
        assert!((1.4..2.1).contains(&width), "{width}");
        let (low, high) = band.shares[0];
        assert!(high - low < 0.015, "{low} {high}");
    }
}
