//! The position of a truth in its posterior.

use crate::normal_cdf::normal_cdf;
use infermark_backend::NORMAL_Q95;
use infermark_diagnostics::Workspace;

/// Largest number of draws among which a truth is ranked.
pub const RANK_DRAWS: usize = 99;

/// A truth's rank among draws of the posterior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rank {
    /// Draws below the truth, 0 to `draws`.
    pub below: usize,
    /// Draws that it was ranked among, thinned so that they are about independent.
    pub draws: usize,
    /// Effective sample size of all draws, the smaller of bulk and tail.
    pub effective_draws: f64,
    /// Rank-normalised split R-hat, the larger of bulk and tail; of a single chain, with its halves as chains.
    pub rhat: f64,
}

/// A truth in its posterior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankStatistic {
    /// The true value.
    pub truth: f64,
    /// Posterior mean.
    pub mean: f64,
    /// Posterior standard deviation.
    pub sd: f64,
    /// The probability integral transform, in `[0, 1]`: the posterior's distribution function at the truth. From draws, the
    /// rank with a random place in its cell, which is uniform however many draws there are.
    pub pit: f64,
    /// The rank; none if the posterior is known only by its moments.
    pub rank: Option<Rank>,
}

impl RankStatistic {
    /// Whether the central interval of probability `nominal` holds the truth.
    pub fn is_inside(&self, nominal: f64) -> bool {
        (self.pit - 0.5).abs() <= 0.5 * nominal
    }

    /// Among draws: `chains[c][d]` is draw `d` of chain `c`. Kept are at most [`RANK_DRAWS`], evenly spaced and no more than the
    /// effective sample size, since ranks among draws that depend on each other are not uniform. `within_cell` in `[0, 1)`
    /// places the truth within the cell of its rank. `None` when a half chain has fewer than four draws, a draw is not
    /// finite, or all are equal.
    pub(crate) fn among(
        truth: f64,
        chains: &[&[f64]],
        within_cell: f64,
        workspace: &mut Workspace,
    ) -> Option<Self> {
        let diagnosis = workspace.diagnose(chains);
        let rhat = match chains {
            [chain] => {
                let half = chain.len() / 2;
                workspace
                    .diagnose(&[&chain[..half], &chain[chain.len() - half..]])
                    .rhat
            }
            _ => diagnosis.rhat,
        };
        let effective_draws = diagnosis.ess_bulk.min(diagnosis.ess_tail);
        if !(effective_draws.is_finite() && diagnosis.mean.is_finite() && rhat.is_finite()) {
            return None;
        }
        let length = chains[0].len();
        let all = chains.len() * length;
        let draws = (effective_draws as usize).clamp(1, RANK_DRAWS.min(all));
        let kept = (0..draws).map(|k| (2 * k + 1) * all / (2 * draws));
        let below = kept
            .filter(|place| chains[place / length][place % length] < truth)
            .count();
        Some(RankStatistic {
            truth,
            mean: diagnosis.mean,
            sd: diagnosis.sd,
            pit: (below as f64 + within_cell) / (draws + 1) as f64,
            rank: Some(Rank {
                below,
                draws,
                effective_draws,
                rhat,
            }),
        })
    }

    /// In a marginal of which mean, standard deviation and the 5% and 95% quantiles are known: normal, or skewed a little.
    ///
    /// A quantile is taken as `mean + sd (z + g (z^2 - 1))` of the normal's `z` (Cornish and Fisher's expansion, `g` a sixth of
    /// the skewness), `g` such that the middle of the two quantiles is met. Of a normal, `g` is zero and `z` exact.
    pub(crate) fn in_marginal(truth: f64, mean: f64, sd: f64, [q05, q95]: [f64; 2]) -> Self {
        let g = (0.5 * (q05 + q95) - mean) / (sd * (NORMAL_Q95 * NORMAL_Q95 - 1.0));
        let x = (truth - mean) / sd;
        // g z^2 + z - (g + x) = 0, in the form that has no cancellation; beyond the parabola's vertex there is no mass.
        let root = (1.0 + 4.0 * g * (g + x)).max(0.0).sqrt();
        RankStatistic {
            truth,
            mean,
            sd,
            pit: normal_cdf(2.0 * (g + x) / (1.0 + root)),
            rank: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn a_rank_counts_the_draws_below() {
        let mut rng = StdRng::seed_from_u64(1);
        let chain: Vec<f64> = (0..1000).map(|_| rng.random()).collect();
        let mut workspace = Workspace::new();
        let mut at = |truth: f64| RankStatistic::among(truth, &[&chain], 0.25, &mut workspace).unwrap();
        let low = at(-1.0);
        assert_eq!(low.rank.unwrap().below, 0);
        assert_eq!(low.pit, 0.25 / 100.0);
        let high = at(1e9).rank.unwrap();
        assert_eq!((high.below, high.draws), (RANK_DRAWS, RANK_DRAWS));
        // Four standard errors of a share of 99 draws, and of the mean of 1,000.
        let middle = at(0.5);
        assert!((middle.pit - 0.5).abs() < 0.2 && middle.is_inside(0.5));
        assert!((middle.mean - 0.5).abs() < 0.04);
        assert!(!low.is_inside(0.95) && low.is_inside(0.996));
        assert!(low.rank.unwrap().rhat < 1.01);
    }

    #[test]
    fn draws_that_depend_on_each_other_are_thinned() {
        // A slow wave: 1,000 draws that are worth few.
        let chain: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 0.02).sin()).collect();
        let placed = RankStatistic::among(2.0, &[&chain], 0.0, &mut Workspace::new()).unwrap();
        let rank = placed.rank.unwrap();
        assert!(rank.draws < 50 && rank.draws as f64 <= rank.effective_draws.max(1.0));
        assert_eq!(placed.pit, rank.draws as f64 / (rank.draws + 1) as f64);
    }

    #[test]
    fn a_chain_that_drifts_has_a_large_rhat() {
        let mut rng = StdRng::seed_from_u64(3);
        let chain: Vec<f64> = (0..1000)
            .map(|i| rng.random::<f64>() + f64::from(i) * 1e-3)
            .collect();
        let placed = RankStatistic::among(0.0, &[&chain], 0.0, &mut Workspace::new()).unwrap();
        assert!(placed.rank.unwrap().rhat > 1.2, "{placed:?}");
    }

    #[test]
    fn draws_that_say_nothing_place_nothing() {
        let place = |chain: &[f64]| RankStatistic::among(0.0, &[chain], 0.5, &mut Workspace::new());
        assert!(place(&[1.0, 2.0]).is_none());
        assert!(place(&[1.0; 100]).is_none());
        assert!(place(&[f64::NAN; 100]).is_none());
    }

    #[test]
    fn a_normal_marginal_is_its_distribution_function() {
        for (truth, pit) in [(3.0, 0.5), (3.0 + 2.0 * NORMAL_Q95, 0.95), (-100.0, 0.0)] {
            let quantiles = [3.0 - 2.0 * NORMAL_Q95, 3.0 + 2.0 * NORMAL_Q95];
            let placed = RankStatistic::in_marginal(truth, 3.0, 2.0, quantiles);
            assert!((placed.pit - pit).abs() < 1e-12, "{placed:?}");
        }
    }

    #[test]
    fn a_skewed_marginal_meets_its_quantiles() {
        // A gamma distribution of shape 25 in standard units, skewness 0.4: its quantiles by its sum of Poisson probabilities.
        let (q05, q95) = (-1.523_57, 1.750_48);
        let at = |x: f64| RankStatistic::in_marginal(x, 0.0, 1.0, [q05, q95]).pit;
        // Without the correction the quantiles would be at 6.4% and 96.0%, and the median (-0.0665) at 47.3%.
        assert!((at(q05) - 0.05).abs() < 0.002, "{}", at(q05));
        assert!((at(q95) - 0.95).abs() < 0.002, "{}", at(q95));
        assert!((at(-0.0665) - 0.5).abs() < 0.002, "{}", at(-0.0665));
    }
}
