//! Sums of a block, which is a category's period effects or the top: over its latents, then over the threads.

use super::super::axes::Axes;
use super::super::two_float::{Barrier, Two, Twos, add, add_f32, set_two, two_at, zeros};
use cubecl::prelude::*;

/// Threads of a cube.
pub(in crate::fused) const THREADS: usize = 256;

/// Particles whose sums are added over threads at a time.
const AT_A_TIME: usize = 4;

/// Which of a block's sums are added over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Parts {
    pub(super) weight: bool,
    pub(super) weighted: bool,
    pub(super) range: bool,
    pub(super) mean: bool,
    pub(super) centredness: bool,
}

impl Parts {
    /// The sums of latents that are placed.
    pub(super) const PLACES: Parts = Parts {
        weight: true,
        weighted: false,
        range: false,
        mean: false,
        centredness: false,
    };

    /// Numbers of a thread and particle.
    fn len(self) -> usize {
        self.range_at() + 2 * usize::from(self.range) + usize::from(self.mean) + usize::from(self.centredness)
    }

    fn weighted_at(self) -> usize {
        2 * usize::from(self.weight)
    }

    fn range_at(self) -> usize {
        self.weighted_at() + 2 * usize::from(self.weighted)
    }

    fn mean_at(self) -> usize {
        self.range_at() + 2 * usize::from(self.range)
    }

    fn centredness_at(self) -> usize {
        self.mean_at() + usize::from(self.mean)
    }
}

/// Numbers of shared memory in which threads add their sums up: of a weight, a range and one more at most.
pub(super) fn scratch_len(particles: usize) -> usize {
    5 * THREADS * particles.min(AT_A_TIME)
}

/// Sums of a block over its latents, one entry per particle, before they are added over threads.
#[derive(CubeType)]
pub(super) struct BlockSums {
    pub(super) weight: Twos,
    /// In orthogonal coordinates the sum of the free numbers weighted with the periods' shares.
    pub(super) weighted: Twos,
    /// Smallest and largest value times `log2 e`.
    pub(super) low: Array<f32>,
    pub(super) high: Array<f32>,
    pub(super) mean: Array<f32>,
    pub(super) centredness: Array<f32>,
}

#[cube]
pub(super) fn empty_sums(#[comptime] count: usize) -> BlockSums {
    let mut sums = BlockSums {
        weight: zeros(count),
        weighted: zeros(count),
        low: Array::<f32>::new(count),
        high: Array::<f32>::new(count),
        mean: Array::<f32>::new(count),
        centredness: Array::<f32>::new(count),
    };
    #[unroll]
    for k in 0..count {
        sums.low[k] = 3.0e38f32;
        sums.high[k] = -3.0e38f32;
        sums.mean[k] = 0.0f32;
        sums.centredness[k] = 0.0f32;
    }
    sums
}

/// Adds a term to the log-weight of particle k.
#[cube]
pub(super) fn add_weight(sums: &mut BlockSums, #[comptime] k: usize, term: f32, barrier: Barrier) {
    let sum = add_f32(two_at(&sums.weight, k), term, barrier);
    set_two(&mut sums.weight, k, sum);
}

/// Entry of a block in a half of the prior sums; the top is the block after the categories'.
#[cube]
pub(super) fn block_entry(half: u32, block: usize, axes: Axes) -> usize {
    half as usize * (axes.categories as usize + 1) + block
}

/// Index, in the prior sums, of a category's derivatives with respect to the centredness, which lie after
/// both halves.
#[cube]
pub(super) fn centredness_entry(category: u32, axes: Axes, #[comptime] count: usize) -> usize {
    (4 * (axes.categories as usize + 1) + category as usize) * count
}

/// Writes a block's log-weights to the half of the prior sums that is not read.
#[cube]
pub(super) fn write_weights(
    sums: &BlockSums,
    prior_sums: &mut Array<f32>,
    half: u32,
    block: u32,
    axes: Axes,
    #[comptime] count: usize,
) {
    let entry = block_entry(1u32 - half, block as usize, axes);
    #[unroll]
    for k in 0..count {
        let weight = two_at(&sums.weight, k);
        prior_sums[(entry * count + k) * 2] = weight.hi;
        prior_sums[(entry * count + k) * 2 + 1] = weight.lo;
    }
}

/// A number in two floats that a thread left in `scratch`.
#[cube]
pub(super) fn scratch_two(scratch: &SharedMemory<f32>, thread: usize) -> Two {
    Two {
        hi: scratch[thread],
        lo: scratch[THREADS + thread],
    }
}

/// Adds to a thread's number in two floats that of the thread `width` further on.
#[cube]
pub(in crate::fused) fn fold_two(
    scratch: &mut SharedMemory<f32>,
    thread: usize,
    width: usize,
    barrier: Barrier,
) {
    fold_pair(scratch, thread, width, THREADS, barrier);
}

/// Adds up what the `slices` threads of a particle have, a power of two; the first has the sum in `scratch` afterwards. All threads of the
/// cube must come here.
#[cube]
pub(in crate::fused) fn add_slices(
    own: Two,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] slices: usize,
) {
    let thread = UNIT_POS as usize;
    scratch[thread] = own.hi;
    scratch[THREADS + thread] = own.lo;
    sync_cube();
    let mut width = comptime!(slices / 2).runtime();
    while width > 0 {
        if thread % slices < width {
            fold_two(scratch, thread, width, barrier);
        }
        sync_cube();
        width /= 2;
    }
}

/// Adds the number in two floats that lies `width` further on; low parts lie `column` after the high ones.
#[cube]
fn fold_pair(
    scratch: &mut SharedMemory<f32>,
    at: usize,
    width: usize,
    #[comptime] column: usize,
    barrier: Barrier,
) {
    let sum = add(
        Two {
            hi: scratch[at],
            lo: scratch[column + at],
        },
        Two {
            hi: scratch[at + width],
            lo: scratch[column + at + width],
        },
        barrier,
    );
    scratch[at] = sum.hi;
    scratch[column + at] = sum.lo;
}

/// Adds the threads' sums up, those of all particles at once; every thread has the totals afterwards. All threads of the cube must come
/// here.
#[cube]
pub(super) fn add_threads(
    sums: &mut BlockSums,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] count: usize,
    #[comptime] parts: Parts,
) {
    let thread = UNIT_POS as usize;
    #[unroll]
    for round in 0..comptime!(count.div_ceil(AT_A_TIME)) {
        let first_k = comptime!(AT_A_TIME * round);
        let here = comptime!((count - first_k).min(AT_A_TIME));
        let column = comptime!(here * THREADS);
        sync_cube();
        #[unroll]
        for kk in 0..here {
            let k = comptime!(first_k + kk);
            let to = comptime!(kk * THREADS) + thread;
            if comptime!(parts.weight) {
                let weight = two_at(&sums.weight, k);
                scratch[to] = weight.hi;
                scratch[column + to] = weight.lo;
            }
            if comptime!(parts.weighted) {
                let weighted = two_at(&sums.weighted, k);
                scratch[comptime!(parts.weighted_at() * column) + to] = weighted.hi;
                scratch[comptime!((parts.weighted_at() + 1) * column) + to] = weighted.lo;
            }
            if comptime!(parts.range) {
                scratch[comptime!(parts.range_at() * column) + to] = sums.low[k];
                scratch[comptime!((parts.range_at() + 1) * column) + to] = sums.high[k];
            }
            if comptime!(parts.mean) {
                scratch[comptime!(parts.mean_at() * column) + to] = sums.mean[k];
            }
            if comptime!(parts.centredness) {
                scratch[comptime!(parts.centredness_at() * column) + to] = sums.centredness[k];
            }
        }
        sync_cube();
        // So many threads share a particle; first each takes what the particle's other threads do not.
        let slices = comptime!(THREADS / here.next_power_of_two());
        let kk = thread / slices;
        let slice = thread % slices;
        let at = kk * THREADS + slice;
        if kk < here {
            #[unroll]
            for other in 1..comptime!(THREADS / slices) {
                fold_parts(
                    scratch,
                    at,
                    comptime!(other * slices).runtime(),
                    column,
                    barrier,
                    parts,
                );
            }
        }
        sync_cube();
        let mut width = comptime!(slices / 2).runtime();
        while width > 0 {
            if kk < here && slice < width {
                fold_parts(scratch, at, width, column, barrier, parts);
            }
            sync_cube();
            width /= 2;
        }
        #[unroll]
        for kk in 0..here {
            let k = comptime!(first_k + kk);
            let from = comptime!(kk * THREADS).runtime();
            if comptime!(parts.weight) {
                let weight = Two {
                    hi: scratch[from],
                    lo: scratch[column + from],
                };
                set_two(&mut sums.weight, k, weight);
            }
            if comptime!(parts.weighted) {
                let weighted = Two {
                    hi: scratch[comptime!(parts.weighted_at() * column) + from],
                    lo: scratch[comptime!((parts.weighted_at() + 1) * column) + from],
                };
                set_two(&mut sums.weighted, k, weighted);
            }
            if comptime!(parts.range) {
                sums.low[k] = scratch[comptime!(parts.range_at() * column) + from];
                sums.high[k] = scratch[comptime!((parts.range_at() + 1) * column) + from];
            }
            if comptime!(parts.mean) {
                sums.mean[k] = scratch[comptime!(parts.mean_at() * column) + from];
            }
            if comptime!(parts.centredness) {
                sums.centredness[k] = scratch[comptime!(parts.centredness_at() * column) + from];
            }
        }
    }
    sync_cube();
}

/// Adds the sums that lie `width` further on to those at `at`.
#[cube]
fn fold_parts(
    scratch: &mut SharedMemory<f32>,
    at: usize,
    width: usize,
    #[comptime] column: usize,
    barrier: Barrier,
    #[comptime] parts: Parts,
) {
    if comptime!(parts.weight) {
        fold_pair(scratch, at, width, column, barrier);
    }
    if comptime!(parts.weighted) {
        let pair = comptime!(parts.weighted_at() * column) + at;
        fold_pair(scratch, pair, width, column, barrier);
    }
    if comptime!(parts.range) {
        let low = comptime!(parts.range_at() * column) + at;
        scratch[low] = min(scratch[low], scratch[low + width]);
        let high = column + low;
        scratch[high] = max(scratch[high], scratch[high + width]);
    }
    #[unroll]
    for i in comptime!(parts.mean_at())..comptime!(parts.len()) {
        let sum = comptime!(i * column) + at;
        scratch[sum] += scratch[sum + width];
    }
}
