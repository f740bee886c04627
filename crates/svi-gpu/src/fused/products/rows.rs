//! The rows: every thread's periods of a product, and the sums over them by product and particle.

use super::super::axes::Axes;
use super::super::math::exp2_fast;
use super::super::two_float::{Barrier, opaque, two_sum};
use super::periods::Periods;
use super::prepare::Placed;
use super::{Model, PRESENT, Shape};
use cubecl::prelude::*;

/// Sums over the rows by product of the chunk and particle, in shared memory.
#[derive(CubeType)]
pub(super) struct RowSums {
    /// Rates, high and low.
    pub(super) rate: SharedMemory<f32>,
    pub(super) rate_lo: SharedMemory<f32>,
    /// Rates times deviation.
    pub(super) moment: SharedMemory<f32>,
    /// The gradient's rates of clipped products.
    pub(super) pull: SharedMemory<f32>,
}

#[cube]
pub(super) fn no_row_sums(#[comptime] shape: Shape) -> RowSums {
    let entries = comptime!(shape.chunk * shape.particles);
    RowSums {
        rate: SharedMemory::<f32>::new(entries),
        rate_lo: SharedMemory::<f32>::new(entries),
        moment: SharedMemory::<f32>::new(entries),
        pull: SharedMemory::<f32>::new(entries),
    }
}

/// A thread's rows of the product in slot `q` for a round's particles, left in `scratch`.
#[cube]
pub(super) fn row_sums(
    rows: &Array<Vector<f32, Const<4>>>,
    units: &Array<u32>,
    product: usize,
    q: usize,
    axes: Axes,
    model: Model,
    placed: &Placed,
    periods: &mut Periods,
    scratch: &mut SharedMemory<f32>,
    barrier: Barrier,
    #[comptime] shape: Shape,
    #[comptime] round: usize,
) {
    let thread = UNIT_POS as usize;
    let lane = UNIT_POS_X as usize;
    let stride = axes.stride as usize;
    let first_k = comptime!(4 * round);
    let round_count = comptime!(shape.round_count(round));
    let count = comptime!(shape.particles);
    let threads = comptime!(shape.threads());
    // What is the product's own is taken from shared memory once, not for every row.
    let mut slope2 = Array::<f32>::new(round_count);
    let mut scale = Array::<f32>::new(round_count);
    let mut sum = Array::<f32>::new(round_count);
    let mut lost = Array::<f32>::new(round_count);
    let mut moment = Array::<f32>::new(round_count);
    let mut pull = Array::<f32>::new(round_count);
    let at = q * count + first_k;
    let is_inside = placed.inside[q] == 1u32;
    #[unroll]
    for kk in 0..round_count {
        slope2[kk] = placed.slope2[at + kk];
        scale[kk] = placed.scale[at + kk];
        sum[kk] = select(is_inside, placed.anchor[at + kk], 0.0f32);
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
                        slope2[kk],
                        d,
                        periods.effect2[comptime!((j * 4 + v) * count + first_k + kk)],
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
                    periods.by_period[slot] = fma(r, scale[kk], periods.by_period[slot]);
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
                        let eta2 = fma(slope2[kk], d, periods.effect2[slot]) + placed.base2[at + kk];
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
    }
    #[unroll]
    for kk in 0..round_count {
        let own = sum[kk] - select(is_inside, placed.anchor[at + kk], 0.0f32);
        scratch[(4 * kk) * threads + thread] = own;
        scratch[(4 * kk + 1) * threads + thread] = lost[kk];
        scratch[(4 * kk + 2) * threads + thread] = moment[kk];
        scratch[(4 * kk + 3) * threads + thread] = pull[kk];
    }
}

/// Adds the lanes' sums of one product, in group `g`, and the round's particle `kk`.
#[cube]
pub(super) fn add_lanes(
    scratch: &SharedMemory<f32>,
    sums: &mut RowSums,
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
    sums.rate[to] = hi;
    sums.rate_lo[to] = lo;
    sums.moment[to] = m;
    sums.pull[to] = y;
}
