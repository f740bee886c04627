//! The part of the negative-binomial likelihood that depends only on a row's count and its category's shape,
//! over the distinct counts of a category.
//!
//! `rise(y, r) = ln Gamma(y + r) - ln Gamma(r) - y ln r` (see [`infermark_model::negative_binomial`]) is
//! evaluated once for each distinct count, not for each row, and its first terms once for all counts:
//! `ln(1 + j / r)` is in the rise of every count above `j`. The distinct counts of a category are distributed
//! over its chunks, whose threads evaluate them along with their rows.

use crate::chunk::Chunk;
use infermark_model::Panel;
use infermark_model::negative_binomial::{RiseBySeries, TERMS};
use std::collections::{BTreeMap, HashMap};

/// Some of the distinct counts of a category, with the number of rows of each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DistinctCounts {
    /// Entry `j`: rows with one of these counts whose count is above `j`.
    above: [f64; TERMS as usize],
    /// For counts above [`TERMS`], the excess and the number of rows.
    beyond: Vec<(f64, f64)>,
    /// Sum over rows of the excess of their counts over [`TERMS`].
    sum_beyond: f64,
}

impl DistinctCounts {
    /// Built from distinct counts and their numbers of rows.
    fn new(counts: &[(u32, usize)]) -> Self {
        let mut all = DistinctCounts::default();
        for (count, rows) in counts {
            let rows = *rows as f64;
            for above in &mut all.above[..TERMS.min(*count) as usize] {
                *above += rows;
            }
            if *count > TERMS {
                let beyond = f64::from(*count - TERMS);
                all.beyond.push((beyond, rows));
                all.sum_beyond += beyond * rows;
            }
        }
        all
    }

    /// The sum of the rows' `rise` at shape `r`, and its derivative with respect to `ln r`.
    pub fn rise(&self, r: f64) -> (f64, f64) {
        let terms = f64::from(TERMS);
        let mut value = self.sum_beyond * (terms / r).ln_1p();
        let mut slope = -self.sum_beyond * terms / (r + terms);
        for (j, rows) in self.above.iter().enumerate().skip(1) {
            let j = j as f64;
            value += rows * (j / r).ln_1p();
            slope -= rows * j / (r + j);
        }
        let series = RiseBySeries::new(r + terms);
        for (count, rows) in &self.beyond {
            let (of_value, of_slope) = series.at(*count);
            value += rows * of_value;
            slope += rows * r * of_slope;
        }
        (value, slope)
    }
}

/// The distinct counts of every category, distributed over its chunks: one entry per chunk, some of them
/// empty.
pub fn distinct_counts(panel: &Panel, chunks: &[Chunk]) -> Vec<DistinctCounts> {
    deal(chunks, &by_category(panel, chunks))
}

/// The same for `chunks` of all products, whose rows several ranks may hold. Every rank takes part.
pub fn distinct_counts_of_all(panel: &Panel, chunks: &[Chunk]) -> Vec<DistinctCounts> {
    let mut counts = by_category(panel, chunks);
    if let Some(ranks) = panel.ranks() {
        let own = counts.iter().enumerate().flat_map(|(at, of_category)| {
            let numbers = move |(units, times): &(u32, usize)| [at as f64, f64::from(*units), *times as f64];
            of_category.iter().map(numbers)
        });
        let own: Vec<[f64; 3]> = own.collect();
        let mut lengths = vec![0.0; ranks.size()];
        lengths[ranks.rank()] = own.len() as f64;
        panel.sum_over_ranks(&mut lengths);
        let before: f64 = lengths[..ranks.rank()].iter().sum();
        let mut all = vec![[0.0; 3]; lengths.iter().sum::<f64>() as usize];
        all[before as usize..][..own.len()].copy_from_slice(&own);
        panel.sum_over_ranks(all.as_flattened_mut());
        let mut merged = vec![BTreeMap::new(); counts.len()];
        for [at, units, times] in all {
            *merged[at as usize].entry(units as u32).or_default() += times as usize;
        }
        counts = merged.into_iter().map(|of| of.into_iter().collect()).collect();
    }
    deal(chunks, &counts)
}

/// The chunks of each category.
fn of_categories(chunks: &[Chunk]) -> impl Iterator<Item = &[Chunk]> {
    chunks.chunk_by(|a, b| a.category == b.category)
}

/// The distinct counts of each category's rows that are held here.
fn by_category(panel: &Panel, chunks: &[Chunk]) -> Vec<Vec<(u32, usize)>> {
    let counts = of_categories(chunks).map(|of_category| {
        let products = of_category.iter().flat_map(|chunk| &chunk.products);
        let held = products.filter(|product| panel.holds(**product as usize));
        counted(held.flat_map(|product| &panel.units()[panel.row_range(*product as usize)]))
    });
    counts.collect()
}

/// Distributes the counts of each category over its chunks.
fn deal(chunks: &[Chunk], counts: &[Vec<(u32, usize)>]) -> Vec<DistinctCounts> {
    let mut dealt = Vec::with_capacity(chunks.len());
    for (of_category, counts) in of_categories(chunks).zip(counts) {
        // A part of a panel may have no rows of a category.
        let share = counts.len().div_ceil(of_category.len()).max(1);
        let end = dealt.len() + of_category.len();
        dealt.extend(counts.chunks(share).map(DistinctCounts::new));
        dealt.resize(end, DistinctCounts::default());
    }
    dealt
}

/// Counts below this are counted in a table.
const TABLED: usize = 1 << 16;

/// The distinct values in ascending order, with the number of times that each occurs: the memory is that of the distinct ones.
fn counted<'u>(units: impl Iterator<Item = &'u u32>) -> Vec<(u32, usize)> {
    let mut tabled = vec![0; TABLED];
    let mut others: HashMap<u32, usize> = HashMap::new();
    for units in units {
        match tabled.get_mut(*units as usize) {
            Some(times) => *times += 1,
            None => *others.entry(*units).or_default() += 1,
        }
    }
    let tabled = tabled
        .into_iter()
        .enumerate()
        .map(|(units, times)| (units as u32, times));
    let mut counts: Vec<(u32, usize)> = tabled.filter(|(_, times)| *times > 0).collect();
    let small = counts.len();
    counts.extend(others);
    counts[small..].sort_unstable();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::chunks;
    use infermark_model::negative_binomial::{rise, rise_slope};
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn the_rise_over_distinct_counts_is_that_of_the_rows() {
        let mut rng = StdRng::seed_from_u64(2);
        for (n, c, t, gaps, largest) in [
            (1, 1, 1, 0.0, 9),
            (3, 1, 17, 0.0, 0),
            (300, 2, 30, 0.1, 17),
            (300, 2, 30, 0.1, 1_000),
            (70, 3, 9, 0.4, 2_000_000_000),
        ] {
            let panel = random_panel(&mut rng, n, c, t, gaps, largest);
            let chunks = chunks(&panel);
            let dealt = distinct_counts(&panel, &chunks);
            assert_eq!(dealt.len(), chunks.len());
            for r in [1e-6, 0.7, 20.0, 1e6] {
                for category in 0..c {
                    let (mut value, mut slope) = (0.0, 0.0);
                    for (chunk, counts) in chunks.iter().zip(&dealt) {
                        if chunk.category == category {
                            let of_chunk = counts.rise(r);
                            value += of_chunk.0;
                            slope += of_chunk.1;
                        }
                    }
                    let rows = (0..n)
                        .filter(|i| panel.category_of()[*i] as usize == category)
                        .flat_map(|i| panel.product_rows(i))
                        .map(|row| f64::from(row.units));
                    let (expected, expected_slope) =
                        rows.fold((0.0, 0.0), |(v, s), y| (v + rise(y, r), s + rise_slope(y, r)));
                    // The same terms, all of one sign, in another order.
                    assert!((value - expected).abs() <= 1e-12 * expected, "{value} {expected}");
                    assert!(
                        (slope - expected_slope).abs() <= -1e-12 * expected_slope,
                        "{slope}"
                    );
                }
            }
        }
    }
}
