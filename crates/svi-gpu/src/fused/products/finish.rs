//! After the rows: a product's sums become derivatives and log-weights, and a cube's sums are left to the hierarchy.

use super::super::axes::Axes;
use super::super::frame::frame_category;
use super::super::latent::{by_centredness, by_mean, by_z};
use super::super::two_float::{Barrier, Two, add, add_f32, multiply};
use super::latents::{origin_of, particle_of, product_latents};
use super::prepare::Placed;
use super::rows::RowSums;
use super::{CUBE_SUMS, DEVIATION_HI, DEVIATION_LO, MEAN_HI, Model, Shape, UNITS_HI, UNITS_LO};
use cubecl::prelude::*;

/// Sums over the products that a thread takes: a cube's [`CUBE_SUMS`] before they are added over threads. They lie in shared memory, by sum,
/// particle and thread, each thread's its own: the registers are the rows'.
#[derive(CubeType)]
pub(super) struct OwnSums {
    values: SharedMemory<f32>,
}

/// The sums by their place in [`OwnSums`]: the last two are there where they are asked for.
const WEIGHT_HI: usize = 0;
const WEIGHT_LO: usize = 1;
const BY_MEAN: usize = 2;
/// The derivative by the effects' centredness, in orthogonal coordinates that by their prior mean.
const OF_EFFECTS: usize = 3;
const OF_ELASTICITIES: usize = 4;

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
fn own_at(#[comptime] sum: usize, #[comptime] k: usize, #[comptime] shape: Shape) -> usize {
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

/// Turns a product's sums into derivatives by z, and adds its rates to the log-weights.
#[cube]
pub(super) fn finish_product(
    constants: &Array<f32>,
    state: &Array<f32>,
    particles: &mut Array<f32>,
    frame: &Array<f32>,
    p: u32,
    category: u32,
    axes: Axes,
    model: Model,
    barrier: Barrier,
    placed: &Placed,
    sums: &RowSums,
    own: &mut OwnSums,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    let slot = UNIT_POS as usize;
    let n = axes.products as usize;
    let i = p as usize;
    let l = axes.latents as usize;
    let latents = product_latents(state, frame, p, axes, count);
    let (a_transform, e_transform) = (latents.a.transform, latents.e.transform);
    let is_inside = placed.inside[slot] == 1u32;
    #[unroll]
    for k in 0..count {
        let at = slot * count + k;
        let scale = placed.scale[slot * comptime!(shape.rounds()) + comptime!(k / 4)][comptime!(k % 4)];
        let sum = add_f32(
            Two {
                hi: sums.rate[at],
                lo: 0.0f32,
            },
            sums.rate_lo[at],
            barrier,
        );
        let scaled = multiply(
            sum,
            Two {
                hi: scale,
                lo: placed.scale_lo[at],
            },
            barrier,
        );
        let total = Two {
            hi: select(is_inside, scaled.hi, sum.hi),
            lo: select(is_inside, scaled.lo, sum.lo),
        };
        let less = Two {
            hi: -total.hi,
            lo: -total.lo,
        };
        add_own_weight(own, k, less, barrier, shape);

        // Counts less rates: both are large and nearly equal.
        let pulled = select(is_inside, scaled.hi, placed.base2[at]);
        let pulled_lo = select(is_inside, scaled.lo, 0.0f32);
        let by_effect = (constants[UNITS_HI * n + i] - pulled) + (constants[UNITS_LO * n + i] - pulled_lo);
        let moved = sums.moment[at] * select(is_inside, scale, 1.0f32);
        let by_slope = (constants[DEVIATION_HI * n + i] - moved) + constants[DEVIATION_LO * n + i];
        let by_elasticity = fma(constants[MEAN_HI * n + i], by_effect, by_slope);

        let a_mean = frame[frame_category(category, k, count)];
        let here = particle_of(
            latents, constants, particles, frame, p, category, a_mean, axes, model, shape, k,
        );
        let by_elasticity = if comptime!(shape.orthogonal) {
            // The elasticity moves the prior mean of the effect.
            let pull = e_transform.precision * here.e_residual;
            own.values[own_at(OF_EFFECTS, k, shape)] += pull;
            fma(origin_of(constants, p, axes), pull, by_elasticity)
        } else {
            by_elasticity
        };
        particles[(count + k) * l + latents.a_index] = by_z(by_elasticity, here.a_residual, a_transform);
        particles[(count + k) * l + latents.e_index] = by_z(by_effect, here.e_residual, e_transform);
        own.values[own_at(BY_MEAN, k, shape)] += by_mean(by_elasticity, here.a_residual, a_transform);
        if comptime!(shape.learned) {
            own.values[own_at(OF_ELASTICITIES, k, shape)] +=
                by_centredness(by_elasticity, here.a_residual, a_mean, a_transform);
            own.values[own_at(OF_EFFECTS, k, shape)] +=
                by_centredness(by_effect, here.e_residual, model.effect_mean, e_transform);
        }
    }
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
