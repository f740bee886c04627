//! What a cube leaves: sums over its products, which its threads keep and then add up.

use super::super::two_float::{Barrier, Two, add};
use super::shape::{CUBE_SUMS, Shape};
use cubecl::prelude::*;

/// Sums over the products that a thread takes: a cube's [`CUBE_SUMS`] before they are added over threads. They lie in shared memory, by sum,
/// particle and thread, each thread's its own: the registers are the rows'.
#[derive(CubeType)]
pub(super) struct OwnSums {
    pub(super) values: SharedMemory<f32>,
}

/// The sums by their place in [`OwnSums`]: the last two are there where they are asked for.
pub(super) const WEIGHT_HI: usize = 0;
pub(super) const WEIGHT_LO: usize = 1;
pub(super) const BY_MEAN: usize = 2;
/// The derivative with respect to the effects' centredness or, in orthogonal coordinates, to their prior
/// mean.
pub(super) const OF_EFFECTS: usize = 3;
pub(super) const OF_ELASTICITIES: usize = 4;

#[cube]
pub(super) fn no_sums(#[comptime] shape: Shape) -> OwnSums {
    let mut values = SharedMemory::<f32>::new(comptime!(shape.own_sums() * shape.particles * shape.chunk));
    let thread = UNIT_POS as usize;
    if thread < comptime!(shape.chunk) {
        #[unroll]
        for i in 0..comptime!(shape.own_sums() * shape.particles) {
            values[comptime!(i * shape.chunk) + thread] = 0.0f32;
        }
    }
    OwnSums { values }
}

/// Index of the thread's sum for particle k.
#[cube]
pub(super) fn own_at(#[comptime] sum: usize, #[comptime] k: usize, #[comptime] shape: Shape) -> usize {
    comptime!((sum * shape.particles + k) * shape.chunk) + UNIT_POS as usize
}

/// Adds a term to the log-weight of particle k.
#[cube]
pub(super) fn add_own_weight(
    own: &mut OwnSums,
    #[comptime] k: usize,
    term: Two,
    barrier: Barrier,
    #[comptime] shape: Shape,
) {
    let hi = own_at(WEIGHT_HI, k, shape);
    let lo = own_at(WEIGHT_LO, k, shape);
    let sum = add(
        Two {
            hi: own.values[hi],
            lo: own.values[lo],
        },
        term,
        barrier,
    );
    own.values[hi] = sum.hi;
    own.values[lo] = sum.lo;
}

/// Adds the threads' sums up and writes the cube's. All threads of the cube must come here.
#[cube]
pub(super) fn write_sums(
    own: &mut OwnSums,
    cube_sums: &mut Array<f32>,
    barrier: Barrier,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    let chunk = comptime!(shape.chunk);
    // So many threads share a particle, a power of two: each takes every so manyth thread's sums, then halves add up.
    let slices = comptime!((shape.threads() / count + 1).next_power_of_two() / 2);
    let k = UNIT_POS as usize / slices;
    let slice = UNIT_POS as usize % slices;
    let from = k * chunk;
    if k < count {
        let mut further = slices.runtime();
        while slice + further < chunk {
            fold_own(own, from + slice, further, barrier, shape);
            further += slices;
        }
    }
    sync_cube();
    let mut width = comptime!(slices / 2).runtime();
    while width > 0 {
        if k < count && slice < width && slice + width < chunk {
            fold_own(own, from + slice, width, barrier, shape);
        }
        sync_cube();
        width /= 2;
    }
    if k < count && slice == 0 {
        let to = (CUBE_POS * count + k) * CUBE_SUMS;
        cube_sums[to] = own.values[comptime!(WEIGHT_HI * count * chunk) + from];
        cube_sums[to + 1] = own.values[comptime!(WEIGHT_LO * count * chunk) + from];
        cube_sums[to + 2] = own.values[comptime!(BY_MEAN * count * chunk) + from];
        if comptime!(shape.learned) {
            cube_sums[to + 3] = own.values[comptime!(OF_ELASTICITIES * count * chunk) + from];
        }
        if comptime!(shape.learned || shape.orthogonal) {
            cube_sums[to + 4] = own.values[comptime!(OF_EFFECTS * count * chunk) + from];
        }
    }
}

/// Adds the sums that lie `further` on to those at `at`.
#[cube]
fn fold_own(own: &mut OwnSums, at: usize, further: usize, barrier: Barrier, #[comptime] shape: Shape) {
    let column = comptime!(shape.particles * shape.chunk);
    let sum = add(
        Two {
            hi: own.values[at],
            lo: own.values[column + at],
        },
        Two {
            hi: own.values[at + further],
            lo: own.values[column + at + further],
        },
        barrier,
    );
    own.values[at] = sum.hi;
    own.values[column + at] = sum.lo;
    #[unroll]
    for i in BY_MEAN..comptime!(shape.own_sums()) {
        let there = own.values[comptime!(i * column) + at + further];
        own.values[comptime!(i * column) + at] += there;
    }
}
