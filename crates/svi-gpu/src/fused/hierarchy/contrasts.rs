//! The period effects of a category in orthogonal coordinates: contrasts that sum to zero, and their level
//! (`infermark_model::Orthogonal`).
//!
//! Of a category's T places the first `T - 1` hold the contrasts' free numbers `y`, and the last holds the
//! level. A value of the table, `s_t - w`, needs sums of all the `y`, and a derivative with respect to a `y`
//! needs the sum of those with respect to the values: either way the periods are walked twice, with a sum
//! over the threads in between.

use super::super::axes::Axes;
use super::super::fold::{OF_EFFECTS, category_sum, folded_two};
use super::super::frame::{frame_range, frame_shift, frame_transform};
use super::super::latent::{
    Draw, Step, by_z, draw_latent, latent_at, natural_period, place_of, prior_and_guide, residual,
    scale_terms, step_latent, transform_at,
};
use super::super::math::LOG2_E;
use super::super::two_float::{Barrier, Two, add, add_f32, multiply, set_two, two_at, zeros};
use super::periods::{by_effect, padded_at, period_share, sold_at};
use super::places::{Places, mean_of, places_of, transform_of};
use super::sums::{
    BlockSums, Parts, THREADS, add_threads, add_weight, empty_sums, fold_two, scratch_two, write_weights,
};
use super::task::{Sites, Task};
use cubecl::prelude::*;

/// Turns the derivatives back, steps, draws and places, as far as the task says. All threads of the cube must come here.
#[cube]
pub(super) fn take_contrasts(
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
    let free = transform_at(frame, frame_transform(4usize, count));
    let places = places_of(c, free, sites, axes);
    if comptime!(task.back) {
        sum_derivatives(
            folded,
            period_units,
            particles,
            scratch,
            c,
            places,
            axes,
            barrier,
            task,
        );
        turn_back(
            period_units,
            state,
            particles,
            weights,
            scratch,
            c,
            places,
            may_step,
            axes,
            step,
            task,
        );
        sync_cube();
    }
    if comptime!(task.place) {
        let mut levels = SharedMemory::<f32>::new(count);
        let mut drawn = empty_sums(count);
        draw_and_sum(
            period_units,
            record,
            state,
            particles,
            scratch,
            &mut levels,
            &mut drawn,
            c,
            places,
            axes,
            draw,
            barrier,
            task,
        );
        place(
            period_units,
            state,
            particles,
            frame,
            table,
            prior_sums,
            scratch,
            &levels,
            &drawn,
            half,
            c,
            places,
            axes,
            barrier,
            task,
        );
    }
}

/// Leaves in `scratch`, for particle k: at its first slice the sum `G` of the derivatives with respect to the
/// values (two floats), [`BY_MEAN`] later that with respect to the effects' prior mean, `R`; and at
/// [`BY_LAST`] plus k the derivative with respect to the last value. Those with respect to all values are
/// left in `particles`.
#[cube]
fn sum_derivatives(
    folded: &Array<f32>,
    period_units: &Array<f32>,
    particles: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    c: u32,
    places: Places,
    axes: Axes,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let slices = comptime!(task.slices());
    let l = axes.latents as usize;
    let thread = UNIT_POS as usize;
    let k = thread / slices;
    let slice = thread % slices;
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    let mut by_mean = 0.0f32;
    if k < count {
        if slice == 0 {
            let sum = folded_two(
                folded,
                category_sum(OF_EFFECTS, c, k, axes, comptime!(task.sums())),
            );
            by_mean = sum.hi + sum.lo;
        }
        let mut t = slice;
        while t <= places.last {
            let by_value = by_effect(folded, period_units, c, t, k, axes, task);
            particles[(count + k) * l + places.start + t] = by_value;
            let sum = add_f32(Two { hi, lo }, by_value, barrier);
            hi = sum.hi;
            lo = sum.lo;
            if t == places.last {
                scratch[BY_LAST + k] = by_value;
            }
            t += slices;
        }
    }
    scratch[thread] = hi;
    scratch[THREADS + thread] = lo;
    scratch[BY_MEAN + thread] = by_mean;
    // The derivatives are read by other threads than wrote them.
    sync_storage();
    sync_cube();
    let mut width = comptime!(slices / 2).runtime();
    while width > 0 {
        if slice < width {
            fold_two(scratch, thread, width, barrier);
            scratch[BY_MEAN + thread] += scratch[BY_MEAN + thread + width];
        }
        sync_cube();
        width /= 2;
    }
}

/// Where [`sum_derivatives`] leaves its sums in `scratch`.
const BY_MEAN: usize = 2 * THREADS;
const BY_LAST: usize = 3 * THREADS;

/// Turns the derivatives back and, where it may, makes the step: a thread takes every particle of a place.
///
/// A value is `s_t - w` and the effects' prior mean has `l + w`: the derivatives with respect to the
/// contrasts are `q_t = g_t + omega_t (R - G)`, whose sum is R, and with respect to the level R.
#[cube]
fn turn_back(
    period_units: &Array<f32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    weights: &Array<f32>,
    scratch: &SharedMemory<f32>,
    c: u32,
    places: Places,
    may_step: bool,
    axes: Axes,
    step: Step,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let slices = comptime!(task.slices());
    let l = axes.latents as usize;
    let mut t = UNIT_POS as usize;
    if t <= places.last {
        let last_weight = period_share(period_units, c, places.last, axes);
        while t <= places.last {
            let j = places.start + t;
            let transform = transform_of(places, t);
            let mean = mean_of(places, t);
            let weight = period_share(period_units, c, t, axes);
            let latent = latent_at(state, j, l, transform);
            #[unroll]
            for k in 0..count {
                let all = scratch_two(scratch, comptime!(k * slices).runtime());
                let by_effect_mean = scratch[comptime!(BY_MEAN + k * slices)];
                let by_weighted = (by_effect_mean - all.hi) - all.lo;
                let by_last = fma(last_weight, by_weighted, scratch[comptime!(BY_LAST + k)]);
                let common = places.shared * (by_effect_mean - by_last) + places.of_last * by_last;
                let by_contrast = fma(weight, by_weighted, particles[(count + k) * l + j]);
                let by_value = select(t == places.last, by_effect_mean, by_contrast - common);
                let r = residual(latent, particles[k * l + j], mean);
                particles[(count + k) * l + j] = by_z(by_value, r, transform);
            }
            if may_step {
                step_latent(state, particles, weights, j, l, step, count);
            }
            t += THREADS;
        }
    }
}

/// Draws the places. Afterwards every thread has in `sums`, for particle k, the sum of the free numbers `B = sum y` and that by the periods'
/// shares `A = sum omega_t y_t`, and in `levels` the level. All threads of the cube must come here.
#[cube]
fn draw_and_sum(
    period_units: &Array<f32>,
    record: &Array<f32>,
    state: &Array<f32>,
    particles: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    levels: &mut SharedMemory<f32>,
    sums: &mut BlockSums,
    c: u32,
    places: Places,
    axes: Axes,
    draw: Draw,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let l = axes.latents as usize;
    let mut t = UNIT_POS as usize;
    while t <= places.last {
        let j = places.start + t;
        draw_latent(
            particles,
            record,
            j,
            natural_period(j, axes, draw),
            l,
            draw,
            count,
        );
        let latent = latent_at(state, j, l, places.free);
        let weight = period_share(period_units, c, t, axes);
        #[unroll]
        for k in 0..count {
            let z = place_of(latent, particles[k * l + j]);
            if t == places.last {
                levels[k] = z;
            } else {
                add_weight(sums, k, z, barrier);
                let weighted = add_f32(two_at(&sums.weighted, k), weight * z, barrier);
                set_two(&mut sums.weighted, k, weighted);
            }
        }
        t += THREADS;
    }
    let parts = comptime!(Parts {
        weight: true,
        weighted: true,
        range: false,
        mean: false,
        centredness: false,
    });
    add_threads(sums, scratch, barrier, count, parts);
}

/// Places what was drawn: a thread takes every particle of a place. All threads of the cube must come here.
#[cube]
fn place(
    period_units: &Array<f32>,
    state: &Array<f32>,
    particles: &Array<f32>,
    frame: &mut Array<f32>,
    table: &mut Array<f32>,
    prior_sums: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    levels: &SharedMemory<f32>,
    drawn: &BlockSums,
    half: u32,
    c: u32,
    places: Places,
    axes: Axes,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let l = axes.latents as usize;
    let thread = UNIT_POS as usize;
    let mut sums = empty_sums(count);
    if thread <= places.last {
        // What is taken off a free number for its value, and the last value, which has none.
        let mut offset = zeros(count);
        let mut last_value = Array::<f32>::new(count);
        let last_weight = period_share(period_units, c, places.last, axes);
        let in_weighted = places.shared * (1.0f32 - last_weight) + places.of_last * last_weight;
        #[unroll]
        for k in 0..count {
            let all = two_at(&drawn.weight, k);
            // w = sum over t < T of omega_t (y_t - shared B), less omega_T last B.
            let weighted = add(
                two_at(&drawn.weighted, k),
                times(all, -in_weighted, barrier),
                barrier,
            );
            let taken_off = add(times(all, places.shared, barrier), weighted, barrier);
            set_two(&mut offset, k, taken_off);
            let last = add(times(all, places.of_last, barrier), weighted, barrier);
            last_value[k] = -(last.hi + last.lo);
            if thread == 0 {
                frame[frame_shift(axes.categories, c, k, count)] = levels[k] + (weighted.hi + weighted.lo);
            }
        }
        let mut t = thread;
        while t <= places.last {
            let j = places.start + t;
            let transform = transform_of(places, t);
            let mean = mean_of(places, t);
            let latent = latent_at(state, j, l, transform);
            let constant = scale_terms(latent);
            let sold = sold_at(period_units, c, t, axes);
            #[unroll]
            for k in 0..count {
                let eps = particles[k * l + j];
                let off = two_at(&offset, k);
                let contrast = (place_of(latent, eps) - off.hi) - off.lo;
                let value = select(t == places.last, last_value[k], contrast);
                let value2 = value * LOG2_E;
                table[padded_at(c as usize * count + k, t, axes)] = value2;
                sums.low[k] = min(sums.low[k], value2);
                sums.high[k] = max(sums.high[k], value2);
                let weight = add(two_at(&sums.weight, k), times(sold, value, barrier), barrier);
                set_two(&mut sums.weight, k, weight);
                let r = residual(latent, eps, mean);
                add_weight(
                    &mut sums,
                    k,
                    prior_and_guide(r, eps, transform) + constant,
                    barrier,
                );
            }
            t += THREADS;
        }
    }
    let parts = comptime!(Parts {
        weight: true,
        weighted: false,
        range: true,
        mean: false,
        centredness: false,
    });
    add_threads(&mut sums, scratch, barrier, count, parts);
    if thread == 0 {
        write_weights(&sums, prior_sums, half, c, axes, count);
        #[unroll]
        for k in 0..count {
            let at = frame_range(axes.categories, c, k, count);
            frame[at] = sums.low[k];
            frame[at + 1] = sums.high[k];
        }
    }
}

/// `x * y` for a plain `y`.
#[cube]
fn times(x: Two, y: f32, barrier: Barrier) -> Two {
    multiply(x, Two { hi: y, lo: 0.0f32 }, barrier)
}
