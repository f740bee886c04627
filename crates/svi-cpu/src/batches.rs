//! Mini-batches: the chunks that an iteration passes over.
//!
//! An epoch passes over every chunk once, in an order of its own, and a batch is the next few of them. So every chunk is in as many
//! batches as any other, and sums over a batch times `chunks / batch` are right in the mean.

use infermark_model::noise::philox4x32_10;
use std::ops::Range;

/// The last word of the counters of an order; those of the latents' noise end in the number of a group of particles.
const ORDER: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Batches {
    key: [u32; 2],
    /// Batches of an epoch.
    per_epoch: usize,
    /// The epoch that `order` is of.
    epoch: Option<u32>,
    /// The chunks, in the order of the epoch.
    order: Vec<u32>,
    /// Those of the batch now, ascending.
    batch: Vec<u32>,
}

impl Batches {
    /// Batches of about `wanted` of `chunks` chunks, at least one.
    pub(crate) fn new(chunks: usize, wanted: usize, seed: u64) -> Self {
        Batches {
            key: [seed as u32, (seed >> 32) as u32],
            per_epoch: chunks.div_ceil(wanted.max(1)).max(1),
            epoch: None,
            order: (0..chunks as u32).collect(),
            batch: Vec::new(),
        }
    }

    /// Most chunks of a batch.
    pub(crate) fn most(&self) -> usize {
        self.order.len().div_ceil(self.per_epoch)
    }

    /// Goes to the batch of an iteration.
    pub(crate) fn go_to(&mut self, iteration: u32) {
        let (epoch, at) = (
            iteration / self.per_epoch as u32,
            iteration as usize % self.per_epoch,
        );
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.shuffle(epoch);
        }
        let chunks = self.order.len();
        let range = chunks * at / self.per_epoch..chunks * (at + 1) / self.per_epoch;
        self.batch.clear();
        self.batch.extend_from_slice(&self.order[range]);
        self.batch.sort_unstable();
    }

    /// How often each chunk is in a batch of the first `iterations`.
    pub(crate) fn steps(&mut self, iterations: u32) -> Vec<u64> {
        let per_epoch = self.per_epoch as u32;
        let whole = iterations / per_epoch;
        let mut steps = vec![u64::from(whole); self.order.len()];
        for iteration in whole * per_epoch..iterations {
            self.go_to(iteration);
            for chunk in &self.batch {
                steps[*chunk as usize] += 1;
            }
        }
        steps
    }

    /// Fisher and Yates' shuffle; the order depends on seed and epoch alone.
    fn shuffle(&mut self, epoch: u32) {
        for (i, chunk) in self.order.iter_mut().enumerate() {
            *chunk = i as u32;
        }
        for i in (1..self.order.len()).rev() {
            let [low, high, ..] = philox4x32_10([i as u32, 0, epoch, ORDER], self.key);
            let word = u64::from(high) << 32 | u64::from(low);
            // Biased by 2^-32 at most.
            let j = (u128::from(word) * (i as u128 + 1)) >> 64;
            self.order.swap(i, j as usize);
        }
    }

    /// The chunks of the batch, ascending.
    pub(crate) fn chunks(&self) -> &[u32] {
        &self.batch
    }

    /// Those in a range.
    pub(crate) fn chunks_in(&self, range: &Range<usize>) -> &[u32] {
        let at = |end: usize| self.batch.partition_point(|chunk| (*chunk as usize) < end);
        &self.batch[at(range.start)..at(range.end)]
    }

    /// What sums over the batch are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        self.order.len() as f64 / self.batch.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_chunk_once_in_an_order_of_its_own() {
        for (chunks, wanted) in [(1, 1), (7, 7), (7, 2), (100, 9), (64, 100)] {
            let mut batches = Batches::new(chunks, wanted, 3);
            let per_epoch = chunks.div_ceil(wanted);
            let mut orders = Vec::new();
            for epoch in 0..3 {
                let mut seen = Vec::new();
                for at in 0..per_epoch {
                    batches.go_to((epoch * per_epoch + at) as u32);
                    assert!((1..=batches.most()).contains(&batches.chunks().len()));
                    assert!(batches.most() <= wanted.min(chunks));
                    assert!(batches.chunks().is_sorted());
                    seen.extend_from_slice(batches.chunks());
                }
                orders.push(seen.clone());
                seen.sort_unstable();
                assert_eq!(seen, (0..chunks as u32).collect::<Vec<_>>());
            }
            assert!(per_epoch < 5 || orders[0] != orders[1]);
        }
    }

    #[test]
    fn steps_are_counted_as_they_are_made() {
        let (mut by_batch, mut counted) = (Batches::new(23, 4, 9), vec![0; 23]);
        for iteration in 0..40 {
            assert_eq!(Batches::new(23, 4, 9).steps(iteration), counted);
            by_batch.go_to(iteration);
            by_batch
                .chunks()
                .iter()
                .for_each(|chunk| counted[*chunk as usize] += 1);
        }
    }

    #[test]
    fn a_batch_depends_on_its_iteration_alone() {
        let (mut straight, mut jumping) = (Batches::new(50, 7, 9), Batches::new(50, 7, 9));
        for iteration in 0..40 {
            straight.go_to(iteration);
        }
        jumping.go_to(39);
        assert_eq!(straight.chunks(), jumping.chunks());
        let all: Vec<u32> = [0..10, 10..30, 30..50]
            .iter()
            .flat_map(|r| straight.chunks_in(r).to_vec())
            .collect();
        assert_eq!(all, straight.chunks());
        let mut other = Batches::new(50, 7, 10);
        other.go_to(39);
        assert_ne!(other.chunks(), straight.chunks());
    }

    /// In the mean over an epoch, scaled sums are the sums over all.
    #[test]
    fn sums_are_right_in_the_mean() {
        let value = |chunk: &u32| f64::from(*chunk).powi(2);
        let mut batches = Batches::new(64, 8, 1);
        let mut total = 0.0;
        for iteration in 0..8 {
            batches.go_to(iteration);
            total += batches.scale() * batches.chunks().iter().map(value).sum::<f64>() / 8.0;
        }
        let all: f64 = (0..64).map(|chunk| value(&chunk)).sum();
        assert!((total / all - 1.0).abs() < 1e-12);
    }
}
