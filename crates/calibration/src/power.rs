//! Which errors a calibration can see.
//!
//! A quantity fails when the smallest of its three p-values - of uniformity, and of the two
//! [scores](crate::score) - times three is within the method's level, shared among its quantities by Holm's
//! procedure. An error of one quantity's standard deviation is detected by the score for the standard
//! deviation, one of its mean by the score for the mean, and the other tests add little to that: the power
//! stated here is the score's alone, at the first step of Holm's procedure, and so a lower bound of the
//! verdict's.
//!
//! The posterior is taken for normal, and the error is the same in every replication. The moments of the
//! score under the error are integrals over the truth and the rank. Of single latents, the mean of `z` is normal, and the sum of `z^2` a
//! multiple of a chi-squared variable, both exactly where places are not ranks; of ranks, the multiple and the degrees of freedom are those
//! with the right mean and variance. Of several latents, the studentized mean is about normal, with the variance `1 - d g + d^2 (k - 1) / 4`
//! for the ratio `d` of the score's mean and standard deviation, its skewness `g` and kurtosis `k` (the delta method).

use crate::gamma;
use crate::normal_cdf::normal_cdf;
use crate::score::{Basis, FEWEST_POOLED, Score, ScoreLaw, TESTS, ratio_at};
use crate::student;
use serde::{Deserialize, Serialize};
use std::f64::consts::SQRT_2;

/// Largest error of a standard deviation that is considered: 95% too small, or 95% too large.
const LARGEST_SD_ERROR: f64 = 0.95;

/// Largest error of a mean that is considered, in standard deviations.
const LARGEST_MEAN_ERROR: f64 = 5.0;

/// An error of a posterior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PosteriorError {
    /// The mean is off by this many standard deviations, in either direction.
    Mean(f64),
    /// The standard deviation is off by this fraction; 0.05 is 5% too small or too large, whichever is harder
    /// to see.
    Sd(f64),
}

/// What decides the power of the test of one quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Power {
    /// Replications.
    pub replications: usize,
    /// Quantities of the method that share the level.
    pub quantities: usize,
    /// Probability that a calibrated method fails.
    pub level: f64,
    /// Draws that a truth is ranked among; none where the posterior is known by its moments.
    pub rank_draws: Option<f64>,
    /// The latents of the site in a replication.
    pub latents: Latents,
}

/// Latents that a replication has of a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latents {
    /// One.
    Single,
    /// Several, whose mean score is worth so many independent ones, from 1.
    Several(f64),
}

impl Power {
    /// The part of the level that one test of a quantity has: Bonferroni's over the [`TESTS`], at the first step of Holm's procedure
    /// over the quantities.
    pub fn level_of_a_test(&self) -> f64 {
        self.level / (TESTS * self.quantities.max(1)) as f64
    }

    /// Probability that a quantity with this error fails, at least.
    pub fn of(&self, error: PosteriorError) -> f64 {
        self.least(self.replications, &self.moments(error))
    }

    /// The smallest error of a standard deviation, as a part of it, that is found with this probability; none when
    /// even one of 95% is not.
    pub fn smallest_sd_error(&self, probability: f64) -> Option<f64> {
        self.smallest(PosteriorError::Sd, LARGEST_SD_ERROR, probability)
    }

    /// The smallest error of a mean, in standard deviations, that is found with this probability; none when
    /// even one of 5 is not.
    pub fn smallest_mean_error(&self, probability: f64) -> Option<f64> {
        self.smallest(PosteriorError::Mean, LARGEST_MEAN_ERROR, probability)
    }

    fn smallest(&self, error: impl Fn(f64) -> PosteriorError, largest: f64, probability: f64) -> Option<f64> {
        let found = |size: f64| self.of(error(size)) >= probability;
        if !found(largest) {
            return None;
        }
        let (mut low, mut high) = (0.0, largest);
        for _ in 0..25 {
            let middle = 0.5 * (low + high);
            if found(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// Replications after which an error is found with this probability; the own number plays no part. None where that is more
    /// than 2^40.
    pub fn replications_for(&self, error: PosteriorError, probability: f64) -> Option<usize> {
        let moments = self.moments(error);
        let found = |replications: usize| self.least(replications, &moments) >= probability;
        let mut high = 1;
        while !found(high) {
            high *= 2;
            if high > 1 << 40 {
                return None;
            }
        }
        let mut low = high / 2;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if found(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        Some(high)
    }

    /// The score that sees an error, with its moments under it, in either direction.
    fn moments(&self, error: PosteriorError) -> (Score, Vec<[f64; 4]>) {
        let basis = match self.latents {
            Latents::Single => Basis::Normal,
            Latents::Several(_) => Basis::Legendre,
        };
        let (score, errors) = match error {
            PosteriorError::Mean(size) => (Score::Mean, vec![size]),
            PosteriorError::Sd(size) => (Score::Sd, vec![-size, size]),
        };
        let law = ScoreLaw::new(score, basis, self.rank_draws);
        (
            score,
            errors.into_iter().map(|error| law.moments(error)).collect(),
        )
    }

    /// The smaller power of either direction.
    fn least(&self, replications: usize, (score, moments): &(Score, Vec<[f64; 4]>)) -> f64 {
        moments
            .iter()
            .map(|moments| self.rejection(replications, *score, moments))
            .fold(1.0, f64::min)
    }

    /// Probability that the test of scores with these moments rejects.
    fn rejection(&self, replications: usize, score: Score, [m1, m2, m3, m4]: &[f64; 4]) -> f64 {
        let n = replications as f64;
        let level = self.level_of_a_test();
        let variance = (m2 - m1 * m1).max(1e-12);
        match (self.latents, score) {
            (Latents::Single, Score::Mean) => {
                // The t of many degrees of freedom is the normal.
                let critical = -infermark_diagnostics::normal_quantile(0.5 * level);
                let beyond = |t: f64| (n.sqrt() * m1 - t) / variance.sqrt();
                normal_cdf(beyond(critical)) + normal_cdf(-beyond(-critical))
            }
            (Latents::Single, Score::Sd) => {
                let (low, high) = gamma::chi_squared_bounds(0.5 * level, n);
                // Mean and variance of the sum of squares, and the gamma variable that has them.
                let (mean, spread) = (n * (1.0 + SQRT_2 * m1), 2.0 * n * variance);
                let (shape, scale) = (mean * mean / spread, spread / mean);
                gamma::tails(shape, low / scale).0 + gamma::tails(shape, high / scale).1
            }
            (Latents::Several(_), _) if replications < FEWEST_POOLED => 0.0,
            (Latents::Several(latents), _) => {
                let critical = student::critical(level, n - 1.0);
                let third = m3 - 3.0 * m1 * m2 + 2.0 * m1.powi(3);
                let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1.powi(4);
                let skewness = third / variance.powf(1.5) / latents.sqrt();
                let kurtosis = 3.0 + (fourth / (variance * variance) - 3.0) / latents;
                let ratio = latents.sqrt() * m1 / variance.sqrt();
                let sd = (1.0 - ratio * skewness + 0.25 * ratio * ratio * (kurtosis - 1.0))
                    .max(0.05)
                    .sqrt();
                let beyond = |t: f64| n.sqrt() * (ratio - ratio_at(t, skewness, n)) / sd;
                normal_cdf(beyond(critical)) + normal_cdf(-beyond(-critical))
            }
        }
    }
}

/// The errors that a quantity's tests see, as files record them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// Smallest error of the standard deviation, as a part of it, that is found with a probability of 90%, at least; none
    /// when even one of 95% is not.
    pub sd_error_found: Option<f64>,
    /// Probability that an error of 5% of the standard deviation is found, at least.
    pub power_sd_5_percent: f64,
    /// Smallest error of the mean, in standard deviations, that is found with a probability of 90%, at least; none when even
    /// one of 5 is not.
    pub mean_error_found: Option<f64>,
    /// Replications after which an error of 5% of the standard deviation is found with a probability of 90%; none beyond
    /// every number that can be done.
    pub replications_for_sd_5_percent: Option<usize>,
}

/// Probability that [`Sensitivity`] asks for.
pub const FOUND_WITH: f64 = 0.9;

impl Sensitivity {
    /// The sensitivity for a quantity, with the effective number of latents of its scores
    /// `[for the mean, for the standard deviation]`.
    pub fn of(power: Power, latents: [Latents; 2]) -> Self {
        let [mean, sd] = latents.map(|latents| Power { latents, ..power });
        Sensitivity {
            sd_error_found: sd.smallest_sd_error(FOUND_WITH),
            power_sd_5_percent: sd.of(PosteriorError::Sd(0.05)),
            mean_error_found: mean.smallest_mean_error(FOUND_WITH),
            replications_for_sd_5_percent: sd.replications_for(PosteriorError::Sd(0.05), FOUND_WITH),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{ScoreTest, Scores};
    use crate::uniformity::EcdfTest;
    use infermark_diagnostics::normal_quantile;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// A standard normal.
    fn normal(rng: &mut StdRng) -> f64 {
        normal_quantile(rng.random_range(1e-15..1.0))
    }

    /// Shares of simulated calibrations in which the score's test rejects, and in which any of the three does.
    fn by_simulation(power: &Power, score: Score, error: f64, repeats: u32) -> (f64, f64) {
        let mut rng = StdRng::seed_from_u64(11);
        let level = power.level_of_a_test();
        let uniformity = EcdfTest::new(power.replications);
        let critical = uniformity.critical(level);
        let latents = match power.latents {
            Latents::Single => 1,
            Latents::Several(latents) => latents as usize,
        };
        let (mut by_score, mut by_any) = (0, 0);
        for _ in 0..repeats {
            let places: Vec<Vec<f64>> = (0..power.replications)
                .map(|_| {
                    (0..latents)
                        .map(|_| {
                            let truth = normal(&mut rng);
                            let z = match score {
                                Score::Mean => truth - error,
                                Score::Sd => truth / (1.0 + error),
                            };
                            match power.rank_draws {
                                None => normal_cdf(z),
                                // Draws of the wrong posterior, ranked.
                                Some(draws) => {
                                    let below = (0..draws as usize).filter(|_| normal(&mut rng) < z).count();
                                    (below as f64 + rng.random::<f64>()) / (draws + 1.0)
                                }
                            }
                        })
                        .collect()
                })
                .collect();
            let first: Vec<f64> = places.iter().map(|p| p[0]).collect();
            let p = Score::ALL.map(|score| match power.latents {
                Latents::Single => ScoreTest::of_places(score, &first).p_value,
                Latents::Several(_) => {
                    let means: Vec<f64> = places
                        .iter()
                        .map(|p| Scores::of(p.iter().copied()).means[score as usize])
                        .collect();
                    ScoreTest::of_means(&means).p_value
                }
            });
            by_score += u32::from(p[score as usize] <= level);
            let any = p.iter().any(|p| *p <= level) || uniformity.statistic(&first) <= critical;
            by_any += u32::from(any);
        }
        (
            f64::from(by_score) / f64::from(repeats),
            f64::from(by_any) / f64::from(repeats),
        )
    }

    /// The stated power against brute force: the very tests, on simulated places.
    #[test]
    fn the_stated_power_is_that_of_simulated_calibrations() {
        let one = Power {
            replications: 200,
            quantities: 6,
            level: 0.01,
            rank_draws: None,
            latents: Latents::Single,
        };
        let four = Power {
            latents: Latents::Several(4.0),
            ..one
        };
        let ranked = |power| Power {
            rank_draws: Some(19.0),
            ..power
        };
        let of_fewer = |replications, power| Power {
            replications,
            ..power
        };
        let repeats = 500;
        // What the normal approximation is allowed, in shares: nothing where the power is exact.
        for (power, score, error, allowed) in [
            (one, Score::Sd, -0.05, 0.0),
            (one, Score::Sd, -0.15, 0.0),
            (one, Score::Sd, 0.2, 0.0),
            (one, Score::Mean, 0.25, 0.0),
            (of_fewer(10, one), Score::Sd, -0.5, 0.0),
            (ranked(one), Score::Sd, -0.25, 0.02),
            (ranked(one), Score::Mean, -0.25, 0.02),
            (four, Score::Sd, -0.13, 0.02),
            (four, Score::Sd, 0.16, 0.02),
            (four, Score::Mean, 0.13, 0.02),
            (of_fewer(50, four), Score::Sd, -0.25, 0.03),
            (ranked(four), Score::Sd, -0.15, 0.02),
            (
                Power {
                    quantities: 1,
                    level: 0.1,
                    ..four
                },
                Score::Sd,
                -0.08,
                0.02,
            ),
        ] {
            let law = power.moments(match score {
                Score::Mean => PosteriorError::Mean(error),
                Score::Sd => PosteriorError::Sd(-error),
            });
            let stated = power.rejection(power.replications, score, &law.1[0]);
            let (by_score, by_any) = by_simulation(&power, score, error, repeats);
            println!("{power:?} {score:?} {error}: stated {stated:.3}, score {by_score:.3}, any {by_any:.3}");
            // Three and a half standard errors of the simulation.
            let noise = 3.5 * (stated * (1.0 - stated) / f64::from(repeats)).sqrt();
            assert!((by_score - stated).abs() < noise + allowed, "{stated} {by_score}");
            // The verdict's own power is no smaller, and not much larger.
            assert!(
                by_any >= by_score && by_any < by_score + 0.1,
                "{by_score} {by_any}"
            );
        }
    }

    #[test]
    fn the_stated_error_and_number_go_with_the_stated_power() {
        for latents in [Latents::Single, Latents::Several(6.0)] {
            let power = Power {
                replications: 400,
                quantities: 5,
                level: 0.01,
                rank_draws: None,
                latents,
            };
            let sd = power.smallest_sd_error(0.9).unwrap();
            assert!((power.of(PosteriorError::Sd(sd)) - 0.9).abs() < 1e-5);
            let mean = power.smallest_mean_error(0.9).unwrap();
            assert!((power.of(PosteriorError::Mean(mean)) - 0.9).abs() < 1e-5);
            let n = power.replications_for(PosteriorError::Sd(0.05), 0.9).unwrap();
            let at = |replications| {
                Power {
                    replications,
                    ..power
                }
                .of(PosteriorError::Sd(0.05))
            };
            assert!(at(n) >= 0.9 && at(n - 1) < 0.9, "{n}");
            // Half the error takes four times as many, about.
            let four = power.replications_for(PosteriorError::Sd(0.025), 0.9).unwrap();
            assert!((3.7..4.3).contains(&(four as f64 / n as f64)), "{n} {four}");
            // No error is found more often than the quantity's part of the level.
            assert!(power.of(PosteriorError::Sd(0.0)) <= 0.01 / 15.0 * 1.1);
            // One replication shows next to nothing, and several latents of few are not tested.
            let few = Power {
                replications: 1,
                ..power
            };
            assert_eq!(few.smallest_sd_error(0.9), None);
        }
    }
}
