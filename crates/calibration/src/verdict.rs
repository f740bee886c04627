//! The verdict on every method: tests, the errors that they estimate, and coverage.

use crate::power::{Latents, Power, Sensitivity};
use crate::quantity::Quantity;
use crate::run::{Calibration, PlacedTruth};
use crate::score::{Basis, Score, ScoreLaw, ScoreTest, TESTS};
use crate::uniformity::{Band, EcdfTest};
use std::collections::HashMap;

/// Probabilities of the central intervals whose coverage is reported.
pub const NOMINAL: [f64; 3] = [0.5, 0.9, 0.95];

/// Share of truths in the central intervals of a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coverage {
    /// The intervals' probability.
    pub nominal: f64,
    /// Share of truths inside.
    pub actual: f64,
    /// Binomial standard error of that share, for correct intervals: `sqrt(nominal (1 - nominal) / n)`.
    pub standard_error: f64,
}

/// An error of posterior means or standard deviations, estimated from their score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEstimate {
    /// The error: of means, in units of the correct standard deviation, positive if the posterior is too
    /// high; of standard deviations, relative: -0.05 is 5% too small.
    pub error: f64,
    /// Standard error of that.
    pub standard_error: f64,
    /// P-value of the score's test.
    pub p_value: f64,
}

/// One quantity of a method.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantityVerdict {
    /// Which.
    pub quantity: Quantity,
    /// Replications that it was placed in.
    pub replications: usize,
    /// The smallest two-sided tail probability of the uniformity test, see [`Uniformity`](crate::Uniformity).
    pub statistic: f64,
    /// P-value of the uniformity test.
    pub p_uniformity: f64,
    /// Error of the mean, of all latents of the site.
    pub mean_error: ErrorEstimate,
    /// Error of the standard deviation, of all latents of the site.
    pub sd_error: ErrorEstimate,
    /// Probability of a smallest p-value of the [`TESTS`] tests as small as this one's if the method is calibrated, by Bonferroni's bound.
    pub p_value: f64,
    /// The same over all quantities of the method, after Holm.
    pub p_adjusted: f64,
    /// Whether `p_adjusted` is above the level.
    pub passes: bool,
    /// Coverage for each of [`NOMINAL`].
    pub coverage: [Coverage; 3],
    /// Mean rank-draws; none where the posterior is known by its moments.
    pub mean_rank_draws: Option<f64>,
    /// Latents of a replication that the scores are of, for the mean and for the standard deviation. Several are worth one over the variance
    /// of their mean score, which is 1 for one.
    pub latents: [Latents; 2],
    /// What decides the power of the test for the standard deviation.
    pub power: Power,
}

impl QuantityVerdict {
    /// The errors that this many replications find.
    pub fn sensitivity(&self) -> Sensitivity {
        Sensitivity::of(self.power, self.latents)
    }

    /// The band of the uniformity test: leaving it is a p-value that fails the quantity whatever its other tests and the other
    /// quantities say.
    pub fn band(&self) -> Band {
        EcdfTest::new(self.replications).band(self.power.level_of_a_test())
    }
}

/// A method.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodVerdict {
    /// Its name.
    pub method: String,
    /// One entry a quantity that was placed.
    pub quantities: Vec<QuantityVerdict>,
    /// Fits that gave no posterior: they ended with an error, did not converge, or never mixed.
    pub failed_fits: usize,
    /// Whether no quantity failed and every fit gave a posterior. A method that leaves out replications is
    /// not calibrated on the rest, because those that it could not fit are not a random subset.
    pub passes: bool,
}

/// Judges every method at `level`, the probability that a calibrated method fails: Bonferroni's bound over the [`TESTS`] tests of a
/// quantity, and Holm's procedure over its quantities.
pub fn verdicts(calibration: &Calibration, level: f64) -> Vec<MethodVerdict> {
    let mut tests: HashMap<usize, EcdfTest> = HashMap::new();
    calibration
        .methods
        .iter()
        .enumerate()
        .map(|(method, name)| {
            let placed: Vec<(Quantity, Vec<&PlacedTruth>)> = Quantity::all(calibration.likelihood)
                .into_iter()
                .map(|quantity| (quantity, calibration.placed(method, quantity).collect()))
                .filter(|(_, placed): &(_, Vec<&PlacedTruth>)| !placed.is_empty())
                .collect();
            let mut quantities: Vec<QuantityVerdict> = placed
                .iter()
                .map(|(quantity, of_quantity)| {
                    let test = tests
                        .entry(of_quantity.len())
                        .or_insert_with_key(|n| EcdfTest::new(*n));
                    judge(*quantity, of_quantity, test, placed.len(), level)
                })
                .collect();
            let p_values: Vec<f64> = quantities.iter().map(|q| q.p_value).collect();
            for (quantity, p_adjusted) in quantities.iter_mut().zip(holm(&p_values)) {
                quantity.p_adjusted = p_adjusted;
                quantity.passes = p_adjusted > level;
            }
            let failed_fits = calibration.failures.iter().filter(|f| f.method == method).count();
            MethodVerdict {
                method: name.clone(),
                passes: failed_fits == 0 && quantities.iter().all(|q| q.passes),
                quantities,
                failed_fits,
            }
        })
        .collect()
}

fn judge(
    quantity: Quantity,
    placed: &[&PlacedTruth],
    test: &EcdfTest,
    quantities: usize,
    level: f64,
) -> QuantityVerdict {
    let pits: Vec<f64> = placed.iter().map(|p| p.statistic.pit).collect();
    let n = placed.len() as f64;
    let uniformity = test.test(&pits);
    let draws: Option<Vec<f64>> = placed
        .iter()
        .map(|p| p.statistic.rank.map(|r| r.draws as f64))
        .collect();
    let rank_draws = draws.map(|d| d.iter().sum::<f64>() / n);
    let most_latents = placed.iter().map(|p| p.scores.latents).max().unwrap_or(1);
    let mut latents = [Latents::Single; 2];
    let [mean_error, sd_error] = Score::ALL.map(|score| {
        let k = score as usize;
        let (found, basis) = if most_latents == 1 {
            (ScoreTest::of_places(score, &pits), Basis::Normal)
        } else {
            let means: Vec<f64> = placed.iter().map(|p| p.scores.means[k]).collect();
            let found = ScoreTest::of_means(&means);
            // A score's variance is 1: that of the mean of independent ones is one over their number.
            let worth = (n * found.standard_error.powi(2)).recip();
            latents[k] = Latents::Several(worth.clamp(1.0, most_latents as f64));
            (found, Basis::Legendre)
        };
        let law = ScoreLaw::new(score, basis, rank_draws);
        let error = law.error(found.mean);
        ErrorEstimate {
            error,
            // The delta method; infinite if an error cannot be distinguished from a larger one.
            standard_error: found.standard_error / law.slope(error).max(1e-12),
            p_value: found.p_value,
        }
    });
    let smallest = uniformity.p_value.min(mean_error.p_value).min(sd_error.p_value);
    let p_value = (TESTS as f64 * smallest).min(1.0);
    QuantityVerdict {
        quantity,
        replications: placed.len(),
        statistic: uniformity.statistic,
        p_uniformity: uniformity.p_value,
        mean_error,
        sd_error,
        p_value,
        p_adjusted: p_value,
        passes: true,
        coverage: NOMINAL.map(|nominal| Coverage {
            nominal,
            actual: placed.iter().filter(|p| p.statistic.is_inside(nominal)).count() as f64 / n,
            standard_error: (nominal * (1.0 - nominal) / n).sqrt(),
        }),
        mean_rank_draws: rank_draws,
        latents,
        power: Power {
            replications: placed.len(),
            quantities,
            level,
            rank_draws,
            latents: latents[Score::Sd as usize],
        },
    }
}

/// P-values that hold for all hypotheses together, in their order.
///
/// Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest
            .max((p_values.len() - rank) as f64 * p_values[index])
            .min(1.0);
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank_statistic::RankStatistic;
    use crate::run::Failure;
    use crate::score::Scores;
    use infermark_model::{Likelihood, Site};
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn holm_by_hand() {
        let found = holm(&[0.01, 0.04, 0.03, 0.5]);
        for (found, expected) in found.iter().zip([0.04, 0.09, 0.09, 0.5]) {
            assert!((found - expected).abs() < 1e-15, "{found} {expected}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    /// A calibration of one method with the given places of one quantity.
    fn of(pits: impl Iterator<Item = f64>, failures: usize) -> Calibration {
        let placed: Vec<PlacedTruth> = pits
            .enumerate()
            .map(|(replication, pit)| PlacedTruth {
                replication,
                method: 0,
                quantity: Quantity::Latent(Site::GlobalA),
                key: String::new(),
                statistic: RankStatistic {
                    truth: 0.0,
                    mean: 0.0,
                    sd: 1.0,
                    pit,
                    rank: None,
                },
                scores: Scores::of(std::iter::once(pit)),
            })
            .collect();
        Calibration {
            methods: vec!["m".into()],
            likelihood: Likelihood::Poisson,
            asked: placed.len(),
            done: placed.len(),
            placed,
            failures: (0..failures)
                .map(|replication| Failure {
                    replication,
                    method: 0,
                    reason: "x".into(),
                })
                .collect(),
        }
    }

    #[test]
    fn coverage_and_verdict_of_known_places() {
        let even = |i: i32| (f64::from(i) + 0.5) / 100.0;
        let [verdict] = &verdicts(&of((0..100).map(even), 0), 0.01)[..] else {
            panic!("one method")
        };
        assert!(verdict.passes);
        let coverage = verdict.quantities[0].coverage;
        assert_eq!(coverage.map(|c| c.actual), [0.5, 0.9, 0.96]);
        assert!((coverage[1].standard_error - 0.03).abs() < 1e-15);

        // Half of the truths far out: intervals too narrow.
        let narrow = |i: i32| if i % 2 == 0 { f64::from(i) / 1e4 } else { even(i) };
        assert!(!verdicts(&of((0..100).map(narrow), 0), 0.01)[0].passes);
        // A fit that failed is no pass.
        assert!(!verdicts(&of((0..100).map(even), 1), 0.01)[0].passes);
        // Nor is a method without any fit.
        assert!(!verdicts(&of(std::iter::empty(), 3), 0.01)[0].passes);
    }

    #[test]
    fn errors_of_known_places_are_estimated() {
        // Normal scores of a posterior that is 0.2 of a standard deviation too high, and of one that is 30% too narrow.
        let score = |i: i32| infermark_diagnostics::normal_quantile((f64::from(i) + 0.5) / 2_000.0);
        let place = crate::normal_cdf::normal_cdf;
        let judged = |z: &dyn Fn(f64) -> f64| {
            let found = verdicts(&of((0..2_000).map(|i| place(z(score(i)))), 0), 0.01);
            found[0].quantities[0].clone()
        };
        let high = judged(&|z| z - 0.2);
        assert!((high.mean_error.error - 0.2).abs() < 1e-3, "{high:?}");
        assert!(high.mean_error.p_value < 1e-10 && high.sd_error.p_value > 1e-3 && !high.passes);
        // 1 / sqrt(n) of a mean, and about 1 / sqrt(2 n) of a standard deviation.
        assert!((high.mean_error.standard_error * 2_000f64.sqrt() - 1.0).abs() < 0.05);
        let narrow = judged(&|z| z / 0.7);
        assert!((narrow.sd_error.error + 0.3).abs() < 1e-3, "{narrow:?}");
        assert!(narrow.sd_error.p_value < 1e-10 && narrow.mean_error.p_value > 0.5 && !narrow.passes);
        assert!(
            (narrow.sd_error.standard_error * 4_000f64.sqrt() - 0.7).abs() < 0.05,
            "{narrow:?}"
        );
    }

    #[test]
    fn what_leaves_the_band_fails_by_the_uniformity_test_and_what_stays_inside_does_not() {
        let mut rng = StdRng::seed_from_u64(5);
        let (mut left, level) = (0, 0.1);
        for _ in 0..200 {
            // Places that crowd in the middle, a little.
            let places = crate::score::tests::dependent_places(&mut rng, 60, 0.0);
            let pits: Vec<f64> = places.into_iter().map(|u| 0.5 + 0.85 * (u - 0.5)).collect();
            let shares = crate::uniformity::ecdf(&pits);
            let found = &verdicts(&of(pits.into_iter(), 0), level)[0].quantities[0];
            let band = found.band();
            let mut inside = shares.iter().zip(&band.shares);
            let leaves = !inside.all(|(share, (low, high))| low <= share && share <= high);
            assert_eq!(leaves, TESTS as f64 * found.p_uniformity <= level, "{found:?}");
            assert!(!(leaves && found.passes));
            left += u32::from(leaves);
        }
        assert!((20..180).contains(&left), "{left}");
    }

    /// The level of the whole verdict, over many seeds: calibrated methods of six quantities.
    #[test]
    fn a_calibrated_method_fails_no_more_often_than_stated() {
        let mut rng = StdRng::seed_from_u64(8);
        let (replications, level, repeats) = (40, 0.1, 300);
        let mut failed = 0;
        for _ in 0..repeats {
            let mut all = of(std::iter::empty(), 0);
            all.done = replications;
            for quantity in Quantity::all(Likelihood::Poisson) {
                for replication in 0..replications {
                    let latents = if quantity == Quantity::LogJoint { 1 } else { 4 };
                    let places = crate::score::tests::dependent_places(&mut rng, latents, 0.5);
                    let mut one = of(std::iter::once(places[0]), 0).placed.remove(0);
                    one.replication = replication;
                    one.quantity = quantity;
                    one.scores = Scores::of(places.into_iter());
                    all.placed.push(one);
                }
            }
            failed += u32::from(!verdicts(&all, level)[0].passes);
        }
        let share = f64::from(failed) / f64::from(repeats);
        let error = (level * (1.0 - level) / f64::from(repeats)).sqrt();
        println!("failed at a level of {level}: {share}");
        assert!(share < level + 3.0 * error, "{share}");
        assert!(share > 0.2 * level, "{share}");
    }
}
