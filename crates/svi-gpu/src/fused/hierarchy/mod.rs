//! The launch between two passes over the products: weights of the particles, then derivatives back, step, noise and
//! places of everything above the products. One cube a category takes its period effects; one more takes `category_a`,
//! `global_a` and the centredness.
//!
//! Where the centredness is fixed these do not wait for each other and make one launch; where it is learned, the top
//! needs the period effects' derivatives, and their places need its transforms: three launches.

mod centredness;
mod contrasts;
mod periods;
mod places;
mod sums;
mod top;
mod weights;

pub(super) use centredness::CENTREDNESS_LEN;
pub(super) use weights::{LOG_HEAD, Weighing, WeighingLaunch};

use super::axes::Axes;
use super::fold::Sums;
use super::latent::{Draw, Step};
use super::two_float::Barrier;
use contrasts::take_contrasts;
use cubecl::prelude::*;
use periods::take_periods;
pub(in crate::fused) use sums::add_slices;
use sums::scratch_len;
use top::{place_top, turn_back_top};
use weights::{sum_log_weights, weigh};

/// Threads of a cube.
pub(super) const THREADS: usize = 256;

/// What of a launch is fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Task {
    /// K.
    pub(super) particles: usize,
    /// Weigh the particles and turn derivatives back.
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
    /// Whether the coordinates are the orthogonal ones.
    pub(super) orthogonal: bool,
    /// Whether the objective is the plain ELBO.
    pub(super) elbo: bool,
}

impl Task {
    /// What the products left.
    fn sums(self) -> Sums {
        Sums {
            particles: self.particles,
            learned: self.learned,
            orthogonal: self.orthogonal,
        }
    }

    /// Threads that share a particle, a power of two.
    fn slices(&self) -> usize {
        THREADS / self.particles.next_power_of_two()
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
