//! Scores of a place in the posterior, for errors of the mean and of the standard deviation, and the tests of their mean.
//!
//! Where every replication has one latent of a site, the scores are those of the normal: `z` and `(z^2 - 1) / sqrt(2)`, with `z` the normal
//! quantile of the probability integral transform `u`. Under uniformity `z` is standard normal, so that the sum of `z` is normal and that of
//! `z^2` chi-squared: exact tests for any number of replications, the best there are for errors of a normal posterior.
//!
//! Latents of one replication depend on each other. Where there are several, scores are averaged over the latents of the site, and
//! replications are the independent units: Student's t test with an empirical variance, on Hall's cubic transformation of the statistic,
//! which takes out the skewness. The scores are then Legendre polynomials, the first two components of Neyman's smooth test,
//! `sqrt(3) (2u - 1)` and `sqrt(5) (6u^2 - 6u + 1)`. For small errors they have 95% and 76% of the information of the normal scores, and are
//! bounded: with the squared normal score, whose skewness is 2.8, a t test of 200 replications rejects five times too often.
//!
//! Sources: Neyman, "Smooth test for goodness of fit", Skandinavisk Aktuarietidskrift 20, 1937; Hall, "On the removal of
//! skewness by transformation", Journal of the Royal Statistical Society B 54, 1992.

use crate::gamma;
use crate::normal_cdf::normal_cdf;
use crate::student;
use infermark_diagnostics::normal_quantile;

/// Replications below which scores of several latents are not tested: the transformation is an expansion in one over their number.
pub const FEWEST_POOLED: usize = 20;

/// A placement is kept this far from 0 and 1, where its normal quantile is infinite; 8.2 standard deviations
/// out.
const SMALLEST_PLACE: f64 = 1e-16;

/// The kind of error that a score detects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// A shift of the posterior.
    Mean,
    /// A spread that is too narrow or too wide.
    Sd,
}

/// Basis functions of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Normal scores, of single latents.
    Normal,
    /// Legendre polynomials, of the mean over several latents.
    Legendre,
}

impl Score {
    /// Both, in the order of files.
    pub const ALL: [Score; 2] = [Score::Mean, Score::Sd];

    /// The score at `u` in `[0, 1]`; mean 0 and variance 1 over uniform `u`.
    pub fn at(self, basis: Basis, u: f64) -> f64 {
        match (basis, self) {
            (Basis::Legendre, Score::Mean) => 3f64.sqrt() * (2.0 * u - 1.0),
            (Basis::Legendre, Score::Sd) => 5f64.sqrt() * (6.0 * u * (u - 1.0) + 1.0),
            (Basis::Normal, Score::Mean) => normal_score(u),
            (Basis::Normal, Score::Sd) => (normal_score(u).powi(2) - 1.0) / 2f64.sqrt(),
        }
    }
}

/// Tests of a quantity: of uniformity, and of the scores for its mean and for its standard deviation.
pub const TESTS: usize = 1 + Score::ALL.len();

fn normal_score(u: f64) -> f64 {
    normal_quantile(u.clamp(SMALLEST_PLACE, 1.0 - SMALLEST_PLACE))
}

/// The mean Legendre scores of a replication over the latents of a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Latents that they are the mean of.
    pub latents: usize,
    /// In the order of [`Score::ALL`].
    pub means: [f64; 2],
}

impl Scores {
    /// The mean scores of places in the posterior; at least one.
    pub fn of(pits: impl Iterator<Item = f64>) -> Self {
        let (mut latents, mut sums) = (0, [0.0; 2]);
        for pit in pits {
            latents += 1;
            for (sum, score) in sums.iter_mut().zip(Score::ALL) {
                *sum += score.at(Basis::Legendre, pit);
            }
        }
        Scores {
            latents,
            means: sums.map(|sum| sum / latents as f64),
        }
    }
}

/// The test that scores have expectation zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreTest {
    /// Mean of the scores.
    pub mean: f64,
    /// Its standard error, from their own variance.
    pub standard_error: f64,
    /// Two-sided p-value.
    pub p_value: f64,
}

impl ScoreTest {
    /// The exact test of normal scores, of one place a replication.
    pub fn of_places(score: Score, pits: &[f64]) -> Self {
        let n = pits.len() as f64;
        let values: Vec<f64> = pits.iter().map(|pit| score.at(Basis::Normal, *pit)).collect();
        let (mean, sd) = mean_and_sd(&values);
        let p_value = match score {
            Score::Mean => gamma::normal_two_sided_tail(n.sqrt() * mean),
            Score::Sd => {
                let squares = n * (1.0 + 2f64.sqrt() * mean);
                let (below, above) = gamma::tails(0.5 * n, 0.5 * squares);
                (2.0 * below.min(above)).min(1.0)
            }
        };
        ScoreTest {
            mean,
            standard_error: sd / (n - 1.0).max(1.0).sqrt(),
            p_value,
        }
    }

    /// Student's test of mean scores, one of several latents a replication; p-value 1 for fewer than [`FEWEST_POOLED`] of them.
    pub fn of_means(means: &[f64]) -> Self {
        let n = means.len() as f64;
        let (mean, sd) = mean_and_sd(means);
        let p_value = if means.len() < FEWEST_POOLED {
            1.0
        } else if sd > 1e-12 * mean.abs() {
            let third = means.iter().map(|v| (v - mean).powi(3)).sum::<f64>() / n;
            let skewness = third / sd.powi(3);
            let ratio = mean / (sd * (n / (n - 1.0)).sqrt());
            student::two_sided_tail(straightened(ratio, skewness, n), n - 1.0)
        } else {
            // All are equal, which for continuous scores is not by chance.
            0.0
        };
        ScoreTest {
            mean,
            standard_error: sd / (n - 1.0).max(1.0).sqrt(),
            p_value,
        }
    }
}

/// Mean and standard deviation, divisor `n`.
fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// Hall's transformation of `mean / sd` of `n` values of this skewness, times `sqrt(n)`: about Student's t. Monotone.
fn straightened(ratio: f64, skewness: f64, n: f64) -> f64 {
    let a = skewness / 3.0;
    let cubic = ratio * (1.0 + a * ratio * (1.0 + a * ratio / 3.0));
    n.sqrt() * cubic + skewness / (6.0 * n.sqrt())
}

/// The `mean / sd` that [`straightened`] turns into `t`.
pub(crate) fn ratio_at(t: f64, skewness: f64, n: f64) -> f64 {
    let target = t / n.sqrt() - skewness / (6.0 * n);
    if skewness.abs() < 1e-6 {
        return target;
    }
    3.0 / skewness * ((1.0 + skewness * target).cbrt() - 1.0)
}

/// A score of a truth whose place in a normal posterior with an error is known, or found by its rank among draws.
#[derive(Debug, Clone)]
pub(crate) struct ScoreLaw {
    score: Score,
    basis: Basis,
    ranks: Option<RankMoments>,
}

/// Moments of a score given the rank.
#[derive(Debug, Clone)]
struct RankMoments {
    /// `ln` of the binomial coefficients.
    ln_ways: Vec<f64>,
    /// First to fourth moment, uniformly over the rank's cell.
    moments: Vec<[f64; 4]>,
}

impl ScoreLaw {
    /// The score for truths placed by moments (`None`), or ranked among this many draws.
    pub(crate) fn new(score: Score, basis: Basis, rank_draws: Option<f64>) -> Self {
        let ranks = rank_draws.map(|draws| {
            let draws = draws.round().max(1.0) as usize;
            let cells = (draws + 1) as f64;
            let edge = |k: usize| normal_quantile(k as f64 / cells).clamp(-9.0, 9.0);
            let ln_factorial = |k: usize| gamma::ln_gamma(k as f64 + 1.0);
            RankMoments {
                ln_ways: (0..=draws)
                    .map(|k| ln_factorial(draws) - ln_factorial(k) - ln_factorial(draws - k))
                    .collect(),
                moments: (0..=draws)
                    .map(|k| cell_moments(score, basis, edge(k), edge(k + 1)))
                    .collect(),
            }
        });
        ScoreLaw { score, basis, ranks }
    }

    /// First to fourth moment of the score where the posterior's distribution function at the truth is `f`.
    fn moments_at(&self, f: f64) -> [f64; 4] {
        let Some(ranks) = &self.ranks else {
            let s = self.score.at(self.basis, f);
            return [s, s * s, s * s * s, s * s * s * s];
        };
        let draws = ranks.ln_ways.len() - 1;
        let f = f.clamp(1e-300, 1.0 - SMALLEST_PLACE);
        let (below, above) = (f.ln(), (-f).ln_1p());
        let mut sums = [0.0; 4];
        for (k, (ways, moments)) in ranks.ln_ways.iter().zip(&ranks.moments).enumerate() {
            let probability = (ways + k as f64 * below + (draws - k) as f64 * above).exp();
            for (sum, moment) in sums.iter_mut().zip(moments) {
                *sum += probability * moment;
            }
        }
        sums
    }

    /// First to fourth moment of the score under an error of the posterior: of its mean, in right standard
    /// deviations, or of its standard deviation, relative. Computed with the trapezoidal rule over the
    /// standard normal truth, which is exact to rounding for smooth integrands.
    pub(crate) fn moments(&self, error: f64) -> [f64; 4] {
        let step = match self.score {
            Score::Mean => 0.125,
            // The steeper the score, the finer.
            Score::Sd => 0.125 * (1.0 + error).clamp(0.01, 1.0),
        };
        let points = (9.0 / step) as i32;
        let (mut sums, mut weights) = ([0.0; 4], 0.0);
        for k in -points..=points {
            let truth = f64::from(k) * step;
            let z = match self.score {
                Score::Mean => truth - error,
                Score::Sd => truth / (1.0 + error),
            };
            let weight = (-0.5 * truth * truth).exp();
            weights += weight;
            for (sum, moment) in sums.iter_mut().zip(self.moments_at(normal_cdf(z))) {
                *sum += weight * moment;
            }
        }
        sums.map(|sum| sum / weights)
    }

    /// The error under which the score has this expectation; the largest error considered if there is none.
    pub(crate) fn error(&self, expectation: f64) -> f64 {
        // Of both scores the expectation falls as the error rises.
        let error_at = |x: f64| match self.score {
            Score::Mean => x,
            Score::Sd => x.exp_m1(),
        };
        let (mut low, mut high) = match self.score {
            Score::Mean => (-8.0, 8.0),
            Score::Sd => (-5.0, 5.0),
        };
        for _ in 0..40 {
            let middle = 0.5 * (low + high);
            if self.moments(error_at(middle))[0] > expectation {
                low = middle;
            } else {
                high = middle;
            }
        }
        error_at(0.5 * (low + high))
    }

    /// How fast the expectation falls with the error.
    pub(crate) fn slope(&self, error: f64) -> f64 {
        let step = match self.score {
            Score::Mean => 1e-3,
            Score::Sd => 1e-3 * (1.0 + error),
        };
        (self.moments(error - step)[0] - self.moments(error + step)[0]) / (2.0 * step)
    }
}

/// First to fourth moment of a score over the places whose normal quantiles lie between two bounds, by Simpson's rule.
fn cell_moments(score: Score, basis: Basis, low: f64, high: f64) -> [f64; 4] {
    let intervals = if high - low > 1.0 { 64 } else { 8 };
    let step = (high - low) / f64::from(intervals);
    let (mut sums, mut weights) = ([0.0; 4], 0.0);
    for i in 0..=intervals {
        let z = low + f64::from(i) * step;
        let simpson = match i {
            0 => 1.0,
            i if i == intervals => 1.0,
            i if i % 2 == 1 => 4.0,
            _ => 2.0,
        };
        let weight = simpson * (-0.5 * z * z).exp();
        weights += weight;
        let value = score.at(basis, normal_cdf(z));
        let mut power = 1.0;
        for sum in &mut sums {
            power *= value;
            *sum += weight * power;
        }
    }
    sums.map(|sum| sum / weights)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::f64::consts::{PI, SQRT_2};

    /// A mean over uniform places.
    fn over_uniform(f: impl Fn(f64) -> f64) -> f64 {
        let n = 200_000;
        (0..n)
            .map(|i| f((f64::from(i) + 0.5) / f64::from(n)))
            .sum::<f64>()
            / f64::from(n)
    }

    #[test]
    fn scores_are_orthonormal() {
        for (basis, tolerance) in [(Basis::Legendre, 1e-8), (Basis::Normal, 1e-3)] {
            for (k, a) in Score::ALL.into_iter().enumerate() {
                assert!(over_uniform(|u| a.at(basis, u)).abs() < tolerance);
                for (l, b) in Score::ALL.into_iter().enumerate() {
                    let product = over_uniform(|u| a.at(basis, u) * b.at(basis, u));
                    assert!((product - f64::from(u8::from(k == l))).abs() < tolerance);
                }
            }
        }
    }

    /// What Legendre scores of a normal posterior expect, in closed form.
    fn expected(score: Score, basis: Basis, error: f64) -> f64 {
        match (basis, score) {
            // E Phi(Z - b) = Phi(-b / sqrt 2).
            (Basis::Legendre, Score::Mean) => 3f64.sqrt() * (2.0 * normal_cdf(-error / SQRT_2) - 1.0),
            // E Phi(c Z)^2 = 1/4 + asin(c^2 / (1 + c^2)) / (2 pi), the orthant probability of two normals; c = 1 / (1 + error).
            (Basis::Legendre, Score::Sd) => {
                let correlation = 1.0 / (1.0 + (1.0 + error).powi(2));
                5f64.sqrt() * (3.0 / PI * correlation.asin() - 0.5)
            }
            (Basis::Normal, Score::Mean) => -error,
            (Basis::Normal, Score::Sd) => ((1.0 + error).powi(-2) - 1.0) / SQRT_2,
        }
    }

    const ERRORS: [(Score, f64); 5] = [
        (Score::Mean, 0.3),
        (Score::Mean, -1.2),
        (Score::Sd, -0.05),
        (Score::Sd, -0.3),
        (Score::Sd, 1.5),
    ];

    #[test]
    fn expected_scores_of_normal_posteriors_are_closed_forms() {
        for basis in [Basis::Legendre, Basis::Normal] {
            for (score, error) in ERRORS {
                let law = ScoreLaw::new(score, basis, None);
                let exact = expected(score, basis, error);
                let found = law.moments(error)[0];
                assert!(
                    (found - exact).abs() < 1e-6,
                    "{score:?} {basis:?} {error}: {found} {exact}"
                );
                assert!((law.error(exact) - error).abs() < 1e-5);
            }
        }
        let slope = |score, basis| ScoreLaw::new(score, basis, None).slope(0.0);
        assert!((slope(Score::Mean, Basis::Legendre) - (3.0 / PI).sqrt()).abs() < 1e-5);
        assert!((slope(Score::Sd, Basis::Legendre) - 15f64.sqrt() / PI).abs() < 1e-5);
        assert!((slope(Score::Mean, Basis::Normal) - 1.0).abs() < 1e-5);
        assert!((slope(Score::Sd, Basis::Normal) - SQRT_2).abs() < 1e-4);
    }

    /// Ranks among `L` draws leave `L / (L + 1)` of the first Legendre score and `L (L - 1) / (L + 1)^2` of the second, exactly.
    #[test]
    fn ranks_leave_the_known_part_of_a_score() {
        for draws in [9.0, 99.0] {
            for (score, error) in ERRORS {
                let left = match score {
                    Score::Mean => draws / (draws + 1.0),
                    Score::Sd => draws * (draws - 1.0) / (draws + 1.0f64).powi(2),
                };
                let law = ScoreLaw::new(score, Basis::Legendre, Some(draws));
                let exact = left * expected(score, Basis::Legendre, error);
                let found = law.moments(error)[0];
                assert!(
                    (found - exact).abs() < 1e-5,
                    "{draws} {score:?} {error}: {found} {exact}"
                );
            }
        }
        // Without an error places are uniform, and moments those of the score: of normal scores 0, 1, 0, 3 and 0, 1, sqrt 8, 15.
        for (score, known) in [
            (Score::Mean, [0.0, 1.0, 0.0, 3.0]),
            (Score::Sd, [0.0, 1.0, 8f64.sqrt(), 15.0]),
        ] {
            let found = ScoreLaw::new(score, Basis::Normal, Some(99.0)).moments(0.0);
            for (found, known) in found.into_iter().zip(known) {
                assert!(
                    (found - known).abs() < 1e-3 * known.max(1.0),
                    "{score:?}: {found} {known}"
                );
            }
        }
    }

    #[test]
    fn the_transformation_is_inverted() {
        for (ratio, skewness, n) in [
            (0.2, 0.6, 50.0),
            (-1.5, 1.9, 200.0),
            (2.0, -1.4, 30.0),
            (0.1, 0.0, 99.0),
        ] {
            let t = straightened(ratio, skewness, n);
            assert!((ratio_at(t, skewness, n) - ratio).abs() < 1e-9, "{ratio}");
        }
    }

    /// Places of a replication that depend on each other by a common normal part.
    pub(crate) fn dependent_places(rng: &mut StdRng, latents: usize, common: f64) -> Vec<f64> {
        let mut normal = || normal_quantile(rng.random_range(1e-15..1.0));
        let shared = common.sqrt() * normal();
        (0..latents)
            .map(|_| normal_cdf(shared + (1.0 - common).sqrt() * normal()))
            .collect()
    }

    /// The level over many seeds, of single latents and of twelve that depend on each other, few replications and many.
    #[test]
    fn calibrated_scores_are_rejected_no_more_often_than_stated() {
        let mut rng = StdRng::seed_from_u64(5);
        let levels = [0.1, 0.01, 0.002];
        for (replications, latents, repeats) in [
            (5, 1, 12_000),
            (100, 1, 2_000),
            (20, 2, 4_000),
            (60, 2, 1_500),
            (200, 12, 250),
        ] {
            let mut rejected = [[0_u32; 3]; 2];
            for _ in 0..repeats {
                let places: Vec<Vec<f64>> = (0..replications)
                    .map(|_| dependent_places(&mut rng, latents, 0.3))
                    .collect();
                for (k, rejected) in rejected.iter_mut().enumerate() {
                    let p = if latents == 1 {
                        let pits: Vec<f64> = places.iter().map(|p| p[0]).collect();
                        ScoreTest::of_places(Score::ALL[k], &pits).p_value
                    } else {
                        let means: Vec<f64> = places
                            .iter()
                            .map(|p| Scores::of(p.iter().copied()).means[k])
                            .collect();
                        ScoreTest::of_means(&means).p_value
                    };
                    for (count, level) in rejected.iter_mut().zip(levels) {
                        *count += u32::from(p <= level);
                    }
                }
            }
            for (score, rejected) in Score::ALL.into_iter().zip(rejected) {
                for (count, level) in rejected.into_iter().zip(levels) {
                    let share = f64::from(count) / f64::from(repeats);
                    let error = (level * (1.0 - level) / f64::from(repeats)).sqrt();
                    println!("{score:?}, {replications} x {latents}, level {level}: {share:.5}");
                    // Three and a half standard errors about the level for the exact tests, one in 2,000 each way; for the others not above
                    // that, and not far below the level: that would give away power.
                    let low = if latents == 1 { level } else { 0.2 * level };
                    assert!(
                        share < level + 3.5 * error,
                        "{score:?} {replications} {latents} {level}: {share}"
                    );
                    assert!(
                        share > low - 3.5 * error,
                        "{score:?} {replications} {latents} {level}: {share}"
                    );
                }
            }
        }
    }
}
