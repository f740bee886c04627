//! The launch between two passes over the products: weights of the particles, then derivatives back, step, noise and
//! places of everything above the products. One cube a category takes its period effects; one more takes `category_a`,
//! `global_a` and the centredness.
//!
//! Where the centredness is fixed these do not wait for each other and make one launch; where it is learned, the top
//! needs the period effects' derivatives, and their places need its transforms: three launches.

#![allow(unused_assignments)] // Which arm of a compile-time choice assigns, the compiler cannot tell.
#![allow(clippy::collapsible_if)] // A compile-time condition and one of the device do not go together.

use super::axes::Axes;
use super::frame::{frame_category, frame_health, frame_range, frame_transform};
use super::latent::{
    Draw, Step, TRANSFORM_LEN, Transform, by_centredness, by_mean, by_z, draw_latent, latent_at,
    prior_and_guide, residual, scale_terms, step_latent, transform_at, value_of,
};
use super::math::{LOG2_E, exp2, ln, softplus};
use super::products::CUBE_SUMS;
use super::two_float::{Barrier, Two, add, add_f32, multiply, two_sum};
use cubecl::prelude::*;

/// Threads of a cube.
pub(super) const THREADS: usize = 256;

/// Numbers of a loss in the log, before the log-weights (high and low of each).
pub(super) const LOG_HEAD: usize = 3;

/// Numbers a site's centredness takes: unconstrained value, two moments, derivative of the loss.
pub(super) const CENTREDNESS_LEN: usize = 4;

/// What of a launch is fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Task {
    /// K.
    pub(super) particles: usize,
    /// Turn derivatives back.
    pub(super) back: bool,
    /// Make the step.
    pub(super) learn: bool,
    /// Draw and place.
    pub(super) place: bool,
    /// Take the period effects.
    pub(super) periods: bool,
    /// Take the top.
    pub(super) top: bool,
    /// Whether the centredness is learned.
    pub(super) learned: bool,
    /// Whether the objective is the plain ELBO.
    pub(super) elbo: bool,
}

impl Task {
    /// Threads that share a particle, a power of two.
    fn slices(&self) -> usize {
        THREADS / self.particles.next_power_of_two()
    }

    fn scratch(&self) -> usize {
        5 * THREADS
    }
}

/// What the priors give the sites above the products, and the learning of every site's centredness.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sites {
    pub(super) global_mean: f32,
    pub(super) time_mean: f32,
    /// `ln` of the prior sds, in the order of the sites.
    pub(super) global_ln_sd: f32,
    pub(super) category_ln_sd: f32,
    pub(super) product_ln_sd: f32,
    pub(super) effect_ln_sd: f32,
    pub(super) time_ln_sd: f32,
}

/// What turns log-weights into weights and a loss.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Weighing {
    /// The sum of `ln y!`, which every log-weight has.
    pub(super) ln_factorials: Two,
    /// `1 - alpha`.
    pub(super) tempering: f32,
}

/// Sums of a block over its latents, one entry a particle, before they are added over threads.
#[derive(CubeType)]
struct BlockSums {
    weight_hi: Array<f32>,
    weight_lo: Array<f32>,
    /// Smallest and largest value times `log2 e`.
    low: Array<f32>,
    high: Array<f32>,
    mean: Array<f32>,
    centredness: Array<f32>,
}

/// See the module.
#[cube(launch_unchecked)]
pub(super) fn hierarchy(
    cube_sums: &Array<f32>,
    period_sums: &Array<f32>,
    category_cubes: &Array<u32>,
    period_units: &Array<f32>,
    record: &Array<f32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    frame: &mut Array<f32>,
    table: &mut Array<f32>,
    prior_sums: &mut Array<f32>,
    centredness: &mut Array<f32>,
    log: &mut Array<f32>,
    axes: Axes,
    sites: Sites,
    weighing: Weighing,
    step: Step,
    draw: Draw,
    barrier: Barrier,
    cube_count: u32,
    // Which half of the prior sums holds this iteration's, and the entry of the log.
    half: u32,
    log_entry: u32,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let thread = UNIT_POS as usize;
    let mut scratch = SharedMemory::<f32>::new(comptime!(task.scratch()));
    let mut derivative = SharedMemory::<f32>::new(THREADS);
    let mut shared_top = SharedMemory::<f32>::new(count);
    let mut weights = Array::<f32>::new(count);
    let mut healthy = false;
    let is_top = comptime!(task.top) && (CUBE_POS_X == axes.categories || comptime!(!task.periods));
    let l = axes.latents as usize;
    let blocks = axes.categories as usize + 1;

    if comptime!(task.back) {
        // Every cube adds the log-weights for itself: it is cheaper than a launch.
        let slices = comptime!(task.slices());
        let k = thread / slices;
        let slice = thread % slices;
        let mut hi = 0.0f32;
        let mut lo = 0.0f32;
        if k < count {
            let mut cube = slice;
            while cube < cube_count as usize {
                let at = (cube * count + k) * CUBE_SUMS;
                let sum = add(
                    Two { hi, lo },
                    Two {
                        hi: cube_sums[at],
                        lo: cube_sums[at + 1],
                    },
                    barrier,
                );
                hi = sum.hi;
                lo = sum.lo;
                cube += slices;
            }
            let mut block = slice;
            while block < blocks {
                let at = ((half as usize * blocks + block) * count + k) * 2;
                let sum = add(
                    Two { hi, lo },
                    Two {
                        hi: prior_sums[at],
                        lo: prior_sums[at + 1],
                    },
                    barrier,
                );
                hi = sum.hi;
                lo = sum.lo;
                block += slices;
            }
        }
        scratch[thread] = hi;
        scratch[THREADS + thread] = lo;
        sync_cube();
        let mut width = comptime!(slices / 2).runtime();
        while width > 0 {
            if slice < width {
                let sum = add(
                    Two {
                        hi: scratch[thread],
                        lo: scratch[THREADS + thread],
                    },
                    Two {
                        hi: scratch[thread + width],
                        lo: scratch[THREADS + thread + width],
                    },
                    barrier,
                );
                scratch[thread] = sum.hi;
                scratch[THREADS + thread] = sum.lo;
            }
            sync_cube();
            width /= 2;
        }
        let factorials = Two {
            hi: -weighing.ln_factorials.hi,
            lo: -weighing.ln_factorials.lo,
        };
        let mut top_hi = 0.0f32;
        let mut top_lo = 0.0f32;
        let mut all_hi = 0.0f32;
        let mut all_lo = 0.0f32;
        #[unroll]
        for k in 0..count {
            let weight = add(
                Two {
                    hi: scratch[k * slices],
                    lo: scratch[THREADS + k * slices],
                },
                factorials,
                barrier,
            );
            let tempered = multiply(
                weight,
                Two {
                    hi: weighing.tempering,
                    lo: 0.0f32,
                },
                barrier,
            );
            let larger = tempered.hi > top_hi || (tempered.hi == top_hi && tempered.lo > top_lo);
            let take = comptime!(k == 0) || larger;
            top_hi = select(take, tempered.hi, top_hi);
            top_lo = select(take, tempered.lo, top_lo);
            let all = add(
                Two {
                    hi: all_hi,
                    lo: all_lo,
                },
                weight,
                barrier,
            );
            all_hi = all.hi;
            all_lo = all.lo;
            if is_top && thread == 0 {
                let at = log_entry as usize * comptime!(LOG_HEAD + 2 * count) + comptime!(LOG_HEAD + 2 * k);
                log[at] = weight.hi;
                log[at + 1] = weight.lo;
            }
        }
        let mut loss_hi = 0.0f32;
        let mut loss_lo = 0.0f32;
        let mut effective = 0.0f32;
        if comptime!(task.elbo) {
            let share = comptime!(1.0 / count as f32);
            #[unroll]
            for k in 0..count {
                weights[k] = share.runtime();
            }
            // Minus the mean of the log-weights.
            let mean = multiply(
                Two {
                    hi: all_hi,
                    lo: all_lo,
                },
                reciprocal_two(count),
                barrier,
            );
            loss_hi = -mean.hi;
            loss_lo = -mean.lo;
            effective = comptime!(count as f32).runtime();
        } else {
            let mut sum = 0.0f32;
            #[unroll]
            for k in 0..count {
                let weight = add(
                    Two {
                        hi: scratch[k * slices],
                        lo: scratch[THREADS + k * slices],
                    },
                    factorials,
                    barrier,
                );
                let tempered = multiply(
                    weight,
                    Two {
                        hi: weighing.tempering,
                        lo: 0.0f32,
                    },
                    barrier,
                );
                let below = (tempered.hi - top_hi) + (tempered.lo - top_lo);
                let share = select(below * LOG2_E > -126.0f32, exp2(below * LOG2_E), 0.0f32);
                weights[k] = share;
                sum += share;
            }
            let mut squares = 0.0f32;
            #[unroll]
            for k in 0..count {
                let share = weights[k] / sum;
                weights[k] = share;
                squares += share * share;
            }
            let bound = add_f32(
                Two {
                    hi: top_hi,
                    lo: top_lo,
                },
                ln(sum) - comptime!((count as f32).ln()),
                barrier,
            );
            // Division by 1 - alpha: one Newton step on the quotient in two floats.
            let q = bound.hi / weighing.tempering;
            let back = multiply(
                Two { hi: q, lo: 0.0f32 },
                Two {
                    hi: weighing.tempering,
                    lo: 0.0f32,
                },
                barrier,
            );
            let left = (bound.hi - back.hi) + (bound.lo - back.lo);
            let quotient = two_sum(-q, -(left / weighing.tempering), barrier);
            loss_hi = quotient.hi;
            loss_lo = quotient.lo;
            effective = 1.0f32 / squares;
        }
        // A run that failed stays as it was before: launches of the same batch that follow make no step either.
        healthy = loss_hi.abs() < 3.0e38f32 && frame[frame_health(count)] == 1.0f32;
        if is_top && thread == 0 {
            let at = log_entry as usize * comptime!(LOG_HEAD + 2 * count);
            log[at] = loss_hi;
            log[at + 1] = loss_lo;
            log[at + 2] = effective;
            #[unroll]
            for k in 0..count {
                frame[k] = weights[k];
            }
            frame[frame_health(count)] = select(healthy, 1.0f32, 0.0f32);
        }
        sync_cube();
    }

    if is_top {
        if comptime!(task.top) {
            let global_transform = transform_at(frame, frame_transform(0usize, count));
            let category_transform = transform_at(frame, frame_transform(1usize, count));
            let may_step = comptime!(task.learn) && healthy;
            if comptime!(task.back) {
                let mut sums = empty_sums(count);
                let global = latent_at(state, 0, l, global_transform);
                let mut c = thread;
                while c < axes.categories as usize {
                    let j = 1 + c;
                    let latent = latent_at(state, j, l, category_transform);
                    #[unroll]
                    for k in 0..count {
                        let mut by_value = 0.0f32;
                        for cube in category_cubes[2 * c]..category_cubes[2 * c + 1] {
                            by_value += cube_sums[(cube as usize * count + k) * CUBE_SUMS + 2];
                        }
                        let global_residual = residual(global, particles[k * l], sites.global_mean);
                        let mean = value_of(global_residual, sites.global_mean, global_transform);
                        let r = residual(latent, particles[k * l + j], mean);
                        particles[(count + k) * l + j] = by_z(by_value, r, category_transform);
                        sums.mean[k] += by_mean(by_value, r, category_transform);
                        sums.centredness[k] += by_centredness(by_value, r, mean, category_transform);
                    }
                    c += THREADS;
                }
                add_threads(&mut sums, &mut scratch, barrier, count);
                // All threads have read the global elasticity's state; now it may move.
                if thread == 0 {
                    #[unroll]
                    for k in 0..count {
                        let r = residual(global, particles[k * l], sites.global_mean);
                        particles[(count + k) * l] = by_z(sums.mean[k], r, global_transform);
                        if comptime!(task.learned) {
                            let own = by_centredness(sums.mean[k], r, sites.global_mean, global_transform);
                            let weighted = weights[k];
                            add_centredness(centredness, 0usize, k, weighted * own);
                            add_centredness(centredness, 1usize, k, weighted * sums.centredness[k]);
                        }
                    }
                    if may_step {
                        step_latent(state, particles, &weights, 0, l, step, count);
                    }
                }
                if may_step {
                    let mut c = thread;
                    while c < axes.categories as usize {
                        step_latent(state, particles, &weights, 1 + c, l, step, count);
                        c += THREADS;
                    }
                }
                if comptime!(task.learned) {
                    if thread == 0 {
                        // The products' sites and the period effects'.
                        let mut by_a = 0.0f32;
                        let mut by_e = 0.0f32;
                        let mut by_t = 0.0f32;
                        #[unroll]
                        for k in 0..count {
                            let mut a = 0.0f32;
                            let mut e = 0.0f32;
                            let mut t = 0.0f32;
                            for cube in 0..cube_count {
                                let at = (cube as usize * count + k) * CUBE_SUMS;
                                a += cube_sums[at + 3];
                                e += cube_sums[at + 4];
                            }
                            for c in 0..axes.categories {
                                t += prior_sums[4 * blocks * count + c as usize * count + k];
                            }
                            by_a += weights[k] * a;
                            by_e += weights[k] * e;
                            by_t += weights[k] * t;
                        }
                        centredness[2 * CENTREDNESS_LEN + 3] = by_a;
                        centredness[3 * CENTREDNESS_LEN + 3] = by_e;
                        centredness[4 * CENTREDNESS_LEN + 3] = by_t;
                        learn_centredness(
                            centredness,
                            frame,
                            0usize,
                            sites.global_ln_sd,
                            may_step,
                            step,
                            count,
                        );
                        learn_centredness(
                            centredness,
                            frame,
                            1usize,
                            sites.category_ln_sd,
                            may_step,
                            step,
                            count,
                        );
                        learn_centredness(
                            centredness,
                            frame,
                            2usize,
                            sites.product_ln_sd,
                            may_step,
                            step,
                            count,
                        );
                        learn_centredness(
                            centredness,
                            frame,
                            3usize,
                            sites.effect_ln_sd,
                            may_step,
                            step,
                            count,
                        );
                        learn_centredness(
                            centredness,
                            frame,
                            4usize,
                            sites.time_ln_sd,
                            may_step,
                            step,
                            count,
                        );
                    }
                }
                sync_cube();
            }
            if comptime!(task.place) {
                let mut sums = empty_sums(count);
                if thread == 0 {
                    // This thread may just have changed them; the others take them from it.
                    #[unroll]
                    for i in 0..comptime!(2 * TRANSFORM_LEN) {
                        derivative[i] = frame[comptime!(count + 1 + i)];
                    }
                }
                sync_cube();
                let global_transform = shared_transform(&derivative, 0usize);
                let category_transform = shared_transform(&derivative, TRANSFORM_LEN);
                if thread == 0 {
                    draw_latent(particles, record, 0, 0u32, l, draw, count);
                    let latent = latent_at(state, 0, l, global_transform);
                    let constant = scale_terms(latent);
                    #[unroll]
                    for k in 0..count {
                        let e = particles[k * l];
                        let r = residual(latent, e, sites.global_mean);
                        shared_top[k] = value_of(r, sites.global_mean, global_transform);
                        sums.weight_hi[k] = prior_and_guide(r, e, global_transform) + constant;
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
                        let e = particles[k * l + j];
                        let mean = shared_top[k];
                        let r = residual(latent, e, mean);
                        frame[frame_category(c as u32, k, count)] = value_of(r, mean, category_transform);
                        add_weight(
                            &mut sums,
                            k,
                            prior_and_guide(r, e, category_transform) + constant,
                            barrier,
                        );
                    }
                    c += THREADS;
                }
                add_threads(&mut sums, &mut scratch, barrier, count);
                if thread == 0 {
                    write_weights(
                        &sums,
                        prior_sums,
                        (1u32 - half) as usize * blocks + axes.categories as usize,
                        count,
                    );
                }
            }
        }
    } else if comptime!(task.periods) {
        let c = CUBE_POS_X;
        let slices = comptime!(task.slices());
        let transform = transform_at(frame, frame_transform(4usize, count));
        let start = 1u32 + axes.categories + 2u32 * axes.products + c * axes.periods;
        let row = 4 * axes.stride as usize;
        let mut sums = empty_sums(count);
        #[unroll]
        for k in 0..count {
            sums.low[k] = 3.0e38f32;
            sums.high[k] = -3.0e38f32;
        }
        let units_at = (c * axes.periods) as usize;
        let all_units = (axes.categories * axes.periods) as usize;
        let mut first = 0u32;
        while first < axes.periods {
            let slice = thread % slices;
            let t = first as usize + slice;
            if comptime!(task.back) {
                let k = thread / slices;
                if k < count && t < axes.periods as usize {
                    let mut hi = 0.0f32;
                    let mut lo = 0.0f32;
                    for cube in category_cubes[2 * c as usize]..category_cubes[2 * c as usize + 1] {
                        let grown = two_sum(hi, period_sums[(cube as usize * count + k) * row + t], barrier);
                        hi = grown.hi;
                        lo += grown.lo;
                    }
                    derivative[thread] =
                        (period_units[units_at + t] - hi) + (period_units[all_units + units_at + t] - lo);
                }
                sync_cube();
            }
            if thread < slices && t < axes.periods as usize {
                let j = start as usize + t;
                if comptime!(task.back) {
                    let latent = latent_at(state, j, l, transform);
                    #[unroll]
                    for k in 0..count {
                        let by_value = derivative[k * slices + slice];
                        let r = residual(latent, particles[k * l + j], sites.time_mean);
                        particles[(count + k) * l + j] = by_z(by_value, r, transform);
                        if comptime!(task.learned) {
                            sums.centredness[k] += by_centredness(by_value, r, sites.time_mean, transform);
                        }
                    }
                    if comptime!(task.learn) && healthy {
                        step_latent(state, particles, &weights, j, l, step, count);
                    }
                }
                if comptime!(task.place) {
                    draw_latent(particles, record, j, j as u32, l, draw, count);
                    let latent = latent_at(state, j, l, transform);
                    let constant = scale_terms(latent);
                    let sold = Two {
                        hi: period_units[units_at + t],
                        lo: period_units[all_units + units_at + t],
                    };
                    #[unroll]
                    for k in 0..count {
                        let e = particles[k * l + j];
                        let r = residual(latent, e, sites.time_mean);
                        let value = value_of(r, sites.time_mean, transform);
                        let value2 = value * LOG2_E;
                        table[(c as usize * count + k) * row + t] = value2;
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
                        let so_far = Two {
                            hi: sums.weight_hi[k],
                            lo: sums.weight_lo[k],
                        };
                        let sum = add(so_far, linear, barrier);
                        sums.weight_hi[k] = sum.hi;
                        sums.weight_lo[k] = sum.lo;
                        add_weight(&mut sums, k, prior_and_guide(r, e, transform) + constant, barrier);
                    }
                }
            }
            sync_cube();
            first += comptime!(slices as u32);
        }
        add_threads(&mut sums, &mut scratch, barrier, count);
        if thread == 0 {
            if comptime!(task.place) {
                write_weights(
                    &sums,
                    prior_sums,
                    (1u32 - half) as usize * blocks + c as usize,
                    count,
                );
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
                    prior_sums[4 * blocks * count + c as usize * count + k] = sums.centredness[k];
                }
            }
        }
    }
}

/// `1 / n` in two floats.
#[cube]
fn reciprocal_two(#[comptime] n: usize) -> Two {
    let hi = comptime!(1.0 / n as f32);
    let lo = comptime!((1.0 / n as f64 - f64::from(1.0 / n as f32)) as f32);
    Two {
        hi: hi.runtime(),
        lo: lo.runtime(),
    }
}

#[cube]
fn empty_sums(#[comptime] count: usize) -> BlockSums {
    let mut sums = BlockSums {
        weight_hi: Array::<f32>::new(count),
        weight_lo: Array::<f32>::new(count),
        low: Array::<f32>::new(count),
        high: Array::<f32>::new(count),
        mean: Array::<f32>::new(count),
        centredness: Array::<f32>::new(count),
    };
    #[unroll]
    for k in 0..count {
        sums.weight_hi[k] = 0.0f32;
        sums.weight_lo[k] = 0.0f32;
        sums.low[k] = 0.0f32;
        sums.high[k] = 0.0f32;
        sums.mean[k] = 0.0f32;
        sums.centredness[k] = 0.0f32;
    }
    sums
}

#[cube]
fn add_weight(sums: &mut BlockSums, #[comptime] k: usize, term: f32, barrier: Barrier) {
    let so_far = Two {
        hi: sums.weight_hi[k],
        lo: sums.weight_lo[k],
    };
    let sum = add_f32(so_far, term, barrier);
    sums.weight_hi[k] = sum.hi;
    sums.weight_lo[k] = sum.lo;
}

#[cube]
fn write_weights(sums: &BlockSums, prior_sums: &mut Array<f32>, block: usize, #[comptime] count: usize) {
    #[unroll]
    for k in 0..count {
        prior_sums[(block * count + k) * 2] = sums.weight_hi[k];
        prior_sums[(block * count + k) * 2 + 1] = sums.weight_lo[k];
    }
}

/// Adds the threads' sums up; every thread has the totals afterwards. All threads of the cube must come here.
#[cube]
fn add_threads(
    sums: &mut BlockSums,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] count: usize,
) {
    let thread = UNIT_POS as usize;
    #[unroll]
    for k in 0..count {
        sync_cube();
        scratch[thread] = sums.weight_hi[k];
        scratch[THREADS + thread] = sums.weight_lo[k];
        scratch[2 * THREADS + thread] = sums.low[k];
        scratch[3 * THREADS + thread] = sums.high[k];
        scratch[4 * THREADS + thread] = sums.mean[k];
        sync_cube();
        let mut width = comptime!(THREADS / 2).runtime();
        while width > 0 {
            if thread < width {
                let sum = add(
                    Two {
                        hi: scratch[thread],
                        lo: scratch[THREADS + thread],
                    },
                    Two {
                        hi: scratch[thread + width],
                        lo: scratch[THREADS + thread + width],
                    },
                    barrier,
                );
                scratch[thread] = sum.hi;
                scratch[THREADS + thread] = sum.lo;
                scratch[2 * THREADS + thread] = min(
                    scratch[2 * THREADS + thread],
                    scratch[2 * THREADS + thread + width],
                );
                scratch[3 * THREADS + thread] = max(
                    scratch[3 * THREADS + thread],
                    scratch[3 * THREADS + thread + width],
                );
                scratch[4 * THREADS + thread] += scratch[4 * THREADS + thread + width];
            }
            sync_cube();
            width /= 2;
        }
        sums.weight_hi[k] = scratch[0];
        sums.weight_lo[k] = scratch[THREADS];
        sums.low[k] = scratch[2 * THREADS];
        sums.high[k] = scratch[3 * THREADS];
        sums.mean[k] = scratch[4 * THREADS];
        sync_cube();
        scratch[thread] = sums.centredness[k];
        sync_cube();
        let mut width = comptime!(THREADS / 2).runtime();
        while width > 0 {
            if thread < width {
                scratch[thread] += scratch[thread + width];
            }
            sync_cube();
            width /= 2;
        }
        sums.centredness[k] = scratch[0];
    }
    sync_cube();
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

/// Sets, for the first particle, or adds a particle's part of the derivative by a site's centredness.
#[cube]
fn add_centredness(centredness: &mut Array<f32>, #[comptime] site: usize, #[comptime] k: usize, part: f32) {
    let at = comptime!(site * CENTREDNESS_LEN + 3);
    if comptime!(k == 0) {
        centredness[at] = part;
    } else {
        centredness[at] += part;
    }
}

/// Turns the derivative by a site's centredness into the loss's by its unconstrained value, makes the step, and renews the
/// transform.
#[cube]
fn learn_centredness(
    centredness: &mut Array<f32>,
    frame: &mut Array<f32>,
    #[comptime] site: usize,
    ln_sd: f32,
    may_step: bool,
    step: Step,
    #[comptime] count: usize,
) {
    let at = comptime!(site * CENTREDNESS_LEN);
    let u = centredness[at];
    let (_, c) = softplus(u);
    let gradient = -centredness[at + 3] * c * (1.0 - c);
    centredness[at + 3] = gradient;
    if may_step {
        let first = fma(gradient, step.b1_rest, step.b1 * centredness[at + 1]);
        let second = fma(gradient * gradient, step.b2_rest, step.b2 * centredness[at + 2]);
        centredness[at + 1] = first;
        centredness[at + 2] = second;
        let root = (second * step.second_correction).sqrt();
        let update = first * step.first_correction / (root + step.eps) + step.weight_decay * u;
        let next = u - step.learning_rate * update;
        centredness[at] = next;
        let (_, c) = softplus(next);
        let to = comptime!(count + 1 + TRANSFORM_LEN * site);
        frame[to] = c;
        frame[to + 1] = ln_sd;
        frame[to + 2] = exp2((1.0 - c) * ln_sd * LOG2_E);
        frame[to + 3] = exp2(-2.0 * c * ln_sd * LOG2_E);
    }
}
