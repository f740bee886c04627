//! The particles' log-weights, added up, and what follows from them: the weights and the loss.

use super::super::axes::Axes;
use super::super::fold::folded_two;
use super::super::frame::frame_health;
use super::super::math::{LOG2_E, exp2, ln};
use super::super::two_float::{Barrier, Two, add, add_f32, multiply, two_sum};
use super::sums::{add_slices, block_entry, scratch_two};
use super::task::Task;
use cubecl::prelude::*;

/// Numbers of a loss in the log, before the log-weights (high and low of each).
pub(in crate::fused) const LOG_HEAD: usize = 3;

/// The parameters that turn log-weights into weights and a loss.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(in crate::fused) struct Weighing {
    /// The sum of `ln y!`, which every log-weight has.
    pub(in crate::fused) ln_factorials: Two,
    /// `1 - alpha`.
    pub(in crate::fused) tempering: f32,
}

/// Adds the log-weights of the products and those that the blocks above them left; particle k's is then in `scratch` at
/// its first slice. All threads of the cube must come here.
#[cube]
pub(super) fn sum_log_weights(
    folded: &Array<f32>,
    prior_sums: &Array<f32>,
    scratch: &mut SharedMemory<f32>,
    half: u32,
    axes: Axes,
    barrier: Barrier,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let slices = comptime!(task.slices());
    let thread = UNIT_POS as usize;
    let k = thread / slices;
    let slice = thread % slices;
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    if k < count {
        if slice == 0 {
            let products = folded_two(folded, k);
            hi = products.hi;
            lo = products.lo;
        }
        let mut block = slice;
        while block <= axes.categories as usize {
            let at = (block_entry(half, block, axes) * count + k) * 2;
            let left = Two {
                hi: prior_sums[at],
                lo: prior_sums[at + 1],
            };
            let sum = add(Two { hi, lo }, left, barrier);
            hi = sum.hi;
            lo = sum.lo;
            block += slices;
        }
    }
    add_slices(Two { hi, lo }, scratch, barrier, slices);
}

/// The log-weight of particle k, from the sums in `scratch`.
#[cube]
fn log_weight(
    scratch: &SharedMemory<f32>,
    #[comptime] k: usize,
    weighing: Weighing,
    barrier: Barrier,
    #[comptime] task: Task,
) -> Two {
    let factorials = Two {
        hi: -weighing.ln_factorials.hi,
        lo: -weighing.ln_factorials.lo,
    };
    add(
        scratch_two(scratch, comptime!(k * task.slices()).runtime()),
        factorials,
        barrier,
    )
}

/// The log-weight of particle k times `1 - alpha`.
#[cube]
fn tempered_log_weight(
    scratch: &SharedMemory<f32>,
    #[comptime] k: usize,
    weighing: Weighing,
    barrier: Barrier,
    #[comptime] task: Task,
) -> Two {
    let tempering = Two {
        hi: weighing.tempering,
        lo: 0.0f32,
    };
    multiply(
        log_weight(scratch, k, weighing, barrier, task),
        tempering,
        barrier,
    )
}

/// A loss, and how many particles it rests on.
#[derive(CubeType, Clone, Copy)]
struct Loss {
    value: Two,
    effective: f32,
}

/// Weighs the particles by the sums in `scratch`; says whether the step may be made. The thread that `writes` leaves the
/// weights, the loss and the health. All threads of the cube must come here.
#[cube]
pub(super) fn weigh(
    scratch: &SharedMemory<f32>,
    weights: &mut Array<f32>,
    log: &mut Array<f32>,
    frame: &mut Array<f32>,
    log_entry: u32,
    writes: bool,
    weighing: Weighing,
    barrier: Barrier,
    #[comptime] task: Task,
) -> bool {
    let count = comptime!(task.particles);
    let entry = log_entry as usize * comptime!(LOG_HEAD + 2 * count);
    let loss = if comptime!(task.elbo) {
        weigh_equally(scratch, weights, weighing, barrier, task)
    } else {
        weigh_tempered(scratch, weights, weighing, barrier, task)
    };
    // A run that failed stays as it was before: launches of the same batch that follow make no step either.
    let healthy = loss.value.hi.abs() < 3.0e38f32 && frame[frame_health(count)] == 1.0f32;
    if writes {
        log[entry] = loss.value.hi;
        log[entry + 1] = loss.value.lo;
        log[entry + 2] = loss.effective;
        #[unroll]
        for k in 0..count {
            let weight = log_weight(scratch, k, weighing, barrier, task);
            let at = entry + comptime!(LOG_HEAD + 2 * k);
            log[at] = weight.hi;
            log[at + 1] = weight.lo;
            frame[k] = weights[k];
        }
        frame[frame_health(count)] = select(healthy, 1.0f32, 0.0f32);
    }
    sync_cube();
    healthy
}

/// The plain ELBO: equal weights, and as the loss minus the mean of the log-weights.
#[cube]
fn weigh_equally(
    scratch: &SharedMemory<f32>,
    weights: &mut Array<f32>,
    weighing: Weighing,
    barrier: Barrier,
    #[comptime] task: Task,
) -> Loss {
    let count = comptime!(task.particles);
    let share = comptime!(1.0 / count as f32);
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    #[unroll]
    for k in 0..count {
        weights[k] = share.runtime();
        let all = add(
            Two { hi, lo },
            log_weight(scratch, k, weighing, barrier, task),
            barrier,
        );
        hi = all.hi;
        lo = all.lo;
    }
    let mean = multiply(Two { hi, lo }, reciprocal_two(count), barrier);
    Loss {
        value: Two {
            hi: -mean.hi,
            lo: -mean.lo,
        },
        effective: comptime!(count as f32).runtime(),
    }
}

/// The Renyi bound: weights in proportion to the tempered ones, and as the loss minus the bound.
#[cube]
fn weigh_tempered(
    scratch: &SharedMemory<f32>,
    weights: &mut Array<f32>,
    weighing: Weighing,
    barrier: Barrier,
    #[comptime] task: Task,
) -> Loss {
    let count = comptime!(task.particles);
    let mut top_hi = 0.0f32;
    let mut top_lo = 0.0f32;
    #[unroll]
    for k in 0..count {
        let tempered = tempered_log_weight(scratch, k, weighing, barrier, task);
        let larger = tempered.hi > top_hi || (tempered.hi == top_hi && tempered.lo > top_lo);
        let take = comptime!(k == 0) || larger;
        top_hi = select(take, tempered.hi, top_hi);
        top_lo = select(take, tempered.lo, top_lo);
    }
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..count {
        let tempered = tempered_log_weight(scratch, k, weighing, barrier, task);
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
    let top = Two {
        hi: top_hi,
        lo: top_lo,
    };
    let bound = add_f32(top, ln(sum) - comptime!((count as f32).ln()), barrier);
    // Division by 1 - alpha: one Newton step on the quotient in two floats.
    let q = bound.hi / weighing.tempering;
    let tempering = Two {
        hi: weighing.tempering,
        lo: 0.0f32,
    };
    let back = multiply(Two { hi: q, lo: 0.0f32 }, tempering, barrier);
    let left = (bound.hi - back.hi) + (bound.lo - back.lo);
    Loss {
        value: two_sum(-q, -(left / weighing.tempering), barrier),
        effective: 1.0f32 / squares,
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
