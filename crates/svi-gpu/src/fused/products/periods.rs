//! A thread's periods in registers: their effects while rows are passed over, and their sums of rates as long as the cube lives.

use super::super::axes::Axes;
use super::super::math::NEGLIGIBLE_EXPONENT;
use super::shape::Shape;
use cubecl::prelude::*;

/// Registers by period that the thread owns, then by particle.
#[derive(CubeType)]
pub(super) struct Periods {
    /// Effects times `log2 e`.
    pub(super) effect2: Array<f32>,
    /// Rates of all products so far.
    pub(super) by_period: Array<f32>,
}

/// Sums at zero; effects that are not read yet.
#[cube]
pub(super) fn no_periods(#[comptime] shape: Shape) -> Periods {
    let entries = comptime!(shape.tiles * 4 * shape.particles);
    let mut periods = Periods {
        effect2: Array::<f32>::new(entries),
        by_period: Array::<f32>::new(entries),
    };
    #[unroll]
    for i in 0..entries {
        periods.by_period[i] = 0.0f32;
    }
    periods
}

/// Reads the effects. Done anew for every chunk of products: between chunks the registers serve the products' own work.
#[cube]
pub(super) fn load_effects(
    table: &Array<Vector<f32, Const<4>>>,
    category: u32,
    axes: Axes,
    periods: &mut Periods,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    let stride = axes.stride as usize;
    #[unroll]
    for j in 0..comptime!(shape.tiles) {
        let vector = UNIT_POS_X as usize + comptime!(j * shape.lanes);
        #[unroll]
        for k in 0..count {
            let at = (category as usize * count + k) * stride + vector;
            let mut values = Vector::<f32, Const<4>>::new(NEGLIGIBLE_EXPONENT);
            if vector < stride {
                values = table[at];
            }
            #[unroll]
            for v in 0..4usize {
                periods.effect2[comptime!((j * 4 + v) * count + k)] = values[v];
            }
        }
    }
}

/// Adds the groups' sums up and writes the cube's. All threads of the cube must come here.
#[cube]
pub(super) fn write_periods(
    periods: &Periods,
    period_sums: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    axes: Axes,
    #[comptime] shape: Shape,
) {
    let count = comptime!(shape.particles);
    let threads = comptime!(shape.threads());
    let lanes = comptime!(shape.lanes);
    let thread = UNIT_POS as usize;
    let cube = CUBE_POS;
    let padded = 4 * axes.stride as usize;
    #[unroll]
    for j in 0..comptime!(shape.tiles) {
        #[unroll]
        for round in 0..comptime!(shape.rounds()) {
            let first_k = comptime!(4 * round);
            let round_count = comptime!(shape.round_count(round));
            #[unroll]
            for kk in 0..round_count {
                #[unroll]
                for v in 0..4usize {
                    scratch[comptime!((4 * kk + v) * threads) + thread] =
                        periods.by_period[comptime!((j * 4 + v) * count + first_k + kk)];
                }
            }
            sync_cube();
            // One thread a particle and period, which is part `v` of a lane's vector.
            let mut out = thread;
            while out < comptime!(4 * lanes * round_count) {
                let kk = out / comptime!(4 * lanes);
                let v = out % 4;
                let lane = out % comptime!(4 * lanes) / 4;
                let t = 4 * (lane + comptime!(j * lanes)) + v;
                if t < padded {
                    let from = (4 * kk + v) * threads + lane;
                    let mut sum = 0.0f32;
                    for g in 0..comptime!(shape.groups) {
                        sum += scratch[from + g * lanes];
                    }
                    period_sums[(cube * count + first_k + kk) * padded + t] = sum;
                }
                out += threads;
            }
            sync_cube();
        }
    }
}
