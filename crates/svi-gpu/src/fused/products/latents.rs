//! A product's two latents, elasticity and effect: their step, their noise, and where their particles lie.

use super::super::axes::{Axes, product_latent};
use super::super::frame::{frame_shift, frame_transform};
use super::super::latent::{
    Draw, Latent, Step, draw_latent, latent_at, residual, step_latent, transform_at, value_of,
};
use super::shape::{Model, ORIGIN, Shape};
use cubecl::prelude::*;

/// The step of a product's two latents.
#[cube]
pub(super) fn step_product(
    state: &mut Array<f32>,
    particles: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    axes: Axes,
    step: Step,
    #[comptime] count: usize,
) {
    let a = product_latent(axes, p);
    let e = a + axes.products;
    let l = axes.latents as usize;
    step_latent(state, particles, frame, a as usize, l, step, count);
    step_latent(state, particles, frame, e as usize, l, step, count);
}

/// The noise of a product's two latents.
#[cube]
pub(super) fn draw_product(
    particles: &mut Array<f32>,
    record: &Array<f32>,
    order: &Array<u32>,
    p: u32,
    axes: Axes,
    draw: Draw,
    #[comptime] count: usize,
) {
    let a = product_latent(axes, p);
    let e = a + axes.products;
    // The noise is that of the model's order of products.
    let natural = product_latent(axes, order[p as usize]);
    let l = axes.latents as usize;
    draw_latent(particles, record, a as usize, natural, l, draw, count);
    draw_latent(
        particles,
        record,
        e as usize,
        natural + draw.products,
        l,
        draw,
        count,
    );
}

/// A product's elasticity `a` and effect `e`: their guide, and their index among the latents.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Latents {
    pub(super) a: Latent,
    pub(super) e: Latent,
    pub(super) a_index: usize,
    pub(super) e_index: usize,
}

/// Reads the guide of a product.
#[cube]
pub(super) fn product_latents(
    state: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    axes: Axes,
    #[comptime] count: usize,
) -> Latents {
    let a_index = product_latent(axes, p) as usize;
    let e_index = a_index + axes.products as usize;
    let l = axes.latents as usize;
    let a_transform = transform_at(frame, frame_transform(2usize, count));
    let e_transform = transform_at(frame, frame_transform(3usize, count));
    Latents {
        a: latent_at(state, a_index, l, a_transform),
        e: latent_at(state, e_index, l, e_transform),
        a_index,
        e_index,
    }
}

/// A particle's noise and residuals.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Particle {
    pub(super) a_eps: f32,
    pub(super) e_eps: f32,
    pub(super) a_residual: f32,
    pub(super) e_residual: f32,
}

/// Particle k of a product in whose category the mean elasticity is `a_mean`.
#[cube]
pub(super) fn particle_of(
    latents: Latents,
    constants: &Array<f32>,
    particles: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    category: u32,
    a_mean: f32,
    axes: Axes,
    model: Model,
    #[comptime] shape: Shape,
    #[comptime] k: usize,
) -> Particle {
    let l = axes.latents as usize;
    let a_eps = particles[k * l + latents.a_index];
    let e_eps = particles[k * l + latents.e_index];
    let a_residual = residual(latents.a, a_eps, a_mean);
    let e_mean = if comptime!(shape.orthogonal) {
        let shift = frame[frame_shift(axes.categories, category, k, shape.particles)];
        let a = value_of(a_residual, a_mean, latents.a.transform);
        fma(origin_of(constants, p, axes), a, shift + model.effect_mean)
    } else {
        model.effect_mean
    };
    Particle {
        a_eps,
        e_eps,
        a_residual,
        e_residual: residual(latents.e, e_eps, e_mean),
    }
}

/// Where a product's log prices are measured from in orthogonal coordinates, `m`; a larger elasticity moves the prior mean of its effect by as much.
#[cube]
pub(super) fn origin_of(constants: &Array<f32>, p: u32, axes: Axes) -> f32 {
    constants[ORIGIN * axes.products as usize + p as usize]
}
