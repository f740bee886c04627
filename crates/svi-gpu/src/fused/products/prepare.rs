//! Before the rows: a product's particles are placed.

use super::super::axes::Axes;
use super::super::frame::{frame_category, frame_range};
use super::super::latent::{place_of, prior_and_guide, scale_terms, value_of};
use super::super::math::LOG2_E;
use super::super::two_float::{Barrier, Two, add, add_f32, exp2_two, multiply};
use super::latents::{particle_of, product_latents};
use super::shape::{
    DEVIATION_HI, DEVIATION_LO, HIGHEST, LOWEST, MEAN_HI, MEAN_LO, Model, Shape, UNITS_HI, UNITS_LO,
};
use super::sums::{OwnSums, add_own_weight};
use cubecl::prelude::*;

/// Largest binary order of a rate relative to `exp(base)`, up and down, that the common path takes.
const EXPONENT_LIMIT: f32 = 40.0;
/// How far the clip bounds are drawn in: more than the rounding of the estimate.
const MARGIN: f32 = 1e-3;

/// What the rows need of the chunk's products, by product and particle, in shared memory.
#[derive(CubeType)]
pub(super) struct ProductInputs {
    /// Elasticity times `log2 e`, four particles at a time.
    pub(super) slope2: SharedMemory<Vector<f32, Const<4>>>,
    /// Log level times `log2 e`; after the rows of a product with clipped rows, the gradient's rates.
    pub(super) base2: SharedMemory<f32>,
    /// `exp(base)`, high, four particles at a time, and low.
    pub(super) scale: SharedMemory<Vector<f32, Const<4>>>,
    pub(super) scale_lo: SharedMemory<f32>,
    /// Flag by product: 1 if all its rows lie inside the clip bounds.
    pub(super) inside: SharedMemory<u32>,
}

#[cube]
pub(super) fn nothing_placed(#[comptime] shape: Shape) -> ProductInputs {
    let entries = comptime!(shape.chunk * shape.particles);
    let vectors = comptime!(shape.chunk * shape.rounds());
    ProductInputs {
        slope2: SharedMemory::<Vector<f32, Const<4>>>::new(vectors),
        base2: SharedMemory::<f32>::new(entries),
        scale: SharedMemory::<Vector<f32, Const<4>>>::new(vectors),
        scale_lo: SharedMemory::<f32>::new(entries),
        inside: SharedMemory::<u32>::new(comptime!(shape.chunk)),
    }
}

/// Places a product's particles: slope, base and scale, whether all its rows lie inside the bounds, and its part
/// of the log-weights that is linear in the counts or belongs to the prior and the guide.
#[cube]
pub(super) fn prepare_product(
    constants: &Array<f32>,
    state: &Array<f32>,
    particles: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    category: u32,
    axes: Axes,
    model: Model,
    barrier: Barrier,
    placed: &mut ProductInputs,
    own: &mut OwnSums,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    let slot = UNIT_POS as usize;
    let n = axes.products as usize;
    let i = p as usize;
    let latents = product_latents(state, frame, p, axes, count);
    let mean = Two {
        hi: constants[MEAN_HI * n + i],
        lo: constants[MEAN_LO * n + i],
    };
    let sold = Two {
        hi: constants[UNITS_HI * n + i],
        lo: constants[UNITS_LO * n + i],
    };
    let sold_deviation = Two {
        hi: constants[DEVIATION_HI * n + i],
        lo: constants[DEVIATION_LO * n + i],
    };
    let lowest = constants[LOWEST * n + i];
    let highest = constants[HIGHEST * n + i];
    let constant = scale_terms(latents.a) + scale_terms(latents.e);
    let mut all_inside = true;
    let mut slope2 = Vector::<f32, Const<4>>::new(0.0f32);
    let mut scale = Vector::<f32, Const<4>>::new(0.0f32);
    #[unroll]
    for k in 0..count {
        let a_mean = frame[frame_category(category, k, count)];
        let here = particle_of(
            latents, constants, particles, frame, p, category, a_mean, axes, model, shape, k,
        );
        let a = value_of(here.a_residual, a_mean, latents.a.transform);
        let e = if comptime!(shape.orthogonal) {
            place_of(latents.e, here.e_eps)
        } else {
            value_of(here.e_residual, model.effect_mean, latents.e.transform)
        };
        let of_particle = prior_and_guide(here.a_residual, here.a_eps, latents.a.transform)
            + prior_and_guide(here.e_residual, here.e_eps, latents.e.transform)
            + constant;

        let base = add_f32(multiply(mean, Two { hi: a, lo: 0.0f32 }, barrier), e, barrier);
        let linear = add(
            multiply(base, sold, barrier),
            multiply(sold_deviation, Two { hi: a, lo: 0.0f32 }, barrier),
            barrier,
        );
        add_own_weight(own, k, add_f32(linear, of_particle, barrier), barrier, shape);

        let in_base_2 = multiply(
            base,
            Two {
                hi: LOG2_E,
                lo: 1.925_963e-8f32,
            },
            barrier,
        );
        let a2 = a * LOG2_E;
        let range = frame_range(axes.categories, category, k, count);
        let t_low = min(a2 * lowest, a2 * highest) + frame[range];
        let t_high = max(a2 * lowest, a2 * highest) + frame[range + 1];
        let b2 = in_base_2.hi;
        // Comparisons are false for NaN: such products take the exact path.
        let fits = t_low + b2 >= model.clip_low2 + MARGIN
            && t_high + b2 <= model.clip_high2 - MARGIN
            && t_high <= EXPONENT_LIMIT
            && t_low >= -EXPONENT_LIMIT
            && b2.abs() <= 100.0f32;
        all_inside = all_inside && fits;
        let at = slot * count + k;
        placed.base2[at] = b2;
        let held = Two {
            hi: b2.clamp(-100.0f32, 100.0f32),
            lo: in_base_2.lo,
        };
        let power = exp2_two(held, barrier);
        placed.scale_lo[at] = power.lo;
        slope2[comptime!(k % 4)] = a2;
        scale[comptime!(k % 4)] = power.hi;
        if comptime!(k % 4 == 3 || k + 1 == count) {
            let to = slot * comptime!(shape.rounds()) + comptime!(k / 4);
            placed.slope2[to] = slope2;
            placed.scale[to] = scale;
        }
    }
    placed.inside[slot] = select(all_inside, 1u32, 0u32);
}
