//! The rows: every thread's periods of a product, and the sums over them by product and particle.

use super::super::axes::Axes;
use super::super::math::exp2_fast;
use super::super::two_float::{Barrier, two_sum};
use super::periods::Periods;
use super::prepare::ProductInputs;
use super::shape::{Model, PRESENT, Shape};
use cubecl::prelude::*;

/// Sums over the rows by product of the chunk and particle, in shared memory.
#[derive(CubeType)]
pub(super) struct RowSums {
    /// Rates, high and low.
    pub(super) rate: SharedMemory<f32>,
    pub(super) rate_lo: SharedMemory<f32>,
    /// Rates times deviation.
    pub(super) moment: SharedMemory<f32>,
}

#[cube]
pub(super) fn no_row_sums(#[comptime] shape: Shape) -> RowSums {
    let entries = comptime!(shape.chunk * shape.particles);
    RowSums {
        rate: SharedMemory::<f32>::new(entries),
        rate_lo: SharedMemory::<f32>::new(entries),
        moment: SharedMemory::<f32>::new(entries),
    }
}

/// The deviations of a thread's rows of one product, by tile.
#[derive(CubeType)]
pub(super) struct Deviations {
    values: Array<f32>,
}

#[cube]
pub(super) fn no_deviations(#[comptime] shape: Shape) -> Deviations {
    Deviations {
        values: Array::<f32>::new(comptime!(4 * shape.tiles)),
    }
}

/// Reads the rows of the product in slot `q` of the chunk that begins at `first`, where there is one.
#[cube]
pub(super) fn load_deviations(
    rows: &Array<Vector<f32, Const<4>>>,
    first: u32,
    q: u32,
    here: u32,
    axes: Axes,
    deviations: &mut Deviations,
    #[comptime] shape: Shape,
) {
    if q < here {
        let start = (first + q) as usize * axes.stride as usize;
        #[unroll]
        for j in 0..comptime!(shape.tiles) {
            let vector = UNIT_POS_X as usize + comptime!(j * shape.lanes);
            let mut values = Vector::<f32, Const<4>>::new(0.0f32);
            if vector < axes.stride as usize {
                values = rows[start + vector];
            }
            #[unroll]
            for v in 0..4usize {
                deviations.values[comptime!(4 * j + v)] = values[v];
            }
        }
    }
}

/// What was read, so that the next can be.
#[cube]
pub(super) fn take_deviations(from: &Deviations, #[comptime] shape: Shape) -> Deviations {
    let mut taken = no_deviations(shape);
    #[unroll]
    for i in 0..comptime!(4 * shape.tiles) {
        taken.values[i] = from.values[i];
    }
    taken
}

/// A thread's rows of the product in slot `q` for a round's particles, left in `scratch` at the product's place in the pass.
///
/// Rates are positive, and a thread has few of them: each is as far off by its own rounding as their sum is by that of the additions. What
/// crosses threads is added without loss.
#[cube]
pub(super) fn row_sums(
    units: &Array<u32>,
    deviations: &Deviations,
    product: u32,
    q: usize,
    place: usize,
    axes: Axes,
    model: Model,
    placed: &ProductInputs,
    periods: &mut Periods,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] shape: Shape,
    #[comptime] round: usize,
) {
    let lane = UNIT_POS_X as usize;
    let stride = axes.stride as usize;
    let first_k = comptime!(4 * round);
    let round_count = comptime!(shape.round_count(round));
    let count = comptime!(shape.particles);
    let column = comptime!(shape.lane_sums());
    let mut sum = Array::<f32>::new(round_count);
    let mut moment = Array::<f32>::new(round_count);
    let slope2 = placed.slope2[q * comptime!(shape.rounds()) + round];
    let to = place * round_count * comptime!(shape.lane_stride()) + lane;
    if placed.inside[q] == 1u32 {
        let scale = placed.scale[q * comptime!(shape.rounds()) + round];
        let mut half = Array::<f32>::new(round_count);
        let mut quarter = Array::<f32>::new(round_count);
        #[unroll]
        for j in 0..comptime!(shape.tiles) {
            #[unroll]
            for v in 0..4usize {
                let mut d = deviations.values[comptime!(4 * j + v)];
                let mut present = true;
                if comptime!(shape.gaps) {
                    present = d < PRESENT;
                    d = select(present, d, 0.0f32);
                }
                #[unroll]
                for kk in 0..round_count {
                    let slot = comptime!((j * 4 + v) * count + first_k + kk);
                    let mut r = exp2_fast(fma(slope2[kk], d, periods.effect2[slot]), shape.native_exp2);
                    if comptime!(shape.gaps) {
                        r = select(present, r, 0.0f32);
                    }
                    periods.by_period[slot] = fma(r, scale[kk], periods.by_period[slot]);
                    moment[kk] = if comptime!(j == 0 && v == 0) {
                        r * d
                    } else {
                        fma(r, d, moment[kk])
                    };
                    // Pairs of pairs.
                    if comptime!(v % 2 == 0) {
                        quarter[kk] = r;
                    } else if comptime!(v == 1) {
                        half[kk] = quarter[kk] + r;
                    } else if comptime!(j == 0) {
                        sum[kk] = half[kk] + (quarter[kk] + r);
                    } else {
                        sum[kk] += half[kk] + (quarter[kk] + r);
                    }
                }
            }
        }
    } else {
        let mut pull = Array::<f32>::new(round_count);
        let mut lost = Array::<f32>::new(round_count);
        #[unroll]
        for kk in 0..round_count {
            sum[kk] = 0.0f32;
            lost[kk] = 0.0f32;
            moment[kk] = 0.0f32;
            pull[kk] = 0.0f32;
        }
        #[unroll]
        for j in 0..comptime!(shape.tiles) {
            let vector = lane + comptime!(j * shape.lanes);
            let row = product as usize * stride + vector;
            #[unroll]
            for v in 0..4usize {
                let d = deviations.values[comptime!(4 * j + v)];
                if vector < stride && d < PRESENT {
                    let y = f32::cast_from(units[4 * row + v]);
                    #[unroll]
                    for kk in 0..round_count {
                        let slot = comptime!((j * 4 + v) * count + first_k + kk);
                        let base2 = placed.base2[q * count + comptime!(first_k + kk)];
                        let eta2 = fma(slope2[kk], d, periods.effect2[slot]) + base2;
                        let held = eta2.clamp(model.clip_low2, model.clip_high2);
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
                        periods.by_period[slot] += g;
                    }
                }
            }
        }
        #[unroll]
        for kk in 0..round_count {
            sum[kk] += lost[kk];
            scratch[comptime!(2 * column + kk * shape.lane_stride()) + to] = pull[kk];
        }
    }
    #[unroll]
    for kk in 0..round_count {
        let at = comptime!(kk * shape.lane_stride()) + to;
        scratch[at] = sum[kk];
        scratch[column + at] = moment[kk];
    }
}

/// Adds the lanes' sums of a product and particle, the `out`-th of the pass and round.
#[cube]
pub(super) fn add_lanes(
    scratch: &SharedMemory<f32>,
    placed: &mut ProductInputs,
    sums: &mut RowSums,
    pass: usize,
    out: usize,
    barrier: Barrier,
    #[comptime] shape: Shape,
    #[comptime] round: usize,
) {
    let count = comptime!(shape.particles);
    let round_count = comptime!(shape.round_count(round));
    let column = comptime!(shape.lane_sums());
    let from = out * comptime!(shape.lane_stride());
    let product = pass + out / round_count;
    let to = product * count + comptime!(4 * round) + out % round_count;
    let mut hi = 0.0f32;
    let mut lo = 0.0f32;
    let mut m = 0.0f32;
    for lane in 0..comptime!(shape.lanes) {
        let grown = two_sum(hi, scratch[from + lane], barrier);
        hi = grown.hi;
        lo += grown.lo;
        m += scratch[column + from + lane];
    }
    sums.rate[to] = hi;
    sums.rate_lo[to] = lo;
    sums.moment[to] = m;
    if placed.inside[product] == 0u32 {
        let mut y = 0.0f32;
        for lane in 0..comptime!(shape.lanes) {
            y += scratch[2 * column + from + lane];
        }
        // Its place is free: the rows of this pass are done.
        placed.base2[to] = y;
    }
}
