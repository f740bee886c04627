//! Drawing candidates in parallel until enough of them remain, with a result that no thread count changes.

use super::GenerateError;
use rayon::prelude::*;
use std::ops::Range;

/// How candidates are grouped into work; no result depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grouping {
    /// Candidates per block.
    pub(crate) block: usize,
    /// Blocks that are drawn, and thus held in memory, at a time, in addition to what the consumer keeps.
    pub(crate) wave: usize,
}

/// Draws until `products` candidates remain.
///
/// `draw(range, limit)` draws the candidates of a range, in order, until `limit` of them remain; `remaining` counts
/// those. `consume` takes finished blocks in order, while the next ones are drawn.
pub(crate) fn draw_accepted<B: Send>(
    products: usize,
    grouping: Grouping,
    draw: impl Fn(Range<u64>, usize) -> B + Sync,
    remaining: impl Fn(&B) -> usize,
    mut consume: impl FnMut(Vec<B>) -> Result<(), GenerateError> + Send,
) -> Result<(), GenerateError> {
    let size = grouping.block as u64;
    let (mut found, mut next) = (0usize, 0u64);
    let mut finished: Vec<B> = Vec::new();
    while found < products {
        if next > 1_000_000 + 1000 * products as u64 {
            return Err(GenerateError::TooFewRemain {
                candidates: next,
                found,
            });
        }
        // Slightly too few rather than too many: superfluous draws cost time.
        let share = if next == 0 {
            1.0
        } else {
            (found as f64 / next as f64).max(1e-3)
        };
        let needed = products - found;
        let blocks = (0.97 * needed as f64 / share / size as f64) as usize;
        let blocks = blocks.clamp(1, grouping.wave) as u64;
        let range = |block: u64| next + block * size..next + (block + 1) * size;
        let ready = std::mem::take(&mut finished);
        let (consumed, wave) = rayon::join(
            || consume(ready),
            || {
                (0..blocks)
                    .into_par_iter()
                    .map(|b| draw(range(b), needed))
                    .collect::<Vec<B>>()
            },
        );
        consumed?;
        for (b, mut block) in wave.into_iter().enumerate() {
            let room = products - found;
            if room == 0 {
                break;
            }
            if remaining(&block) > room {
                block = draw(range(b as u64), room);
            }
            found += remaining(&block);
            finished.push(block);
        }
        next += blocks * size;
    }
    consume(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_survivors_are_kept_whatever_the_grouping() {
        let survives = |candidate: &u64| candidate.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1;
        let expected: Vec<u64> = (0..).filter(survives).take(1000).collect();
        for (block, wave) in [(1, 1), (7, 3), (64, 100), (5000, 2)] {
            let mut kept = Vec::new();
            draw_accepted(
                1000,
                Grouping { block, wave },
                |range, limit| range.filter(survives).take(limit).collect::<Vec<u64>>(),
                Vec::len,
                |blocks| {
                    kept.extend(blocks.into_iter().flatten());
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(kept, expected, "block {block}, wave {wave}");
        }
    }

    #[test]
    fn a_process_that_drops_everything_ends() {
        let result = draw_accepted(
            1,
            Grouping {
                block: 10_000,
                wave: 8,
            },
            |_, _| Vec::<u64>::new(),
            Vec::len,
            |_| Ok(()),
        );
        assert!(matches!(
            result,
            Err(GenerateError::TooFewRemain { found: 0, .. })
        ));
    }
}
