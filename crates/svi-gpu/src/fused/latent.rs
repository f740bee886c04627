//! One latent of the guide: its noise, its place, its gradient and its step.

use super::axes::Axes;
use super::math::{ln, normals, softplus};
use cubecl::prelude::*;

/// Columns of the state, each of length L: the parameters and AdamW's moments.
pub(super) const LOC: usize = 0;
/// Unconstrained scale, `sigma = softplus(u)`.
pub(super) const SCALE: usize = 1;
pub(super) const LOC_FIRST: usize = 2;
pub(super) const LOC_SECOND: usize = 3;
pub(super) const SCALE_FIRST: usize = 4;
pub(super) const SCALE_SECOND: usize = 5;
/// How many columns there are.
pub(super) const STATE_COLUMNS: usize = 6;

/// The transform of a site, as `infermark_model::LocScale` has it.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Transform {
    pub(super) centredness: f32,
    pub(super) ln_sd: f32,
    pub(super) stretch: f32,
    pub(super) precision: f32,
}

/// Numbers of a [`Transform`] in the frame.
pub(super) const TRANSFORM_LEN: usize = 4;

/// A latent's guide, and the transform of its site.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Latent {
    loc: f32,
    sigma: f32,
    pub(super) transform: Transform,
}

/// The optimizer step of one iteration.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Step {
    pub(super) learning_rate: f32,
    pub(super) first_correction: f32,
    pub(super) second_correction: f32,
    pub(super) b1: f32,
    pub(super) b2: f32,
    /// `1 - b1`: rounded from double precision, which the difference of singles is not.
    pub(super) b1_rest: f32,
    /// `1 - b2`.
    pub(super) b2_rest: f32,
    pub(super) eps: f32,
    pub(super) weight_decay: f32,
}

/// Where the noise of an iteration comes from: Philox, or a record in the model's order of latents, of which a device may
/// have a part.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Draw {
    pub(super) iteration: u32,
    pub(super) seed_low: u32,
    pub(super) seed_high: u32,
    /// N of the model.
    pub(super) products: u32,
    /// Latents of the model.
    pub(super) latents: u32,
    #[cube(comptime)]
    pub(super) recorded: bool,
}

/// Reads a site's transform from the frame.
#[cube]
pub(super) fn transform_at(frame: &Array<f32>, start: usize) -> Transform {
    Transform {
        centredness: frame[start],
        ln_sd: frame[start + 1],
        stretch: frame[start + 2],
        precision: frame[start + 3],
    }
}

/// Reads the guide of latent `j`.
#[cube]
pub(super) fn latent_at(state: &Array<f32>, j: usize, l: usize, transform: Transform) -> Latent {
    let (sigma, _) = softplus(state[SCALE * l + j]);
    Latent {
        loc: state[LOC * l + j],
        sigma,
        transform,
    }
}

/// One AdamW step of the number at `at`.
#[cube]
pub(super) fn descend(
    state: &mut Array<f32>,
    at: usize,
    first_at: usize,
    second_at: usize,
    gradient: f32,
    step: Step,
) {
    let first = fma(gradient, step.b1_rest, step.b1 * state[first_at]);
    let second = fma(gradient * gradient, step.b2_rest, step.b2 * state[second_at]);
    state[first_at] = first;
    state[second_at] = second;
    let root = (second * step.second_correction).sqrt();
    let value = state[at];
    let update = first * step.first_correction / (root + step.eps) + step.weight_decay * value;
    state[at] = value - step.learning_rate * update;
}

/// The step of latent `j` that an iteration's weights, noise and derivatives call for.
///
/// `particles` holds, in columns of length `l`, the K particles' noise and then their derivatives by z.
#[cube]
pub(super) fn step_latent(
    state: &mut Array<f32>,
    particles: &Array<f32>,
    weights: &Array<f32>,
    j: usize,
    l: usize,
    step: Step,
    #[comptime] count: usize,
) {
    let (sigma, slope) = softplus(state[SCALE * l + j]);
    let mut by_loc = 0.0f32;
    let mut by_sigma = 1.0 / sigma;
    #[unroll]
    for k in 0..count {
        let weighted = weights[k] * particles[(count + k) * l + j];
        by_loc += weighted;
        by_sigma += weighted * particles[k * l + j];
    }
    descend(
        state,
        LOC * l + j,
        LOC_FIRST * l + j,
        LOC_SECOND * l + j,
        -by_loc,
        step,
    );
    descend(
        state,
        SCALE * l + j,
        SCALE_FIRST * l + j,
        SCALE_SECOND * l + j,
        -by_sigma * slope,
        step,
    );
}

/// The model's index of latent `j`, a period effect: those lie after all products.
#[cube]
pub(super) fn natural_period(j: usize, axes: Axes, draw: Draw) -> u32 {
    j as u32 + 2u32 * (draw.products - axes.products)
}

/// Draws the noise of latent `j`, which the model counts as `natural`, for all particles.
#[cube]
pub(super) fn draw_latent(
    particles: &mut Array<f32>,
    record: &Array<f32>,
    j: usize,
    natural: u32,
    l: usize,
    draw: Draw,
    #[comptime] count: usize,
) {
    if comptime!(draw.recorded) {
        #[unroll]
        for k in 0..count {
            particles[k * l + j] = record[k * draw.latents as usize + natural as usize];
        }
    } else {
        #[unroll]
        for group in 0..comptime!(count.div_ceil(4)) {
            let (n0, n1, n2, n3) = normals(
                natural,
                comptime!(group as u32).runtime(),
                draw.iteration,
                draw.seed_low,
                draw.seed_high,
            );
            let first = comptime!(4 * group);
            particles[first * l + j] = n0;
            if comptime!(first + 1 < count) {
                particles[comptime!(first + 1) * l + j] = n1;
            }
            if comptime!(first + 2 < count) {
                particles[comptime!(first + 2) * l + j] = n2;
            }
            if comptime!(first + 3 < count) {
                particles[comptime!(first + 3) * l + j] = n3;
            }
        }
    }
}

/// A particle's `z`.
#[cube]
pub(super) fn place_of(latent: Latent, eps: f32) -> f32 {
    fma(latent.sigma, eps, latent.loc)
}

/// A particle's `z - c m`.
#[cube]
pub(super) fn residual(latent: Latent, eps: f32, mean: f32) -> f32 {
    fma(latent.sigma, eps, latent.loc) - latent.transform.centredness * mean
}

/// The value of a residual: `m + s^(1-c) r`.
#[cube]
pub(super) fn value_of(residual: f32, mean: f32, transform: Transform) -> f32 {
    fma(transform.stretch, residual, mean)
}

/// The log-weight's part that belongs to a latent, whatever the particle: `ln sigma - c ln s`.
#[cube]
pub(super) fn scale_terms(latent: Latent) -> f32 {
    ln(latent.sigma) - latent.transform.centredness * latent.transform.ln_sd
}

/// The log-weight's part that belongs to a latent and a particle: prior and guide, but for [`scale_terms`].
#[cube]
pub(super) fn prior_and_guide(residual: f32, eps: f32, transform: Transform) -> f32 {
    0.5 * eps * eps - 0.5 * transform.precision * residual * residual
}

/// The derivative with respect to z.
#[cube]
pub(super) fn by_z(by_value: f32, residual: f32, transform: Transform) -> f32 {
    transform.stretch * by_value - transform.precision * residual
}

/// The derivative of the log-weight with respect to the prior mean.
#[cube]
pub(super) fn by_mean(by_value: f32, residual: f32, transform: Transform) -> f32 {
    let coefficient = 1.0 - transform.centredness * transform.stretch;
    coefficient * by_value + transform.centredness * transform.precision * residual
}

/// The derivative of the log-weight with respect to the site's centredness.
#[cube]
pub(super) fn by_centredness(by_value: f32, residual: f32, mean: f32, transform: Transform) -> f32 {
    let along = transform.ln_sd * residual + mean;
    transform.precision * residual * along - transform.stretch * by_value * along - transform.ln_sd
}
