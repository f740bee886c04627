//! The pass over the products: step, draw, place, rows, and derivatives back, in one launch.
//!
//! A cube owns consecutive products of one category. It takes them `chunk` at a time: one thread a product for what
//! belongs to the product, then all threads over the rows. There a thread owns `4 * tiles` periods and keeps their
//! sums of rates, of every particle, in registers for as long as the cube lives; only sums by product cross threads.

mod finish;
mod latents;
mod periods;
mod prepare;
mod rows;

use super::axes::Axes;
use super::frame::frame_health;
use super::latent::{Draw, Step};
use super::two_float::Barrier;
use cubecl::prelude::*;
use finish::{finish_product, no_sums, write_sums};
use latents::{draw_product, step_product};
use periods::{load_effects, no_periods, write_periods};
use prepare::{nothing_placed, prepare_product};
use rows::{LANE_SUMS, add_lanes, load_deviations, no_deviations, no_row_sums, row_sums, take_deviations};

/// The deviation that marks an absent row; anything beyond [`PRESENT`] does.
pub(super) const ABSENT: f32 = 3.0e38;
const PRESENT: f32 = 1.0e38;

/// Columns of the products' constants, each of length N; in orthogonal coordinates there is [`ORIGIN`] besides, and means are measured from it.
pub(super) const CONSTANT_COLUMNS: usize = 8;
const MEAN_HI: usize = 0;
const MEAN_LO: usize = 1;
const UNITS_HI: usize = 2;
const UNITS_LO: usize = 3;
const DEVIATION_HI: usize = 4;
const DEVIATION_LO: usize = 5;
const LOWEST: usize = 6;
const HIGHEST: usize = 7;
const ORIGIN: usize = CONSTANT_COLUMNS;

/// Sums that a cube leaves for each particle: log-weight (high, low), derivative by the category's elasticity,
/// derivatives by the two sites' centredness. In orthogonal coordinates, where none is learned, the last is the derivative by the prior mean of
/// the effects.
pub(super) const CUBE_SUMS: usize = 5;

/// What of a launch is fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    /// K.
    pub(super) particles: usize,
    /// Vectors of four periods that a thread owns.
    pub(super) tiles: usize,
    /// Threads along the periods.
    pub(super) lanes: usize,
    /// Threads along the products.
    pub(super) groups: usize,
    /// Products that are prepared at a time; at most `lanes * groups`.
    pub(super) chunk: usize,
    /// Products that a group takes before the lanes' sums are added.
    pub(super) depth: usize,
    /// Whether rows can be absent.
    pub(super) gaps: bool,
    /// Whether the centredness is learned.
    pub(super) learned: bool,
    /// Whether the coordinates are the orthogonal ones.
    pub(super) orthogonal: bool,
    /// Whether the device's own exponential serves the rows.
    pub(super) native_exp2: bool,
}

impl Shape {
    /// Threads of a cube.
    pub(super) fn threads(&self) -> usize {
        self.lanes * self.groups
    }

    /// Rounds in which a thread takes a row's particles, four at a time.
    pub(super) fn rounds(&self) -> usize {
        self.particles.div_ceil(4)
    }

    /// Particles of a round.
    fn round_count(&self, round: usize) -> usize {
        (self.particles - 4 * round).min(4)
    }

    /// Products between two additions of the lanes' sums.
    fn pass(&self) -> usize {
        self.depth * self.groups
    }

    /// Numbers from a product's and particle's sums over lanes to the next: odd, so that neighbours lie in different banks.
    fn lane_stride(&self) -> usize {
        self.lanes | 1
    }

    /// Numbers of one of the [`LANE_SUMS`].
    fn lane_sums(&self) -> usize {
        self.pass() * self.round_count(0) * self.lane_stride()
    }

    /// How many of the [`CUBE_SUMS`] there are.
    fn own_sums(&self) -> usize {
        if self.learned {
            CUBE_SUMS
        } else {
            CUBE_SUMS - 2 + usize::from(self.orthogonal)
        }
    }

    /// Numbers of shared memory in which threads leave their sums.
    fn scratch(&self) -> usize {
        let of_periods = 4 * self.round_count(0) * self.threads();
        (LANE_SUMS * self.lane_sums()).max(of_periods)
    }

    /// Bytes of shared memory that the kernel takes.
    pub(super) fn shared_bytes(&self) -> usize {
        let vectors = 2 * 4 * self.rounds();
        4 * (self.scratch() + self.chunk * (vectors + (5 + self.own_sums()) * self.particles + 1))
    }
}

/// What the priors and the number of periods give the products.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Model {
    /// The clip bounds times `log2 e`.
    pub(super) clip_low2: f32,
    pub(super) clip_high2: f32,
    /// The products' effects' prior mean.
    pub(super) effect_mean: f32,
}

/// See the module. `step_only` makes the pending step and nothing else.
#[cube(launch_unchecked)]
pub(super) fn products(
    rows: &Array<Vector<f32, Const<4>>>,
    units: &Array<u32>,
    constants: &Array<f32>,
    order: &Array<u32>,
    cubes: &Array<u32>,
    state: &mut Array<f32>,
    particles: &mut Array<f32>,
    frame: &Array<f32>,
    table: &Array<Vector<f32, Const<4>>>,
    cube_sums: &mut Array<f32>,
    period_sums: &mut Array<f32>,
    record: &Array<f32>,
    axes: Axes,
    model: Model,
    step: Step,
    draw: Draw,
    barrier: Barrier,
    step_pending: u32,
    #[comptime] shape: Shape,
    #[comptime] step_only: bool,
) {
    let count = comptime!(shape.particles);
    let threads = comptime!(shape.threads());
    let chunk = comptime!(shape.chunk);
    let groups = comptime!(shape.groups as u32).runtime();
    let thread = UNIT_POS as usize;
    let group = UNIT_POS_Y as usize;
    let cube = CUBE_POS;
    let start = cubes[3 * cube];
    let end = cubes[3 * cube + 1];
    let category = cubes[3 * cube + 2];

    if comptime!(step_only) {
        if frame[frame_health(count)] == 1.0f32 {
            let mut p = start + UNIT_POS;
            while p < end {
                step_product(state, particles, frame, p, axes, step, count);
                p += comptime!(threads as u32);
            }
        }
    } else {
        let mut placed = nothing_placed(shape);
        let mut sums = no_row_sums(shape);
        let mut scratch = SharedMemory::<f32>::new(comptime!(shape.scratch()));
        let mut own = no_sums(shape);
        let mut periods = no_periods(shape);

        let mut first = start;
        while first < end {
            let here = min(end - first, comptime!(chunk as u32));
            let p = first + UNIT_POS;
            if UNIT_POS < here {
                if step_pending != 0u32 && frame[frame_health(count)] == 1.0f32 {
                    step_product(state, particles, frame, p, axes, step, count);
                }
                draw_product(particles, record, order, p, axes, draw, count);
                prepare_product(
                    constants,
                    state,
                    particles,
                    frame,
                    p,
                    category,
                    axes,
                    model,
                    barrier,
                    &mut placed,
                    &mut own,
                    shape,
                );
            }
            load_effects(table, category, axes, &mut periods, shape);
            // A group's rows are on their way while those before them are added up.
            let mut coming = no_deviations(shape);
            load_deviations(rows, first, group as u32, here, axes, &mut coming, shape);
            sync_cube();

            let mut pass = 0u32;
            while pass < here {
                #[unroll]
                for round in 0..comptime!(shape.rounds()) {
                    if comptime!(shape.rounds() > 1) {
                        // Every round passes over the same products.
                        load_deviations(rows, first, pass + group as u32, here, axes, &mut coming, shape);
                    }
                    let mut turn = 0u32;
                    while turn < comptime!(shape.depth as u32) {
                        let q = pass + turn * groups + group as u32;
                        if q < here {
                            let deviations = take_deviations(&coming, shape);
                            load_deviations(rows, first, q + groups, here, axes, &mut coming, shape);
                            row_sums(
                                units,
                                &deviations,
                                first + q,
                                q as usize,
                                (q - pass) as usize,
                                axes,
                                model,
                                &placed,
                                &mut periods,
                                &mut scratch,
                                barrier,
                                shape,
                                round,
                            );
                        }
                        turn += 1u32;
                    }
                    sync_cube();
                    // One thread a product and particle adds what the lanes found.
                    let passed = min(here - pass, comptime!(shape.pass() as u32)) as usize;
                    let mut out = thread;
                    while out < passed * comptime!(shape.round_count(round)) {
                        add_lanes(
                            &scratch,
                            &mut placed,
                            &mut sums,
                            pass as usize,
                            out,
                            barrier,
                            shape,
                            round,
                        );
                        out += threads;
                    }
                    sync_cube();
                }
                pass += comptime!(shape.pass() as u32);
            }

            if UNIT_POS < here {
                finish_product(
                    constants, state, particles, frame, p, category, axes, model, barrier, &placed, &sums,
                    &mut own, shape,
                );
            }
            first += comptime!(chunk as u32);
        }

        // What the cube found, for the categories' launch.
        sync_cube();
        write_sums(&mut own, cube_sums, barrier, shape);
        write_periods(&periods, period_sums, &mut scratch, axes, shape);
    }
}
