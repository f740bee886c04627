//! Moments and errors of many quantities whose draws are not kept, in memory that does not grow with the draws.
//!
//! Draws are gathered in batches of consecutive draws, and of every batch only mean and sum of squares stay. When all
//! [`BATCHES`] batches are full, neighbours are merged and batches become twice as long. From them come:
//!
//! - mean and standard deviation, to the precision of single-precision deviations from the chain's first draw;
//! - split R-hat from the halves' means and variances: the classic one, without rank normalisation, so that it does
//!   not see what ranks see in heavy tails;
//! - the Monte Carlo error by batch means over all chains. With 16 to 32 batches a chain and four chains its relative
//!   error is about 10%. Correlations that outlast a batch (1/32 to 1/16 of the chain) make it too optimistic.
//!
//! Quantiles cannot be computed from this; use those of the normal, and say so.
//!
//! Source: Flegal and Jones, "Batch means and spectral variance estimators in Markov chain Monte Carlo", Annals of
//! Statistics 38, 2010; Chan, Golub and LeVeque, 1979, for merging moments.

use crate::rhat::rhat_of_moments;
use serde::{Deserialize, Serialize};

/// Largest number of batches of a chain.
pub const BATCHES: usize = 32;

/// Shortest batch whose mean is taken for nearly independent of its neighbours'.
const SHORTEST_BATCH: u64 = 4;

/// One batch: count, and per quantity the mean (as deviation from the reference) and the sum of squares about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Batch {
    count: u64,
    mean: Vec<f32>,
    squares: Vec<f32>,
}

impl Batch {
    fn empty(quantities: usize) -> Self {
        Batch {
            count: 0,
            mean: vec![0.0; quantities],
            squares: vec![0.0; quantities],
        }
    }

    fn absorb(&mut self, other: &Batch) {
        let (n, m) = (self.count as f32, other.count as f32);
        let total = n + m;
        for (((mean, squares), other_mean), other_squares) in self
            .mean
            .iter_mut()
            .zip(&mut self.squares)
            .zip(&other.mean)
            .zip(&other.squares)
        {
            let step = other_mean - *mean;
            *mean += step * (m / total);
            *squares += other_squares + step * step * (n * m / total);
        }
        self.count += other.count;
    }
}

/// What is kept of one chain: `8 + 8 * BATCHES` bytes a quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamingChain {
    reference: Vec<f64>,
    batches: Vec<Batch>,
    batch_size: u64,
    draws: u64,
}

/// Count, mean and sum of squares about it.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn join(self, other: Moments) -> Moments {
        if self.count == 0.0 {
            return other;
        }
        let count = self.count + other.count;
        let step = other.mean - self.mean;
        Moments {
            count,
            mean: self.mean + step * other.count / count,
            squares: self.squares + other.squares + step * step * self.count * other.count / count,
        }
    }
}

impl StreamingChain {
    /// A chain of `quantities` quantities, without draws yet.
    pub fn new(quantities: usize) -> Self {
        StreamingChain {
            reference: vec![0.0; quantities],
            batches: Vec::new(),
            batch_size: 1,
            draws: 0,
        }
    }

    /// Bytes that a chain of `quantities` quantities takes when all batches are in use.
    pub const fn bytes(quantities: usize) -> u64 {
        quantities as u64 * (8 + 8 * BATCHES as u64)
    }

    /// Number of quantities.
    pub fn quantities(&self) -> usize {
        self.reference.len()
    }

    /// Number of draws taken in.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// Takes in a draw of all quantities.
    ///
    /// # Panics
    /// When the draw does not have as many entries as there are quantities.
    pub fn push(&mut self, draw: &[f64]) {
        assert_eq!(draw.len(), self.reference.len(), "quantities of a draw");
        if self.draws == 0 {
            self.reference.copy_from_slice(draw);
        }
        if self.batches.last().is_none_or(|b| b.count == self.batch_size) {
            self.open_batch();
        }
        self.draws += 1;
        let batch = self.batches.last_mut().expect("opened above");
        batch.count += 1;
        let share = 1.0 / batch.count as f32;
        for (((mean, squares), x), reference) in batch
            .mean
            .iter_mut()
            .zip(&mut batch.squares)
            .zip(draw)
            .zip(&self.reference)
        {
            let deviation = (x - reference) as f32;
            let step = deviation - *mean;
            *mean += step * share;
            *squares += step * (deviation - *mean);
        }
    }

    fn open_batch(&mut self) {
        if self.batches.len() == BATCHES {
            let mut merged: Vec<Batch> = Vec::with_capacity(BATCHES);
            let mut batches = std::mem::take(&mut self.batches).into_iter();
            while let (Some(mut first), Some(second)) = (batches.next(), batches.next()) {
                first.absorb(&second);
                merged.push(first);
            }
            self.batches = merged;
            self.batch_size *= 2;
        }
        self.batches.push(Batch::empty(self.reference.len()));
    }

    /// Moments of one quantity in every batch, the mean no longer a deviation.
    fn moments(&self, quantity: usize) -> impl Iterator<Item = Moments> + '_ {
        self.batches.iter().map(move |b| Moments {
            count: b.count as f64,
            mean: self.reference[quantity] + f64::from(b.mean[quantity]),
            squares: f64::from(b.squares[quantity]),
        })
    }

    /// Moments of the two halves of the chain, as near to equal as whole batches allow.
    fn halves(&self, quantity: usize) -> [Moments; 2] {
        let (mut first, mut second) = (Moments::default(), Moments::default());
        let half = self.draws as f64 / 2.0;
        for batch in self.moments(quantity) {
            if first.count + batch.count / 2.0 <= half {
                first = first.join(batch);
            } else {
                second = second.join(batch);
            }
        }
        [first, second]
    }
}

/// Diagnostics of one quantity from streaming chains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamingSummary {
    /// Mean over all draws.
    pub mean: f64,
    /// Standard deviation over all draws, divisor `n - 1`.
    pub sd: f64,
    /// Split R-hat without rank normalisation; `NaN` with one chain or fewer than four draws per chain.
    pub rhat: f64,
    /// Effective sample size of the mean, by batch means; `NaN` until batches hold four draws, which takes 65 draws a
    /// chain.
    pub ess: f64,
    /// Monte Carlo standard error of the mean; `NaN` where `ess` is.
    pub mcse_mean: f64,
}

impl StreamingSummary {
    /// Summarizes one quantity of all chains; chains without draws are left out. All `NaN` when there is no draw.
    pub fn of(chains: &[&StreamingChain], quantity: usize) -> Self {
        let chains: Vec<&StreamingChain> = chains.iter().copied().filter(|c| c.draws > 0).collect();
        let total = chains
            .iter()
            .flat_map(|c| c.moments(quantity))
            .fold(Moments::default(), Moments::join);
        if total.count == 0.0 {
            return StreamingSummary {
                mean: f64::NAN,
                sd: f64::NAN,
                rhat: f64::NAN,
                ess: f64::NAN,
                mcse_mean: f64::NAN,
            };
        }
        let variance = total.squares / (total.count - 1.0);
        let ess = effective_draws(&chains, quantity, total.mean, variance, total.count);
        StreamingSummary {
            mean: total.mean,
            sd: variance.sqrt(),
            rhat: split_rhat(&chains, quantity),
            ess,
            mcse_mean: (variance / ess).sqrt(),
        }
    }
}

fn split_rhat(chains: &[&StreamingChain], quantity: usize) -> f64 {
    if chains.len() < 2 || chains.iter().any(|c| c.draws < 4) {
        return f64::NAN;
    }
    let halves: Vec<Moments> = chains.iter().flat_map(|c| c.halves(quantity)).collect();
    let count = halves.len() as f64;
    let within = halves.iter().map(|h| h.squares / (h.count - 1.0)).sum::<f64>() / count;
    let length = halves.iter().map(|h| h.count).sum::<f64>() / count;
    let means: Vec<f64> = halves.iter().map(|h| h.mean).collect();
    rhat_of_moments(&means, within, length)
}

/// `N * variance / (b * variance of the means of batches of b draws)`, over the full batches of all chains.
fn effective_draws(chains: &[&StreamingChain], quantity: usize, mean: f64, variance: f64, draws: f64) -> f64 {
    if chains.iter().any(|c| c.batch_size < SHORTEST_BATCH) {
        return f64::NAN;
    }
    let (mut batches, mut long_run) = (0.0, 0.0);
    for chain in chains {
        let size = chain.batch_size as f64;
        for batch in chain.moments(quantity).filter(|b| b.count == size) {
            batches += 1.0;
            long_run += size * (batch.mean - mean).powi(2);
        }
    }
    if variance == 0.0 {
        return draws;
    }
    // The floor of the autocorrelation time is the one of the exact diagnostics.
    let time = (long_run / (batches - 1.0) / variance).max(1.0 / draws.log10());
    draws / time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_merge_and_cover_every_draw() {
        let mut chain = StreamingChain::new(1);
        for n in 1..=1000u64 {
            chain.push(&[n as f64]);
            assert_eq!(chain.batches.iter().map(|b| b.count).sum::<u64>(), n);
            assert!(chain.batches.len() <= BATCHES);
            let (last, full) = chain.batches.split_last().unwrap();
            assert!(full.iter().all(|b| b.count == chain.batch_size));
            assert!(last.count <= chain.batch_size);
        }
        assert_eq!(chain.batch_size, 32);
        let summary = StreamingSummary::of(&[&chain], 0);
        // The moments of 1..=1000: (n + 1) / 2 and n (n + 1) / 12. Single-precision sums over 32 draws err by less
        // than 1e-5 of themselves.
        assert!((summary.mean - 500.5).abs() < 1e-3);
        assert!((summary.sd / (1000.0f64 * 1001.0 / 12.0).sqrt() - 1.0).abs() < 1e-5);
        let [first, second] = chain.halves(0);
        assert_eq!((first.count, second.count), (512.0, 488.0));
    }

    #[test]
    fn a_large_offset_costs_no_precision() {
        let mut near = StreamingChain::new(1);
        let mut far = StreamingChain::new(1);
        for n in 0..500 {
            let x = (n as f64 * 1.7).sin() / 1024.0;
            near.push(&[x]);
            far.push(&[x + 1e6]);
        }
        let (near, far) = (
            StreamingSummary::of(&[&near], 0),
            StreamingSummary::of(&[&far], 0),
        );
        // 1e6 + x is itself rounded at 1e-10, a ten-millionth of the standard deviation.
        assert!((far.sd / near.sd - 1.0).abs() < 1e-5);
        assert!((far.mean - 1e6 - near.mean).abs() < 1e-6 * near.sd + 1e-9);
    }
}
