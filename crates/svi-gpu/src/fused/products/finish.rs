//! After the rows: a product's sums become derivatives and log-weights.

use super::super::axes::Axes;
use super::super::frame::frame_category;
use super::super::latent::{by_centredness, by_mean, by_z};
use super::super::two_float::{Barrier, Two, add_f32, multiply};
use super::latents::{origin_of, particle_of, product_latents};
use super::prepare::ProductInputs;
use super::rows::RowSums;
use super::shape::{DEVIATION_HI, DEVIATION_LO, MEAN_HI, Model, Shape, UNITS_HI, UNITS_LO};
use super::sums::{BY_MEAN, OF_EFFECTS, OF_ELASTICITIES, OwnSums, add_own_weight, own_at};
use cubecl::prelude::*;

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
    placed: &ProductInputs,
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
