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
mod shape;
mod sums;

pub(super) use shape::{ABSENT, CONSTANT_COLUMNS, CUBE_SUMS, Model, ModelLaunch, Shape};

use super::axes::Axes;
use super::frame::frame_health;
use super::latent::{Draw, Step};
use super::two_float::Barrier;
use cubecl::prelude::*;
use finish::finish_product;
use latents::{draw_product, step_product};
use periods::{load_effects, no_periods, write_periods};
use prepare::{nothing_placed, prepare_product};
use rows::{add_lanes, load_deviations, no_deviations, no_row_sums, row_sums, take_deviations};
use sums::{no_sums, write_sums};

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
