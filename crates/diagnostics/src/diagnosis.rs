//! Diagnostics of one quantity from all draws of all chains.

use crate::autocovariance::MeanAutocovariance;
use crate::ess::effective_sample_size;
use crate::quantile::quantile;
use crate::ranks::{NormalScores, Sorter, fold_about_median};
use crate::rhat::{mean_and_variance, rhat};

/// Diagnostics of one quantity.
///
/// `rhat`, `ess_bulk`, `ess_tail` and `mcse_mean` are `NaN` when a draw is `NaN` or a chain has fewer than four
/// draws; `rhat` also when there is one chain only, or when all draws are equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diagnosis {
    /// Mean over all draws.
    pub mean: f64,
    /// Standard deviation over all draws, divisor `n - 1`.
    pub sd: f64,
    /// Rank-normalised split R-hat: the larger of the one of the values and the one of their distances from the
    /// median.
    pub rhat: f64,
    /// Effective sample size of the rank-normalised values.
    pub ess_bulk: f64,
    /// The smaller of the effective sample sizes of the 5% and the 95% quantile.
    pub ess_tail: f64,
    /// Monte Carlo standard error of the mean: `sd` over the root of the mean's effective sample size.
    pub mcse_mean: f64,
}

/// Diagnoses one quantity; `chains[c][d]` is draw `d` of chain `c`. To diagnose many, keep a [`Workspace`].
///
/// # Panics
/// When there is no chain, or chains have different lengths.
pub fn diagnose(chains: &[&[f64]]) -> Diagnosis {
    Workspace::new().diagnose(chains)
}

/// Buffers that are reused from one quantity to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    pooled: Vec<f64>,
    sorted: Vec<f64>,
    sorter: Sorter,
    /// Where each draw of the pooled chains lies among the half chains, of the shape `(chains, draws)`.
    places: Vec<Option<u32>>,
    shape: (usize, usize),
    ascending: Vec<(f64, u32)>,
    folded: Vec<(f64, u32)>,
    rows: Vec<f64>,
    scores: NormalScores,
    autocovariance: MeanAutocovariance,
    rho: Vec<f64>,
}

impl Workspace {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The draws of the last quantity, pooled over chains and ascending; empty when one of them was `NaN`. For
    /// [`quantile`].
    pub fn sorted(&self) -> &[f64] {
        &self.sorted
    }

    /// Diagnoses one quantity; `chains[c][d]` is draw `d` of chain `c`.
    ///
    /// # Panics
    /// When there is no chain, or chains have different lengths, or more than 2^32 draws.
    pub fn diagnose(&mut self, chains: &[&[f64]]) -> Diagnosis {
        let draws = chains.first().expect("at least one chain").len();
        assert!(
            chains.iter().all(|c| c.len() == draws),
            "chains of different lengths"
        );
        assert!(u32::try_from(chains.len() * draws).is_ok(), "too many draws");
        self.pooled.clear();
        for chain in chains {
            self.pooled.extend_from_slice(chain);
        }
        let (mean, variance) = mean_and_variance(&self.pooled);
        let mut diagnosis = Diagnosis {
            mean,
            sd: variance.sqrt(),
            rhat: f64::NAN,
            ess_bulk: f64::NAN,
            ess_tail: f64::NAN,
            mcse_mean: f64::NAN,
        };
        self.sorted.clear();
        if self.pooled.iter().any(|x| x.is_nan()) {
            return diagnosis;
        }
        let order = self.sorter.sort(&self.pooled);
        self.sorted.extend(order.iter().map(|i| self.pooled[*i as usize]));
        if draws < 4 {
            return diagnosis;
        }

        // Half chains as rows; the middle draw of an odd number belongs to neither half.
        let half = draws / 2;
        if self.shape != (chains.len(), draws) {
            self.shape = (chains.len(), draws);
            self.places.clear();
            self.places.extend(
                (0..self.pooled.len()).map(|i| split_place(i, draws, half).map(|place| place as u32)),
            );
        }
        let places = &self.places;
        self.ascending.clear();
        self.ascending.extend(
            order
                .iter()
                .zip(&self.sorted)
                .filter_map(|(i, value)| Some((*value, places[*i as usize]?))),
        );
        self.scores.prepare(self.ascending.len());
        self.rows.clear();
        self.rows.resize(self.ascending.len(), 0.0);

        self.scores.write(&self.ascending, &mut self.rows);
        let bulk = rhat(&self.rows, half);
        diagnosis.ess_bulk = self.ess(half);
        if chains.len() > 1 {
            fold_about_median(&self.ascending, &mut self.folded);
            self.scores.write(&self.folded, &mut self.rows);
            let tail = rhat(&self.rows, half);
            diagnosis.rhat = if tail > bulk { tail } else { bulk };
        }

        let low = self.quantile_ess(0.05, half);
        let high = self.quantile_ess(0.95, half);
        diagnosis.ess_tail = if high < low { high } else { low };

        // Half chains lie in the chains as they are.
        self.rows.clear();
        for chain in chains {
            self.rows.extend_from_slice(&chain[..half]);
            self.rows.extend_from_slice(&chain[draws - half..]);
        }
        diagnosis.mcse_mean = diagnosis.sd / self.ess(half).sqrt();
        diagnosis
    }

    /// Effective sample size of the indicator of being at most the `p` quantile.
    fn quantile_ess(&mut self, p: f64, half: usize) -> f64 {
        let limit = quantile(&self.sorted, p);
        let below = self.ascending.partition_point(|(value, _)| *value <= limit);
        // The side with fewer draws is marked on the other's ground: marks go to scattered places.
        let (few, mark) = if 2 * below < self.ascending.len() {
            (&self.ascending[..below], 1.0)
        } else {
            (&self.ascending[below..], 0.0)
        };
        self.rows.fill(1.0 - mark);
        for (_, place) in few {
            self.rows[*place as usize] = mark;
        }
        self.ess(half)
    }

    fn ess(&mut self, half: usize) -> f64 {
        effective_sample_size(&self.rows, half, &mut self.autocovariance, &mut self.rho)
    }
}

/// Where draw `i` of the pooled chains lies among the half chains.
fn split_place(i: usize, draws: usize, half: usize) -> Option<usize> {
    let (chain, draw) = (i / draws, i % draws);
    if draw < half {
        Some(2 * chain * half + draw)
    } else if draw >= draws - half {
        Some((2 * chain + 1) * half + draw - (draws - half))
    } else {
        None
    }
}
