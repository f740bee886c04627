//! The third-order terms of products and borders, for the correction of means for skewness.

use super::math::{larger, size_of};
use super::tiles::{
    COLUMNS, OF_SQUARES, OWN, SIDE, THREADS, TILE, coupling, fold_squares, tile_times_couplings,
};
use super::walk::Column;
use super::{LANES, PRESENT};
use cubecl::prelude::*;

/// The sums for the rows' third derivatives, for every product, where `covariances` has the covariance of
/// each category's border, T + 1 by T + 1: columns of [`Third`] by slot, and sums of `w v / 2` by period over
/// each cube's products, `v` the variance of a row's log rate. `scratch` is room for the couplings times the
/// covariance, one per cube: [`TILE`] columns of as many rows as whole tiles have.
#[cube(launch_unchecked)]
pub(crate) fn third_order(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    left: &Array<f64>,
    prior: &Array<f64>,
    covariances: &Array<f64>,
    blocks: &Array<u32>,
    runs: &Array<u32>,
    scratch: &mut Array<f64>,
    found: &mut Array<f64>,
    period_sums: &mut Array<f64>,
    periods: u32,
    slots: u32,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let thread = UNIT_POS as usize;
    let cube = CUBE_POS;
    let border = periods + 1;
    let padded = border.div_ceil(TILE) * TILE;
    let own_row = thread / SIDE * OWN;
    let own_column = thread % SIDE * OWN;
    // The covariance's columns, then the couplings' rows; after that sums of threads.
    let mut shared = SharedMemory::<f64>::new(comptime!(2 * COLUMNS * TILE));
    // `V C V'` of the products: aa, ae, ee.
    let mut inner = SharedMemory::<f64>::new(comptime!(3 * OF_SQUARES));
    let p = thread % OF_SQUARES;
    let turn_of_rows = thread / OF_SQUARES;
    let room = cube * padded * TILE;
    let first = runs[2 * cube] as usize;
    let end = runs[2 * cube + 1] as usize;
    for group in first * comptime!(LANES / OF_SQUARES)..end * comptime!(LANES / OF_SQUARES) {
        let block = group * OF_SQUARES / LANES;
        let lane = group * OF_SQUARES - block * LANES + p;
        let covariance = blocks[2 * block] as usize * border * border;
        let count = blocks[2 * block + 1] as usize;
        let is_product = lane < count;
        let slot = block * LANES + lane;
        let mut squares = Array::<f64>::new(6usize);
        #[unroll]
        for m in 0..6usize {
            squares[m] = 0.0f64;
        }
        let mut tile_row = 0usize;
        while tile_row < border {
            let mut sums = Array::<f64>::new(comptime!(OWN * OWN));
            tile_times_couplings(
                log_prices,
                weights,
                left,
                prior[1],
                covariances,
                covariance,
                border,
                border,
                border,
                tile_row,
                slot,
                is_product,
                periods,
                slots,
                &mut shared,
                &mut sums,
            );
            // Columns 0 and 1 are one product's, 2 and 3 the next one's.
            #[unroll]
            for r in 0..OWN {
                let t = tile_row + own_row + r;
                #[unroll]
                for q in 0..2usize {
                    let ya = sums[comptime!(r * OWN + 2 * q)];
                    let ye = sums[comptime!(r * OWN + 2 * q + 1)];
                    scratch[room + t * TILE + own_column + 2 * q] = ya;
                    scratch[room + t * TILE + own_column + 2 * q + 1] = ye;
                    let own_lane = group * OF_SQUARES - block * LANES + own_column / 2 + q;
                    if own_lane < count && t < border {
                        let own_slot = block * LANES + own_lane;
                        let (va, ve) =
                            coupling(log_prices, weights, left, t, own_slot, periods, slots, prior[1]);
                        squares[comptime!(3 * q)] += va * ya;
                        squares[comptime!(3 * q + 1)] += va * ye;
                        squares[comptime!(3 * q + 2)] += ve * ye;
                    }
                }
            }
            tile_row += TILE;
        }
        let sum = fold_squares(&squares, &mut shared);
        if thread < 3 * OF_SQUARES {
            let m = thread / OF_SQUARES;
            inner[m * OF_SQUARES + p] = sum;
        }
        // What other threads have put in the scratch is read next.
        sync_storage();
        sync_cube();
        let aa = left[comptime!(Column::Aa as usize) * slots + slot];
        let ea = left[comptime!(Column::Ea as usize) * slots + slot];
        let ee = left[comptime!(Column::Ee as usize) * slots + slot];
        let inner_aa = inner[p];
        let inner_ae = inner[OF_SQUARES + p];
        let inner_ee = inner[2 * OF_SQUARES + p];
        // The pair's covariance, L^-T (I + V C V') L^-1, and its factor.
        let first_e = inner_ae / ee;
        let first_a = (1.0f64 + inner_aa - ea * first_e) / aa;
        let second_e = (1.0f64 + inner_ee) / ee;
        let second_a = (inner_ae - ea * second_e) / aa;
        let both = second_a / ee;
        let elasticity = (first_a - ea * both) / aa;
        let effect = second_e / ee;
        let faa = f64::sqrt(elasticity);
        let fea = both / faa;
        let fee = f64::sqrt(effect - fea * fea);
        let mut by_a = 0.0f64;
        let mut by_e = 0.0f64;
        let mut cubes = 0.0f64;
        let mut start = 0usize;
        while start < periods {
            let t = start + turn_of_rows;
            let mut third = 0.0f64;
            if is_product && t < periods {
                let at = (block * periods + t) * LANES + lane;
                let x = log_prices[at];
                let w = weights[at];
                if x < PRESENT {
                    let ya = scratch[room + t * TILE + 2 * p];
                    let ye = scratch[room + t * TILE + 2 * p + 1];
                    let u = x / aa;
                    let s = (1.0f64 - ea * u) / ee;
                    let by_u = 0.5f64 * (1.0f64 + inner_aa) * u + inner_ae * s - ya;
                    let by_s = 0.5f64 * (1.0f64 + inner_ee) * s - ye;
                    let of_period = 0.5f64 * covariances[covariance + t * border + t];
                    // Rounding can leave a little less than nothing.
                    third = w * larger(u * by_u + s * by_s + of_period, 0.0f64);
                    by_a += third * x;
                    by_e += third;
                    let with_e = -ye / ee;
                    let with_a = (-ya - ea * with_e) / aa;
                    let along_first = with_a / faa;
                    let along_second = (with_e - fea * along_first) / fee;
                    let by_first = size_of(x * faa + fea + along_first);
                    let by_second = size_of(fee + along_second);
                    cubes += w * (by_first * by_first * by_first + by_second * by_second * by_second);
                }
            }
            sync_cube();
            shared[turn_of_rows * OF_SQUARES + p] = third;
            sync_cube();
            if thread < comptime!(THREADS / OF_SQUARES) && start + thread < periods {
                let mut sum = 0.0f64;
                for k in 0..OF_SQUARES {
                    sum += shared[thread * OF_SQUARES + k];
                }
                let to = cube * periods + start + thread;
                if group > first * comptime!(LANES / OF_SQUARES) {
                    sum += period_sums[to];
                }
                period_sums[to] = sum;
            }
            start += comptime!(THREADS / OF_SQUARES);
        }
        sync_cube();
        shared[thread] = by_a;
        shared[THREADS + thread] = by_e;
        shared[2 * THREADS + thread] = cubes;
        sync_cube();
        if turn_of_rows == 0 {
            let mut by_a = 0.0f64;
            let mut by_e = 0.0f64;
            let mut cubes = 0.0f64;
            for k in 0..comptime!(THREADS / OF_SQUARES) {
                by_a += shared[k * OF_SQUARES + p];
                by_e += shared[THREADS + k * OF_SQUARES + p];
                cubes += shared[2 * THREADS + k * OF_SQUARES + p];
            }
            found[comptime!(Third::Elasticity as usize) * slots + slot] = elasticity;
            found[comptime!(Third::Effect as usize) * slots + slot] = effect;
            found[comptime!(Third::ByA as usize) * slots + slot] = by_a;
            found[comptime!(Third::ByE as usize) * slots + slot] = by_e;
            found[comptime!(Third::Cubes as usize) * slots + slot] = cubes;
        }
        // The next products take the same room.
        sync_storage();
    }
}

/// Columns of the results for every product's third derivatives, by slot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Third {
    /// Variances of the pair.
    Elasticity,
    Effect,
    /// `sum w v x / 2` and `sum w v / 2`, v the variance of a row's log rate.
    ByA,
    ByE,
    /// `sum w (|p|^3 + |q|^3)`, with p and q the change of a log rate along the whitened coordinates of the
    /// pair.
    Cubes,
}

impl Third {
    /// How many there are.
    pub(crate) const COUNT: usize = 5;
}
