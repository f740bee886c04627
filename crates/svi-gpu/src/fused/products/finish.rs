//! After the rows: a product's sums become derivatives and log-weights, and a cube's sums are left to the hierarchy.

use super::super::axes::Axes;
use super::super::frame::frame_category;
use super::super::latent::{by_centredness, by_mean, by_z};
use super::super::two_float::{Barrier, Two, Twos, add, add_f32, multiply, set_two, two_at, zeros};
use super::latents::{origin_of, particle_of, product_latents};
use super::prepare::Placed;
use super::rows::RowSums;
use super::{CUBE_SUMS, DEVIATION_HI, DEVIATION_LO, MEAN_HI, Model, Shape, UNITS_HI, UNITS_LO};
use cubecl::prelude::*;

/// Sums over the products that a thread takes, by particle: a cube's [`CUBE_SUMS`] before they are added over threads.
#[derive(CubeType)]
pub(super) struct OwnSums {
    pub(super) weight: Twos,
    mean: Array<f32>,
    a_centredness: Array<f32>,
    /// In orthogonal coordinates the derivative by the prior mean of the effects.
    e_centredness: Array<f32>,
}

#[cube]
pub(super) fn no_sums(#[comptime] count: usize) -> OwnSums {
    let mut own = OwnSums {
        weight: zeros(count),
        mean: Array::<f32>::new(count),
        a_centredness: Array::<f32>::new(count),
        e_centredness: Array::<f32>::new(count),
    };
    #[unroll]
    for k in 0..count {
        own.mean[k] = 0.0f32;
        own.a_centredness[k] = 0.0f32;
        own.e_centredness[k] = 0.0f32;
    }
    own
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
        let weight = add(two_at(&own.weight, k), less, barrier);
        set_two(&mut own.weight, k, weight);

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
            own.e_centredness[k] += pull;
            fma(origin_of(constants, p, axes), pull, by_elasticity)
        } else {
            by_elasticity
        };
        particles[(count + k) * l + latents.a_index] = by_z(by_elasticity, here.a_residual, a_transform);
        particles[(count + k) * l + latents.e_index] = by_z(by_effect, here.e_residual, e_transform);
        own.mean[k] += by_mean(by_elasticity, here.a_residual, a_transform);
        if comptime!(shape.learned) {
            own.a_centredness[k] += by_centredness(by_elasticity, here.a_residual, a_mean, a_transform);
            own.e_centredness[k] +=
                by_centredness(by_effect, here.e_residual, model.effect_mean, e_transform);
        }
    }
}

/// Adds the threads' sums up and writes the cube's. All threads of the cube must come here.
#[cube]
pub(super) fn write_sums(
    own: &OwnSums,
    cube_sums: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    // So many threads had products.
    let chunk = comptime!(shape.chunk);
    let thread = UNIT_POS as usize;
    let cube = CUBE_POS;
    #[unroll]
    for round in 0..comptime!(shape.rounds()) {
        let round_count = comptime!(shape.round_count(round));
        let first_k = comptime!(4 * round);
        // Numbers of one sum.
        let column = comptime!(round_count * chunk);
        if thread < chunk {
            #[unroll]
            for kk in 0..round_count {
                let k = comptime!(first_k + kk);
                let weight = two_at(&own.weight, k);
                let to = comptime!(kk * chunk) + thread;
                scratch[to] = weight.hi;
                scratch[column + to] = weight.lo;
                scratch[2 * column + to] = own.mean[k];
                if comptime!(shape.learned) {
                    scratch[4 * column + to] = own.a_centredness[k];
                }
                if comptime!(shape.learned || shape.orthogonal) {
                    scratch[3 * column + to] = own.e_centredness[k];
                }
            }
        }
        sync_cube();
        // So many threads share a particle, a power of two: each takes every so manyth thread's, then halves add up.
        let slices = comptime!((shape.threads() / round_count + 1).next_power_of_two() / 2);
        let kk = thread / slices;
        let slice = thread % slices;
        if kk < round_count {
            let from = kk * chunk + slice;
            let mut i = slices.runtime();
            while slice + i < chunk {
                fold_own(scratch, from, i, column, barrier, shape);
                i += slices;
            }
        }
        sync_cube();
        let mut width = comptime!(slices / 2).runtime();
        while width > 0 {
            if kk < round_count && slice < width {
                fold_own(scratch, kk * chunk + slice, width, column, barrier, shape);
            }
            sync_cube();
            width /= 2;
        }
        if kk < round_count && slice == 0 {
            let from = kk * chunk;
            let to = (cube * count + first_k + kk) * CUBE_SUMS;
            cube_sums[to] = scratch[from];
            cube_sums[to + 1] = scratch[column + from];
            cube_sums[to + 2] = scratch[2 * column + from];
            if comptime!(shape.learned) {
                cube_sums[to + 3] = scratch[4 * column + from];
            }
            if comptime!(shape.learned || shape.orthogonal) {
                cube_sums[to + 4] = scratch[3 * column + from];
            }
        }
        sync_cube();
    }
}

/// Adds the sums that lie `further` on to those at `at`.
#[cube]
fn fold_own(
    scratch: &mut SharedMemory<f32>,
    at: usize,
    further: usize,
    #[comptime] column: usize,
    barrier: Barrier,
    #[comptime] shape: Shape,
) {
    let sum = add(
        Two {
            hi: scratch[at],
            lo: scratch[column + at],
        },
        Two {
            hi: scratch[at + further],
            lo: scratch[column + at + further],
        },
        barrier,
    );
    scratch[at] = sum.hi;
    scratch[column + at] = sum.lo;
    scratch[2 * column + at] += scratch[2 * column + at + further];
    if comptime!(shape.learned || shape.orthogonal) {
        scratch[3 * column + at] += scratch[3 * column + at + further];
    }
    if comptime!(shape.learned) {
        scratch[4 * column + at] += scratch[4 * column + at + further];
    }
}
