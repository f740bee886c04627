//! The period effects of a category.

use super::super::axes::{Axes, period_latent};
use super::super::fold::{folded_two, rate_sum};
use super::super::frame::{frame_range, frame_transform};
use super::super::latent::{
    Draw, Step, Transform, by_centredness, by_z, draw_latent, latent_at, natural_period, prior_and_guide,
    residual, scale_terms, step_latent, transform_at, value_of,
};
use super::super::math::LOG2_E;
use super::super::two_float::{Barrier, Two, add, multiply, set_two, two_at};
use super::sums::{
    BlockSums, Parts, THREADS, add_threads, add_weight, centredness_entry, empty_sums, write_weights,
};
use super::task::{Sites, Task};
use cubecl::prelude::*;

/// Turns the derivatives back, steps, draws and places, as far as the task says, a thread a period. All threads of the cube must come
/// here.
#[cube]
pub(super) fn take_periods(
    folded: &Array<f32>,
    period_units: &Array<f32>,
    record: &Array<f32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    frame: &mut Array<f32>,
    table: &mut Array<f32>,
    prior_sums: &mut Array<f32>,
    weights: &Array<f32>,
    scratch: &mut SharedMemory<f32>,
    half: u32,
    may_step: bool,
    axes: Axes,
    sites: Sites,
    step: Step,
    draw: Draw,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let c = CUBE_POS_X;
    let transform = transform_at(frame, frame_transform(4usize, count));
    let start = period_latent(axes, c) as usize;
    let mut sums = empty_sums(count);
    let mut t = UNIT_POS as usize;
    while t < axes.periods as usize {
        if comptime!(task.back) {
            turn_back_period(
                folded,
                period_units,
                state,
                particles,
                weights,
                &mut sums,
                c,
                t,
                start + t,
                transform,
                may_step,
                axes,
                sites,
                step,
                task,
            );
        }
        if comptime!(task.place) {
            place_period(
                period_units,
                record,
                state,
                particles,
                table,
                &mut sums,
                c,
                t,
                start + t,
                transform,
                axes,
                sites,
                draw,
                barrier,
                count,
            );
        }
        t += THREADS;
    }
    let parts = comptime!(Parts {
        weight: task.place,
        weighted: false,
        range: task.place,
        mean: false,
        centredness: task.back && task.learned,
    });
    if comptime!(parts.weight || parts.centredness) {
        add_threads(&mut sums, scratch, barrier, count, parts);
    }
    if UNIT_POS == 0u32 {
        if comptime!(task.place) {
            write_weights(&sums, prior_sums, half, c, axes, count);
            #[unroll]
            for k in 0..count {
                let at = frame_range(axes.categories, c, k, count);
                frame[at] = sums.low[k];
                frame[at + 1] = sums.high[k];
            }
        }
        if comptime!(task.back && task.learned) {
            #[unroll]
            for k in 0..count {
                prior_sums[centredness_entry(c, axes, count) + k] = sums.centredness[k];
            }
        }
    }
}

/// The units sold of a category in period t.
#[cube]
pub(super) fn sold_at(period_units: &Array<f32>, c: u32, t: usize, axes: Axes) -> Two {
    let at = (c * axes.periods) as usize + t;
    Two {
        hi: period_units[at],
        lo: period_units[(axes.categories * axes.periods) as usize + at],
    }
}

/// The share of period t in the weighted mean over the periods of a category; only in orthogonal coordinates.
#[cube]
pub(super) fn period_share(period_units: &Array<f32>, c: u32, t: usize, axes: Axes) -> f32 {
    period_units[(2 * axes.categories * axes.periods + c * axes.periods) as usize + t]
}

/// Index of period t in an entry of the table or the period sums, whose periods are padded to vectors.
#[cube]
pub(super) fn padded_at(entry: usize, t: usize, axes: Axes) -> usize {
    entry * (4 * axes.stride as usize) + t
}

/// The derivative of particle k's log-weight with respect to the effect of period t: counts less rates.
#[cube]
pub(super) fn by_effect(
    folded: &Array<f32>,
    period_units: &Array<f32>,
    c: u32,
    t: usize,
    k: usize,
    axes: Axes,
    #[comptime] task: Task,
) -> f32 {
    let rates = folded_two(folded, rate_sum(c, k, t, axes, comptime!(task.sums())));
    let sold = sold_at(period_units, c, t, axes);
    (sold.hi - rates.hi) + (sold.lo - rates.lo)
}

/// Converts the derivatives with respect to the effect of period t, which is latent `j`, and, if allowed,
/// makes its step.
#[cube]
fn turn_back_period(
    folded: &Array<f32>,
    period_units: &Array<f32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    weights: &Array<f32>,
    sums: &mut BlockSums,
    c: u32,
    t: usize,
    j: usize,
    transform: Transform,
    may_step: bool,
    axes: Axes,
    sites: Sites,
    step: Step,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let l = axes.latents as usize;
    let latent = latent_at(state, j, l, transform);
    #[unroll]
    for k in 0..count {
        let by_value = by_effect(folded, period_units, c, t, comptime!(k).runtime(), axes, task);
        let r = residual(latent, particles[k * l + j], sites.time_mean);
        particles[(count + k) * l + j] = by_z(by_value, r, transform);
        if comptime!(task.learned) {
            sums.centredness[k] += by_centredness(by_value, r, sites.time_mean, transform);
        }
    }
    if may_step {
        step_latent(state, particles, weights, j, l, step, count);
    }
}

/// Draws and places the effect of period t, which is latent `j`.
#[cube]
fn place_period(
    period_units: &Array<f32>,
    record: &Array<f32>,
    state: &Array<f32>,
    particles: &mut Array<f32>,
    table: &mut Array<f32>,
    sums: &mut BlockSums,
    c: u32,
    t: usize,
    j: usize,
    transform: Transform,
    axes: Axes,
    sites: Sites,
    draw: Draw,
    barrier: Barrier,
    #[comptime] count: usize,
) {
    let l = axes.latents as usize;
    draw_latent(
        particles,
        record,
        j,
        natural_period(j, axes, draw),
        l,
        draw,
        count,
    );
    let latent = latent_at(state, j, l, transform);
    let constant = scale_terms(latent);
    let sold = sold_at(period_units, c, t, axes);
    #[unroll]
    for k in 0..count {
        let eps = particles[k * l + j];
        let r = residual(latent, eps, sites.time_mean);
        let value = value_of(r, sites.time_mean, transform);
        let value2 = value * LOG2_E;
        table[padded_at(c as usize * count + k, t, axes)] = value2;
        sums.low[k] = min(sums.low[k], value2);
        sums.high[k] = max(sums.high[k], value2);
        let linear = multiply(
            sold,
            Two {
                hi: value,
                lo: 0.0f32,
            },
            barrier,
        );
        let weight = add(two_at(&sums.weight, k), linear, barrier);
        set_two(&mut sums.weight, k, weight);
        add_weight(sums, k, prior_and_guide(r, eps, transform) + constant, barrier);
    }
}
