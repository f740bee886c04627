//! The pass over the products: step, draw, place, rows, and derivatives back, in one launch.
//!
//! A cube owns consecutive products of one category. It takes them `chunk` at a time: one thread a product for what
//! belongs to the product, then all threads over the rows. There a thread owns `4 * tiles` periods and keeps their
//! effects and their sums of rates, of every particle, in registers for as long as the cube lives; only sums by
//! product cross threads.

use super::axes::Axes;
use super::frame::{frame_category, frame_health, frame_range, frame_transform};
use super::latent::{
    Draw, LOC, SCALE, Step, by_centredness, by_mean, by_z, draw_latent, prior_and_guide, residual,
    step_latent, transform_at, value_of,
};
use super::math::{LOG2_E, NEGLIGIBLE_EXPONENT, exp2, exp2_fast, ln, softplus};
use super::two_float::{Barrier, Two, add, add_f32, exp2_two, multiply, opaque, two_sum};
use cubecl::prelude::*;

/// The deviation that marks an absent row; anything beyond [`PRESENT`] does.
pub(super) const ABSENT: f32 = 3.0e38;
const PRESENT: f32 = 1.0e38;

/// Largest binary order of a rate relative to `exp(base)`, up and down, that the common path takes.
const EXPONENT_LIMIT: f32 = 40.0;
/// How far the clip bounds are drawn in: more than the rounding of the estimate.
const MARGIN: f32 = 1e-3;

/// Columns of the products' constants, each of length N.
pub(super) const CONSTANT_COLUMNS: usize = 8;
const MEAN_HI: usize = 0;
const MEAN_LO: usize = 1;
const UNITS_HI: usize = 2;
const UNITS_LO: usize = 3;
const DEVIATION_HI: usize = 4;
const DEVIATION_LO: usize = 5;
const LOWEST: usize = 6;
const HIGHEST: usize = 7;

/// Sums that a cube leaves for each particle: log-weight (high, low), derivative by the category's elasticity,
/// derivatives by the two sites' centredness.
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
    /// Whether rows can be absent.
    pub(super) gaps: bool,
    /// Whether the centredness is learned.
    pub(super) learned: bool,
    /// Whether the device's own exponential serves the rows.
    pub(super) native_exp2: bool,
}

impl Shape {
    /// Threads of a cube.
    pub(super) fn threads(&self) -> usize {
        self.lanes * self.groups
    }

    /// Particles that share a round of sums over threads.
    pub(super) fn round(&self) -> usize {
        self.particles.min(4)
    }

    fn scratch(&self) -> usize {
        let rows = 4 * self.round() * self.threads();
        rows.max(CUBE_SUMS * self.particles * self.chunk)
    }

    /// Bytes of shared memory that the kernel takes.
    pub(super) fn shared_bytes(&self) -> usize {
        4 * (self.scratch() + 9 * self.chunk * self.particles + self.chunk)
    }
}

/// What the priors and the number of periods give the products.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Model {
    /// The clip bounds times `log2 e`.
    pub(super) clip_low2: f32,
    pub(super) clip_high2: f32,
    /// Binary order of an anchor relative to the largest rate added to it.
    pub(super) anchor_headroom: f32,
    /// The products' effects' prior mean.
    pub(super) effect_mean: f32,
}

/// What a product's thread needs beside the buffers.
#[derive(CubeType, Clone, Copy)]
struct Place {
    /// N.
    products: u32,
    /// L.
    latents: u32,
    categories: u32,
    category: u32,
    clip_low2: f32,
    clip_high2: f32,
    effect_mean: f32,
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
    period_sums: &mut Array<Vector<f32, Const<4>>>,
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
    let stride = axes.stride as usize;
    let thread = UNIT_POS as usize;
    let lane = UNIT_POS_X as usize;
    let group = UNIT_POS_Y as usize;
    let cube = CUBE_POS;
    let start = cubes[3 * cube];
    let end = cubes[3 * cube + 1];
    let place = Place {
        products: axes.products,
        latents: axes.latents,
        categories: axes.categories,
        category: cubes[3 * cube + 2],
        clip_low2: model.clip_low2,
        clip_high2: model.clip_high2,
        effect_mean: model.effect_mean,
    };

    if comptime!(step_only) {
        if frame[frame_health(count)] == 1.0f32 {
            let mut p = start + UNIT_POS;
            while p < end {
                step_product(state, particles, frame, p, place, step, count);
                p += comptime!(threads as u32);
            }
        }
    } else {
        let mut slope2 = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut base2 = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut scale = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut scale_lo = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut anchor = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut inside = SharedMemory::<u32>::new(chunk);
        // Sums by product and particle: rates (high, low), rates times deviation, gradient's rates of clipped products.
        let mut rate = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut rate_lo = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut moment = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut pull = SharedMemory::<f32>::new(comptime!(chunk * count));
        let mut scratch = SharedMemory::<f32>::new(comptime!(shape.scratch()));

        let mut weight_hi = Array::<f32>::new(count);
        let mut weight_lo = Array::<f32>::new(count);
        let mut mean_sum = Array::<f32>::new(count);
        let mut cent_a = Array::<f32>::new(count);
        let mut cent_e = Array::<f32>::new(count);
        #[unroll]
        for k in 0..count {
            weight_hi[k] = 0.0f32;
            weight_lo[k] = 0.0f32;
            mean_sum[k] = 0.0f32;
            cent_a[k] = 0.0f32;
            cent_e[k] = 0.0f32;
        }

        // The thread's periods: effects and sums, in registers.
        let tiles = comptime!(shape.tiles);
        let mut effect2 = Array::<f32>::new(comptime!(tiles * 4 * count));
        let mut by_period = Array::<f32>::new(comptime!(tiles * 4 * count));
        let category = place.category as usize;
        #[unroll]
        for j in 0..tiles {
            let vector = lane + comptime!(j * shape.lanes);
            #[unroll]
            for k in 0..count {
                let at = (category * count + k) * stride + vector;
                let mut values = Vector::<f32, Const<4>>::new(NEGLIGIBLE_EXPONENT);
                if vector < stride {
                    values = table[at];
                }
                #[unroll]
                for v in 0..4usize {
                    effect2[comptime!((j * 4 + v) * count + k)] = values[v];
                    by_period[comptime!((j * 4 + v) * count + k)] = 0.0f32;
                }
            }
        }

        let mut first = start;
        while first < end {
            let here = min(end - first, comptime!(chunk as u32));
            let p = first + UNIT_POS;
            if UNIT_POS < here {
                if step_pending != 0u32 && frame[frame_health(count)] == 1.0f32 {
                    step_product(state, particles, frame, p, place, step, count);
                }
                let a_index = place.categories + 1u32 + p;
                let e_index = a_index + place.products;
                let natural = place.categories + 1u32 + order[p as usize];
                let l = place.latents as usize;
                draw_latent(particles, record, a_index as usize, natural, l, draw, count);
                draw_latent(
                    particles,
                    record,
                    e_index as usize,
                    natural + place.products,
                    l,
                    draw,
                    count,
                );
                prepare(
                    constants,
                    state,
                    particles,
                    frame,
                    p,
                    place,
                    thread,
                    model.anchor_headroom,
                    barrier,
                    &mut slope2,
                    &mut base2,
                    &mut scale,
                    &mut scale_lo,
                    &mut anchor,
                    &mut inside,
                    &mut weight_hi,
                    &mut weight_lo,
                    count,
                );
            }
            sync_cube();

            let batches = (here + comptime!(shape.groups as u32 - 1)) / comptime!(shape.groups as u32);
            for batch in 0..batches {
                let q = (batch * comptime!(shape.groups as u32)) as usize + group;
                let active = q < here as usize;
                let product = first as usize + q;
                #[unroll]
                for round in 0..comptime!(count.div_ceil(4)) {
                    let first_k = comptime!(4 * round);
                    let round_count = comptime!((count - 4 * round).min(4));
                    if active {
                        row_sums(
                            rows,
                            units,
                            product,
                            q,
                            lane,
                            stride,
                            place,
                            &slope2,
                            &base2,
                            &scale,
                            &anchor,
                            &inside,
                            &effect2,
                            &mut by_period,
                            &mut scratch,
                            thread,
                            barrier,
                            shape,
                            first_k,
                            round_count,
                        );
                    }
                    sync_cube();
                    // One thread a product, particle: adds what the lanes found.
                    let mut out = thread;
                    while out < comptime!(shape.groups * round_count) {
                        let g = out / round_count;
                        let kk = out % round_count;
                        let q_out = (batch * comptime!(shape.groups as u32)) as usize + g;
                        if q_out < here as usize {
                            add_lanes(
                                &scratch,
                                &mut rate,
                                &mut rate_lo,
                                &mut moment,
                                &mut pull,
                                q_out * count + first_k + kk,
                                g,
                                kk,
                                barrier,
                                shape,
                            );
                        }
                        out += threads;
                    }
                    sync_cube();
                }
            }

            if UNIT_POS < here {
                finish(
                    constants,
                    state,
                    particles,
                    frame,
                    p,
                    place,
                    thread,
                    barrier,
                    &scale,
                    &scale_lo,
                    &inside,
                    &rate,
                    &rate_lo,
                    &moment,
                    &pull,
                    &mut weight_hi,
                    &mut weight_lo,
                    &mut mean_sum,
                    &mut cent_a,
                    &mut cent_e,
                    shape.learned,
                    count,
                );
            }
            sync_cube();
            first += comptime!(chunk as u32);
        }

        // What the cube found, for the categories' launch.
        if thread < chunk {
            #[unroll]
            for k in 0..count {
                scratch[(5 * k) * chunk + thread] = weight_hi[k];
                scratch[(5 * k + 1) * chunk + thread] = weight_lo[k];
                scratch[(5 * k + 2) * chunk + thread] = mean_sum[k];
                scratch[(5 * k + 3) * chunk + thread] = cent_a[k];
                scratch[(5 * k + 4) * chunk + thread] = cent_e[k];
            }
        }
        sync_cube();
        let mut out = thread;
        while out < comptime!(4 * count) {
            let k = out / 4;
            let what = out % 4;
            let from = 5 * k * chunk;
            let to = (cube * count + k) * CUBE_SUMS;
            if what == 0 {
                let mut hi = 0.0f32;
                let mut lo = 0.0f32;
                for i in 0..chunk {
                    let sum = add(
                        Two { hi, lo },
                        Two {
                            hi: scratch[from + i],
                            lo: scratch[from + chunk + i],
                        },
                        barrier,
                    );
                    hi = sum.hi;
                    lo = sum.lo;
                }
                cube_sums[to] = hi;
                cube_sums[to + 1] = lo;
            } else {
                let mut sum = 0.0f32;
                for i in 0..chunk {
                    sum += scratch[from + (what + 1) * chunk + i];
                }
                cube_sums[to + what + 1] = sum;
            }
            out += threads;
        }
        sync_cube();

        #[unroll]
        for j in 0..tiles {
            let vector = lane + comptime!(j * shape.lanes);
            #[unroll]
            for round in 0..comptime!(count.div_ceil(4)) {
                let first_k = comptime!(4 * round);
                let round_count = comptime!((count - 4 * round).min(4));
                #[unroll]
                for kk in 0..round_count {
                    #[unroll]
                    for v in 0..4usize {
                        scratch[(kk * 4 + v) * threads + thread] =
                            by_period[comptime!((j * 4 + v) * count + first_k + kk)];
                    }
                }
                sync_cube();
                let mut kk = group;
                while kk < round_count {
                    if vector < stride {
                        let mut sums = Vector::<f32, Const<4>>::new(0.0f32);
                        for g in 0..comptime!(shape.groups) {
                            #[unroll]
                            for v in 0..4usize {
                                sums[v] +=
                                    scratch[(kk * 4 + v) * threads + g * comptime!(shape.lanes) + lane];
                            }
                        }
                        period_sums[(cube * count + first_k + kk) * stride + vector] = sums;
                    }
                    kk += comptime!(shape.groups);
                }
                sync_cube();
            }
        }
    }
}

/// The step of a product's two latents.
#[cube]
fn step_product(
    state: &mut Array<f32>,
    particles: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    place: Place,
    step: Step,
    #[comptime] count: usize,
) {
    let a = place.categories + 1u32 + p;
    let l = place.latents as usize;
    step_latent(state, particles, frame, a as usize, l, step, count);
    step_latent(
        state,
        particles,
        frame,
        (a + place.products) as usize,
        l,
        step,
        count,
    );
}

/// Places a product's particles: slope, base, scale and anchor, whether all its rows lie inside the bounds, and its part
/// of the log-weights that is linear in the counts or belongs to the prior and the guide.
#[cube]
fn prepare(
    constants: &Array<f32>,
    state: &Array<f32>,
    particles: &Array<f32>,
    frame: &Array<f32>,
    p: u32,
    place: Place,
    slot: usize,
    anchor_headroom: f32,
    barrier: Barrier,
    slope2: &mut SharedMemory<f32>,
    base2: &mut SharedMemory<f32>,
    scale: &mut SharedMemory<f32>,
    scale_lo: &mut SharedMemory<f32>,
    anchor: &mut SharedMemory<f32>,
    inside: &mut SharedMemory<u32>,
    weight_hi: &mut Array<f32>,
    weight_lo: &mut Array<f32>,
    #[comptime] count: usize,
) {
    let n = place.products as usize;
    let i = p as usize;
    let l = place.latents as usize;
    let a_index = (place.categories + 1u32 + p) as usize;
    let e_index = a_index + n;
    let a_transform = transform_at(frame, frame_transform(2usize, count));
    let e_transform = transform_at(frame, frame_transform(3usize, count));
    let mean = Two {
        hi: constants[MEAN_HI * n + i],
        lo: constants[MEAN_LO * n + i],
    };
    let sold = Two {
        hi: constants[UNITS_HI * n + i],
        lo: constants[UNITS_LO * n + i],
    };
    let sold_deviation = Two {
        hi: constants[DEVIATION_HI * n + i],
        lo: constants[DEVIATION_LO * n + i],
    };
    let lowest = constants[LOWEST * n + i];
    let highest = constants[HIGHEST * n + i];
    let a_loc = state[LOC * l + a_index];
    let e_loc = state[LOC * l + e_index];
    let (a_sigma, _) = softplus(state[SCALE * l + a_index]);
    let (e_sigma, _) = softplus(state[SCALE * l + e_index]);
    let constant = ln(a_sigma) - a_transform.centredness * a_transform.ln_sd
        + (ln(e_sigma) - e_transform.centredness * e_transform.ln_sd);
    let mut all_inside = true;
    #[unroll]
    for k in 0..count {
        let a_mean = frame[frame_category(place.category, k, count)];
        let a_eps = particles[k * l + a_index];
        let e_eps = particles[k * l + e_index];
        let a_residual = residual(a_loc, a_sigma, a_eps, a_mean, a_transform);
        let e_residual = residual(e_loc, e_sigma, e_eps, place.effect_mean, e_transform);
        let a = value_of(a_residual, a_mean, a_transform);
        let e = value_of(e_residual, place.effect_mean, e_transform);
        let own = prior_and_guide(a_residual, a_eps, a_transform)
            + prior_and_guide(e_residual, e_eps, e_transform)
            + constant;

        let base = add_f32(multiply(mean, Two { hi: a, lo: 0.0f32 }, barrier), e, barrier);
        let linear = add(
            multiply(base, sold, barrier),
            multiply(sold_deviation, Two { hi: a, lo: 0.0f32 }, barrier),
            barrier,
        );
        let so_far = Two {
            hi: weight_hi[k],
            lo: weight_lo[k],
        };
        let sum = add_f32(add(so_far, linear, barrier), own, barrier);
        weight_hi[k] = sum.hi;
        weight_lo[k] = sum.lo;

        let in_base_2 = multiply(
            base,
            Two {
                hi: LOG2_E,
                lo: 1.925_963e-8f32,
            },
            barrier,
        );
        let a2 = a * LOG2_E;
        let range = frame_range(place.categories, place.category, k, count);
        let t_low = min(a2 * lowest, a2 * highest) + frame[range];
        let t_high = max(a2 * lowest, a2 * highest) + frame[range + 1];
        let b2 = in_base_2.hi;
        // Comparisons are false for what is not a number: such products take the exact path.
        let fits = t_low + b2 >= place.clip_low2 + MARGIN
            && t_high + b2 <= place.clip_high2 - MARGIN
            && t_high <= EXPONENT_LIMIT
            && t_low >= -EXPONENT_LIMIT
            && b2.abs() <= 100.0f32;
        all_inside = all_inside && fits;
        let at = slot * count + k;
        slope2[at] = a2;
        base2[at] = b2;
        let held = Two {
            hi: b2.clamp(-100.0f32, 100.0f32),
            lo: in_base_2.lo,
        };
        let power = exp2_two(held, barrier);
        scale[at] = power.hi;
        scale_lo[at] = power.lo;
        let top = (t_high.clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT) + anchor_headroom).floor();
        anchor[at] = exp2(top);
    }
    inside[slot] = select(all_inside, 1u32, 0u32);
}

/// A thread's rows of one product for up to four particles.
#[cube]
fn row_sums(
    rows: &Array<Vector<f32, Const<4>>>,
    units: &Array<u32>,
    product: usize,
    q: usize,
    lane: usize,
    stride: usize,
    place: Place,
    slope2: &SharedMemory<f32>,
    base2: &SharedMemory<f32>,
    scale: &SharedMemory<f32>,
    anchor: &SharedMemory<f32>,
    inside: &SharedMemory<u32>,
    effect2: &Array<f32>,
    by_period: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    thread: usize,
    barrier: Barrier,
    #[comptime] shape: Shape,
    #[comptime] first_k: usize,
    #[comptime] round_count: usize,
) {
    let count = comptime!(shape.particles);
    let threads = comptime!(shape.threads());
    let mut sum = Array::<f32>::new(round_count);
    let mut lost = Array::<f32>::new(round_count);
    let mut moment = Array::<f32>::new(round_count);
    let mut pull = Array::<f32>::new(round_count);
    let at = q * count + first_k;
    let is_inside = inside[q] == 1u32;
    #[unroll]
    for kk in 0..round_count {
        sum[kk] = select(is_inside, anchor[at + kk], 0.0f32);
        lost[kk] = 0.0f32;
        moment[kk] = 0.0f32;
        pull[kk] = 0.0f32;
    }
    #[unroll]
    for j in 0..comptime!(shape.tiles) {
        let vector = lane + comptime!(j * shape.lanes);
        let row = product * stride + vector;
        let mut deviations = Vector::<f32, Const<4>>::new(0.0f32);
        let there = vector < stride;
        if there {
            deviations = rows[row];
        }
        if is_inside {
            #[unroll]
            for v in 0..4usize {
                let mut d = deviations[v];
                let mut present = true;
                if comptime!(shape.gaps) {
                    present = d < PRESENT;
                    d = select(present, d, 0.0f32);
                }
                #[unroll]
                for kk in 0..round_count {
                    let t = fma(
                        slope2[at + kk],
                        d,
                        effect2[comptime!((j * 4 + v) * count + first_k + kk)],
                    );
                    let mut r = exp2_fast(t, shape.native_exp2);
                    if comptime!(shape.gaps) {
                        r = select(present, r, 0.0f32);
                    }
                    let next = opaque(sum[kk] + r, barrier);
                    lost[kk] += r - opaque(next - sum[kk], barrier);
                    sum[kk] = next;
                    moment[kk] = fma(r, d, moment[kk]);
                    let slot = comptime!((j * 4 + v) * count + first_k + kk);
                    by_period[slot] = fma(r, scale[at + kk], by_period[slot]);
                }
            }
        } else if there {
            #[unroll]
            for v in 0..4usize {
                let d = deviations[v];
                if d < PRESENT {
                    let y = f32::cast_from(units[4 * row + v]);
                    #[unroll]
                    for kk in 0..round_count {
                        let slot = comptime!((j * 4 + v) * count + first_k + kk);
                        let eta2 = fma(slope2[at + kk], d, effect2[slot]) + base2[at + kk];
                        let held = eta2.clamp(place.clip_low2, place.clip_high2);
                        let clipped = held != eta2;
                        let r = exp2_fast(held, shape.native_exp2);
                        // A clipped row's linear term holds the bound's eta, not its own; its gradient is zero.
                        let own = r - select(clipped, y * (held - eta2) * std::f32::consts::LN_2, 0.0f32);
                        let grown = two_sum(sum[kk], own, barrier);
                        sum[kk] = grown.hi;
                        lost[kk] += grown.lo;
                        let g = select(clipped, y, r);
                        moment[kk] = fma(g, d, moment[kk]);
                        pull[kk] += g;
                        by_period[slot] += g;
                    }
                }
            }
        }
    }
    #[unroll]
    for kk in 0..round_count {
        let own = sum[kk] - select(is_inside, anchor[at + kk], 0.0f32);
        scratch[(4 * kk) * threads + thread] = own;
        scratch[(4 * kk + 1) * threads + thread] = lost[kk];
        scratch[(4 * kk + 2) * threads + thread] = moment[kk];
        scratch[(4 * kk + 3) * threads + thread] = pull[kk];
    }
}

/// Adds the lanes' sums of one product and particle.
#[cube]
fn add_lanes(
    scratch: &SharedMemory<f32>,
    rate: &mut SharedMemory<f32>,
    rate_lo: &mut SharedMemory<f32>,
    moment: &mut SharedMemory<f32>,
    pull: &mut SharedMemory<f32>,
    to: usize,
    g: usize,
    kk: usize,
    barrier: Barrier,
    #[comptime] shape: Shape,
) {
    let threads = comptime!(shape.threads());
    let from = 4 * kk * threads + g * comptime!(shape.lanes);
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    let mut m = 0.0f32;
    let mut y = 0.0f32;
    for lane in 0..comptime!(shape.lanes) {
        let grown = two_sum(hi, scratch[from + lane], barrier);
        hi = grown.hi;
        lo += grown.lo + scratch[from + threads + lane];
        m += scratch[from + 2 * threads + lane];
        y += scratch[from + 3 * threads + lane];
    }
    rate[to] = hi;
    rate_lo[to] = lo;
    moment[to] = m;
    pull[to] = y;
}

/// Turns a product's sums into derivatives by z, and adds its rates to the log-weights.
#[cube]
fn finish(
    constants: &Array<f32>,
    state: &Array<f32>,
    particles: &mut Array<f32>,
    frame: &Array<f32>,
    p: u32,
    place: Place,
    slot: usize,
    barrier: Barrier,
    scale: &SharedMemory<f32>,
    scale_lo: &SharedMemory<f32>,
    inside: &SharedMemory<u32>,
    rate: &SharedMemory<f32>,
    rate_lo: &SharedMemory<f32>,
    moment: &SharedMemory<f32>,
    pull: &SharedMemory<f32>,
    weight_hi: &mut Array<f32>,
    weight_lo: &mut Array<f32>,
    mean_sum: &mut Array<f32>,
    cent_a: &mut Array<f32>,
    cent_e: &mut Array<f32>,
    #[comptime] learned: bool,
    #[comptime] count: usize,
) {
    let n = place.products as usize;
    let i = p as usize;
    let l = place.latents as usize;
    let a_index = (place.categories + 1u32 + p) as usize;
    let e_index = a_index + n;
    let a_transform = transform_at(frame, frame_transform(2usize, count));
    let e_transform = transform_at(frame, frame_transform(3usize, count));
    let a_loc = state[LOC * l + a_index];
    let e_loc = state[LOC * l + e_index];
    let (a_sigma, _) = softplus(state[SCALE * l + a_index]);
    let (e_sigma, _) = softplus(state[SCALE * l + e_index]);
    let is_inside = inside[slot] == 1u32;
    #[unroll]
    for k in 0..count {
        let at = slot * count + k;
        let sum = add_f32(
            Two {
                hi: rate[at],
                lo: 0.0f32,
            },
            rate_lo[at],
            barrier,
        );
        let scaled = multiply(
            sum,
            Two {
                hi: scale[at],
                lo: scale_lo[at],
            },
            barrier,
        );
        let total = Two {
            hi: select(is_inside, scaled.hi, sum.hi),
            lo: select(is_inside, scaled.lo, sum.lo),
        };
        let so_far = Two {
            hi: weight_hi[k],
            lo: weight_lo[k],
        };
        let weight = add(
            so_far,
            Two {
                hi: -total.hi,
                lo: -total.lo,
            },
            barrier,
        );
        weight_hi[k] = weight.hi;
        weight_lo[k] = weight.lo;

        // Counts less rates: both are large and nearly equal.
        let pulled = select(is_inside, scaled.hi, pull[at]);
        let pulled_lo = select(is_inside, scaled.lo, 0.0f32);
        let by_effect = (constants[UNITS_HI * n + i] - pulled) + (constants[UNITS_LO * n + i] - pulled_lo);
        let moved = moment[at] * select(is_inside, scale[at], 1.0f32);
        let by_slope = (constants[DEVIATION_HI * n + i] - moved) + constants[DEVIATION_LO * n + i];
        let by_elasticity = fma(constants[MEAN_HI * n + i], by_effect, by_slope);

        let a_mean = frame[frame_category(place.category, k, count)];
        let a_residual = residual(a_loc, a_sigma, particles[k * l + a_index], a_mean, a_transform);
        let e_residual = residual(
            e_loc,
            e_sigma,
            particles[k * l + e_index],
            place.effect_mean,
            e_transform,
        );
        particles[(count + k) * l + a_index] = by_z(by_elasticity, a_residual, a_transform);
        particles[(count + k) * l + e_index] = by_z(by_effect, e_residual, e_transform);
        mean_sum[k] += by_mean(by_elasticity, a_residual, a_transform);
        if comptime!(learned) {
            cent_a[k] += by_centredness(by_elasticity, a_residual, a_mean, a_transform);
            cent_e[k] += by_centredness(by_effect, e_residual, place.effect_mean, e_transform);
        }
    }
}
