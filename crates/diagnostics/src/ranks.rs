//! Sorting of draws, and their rank-normalised values.

use crate::normal_quantile::normal_quantile;

/// Fills `order` with the indices of `values` in ascending order of value; no value may be `NaN`.
///
/// The sort runs on 64-bit keys that hold the leading bits of the value and the index, which is twice as fast as
/// sorting pairs; values that agree in the leading bits are put in order afterwards.
pub(crate) fn sort_indices(values: &[f64], keys: &mut Vec<u64>, order: &mut Vec<u32>) {
    let index_bits = usize::BITS - values.len().leading_zeros();
    let index_mask = (1u64 << index_bits) - 1;
    keys.clear();
    keys.extend(
        values
            .iter()
            .enumerate()
            .map(|(i, v)| (ordered_bits(*v) & !index_mask) | i as u64),
    );
    keys.sort_unstable();
    order.clear();
    order.extend(keys.iter().map(|k| (k & index_mask) as u32));
    let value = |i: &u32| values[*i as usize];
    let mut start = 0;
    while start < order.len() {
        let lead = keys[start] & !index_mask;
        let mut end = start + 1;
        while end < order.len() && keys[end] & !index_mask == lead {
            end += 1;
        }
        if end - start > 1 {
            order[start..end].sort_unstable_by(|a, b| value(a).total_cmp(&value(b)));
        }
        start = end;
    }
}

/// Bits that sort as unsigned numbers the way that the values sort; -0 is taken as 0.
fn ordered_bits(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    bits ^ (((bits as i64) >> 63) as u64 | 1 << 63)
}

/// Normal scores by rank, `Phi^-1((rank - 3/8) / (n + 1/4))`, for whole and half ranks of `n` values.
#[derive(Debug, Default)]
pub(crate) struct NormalScores {
    count: usize,
    of_half_rank: Vec<f64>,
}

impl NormalScores {
    /// Makes the table for `count` values, if it is not the one at hand.
    pub(crate) fn prepare(&mut self, count: usize) {
        if self.count == count {
            return;
        }
        self.count = count;
        self.of_half_rank.clear();
        self.of_half_rank.extend((2..=2 * count).map(|half_ranks| {
            let rank = half_ranks as f64 / 2.0;
            normal_quantile((rank - 0.375) / (count as f64 + 0.25))
        }));
    }

    /// Writes the score of every value to `scores[place]`, given `(value, place)` in ascending order of value.
    /// Equal values share the mean of their ranks.
    pub(crate) fn write(&self, ascending: &[(f64, u32)], scores: &mut [f64]) {
        debug_assert_eq!(ascending.len(), self.count);
        let mut start = 0;
        while start < ascending.len() {
            let mut end = start + 1;
            while end < ascending.len() && ascending[end].0 == ascending[start].0 {
                end += 1;
            }
            // The ranks start + 1 ..= end have the mean (start + 1 + end) / 2.
            let score = self.of_half_rank[start + end - 1];
            for (_, place) in &ascending[start..end] {
                scores[*place as usize] = score;
            }
            start = end;
        }
    }
}

/// Turns ascending values of even count into ascending distances from their median, by merging the two halves.
pub(crate) fn fold_about_median(ascending: &[(f64, u32)], folded: &mut Vec<(f64, u32)>) {
    let middle = ascending.len() / 2;
    let median = (ascending[middle - 1].0 + ascending[middle].0) / 2.0;
    let distance = |(value, place): (f64, u32)| ((value - median).abs(), place);
    folded.clear();
    let mut low = ascending[..middle].iter().rev().copied().map(distance).peekable();
    let mut high = ascending[middle..].iter().copied().map(distance).peekable();
    loop {
        let next = match (low.peek(), high.peek()) {
            (Some(l), Some(h)) if l.0 <= h.0 => low.next(),
            (_, Some(_)) => high.next(),
            (_, None) => low.next(),
        };
        match next {
            Some(entry) => folded.push(entry),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ties_signs_and_infinities_are_sorted_exactly() {
        let values = [
            1.0,
            1.0 + f64::EPSILON,
            1.0 - f64::EPSILON,
            -3.0,
            f64::INFINITY,
            -0.0,
            0.0,
            f64::NEG_INFINITY,
            1e-300,
            -1e-300,
        ];
        let (mut keys, mut order) = (Vec::new(), Vec::new());
        sort_indices(&values, &mut keys, &mut order);
        let sorted: Vec<f64> = order.iter().map(|i| values[*i as usize]).collect();
        assert!(sorted.is_sorted(), "{sorted:?}");
        let mut seen = order.clone();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..10));
    }

    #[test]
    fn ties_share_their_mean_rank() {
        let mut scores = NormalScores::default();
        scores.prepare(4);
        let mut z = [0.0; 4];
        scores.write(&[(1.0, 2), (5.0, 0), (5.0, 3), (7.0, 1)], &mut z);
        assert_eq!(z[0], z[3]);
        // Ranks 1, 2.5, 2.5, 4 of 4: the middle is the median, the ends are symmetric.
        assert!(z[0].abs() < 1e-15);
        assert_eq!(z[2], -z[1]);
        assert!((z[1] - normal_quantile(3.625 / 4.25)).abs() < 1e-15);
    }

    #[test]
    fn folding_keeps_distances_ascending() {
        let ascending = [(-4.0, 0), (1.0, 1), (2.0, 2), (3.0, 3)];
        let mut folded = Vec::new();
        fold_about_median(&ascending, &mut folded);
        assert_eq!(folded, [(0.5, 1), (0.5, 2), (1.5, 3), (5.5, 0)]);
    }
}
