//! The launch between two passes over the products: weights of the particles, then derivatives back, step, noise and
//! places of everything above the products. One cube per category takes its period effects; one more takes `category_a`,
//! `global_a` and the centredness.
//!
//! Where the centredness is fixed these do not wait for each other and make one launch; where it is learned, the top
//! needs the period effects' derivatives, and their places need its transforms: three launches.

mod centredness;
mod contrasts;
mod periods;
mod places;
pub(super) mod sums;
mod task;
mod top;
mod weights;

pub(super) use centredness::CENTREDNESS_LEN;
pub(super) use sums::THREADS;
pub(super) use task::{Sites, SitesLaunch, Task};
pub(super) use weights::{LOG_HEAD, Weighing, WeighingLaunch};

use super::axes::Axes;
use super::latent::{Draw, Step};
use super::two_float::Barrier;
use contrasts::take_contrasts;
use cubecl::prelude::*;
use periods::take_periods;
use sums::scratch_len;
use top::{place_top, turn_back_top};
use weights::{sum_log_weights, weigh};

/// See the module.
#[cube(launch_unchecked)]
pub(super) fn hierarchy(
    folded: &Array<f32>,
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
    // Which half of the prior sums holds this iteration's, and the entry of the log.
    half: u32,
    log_entry: u32,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    let mut scratch = SharedMemory::<f32>::new(comptime!(scratch_len(count)));
    let mut weights = Array::<f32>::new(count);
    let is_top = comptime!(task.top) && (CUBE_POS_X == axes.categories || comptime!(!task.periods));
    let healthy = if comptime!(task.back) {
        // Every cube weighs the particles for itself: it is cheaper than a launch.
        sum_log_weights(folded, prior_sums, &mut scratch, half, axes, barrier, task);
        let writes = is_top && UNIT_POS == 0u32;
        weigh(
            &scratch,
            &mut weights,
            log,
            frame,
            log_entry,
            writes,
            weighing,
            barrier,
            task,
        )
    } else {
        false.runtime()
    };
    let may_step = comptime!(task.learn) && healthy;

    if is_top {
        if comptime!(task.top && task.back) {
            turn_back_top(
                folded,
                prior_sums,
                state,
                particles,
                frame,
                centredness,
                &weights,
                &mut scratch,
                may_step,
                axes,
                sites,
                step,
                barrier,
                task,
            );
        }
        if comptime!(task.top && task.place) {
            place_top(
                record,
                state,
                particles,
                frame,
                prior_sums,
                &mut scratch,
                half,
                axes,
                sites,
                draw,
                barrier,
                count,
            );
        }
    } else if comptime!(task.periods && task.orthogonal) {
        take_contrasts(
            folded,
            period_units,
            record,
            state,
            particles,
            frame,
            table,
            prior_sums,
            &weights,
            &mut scratch,
            half,
            may_step,
            axes,
            sites,
            step,
            draw,
            barrier,
            task,
        );
    } else if comptime!(task.periods) {
        take_periods(
            folded,
            period_units,
            record,
            state,
            particles,
            frame,
            table,
            prior_sums,
            &weights,
            &mut scratch,
            half,
            may_step,
            axes,
            sites,
            step,
            draw,
            barrier,
            task,
        );
    }
}
