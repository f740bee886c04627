//! Sums of a block, which is a category's period effects or the top: over its latents, then over the threads.

use super::super::axes::Axes;
use super::super::two_float::{Barrier, Two, Twos, add, add_f32, set_two, two_at, zeros};
use super::THREADS;
use cubecl::prelude::*;

/// Numbers of shared memory in which threads add their sums up.
pub(super) const SCRATCH: usize = 5 * THREADS;

/// Sums of a block over its latents, one entry a particle, before they are added over threads.
#[derive(CubeType)]
pub(super) struct BlockSums {
    pub(super) weight: Twos,
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

/// Index, in the prior sums, of a category's derivatives by the centredness, which lie after both halves.
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
pub(super) fn fold_two(scratch: &mut SharedMemory<f32>, thread: usize, width: usize, barrier: Barrier) {
    let sum = add(
        scratch_two(scratch, thread),
        scratch_two(scratch, thread + width),
        barrier,
    );
    scratch[thread] = sum.hi;
    scratch[THREADS + thread] = sum.lo;
}

/// Adds the threads' sums up; every thread has the totals afterwards. All threads of the cube must come here.
#[cube]
pub(super) fn add_threads(
    sums: &mut BlockSums,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] count: usize,
) {
    let thread = UNIT_POS as usize;
    #[unroll]
    for k in 0..count {
        sync_cube();
        let weight = two_at(&sums.weight, k);
        scratch[thread] = weight.hi;
        scratch[THREADS + thread] = weight.lo;
        scratch[2 * THREADS + thread] = sums.low[k];
        scratch[3 * THREADS + thread] = sums.high[k];
        scratch[4 * THREADS + thread] = sums.mean[k];
        sync_cube();
        let mut width = comptime!(THREADS / 2).runtime();
        while width > 0 {
            if thread < width {
                fold_two(scratch, thread, width, barrier);
                let low = 2 * THREADS + thread;
                scratch[low] = min(scratch[low], scratch[low + width]);
                let high = 3 * THREADS + thread;
                scratch[high] = max(scratch[high], scratch[high + width]);
                scratch[4 * THREADS + thread] += scratch[4 * THREADS + thread + width];
            }
            sync_cube();
            width /= 2;
        }
        set_two(&mut sums.weight, k, scratch_two(scratch, 0));
        sums.low[k] = scratch[2 * THREADS];
        sums.high[k] = scratch[3 * THREADS];
        sums.mean[k] = scratch[4 * THREADS];
        sync_cube();
        scratch[thread] = sums.centredness[k];
        sync_cube();
        let mut width = comptime!(THREADS / 2).runtime();
        while width > 0 {
            if thread < width {
                scratch[thread] += scratch[thread + width];
            }
            sync_cube();
            width /= 2;
        }
        sums.centredness[k] = scratch[0];
    }
    sync_cube();
}
