//! What is said of every method: tests of uniformity, and coverage.

use crate::placement::Placement;
use crate::quantity::Quantity;
use crate::run::Calibration;
use crate::uniformity::EcdfTest;
use std::collections::HashMap;

/// Probabilities of the central intervals whose coverage is told.
pub const NOMINAL: [f64; 3] = [0.5, 0.9, 0.95];

/// Share of truths in the central intervals of a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coverage {
    /// The intervals' probability.
    pub nominal: f64,
    /// Share of truths inside.
    pub actual: f64,
    /// Binomial standard error of that share, of intervals that are what they say: `sqrt(nominal (1 - nominal) / n)`.
    pub standard_error: f64,
}

/// One quantity of a method.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantityVerdict {
    /// Which.
    pub quantity: Quantity,
    /// Replications that it was placed in.
    pub replications: usize,
    /// The smallest two-sided tail probability, see [`crate::uniformity`].
    pub statistic: f64,
    /// Probability of a statistic as small if the method is calibrated.
    pub p_value: f64,
    /// The same over all quantities of the method, after Holm.
    pub p_adjusted: f64,
    /// Whether `p_adjusted` is above the level.
    pub passes: bool,
    /// Coverage for each of [`NOMINAL`].
    pub coverage: [Coverage; 3],
    /// Mean rank-draws; none where the posterior is known by its moments.
    pub mean_rank_draws: Option<f64>,
}

/// A method.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodVerdict {
    /// Its name.
    pub method: String,
    /// One entry a quantity that was placed.
    pub quantities: Vec<QuantityVerdict>,
    /// Fits that gave no posterior.
    pub failed_fits: usize,
    /// Whether no quantity failed and every fit gave a posterior. A method that leaves out replications is not calibrated on
    /// what it leaves: what it could not fit is no random part of them.
    pub passes: bool,
}

/// Judges every method at `level`, the probability that a calibrated method fails: Holm's procedure over its quantities.
pub fn verdicts(calibration: &Calibration, level: f64) -> Vec<MethodVerdict> {
    let mut tests: HashMap<usize, EcdfTest> = HashMap::new();
    calibration
        .methods
        .iter()
        .enumerate()
        .map(|(method, name)| {
            let mut quantities = Vec::new();
            for quantity in Quantity::ALL {
                let placements: Vec<&Placement> = calibration.placements(method, quantity).collect();
                if placements.is_empty() {
                    continue;
                }
                let test = tests
                    .entry(placements.len())
                    .or_insert_with_key(|n| EcdfTest::new(*n));
                quantities.push(judge(quantity, &placements, test));
            }
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

fn judge(quantity: Quantity, placements: &[&Placement], test: &EcdfTest) -> QuantityVerdict {
    let pits: Vec<f64> = placements.iter().map(|p| p.pit).collect();
    let n = placements.len() as f64;
    let uniformity = test.test(&pits);
    let draws: Option<Vec<f64>> = placements
        .iter()
        .map(|p| p.rank.map(|r| r.draws as f64))
        .collect();
    QuantityVerdict {
        quantity,
        replications: placements.len(),
        statistic: uniformity.statistic,
        p_value: uniformity.p_value,
        p_adjusted: uniformity.p_value,
        passes: true,
        coverage: NOMINAL.map(|nominal| Coverage {
            nominal,
            actual: placements.iter().filter(|p| p.is_inside(nominal)).count() as f64 / n,
            standard_error: (nominal * (1.0 - nominal) / n).sqrt(),
        }),
        mean_rank_draws: draws.map(|d| d.iter().sum::<f64>() / n),
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
    use crate::run::{Failure, Placed};

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
        let placed: Vec<Placed> = pits
            .enumerate()
            .map(|(replication, pit)| Placed {
                replication,
                method: 0,
                quantity: Quantity::ALL[0],
                key: String::new(),
                placement: Placement {
                    truth: 0.0,
                    mean: 0.0,
                    sd: 1.0,
                    pit,
                    rank: None,
                },
            })
            .collect();
        Calibration {
            methods: vec!["m".into()],
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
}
