//! Sorting of draws, and their rank-normalised values.

use crate::normal_quantile::normal_quantile;
use crate::sums::range;

/// Bits of a place between the smallest and the largest value by which draws are sorted first: two passes.
const PLACE_BITS: u32 = 2 * DIGIT_BITS;
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Sorts indices by value; keeps its buffers.
#[derive(Debug, Default)]
pub(crate) struct Sorter {
    /// Place of a value above its index.
    keys: Vec<u64>,
    other: Vec<u64>,
    order: Vec<u32>,
}

impl Sorter {
    /// The indices of `values` in ascending order of value; no value may be `NaN`, and there are less than 2^32.
    ///
    /// A radix sort by the place on a line from the smallest to the largest value, in linear time and without branches;
    /// values that share a place are put in order afterwards.
    pub(crate) fn sort(&mut self, values: &[f64]) -> &[u32] {
        let (low, high) = range(values);
        let scale = f64::from((1u32 << PLACE_BITS) - 1) / (high - low);
        self.keys.clear();
        // Equal values, infinite ones and such as are infinitely far apart share one place.
        let scale = if scale.is_finite() && low.is_finite() {
            scale
        } else {
            0.0
        };
        self.keys.extend(values.iter().enumerate().map(|(i, v)| {
            // Rounding is monotone, so that no order is turned round; an infinite value times zero is NaN, taken as 0.
            let place = ((v - low) * scale) as u64;
            place << 32 | i as u64
        }));
        self.other.resize(values.len(), 0);
        for shift in [32, 32 + DIGIT_BITS] {
            let digit = |key: u64| (key >> shift) as usize & (DIGITS - 1);
            let mut starts = [0u32; DIGITS];
            for key in &self.keys {
                starts[digit(*key)] += 1;
            }
            let mut start = 0;
            for slot in &mut starts {
                start += std::mem::replace(slot, start);
            }
            for key in &self.keys {
                let slot = &mut starts[digit(*key)];
                self.other[*slot as usize] = *key;
                *slot += 1;
            }
            std::mem::swap(&mut self.keys, &mut self.other);
        }
        self.order.clear();
        self.order.extend(self.keys.iter().map(|key| *key as u32));
        let value = |i: &u32| values[*i as usize] + 0.0;
        let mut start = 0;
        while start < self.keys.len() {
            let place = self.keys[start] >> 32;
            let mut end = start + 1;
            while end < self.keys.len() && self.keys[end] >> 32 == place {
                end += 1;
            }
            if end - start > 1 {
                self.order[start..end].sort_unstable_by(|a, b| value(a).total_cmp(&value(b)));
            }
            start = end;
        }
        &self.order
    }
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
    let distance = |value: f64| (value - median).abs();
    folded.clear();
    let (mut low, mut high) = (middle, middle);
    // Which half the next entry is of is a coin's toss: chosen without a branch.
    while low > 0 && high < ascending.len() {
        let (below, above) = (ascending[low - 1], ascending[high]);
        let (near, far) = (distance(below.0), distance(above.0));
        let take_low = near <= far;
        folded.push((
            if take_low { near } else { far },
            if take_low { below.1 } else { above.1 },
        ));
        low -= usize::from(take_low);
        high += usize::from(!take_low);
    }
    let rest = |entry: &(f64, u32)| (distance(entry.0), entry.1);
    folded.extend(ascending[..low].iter().rev().map(rest));
    folded.extend(ascending[high..].iter().map(rest));
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
        let mut sorter = Sorter::default();
        let sorted: Vec<f64> = sorter.sort(&values).iter().map(|i| values[*i as usize]).collect();
        assert!(sorted.is_sorted(), "{sorted:?}");
        let mut seen = sorter.sort(&values).to_vec();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..10));
    }

    #[test]
    fn sorting_holds_on_lines_and_outliers() {
        let mut sorter = Sorter::default();
        let wave: Vec<f64> = (0..5000).map(|i| (i as f64 * 0.7).sin() * 1e-3 + 7.0).collect();
        let mut outlier = wave.clone();
        outlier[17] = 1e300;
        for values in [
            wave,
            outlier,
            vec![2.5; 9],
            vec![-f64::MAX, 0.0, f64::MAX, 1.0],
            vec![],
        ] {
            let sorted: Vec<f64> = sorter.sort(&values).iter().map(|i| values[*i as usize]).collect();
            let mut expected = values.clone();
            expected.sort_unstable_by(f64::total_cmp);
            assert_eq!(sorted, expected);
        }
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
