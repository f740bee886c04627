//! The top: the elasticities of the categories, their mean, and the centredness of all sites.

use super::super::axes::Axes;
use super::super::fold::{BY_MEAN, category_sum, folded_two};
use super::super::frame::{frame_category, frame_transform, frame_transforms};
use super::super::latent::{
    Draw, Step, TRANSFORM_LEN, Transform, by_centredness, by_mean, by_z, draw_latent, latent_at,
    prior_and_guide, residual, scale_terms, step_latent, transform_at, value_of,
};
use super::super::two_float::{Barrier, Two, set_two};
use super::centredness::{add_centredness, learn_sites};
use super::sums::{Parts, THREADS, add_threads, add_weight, empty_sums, write_weights};
use super::task::{Sites, Task};
use cubecl::prelude::*;

/// Turns the derivatives back and, where it may, makes the step. All threads of the cube must come here.
#[cube]
pub(super) fn turn_back_top(
    folded: &Array<f32>,
    prior_sums: &Array<f32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    frame: &mut Array<f32>,
    centredness: &mut Array<f32>,
    weights: &Array<f32>,
    scratch: &mut SharedMemory<f32>,
    may_step: bool,
    axes: Axes,
    sites: Sites,
    step: Step,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let thread = UNIT_POS as usize;
    let l = axes.latents as usize;
    let global_transform = transform_at(frame, frame_transform(0usize, count));
    let category_transform = transform_at(frame, frame_transform(1usize, count));
    let global = latent_at(state, 0, l, global_transform);
    let mut sums = empty_sums(count);
    let mut c = thread;
    while c < axes.categories as usize {
        let j = 1 + c;
        let latent = latent_at(state, j, l, category_transform);
        #[unroll]
        for k in 0..count {
            let at = category_sum(
                BY_MEAN,
                c as u32,
                comptime!(k).runtime(),
                axes,
                comptime!(task.sums()),
            );
            let by_mean_of_products = folded_two(folded, at);
            let by_value = by_mean_of_products.hi + by_mean_of_products.lo;
            let global_residual = residual(global, particles[k * l], sites.global_mean);
            let mean = value_of(global_residual, sites.global_mean, global_transform);
            let r = residual(latent, particles[k * l + j], mean);
            particles[(count + k) * l + j] = by_z(by_value, r, category_transform);
            sums.mean[k] += by_mean(by_value, r, category_transform);
            if comptime!(task.learned) {
                sums.centredness[k] += by_centredness(by_value, r, mean, category_transform);
            }
        }
        c += THREADS;
    }
    let parts = comptime!(Parts {
        weight: false,
        weighted: false,
        range: false,
        mean: true,
        centredness: task.learned,
    });
    add_threads(&mut sums, scratch, barrier, count, parts);
    // All threads have read the global elasticity's state; now it may move.
    if thread == 0 {
        #[unroll]
        for k in 0..count {
            let r = residual(global, particles[k * l], sites.global_mean);
            particles[(count + k) * l] = by_z(sums.mean[k], r, global_transform);
            if comptime!(task.learned) {
                let own = by_centredness(sums.mean[k], r, sites.global_mean, global_transform);
                add_centredness(centredness, 0usize, k, weights[k] * own);
                add_centredness(centredness, 1usize, k, weights[k] * sums.centredness[k]);
            }
        }
        if may_step {
            step_latent(state, particles, weights, 0, l, step, count);
        }
    }
    if may_step {
        let mut c = thread;
        while c < axes.categories as usize {
            step_latent(state, particles, weights, 1 + c, l, step, count);
            c += THREADS;
        }
    }
    if comptime!(task.learned) && thread == 0 {
        learn_sites(
            folded,
            prior_sums,
            centredness,
            frame,
            weights,
            may_step,
            axes,
            sites,
            step,
            task,
        );
    }
    sync_cube();
}

/// Draws and places the next iteration. All threads of the cube must come here.
#[cube]
pub(super) fn place_top(
    record: &Array<f32>,
    state: &Array<f32>,
    particles: &mut Array<f32>,
    frame: &mut Array<f32>,
    prior_sums: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    half: u32,
    axes: Axes,
    sites: Sites,
    draw: Draw,
    barrier: Barrier,
    #[comptime] count: usize,
) {
    let thread = UNIT_POS as usize;
    let l = axes.latents as usize;
    let mut transforms = SharedMemory::<f32>::new(comptime!(2 * TRANSFORM_LEN));
    let mut global_values = SharedMemory::<f32>::new(count);
    let mut sums = empty_sums(count);
    if thread == 0 {
        // This thread may just have changed them; the others take them from it.
        #[unroll]
        for i in 0..comptime!(2 * TRANSFORM_LEN) {
            transforms[i] = frame[comptime!(frame_transforms(count) + i)];
        }
    }
    sync_cube();
    let global_transform = shared_transform(&transforms, 0usize);
    let category_transform = shared_transform(&transforms, TRANSFORM_LEN);
    if thread == 0 {
        draw_latent(particles, record, 0, 0u32, l, draw, count);
        let latent = latent_at(state, 0, l, global_transform);
        let constant = scale_terms(latent);
        #[unroll]
        for k in 0..count {
            let eps = particles[k * l];
            let r = residual(latent, eps, sites.global_mean);
            global_values[k] = value_of(r, sites.global_mean, global_transform);
            let weight = Two {
                hi: prior_and_guide(r, eps, global_transform) + constant,
                lo: 0.0f32,
            };
            set_two(&mut sums.weight, k, weight);
        }
    }
    sync_cube();
    let mut c = thread;
    while c < axes.categories as usize {
        let j = 1 + c;
        draw_latent(particles, record, j, j as u32, l, draw, count);
        let latent = latent_at(state, j, l, category_transform);
        let constant = scale_terms(latent);
        #[unroll]
        for k in 0..count {
            let eps = particles[k * l + j];
            let mean = global_values[k];
            let r = residual(latent, eps, mean);
            frame[frame_category(c as u32, k, count)] = value_of(r, mean, category_transform);
            let term = prior_and_guide(r, eps, category_transform) + constant;
            add_weight(&mut sums, k, term, barrier);
        }
        c += THREADS;
    }
    add_threads(&mut sums, scratch, barrier, count, comptime!(Parts::PLACES));
    if thread == 0 {
        write_weights(&sums, prior_sums, half, axes.categories, axes, count);
    }
}

#[cube]
fn shared_transform(from: &SharedMemory<f32>, #[comptime] start: usize) -> Transform {
    Transform {
        centredness: from[start],
        ln_sd: from[start + 1],
        stretch: from[start + 2],
        precision: from[start + 3],
    }
}
