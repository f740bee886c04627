//! Where things lie on the device: products by slot, blocks of them, and the runs of blocks that cubes take.

use crate::kernels::{Column, LANES, TILE, Third};
use infermark_arrowhead::Partition;
use infermark_backend::{BackendError, Remedy};

/// Cubes of a walk over the products: some for each multiprocessor of a large card.
const CUBES: usize = 2048;

/// Cubes of the Schur complements, one per run of blocks and tile.
const CUBES_OF_TILES: usize = 1024;

/// Cubes of the third derivatives, each with room for the couplings of half a block.
const CUBES_OF_THIRDS: usize = 512;

/// Cubes of a launch whose threads go on to what no other has taken.
const STRIDING_CUBES: usize = 1 << 14;

/// Cubes of a launch along one side, at most, on any device.
const MOST_CUBES: usize = 65_535;

/// Rows that are uploaded at a time: so few that their copies stay in the cache and in memory that was used before.
pub(crate) const ROWS_AT_A_TIME: usize = 1 << 18;

/// What a device allows.
#[derive(Debug, Clone)]
pub(crate) struct DeviceLimits {
    /// Its id.
    pub(crate) device: String,
    /// Its memory, if it is known.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that one buffer may have.
    pub(crate) largest_buffer: u64,
}

/// Runs of consecutive blocks, each of one category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs {
    /// First block and block after the last: two words per run.
    pub(crate) words: Vec<u32>,
    /// The first run of each category, and the number of all.
    pub(crate) of_category: Vec<u32>,
}

impl Runs {
    /// Cuts the blocks of every category into about `wanted` runs in all, at least one where there is a block. It depends on
    /// the panel alone, so that sums do too.
    fn cut(blocks_of_category: &[usize], wanted: usize) -> Self {
        let all: usize = blocks_of_category.iter().sum();
        let most = all.div_ceil(wanted.max(1)).max(1);
        let mut runs = Runs {
            words: Vec::new(),
            of_category: vec![0],
        };
        let mut first = 0;
        for own in blocks_of_category {
            let end = first + own;
            while first < end {
                let next = (first + most).min(end);
                runs.words.extend([first as u32, next as u32]);
                first = next;
            }
            runs.of_category.push(runs.len() as u32);
        }
        runs
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len() / 2
    }

    pub(crate) fn range_of(&self, category: usize) -> std::ops::Range<usize> {
        self.of_category[category] as usize..self.of_category[category + 1] as usize
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) categories: usize,
    pub(crate) periods: usize,
    /// The slot of every place of the walk.
    pub(crate) slot_of_place: Vec<u32>,
    /// Category and number of products of each block: two words.
    pub(crate) blocks: Vec<u32>,
    /// The runs that cubes walk over the products.
    pub(crate) walks: Runs,
    /// The runs that cubes make the Schur complements' parts of.
    pub(crate) schurs: Runs,
    /// The runs that cubes take the third derivatives of.
    pub(crate) thirds: Runs,
    /// Cubes, at most, of a launch whose threads go on to what no other has taken.
    pub(crate) striding: usize,
    /// Row and column of each tile of the lower triangle.
    pub(crate) tiles: Vec<u32>,
}

impl Plan {
    /// The plan of a walk, with about `cubes` cubes per launch over the products, or as many as suit a large
    /// card.
    pub(crate) fn new(walk: &Partition, cubes: Option<usize>) -> Self {
        let layout = walk.layout();
        let (mut slot_of_place, mut blocks, mut blocks_of_category) = (Vec::new(), Vec::new(), Vec::new());
        for category in 0..layout.categories {
            let size = walk.products_of(category);
            let start = blocks.len() / 2 * LANES;
            slot_of_place.extend((start..start + size).map(|slot| slot as u32));
            for first in (0..size).step_by(LANES) {
                blocks.extend([category as u32, (size - first).min(LANES) as u32]);
            }
            blocks_of_category.push(size.div_ceil(LANES));
        }
        let side = (layout.periods + 2).div_ceil(TILE) as u32;
        let tiles: Vec<u32> = (0..side)
            .flat_map(|r| (0..=r).flat_map(move |c| [r, c]))
            .collect();
        Plan {
            categories: layout.categories,
            periods: layout.periods,
            walks: Runs::cut(&blocks_of_category, cubes.unwrap_or(CUBES)),
            schurs: Runs::cut(
                &blocks_of_category,
                cubes.unwrap_or(CUBES_OF_TILES.div_ceil(tiles.len() / 2)),
            ),
            thirds: Runs::cut(&blocks_of_category, cubes.unwrap_or(CUBES_OF_THIRDS)),
            striding: cubes.unwrap_or(STRIDING_CUBES),
            slot_of_place,
            blocks,
            tiles,
        }
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len() / 2
    }

    pub(crate) fn slots(&self) -> usize {
        self.block_count() * LANES
    }

    /// Rows of the grid, with those that are absent.
    pub(crate) fn rows(&self) -> usize {
        self.slots() * self.periods
    }

    pub(crate) fn tile_count(&self) -> usize {
        self.tiles.len() / 2
    }

    /// Entries of a category's Schur complement in tiles.
    pub(crate) fn entries(&self) -> usize {
        self.tile_count() * TILE * TILE
    }

    /// Numbers of the products by slot, in `N` columns; `fill` where there is no product.
    pub(crate) fn by_slot<const N: usize>(
        &self,
        fill: f64,
        of_place: impl Iterator<Item = [f64; N]>,
    ) -> Vec<f64> {
        let slots = self.slots();
        let mut columns = vec![fill; N * slots];
        for (slot, own) in self.slot_of_place.iter().zip(of_place) {
            for (column, value) in own.into_iter().enumerate() {
                columns[column * slots + *slot as usize] = value;
            }
        }
        columns
    }

    /// The inverse of [`Plan::by_slot`].
    pub(crate) fn by_place<const N: usize>(&self, columns: &[f64]) -> impl Iterator<Item = [f64; N]> {
        let slots = self.slots();
        let slot_of_place = self.slot_of_place.iter();
        slot_of_place.map(move |slot| std::array::from_fn(|column| columns[column * slots + *slot as usize]))
    }

    /// Entries of the room that a cube of the third derivatives takes.
    pub(crate) fn room_of_thirds(&self) -> usize {
        (self.periods + 1).next_multiple_of(TILE) * TILE
    }

    /// Checks that the device has enough memory.
    ///
    /// # Errors
    /// [`BackendError::Memory`] with the numbers, before anything is uploaded; [`BackendError::Unsupported`] where a launch would have too many cubes.
    pub(crate) fn check(&self, limits: &DeviceLimits) -> Result<(), BackendError> {
        let refuse = |what: &str, needed: u64, available: u64| BackendError::Memory {
            what: what.to_owned(),
            device: limits.device.clone(),
            needed_bytes: needed,
            available_bytes: available,
            remedies: vec![Remedy::CPU, Remedy::LargerDevice],
        };
        for (what, count) in [
            ("categories", self.walks.len()),
            ("tiles of periods", self.tile_count()),
        ] {
            if count > MOST_CUBES {
                return Err(BackendError::Unsupported {
                    backend: crate::NAME,
                    what: format!("a panel of {count} {what}; the limit is {MOST_CUBES}").into(),
                });
            }
        }
        let buffers = self.buffers();
        let largest = 8 * buffers.iter().max().copied().unwrap_or(0);
        // Kernels count in 32 bits.
        let most = limits.largest_buffer.min(u64::from(u32::MAX) * 8);
        if largest > most {
            return Err(refuse("the largest buffer", largest, most));
        }
        let needed = 8 * buffers.iter().sum::<u64>();
        // A twentieth is left to the driver and the screen.
        match limits.memory_bytes.map(|memory| memory / 20 * 19) {
            Some(memory) if needed > memory => Err(refuse("the panel with its weights", needed, memory)),
            _ => Ok(()),
        }
    }

    /// Entries of 8 bytes of what is on the device at once, at most: log prices, weights, columns of the products, the Schur complements' parts
    /// and their sums or the third derivatives' room and the borders' covariances, and sums by period or rows on their way.
    fn buffers(&self) -> [u64; 9] {
        let (rows, slots) = (self.rows() as u64, self.slots() as u64);
        let entries = self.entries() as u64;
        [
            rows,
            rows,
            2 * slots,
            2 * slots,
            Column::COUNT as u64 * slots,
            Third::COUNT as u64 * slots,
            (self.schurs.len() as u64 * entries).max((self.thirds.len() * self.room_of_thirds()) as u64),
            // Tiles of a triangle; whole matrices of the borders, with a column more.
            self.categories as u64 * entries.max((self.periods as u64 + 1) * (self.periods as u64 + 2)),
            (self.walks.len() * self.periods).max(ROWS_AT_A_TIME) as u64,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn every_product_has_a_slot_in_a_block_of_its_category() {
        let panel = random_panel(&mut StdRng::seed_from_u64(3), 700, 3, 5, 0.1, 4);
        let walk = Partition::new(&panel, Likelihood::Poisson);
        let plan = Plan::new(&walk, None);
        let mut taken = vec![0u32; plan.block_count()];
        for (place, slot) in plan.slot_of_place.iter().enumerate() {
            let block = *slot as usize / LANES;
            let product = walk.order()[place] as usize;
            assert_eq!(plan.blocks[2 * block], panel.category_of()[product]);
            assert!(slot % (LANES as u32) < plan.blocks[2 * block + 1]);
            taken[block] += 1;
        }
        let counts: Vec<u32> = plan.blocks.chunks(2).map(|of| of[1]).collect();
        assert_eq!(taken, counts);
        for runs in [
            &plan.walks,
            &plan.schurs,
            &plan.thirds,
            &Runs::cut(&[3, 0, 9, 1], 4),
        ] {
            let mut next = 0;
            for run in runs.words.chunks(2) {
                assert_eq!(run[0], next);
                assert!(run[1] > run[0]);
                next = run[1];
            }
        }
        let runs = Runs::cut(&[3, 0, 9, 1], 4);
        assert_eq!(runs.of_category, [0, 1, 1, 4, 5]);
        assert_eq!(runs.range_of(2), 1..4);
        // There and back.
        let numbers: Vec<[f64; 2]> = (0..700).map(|i| [f64::from(i), -f64::from(i)]).collect();
        let columns = plan.by_slot(7.0, numbers.iter().copied());
        assert_eq!(plan.by_place::<2>(&columns).collect::<Vec<_>>(), numbers);
        assert_eq!(
            columns.iter().filter(|x| **x == 7.0).count(),
            2 * (plan.slots() - 700) + 1
        );
    }

    #[test]
    fn a_panel_too_large_for_the_device_is_refused() {
        let panel = random_panel(&mut StdRng::seed_from_u64(3), 70, 2, 9, 0.0, 4);
        let plan = Plan::new(&Partition::new(&panel, Likelihood::Poisson), None);
        let limits = |memory_bytes, largest_buffer| DeviceLimits {
            device: "cuda".into(),
            memory_bytes,
            largest_buffer,
        };
        assert!(plan.check(&limits(None, 1 << 40)).is_ok());
        assert!(plan.check(&limits(Some(1 << 40), 1 << 40)).is_ok());
        for (memory, largest) in [(Some(1 << 20), 1 << 40), (None, 1 << 10)] {
            let error = plan.check(&limits(memory, largest)).unwrap_err();
            assert!(matches!(error, BackendError::Memory { .. }), "{error}");
        }
    }
}
