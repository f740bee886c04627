//! Products with the couplings of products and borders: the Schur complements, the marginals' squares, and the borders' part of a solution.
//!
//! `U_i`, of T + 2 rows and a column each for elasticity and effect, is `V_i = L_i^-1 B_i` followed by
//! `L_i^-1 g_i`. It is recomputed from weights, log prices and `L_i` wherever it is needed, [`COLUMNS`]
//! columns or as many rows at a time, in shared memory.

use super::math::{larger, size_of};
use super::walk::Column;
use super::{LANES, PRESENT};
use cubecl::prelude::*;

/// Rows, and in the marginals columns, of a tile that a cube of 16 x 16 threads multiplies; each has 4 x 4 sums.
pub(crate) const TILE: usize = 64;

/// What is multiplied from one barrier to the next: columns in the Schur complements, rows in the marginals.
const COLUMNS: usize = 16;

/// Products whose couplings are in shared memory at a time: of the Schur complements, of the marginals.
const OF_SCHUR: usize = COLUMNS / 2;
const OF_SQUARES: usize = TILE / 2;

/// Threads along each side of a tile, and the sums of one along each.
const SIDE: usize = 16;
const OWN: usize = TILE / SIDE;
/// Threads of a cube.
pub(crate) const THREADS: usize = SIDE * SIDE;

/// Bytes of shared memory that a cube takes at most: two tiles' worth, and the inner products of half a block.
pub(crate) const SHARED_BYTES: usize = 8 * (2 * COLUMNS * TILE + 3 * OF_SQUARES);

/// One row of `U_i` of the product in a slot: of its elasticity, of its effect.
#[cube]
fn coupling(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    left: &Array<f64>,
    row: usize,
    slot: usize,
    periods: usize,
    slots: usize,
    precision_a: f64,
) -> (f64, f64) {
    let block = slot / LANES;
    let aa = left[comptime!(Column::Aa as usize) * slots + slot];
    let ea = left[comptime!(Column::Ea as usize) * slots + slot];
    let ee = left[comptime!(Column::Ee as usize) * slots + slot];
    let mut by_a = 0.0f64;
    let mut by_e = 0.0f64;
    if row < periods {
        let at = (block * periods + row) * LANES + (slot - block * LANES);
        let w = weights[at];
        // Where there is no row the weight is zero, and what marks that is no infinity.
        by_a = w * log_prices[at] / aa;
        by_e = (w - ea * by_a) / ee;
    } else if row == periods {
        by_a = -precision_a / aa;
        by_e = -ea * by_a / ee;
    } else if row == periods + 1 {
        by_a = left[comptime!(Column::ForwardedA as usize) * slots + slot];
        by_e = left[comptime!(Column::ForwardedE as usize) * slots + slot];
    }
    (by_a, by_e)
}

/// `sum_i U_i' U_i` over the products of a run of blocks (x), in one tile of it (y): tile `(r, c)` has rows from `64 r` and columns from `64 c`.
#[cube(launch_unchecked)]
pub(crate) fn schur(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    left: &Array<f64>,
    prior: &Array<f64>,
    blocks: &Array<u32>,
    runs: &Array<u32>,
    tiles: &Array<u32>,
    parts: &mut Array<f64>,
    periods: u32,
    slots: u32,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let thread = UNIT_POS as usize;
    let run = CUBE_POS_X as usize;
    let tile = CUBE_POS_Y as usize;
    let tile_row = tiles[2 * tile] as usize * TILE;
    let tile_column = tiles[2 * tile + 1] as usize * TILE;
    let is_square = tile_row == tile_column;
    let first = runs[2 * run] as usize;
    let end = runs[2 * run + 1] as usize;
    let own_row = thread / SIDE * OWN;
    let own_column = thread % SIDE * OWN;
    // Of the rows, then of the columns, where those are others.
    let mut u = SharedMemory::<f64>::new(comptime!(2 * COLUMNS * TILE));
    let mut of_columns = comptime!(COLUMNS * TILE).runtime();
    if is_square {
        of_columns = 0usize;
    }
    let mut sums = Array::<f64>::new(comptime!(OWN * OWN));
    #[unroll]
    for k in 0..comptime!(OWN * OWN) {
        sums[k] = 0.0f64;
    }
    // A thread writes the couplings of one of the products, in every 32nd row.
    let p = thread % OF_SCHUR;
    for block in first..end {
        let count = blocks[2 * block + 1] as usize;
        for group in 0..comptime!(LANES / OF_SCHUR) {
            // Blocks without products there leave nothing: all threads of a cube agree.
            if group * OF_SCHUR < count {
                let lane = group * OF_SCHUR + p;
                sync_cube();
                for turn in 0..comptime!(TILE * OF_SCHUR / THREADS) {
                    let r = thread / OF_SCHUR + turn * comptime!(THREADS / OF_SCHUR);
                    let mut by_a = 0.0f64;
                    let mut by_e = 0.0f64;
                    let mut column_by_a = 0.0f64;
                    let mut column_by_e = 0.0f64;
                    if lane < count {
                        let slot = block * LANES + lane;
                        let (a, e) = coupling(
                            log_prices,
                            weights,
                            left,
                            tile_row + r,
                            slot,
                            periods,
                            slots,
                            prior[1],
                        );
                        by_a = a;
                        by_e = e;
                        if !is_square {
                            let (a, e) = coupling(
                                log_prices,
                                weights,
                                left,
                                tile_column + r,
                                slot,
                                periods,
                                slots,
                                prior[1],
                            );
                            column_by_a = a;
                            column_by_e = e;
                        }
                    }
                    u[2 * p * TILE + r] = by_a;
                    u[(2 * p + 1) * TILE + r] = by_e;
                    if !is_square {
                        u[(COLUMNS + 2 * p) * TILE + r] = column_by_a;
                        u[(COLUMNS + 2 * p + 1) * TILE + r] = column_by_e;
                    }
                }
                sync_cube();
                for k in 0..COLUMNS {
                    add_outer(
                        &u,
                        k * TILE + own_row,
                        of_columns + k * TILE + own_column,
                        &mut sums,
                    );
                }
            }
        }
    }
    let at = (run * CUBE_COUNT_Y as usize + tile) * comptime!(TILE * TILE);
    #[unroll]
    for r in 0..OWN {
        #[unroll]
        for c in 0..OWN {
            parts[at + (own_row + r) * TILE + own_column + c] = sums[comptime!(r * OWN + c)];
        }
    }
}

/// Adds the outer product of four entries from `left` on and four from `right` on.
#[cube]
fn add_outer(of: &SharedMemory<f64>, left: usize, right: usize, sums: &mut Array<f64>) {
    let mut other = Array::<f64>::new(OWN);
    #[unroll]
    for c in 0..OWN {
        other[c] = of[right + c];
    }
    #[unroll]
    for r in 0..OWN {
        let own = of[left + r];
        #[unroll]
        for c in 0..OWN {
            sums[comptime!(r * OWN + c)] += own * other[c];
        }
    }
}

/// A thread's entries of a tile of `M V'`, from row `tile_row` on: [`OWN`] rows by the couplings of two products. `matrix` has `M` from entry
/// `from` on, column-major, `columns` columns of `rows` rows, of which those from `end` on are zero in this tile. `slot` is the product whose
/// couplings this thread fetches, if it `is_product`. `shared` is room for two tiles of [`COLUMNS`] columns: the matrix's, then the couplings'.
/// All threads of the cube must come here.
#[cube]
fn tile_times_couplings(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    left: &Array<f64>,
    precision_a: f64,
    matrix: &Array<f64>,
    from: usize,
    rows: usize,
    columns: usize,
    end: usize,
    tile_row: usize,
    slot: usize,
    is_product: bool,
    periods: usize,
    slots: usize,
    shared: &mut SharedMemory<f64>,
    sums: &mut Array<f64>,
) {
    let thread = UNIT_POS as usize;
    let of_products = COLUMNS * TILE;
    // A thread writes the couplings of one product, and of the matrix one row.
    let p = thread % OF_SQUARES;
    let row = thread % TILE;
    let own_row = thread / SIDE * OWN;
    let own_column = thread % SIDE * OWN;
    #[unroll]
    for k in 0..comptime!(OWN * OWN) {
        sums[k] = 0.0f64;
    }
    let mut start = 0usize;
    while start < end {
        sync_cube();
        for turn in 0..comptime!(COLUMNS * TILE / THREADS) {
            let column = start + thread / TILE + turn * comptime!(THREADS / TILE);
            let mut entry = 0.0f64;
            if column < columns && tile_row + row < rows {
                entry = matrix[from + column * rows + tile_row + row];
            }
            shared[(column - start) * TILE + row] = entry;
        }
        for turn in 0..comptime!(COLUMNS * OF_SQUARES / THREADS) {
            let t = start + thread / OF_SQUARES + turn * comptime!(THREADS / OF_SQUARES);
            let mut by_a = 0.0f64;
            let mut by_e = 0.0f64;
            if is_product && t < columns {
                let (a, e) = coupling(log_prices, weights, left, t, slot, periods, slots, precision_a);
                by_a = a;
                by_e = e;
            }
            shared[of_products + (t - start) * TILE + 2 * p] = by_a;
            shared[of_products + (t - start) * TILE + 2 * p + 1] = by_e;
        }
        sync_cube();
        for k in 0..COLUMNS {
            add_outer(
                shared,
                k * TILE + own_row,
                of_products + k * TILE + own_column,
                sums,
            );
        }
        start += COLUMNS;
    }
}

/// The sum over the cube of the threads' `squares`, two products' aa, ae, ee each: thread `m OF_SQUARES + p` has entry `m` of product `p`, threads
/// beyond have zero. All threads of the cube must come here.
#[cube]
fn fold_squares(squares: &Array<f64>, shared: &mut SharedMemory<f64>) -> f64 {
    let thread = UNIT_POS as usize;
    sync_cube();
    #[unroll]
    for k in 0..6usize {
        shared[thread * 6 + k] = squares[k];
    }
    sync_cube();
    let mut sum = 0.0f64;
    if thread < 3 * OF_SQUARES {
        let p = thread % OF_SQUARES;
        let m = thread / OF_SQUARES;
        for i in 0..SIDE {
            sum += shared[(i * SIDE + p / 2) * 6 + p % 2 * 3 + m];
        }
    }
    sum
}

/// Adds up the parts of a category, in their order: `of_category` has the first of each, and one more.
#[cube(launch_unchecked)]
pub(crate) fn fold(parts: &Array<f64>, of_category: &Array<u32>, sums: &mut Array<f64>, entries: u32) {
    let entries = entries as usize;
    let step = CUBE_COUNT * CUBE_DIM as usize;
    let mut at = ABSOLUTE_POS;
    while at < sums.len() {
        let category = at / entries;
        let entry = at - category * entries;
        let mut sum = 0.0f64;
        for part in of_category[category] as usize..of_category[category + 1] as usize {
            sum += parts[part * entries + entry];
        }
        sums[at] = sum;
        at += step;
    }
}

/// `sum_t w (x, 1) b_t` of every product, `b` being its category's part of `borders`, T entries each.
#[cube(launch_unchecked)]
pub(crate) fn border_products(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    borders: &Array<f64>,
    blocks: &Array<u32>,
    found: &mut Array<f64>,
    periods: u32,
    slots: u32,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let lane = UNIT_POS as usize;
    let mut block = CUBE_POS;
    while block * LANES < slots {
        let border = blocks[2 * block] as usize * periods;
        let mut by_a = 0.0f64;
        let mut by_e = 0.0f64;
        for t in 0..periods {
            let at = (block * periods + t) * LANES + lane;
            let wb = weights[at] * borders[border + t];
            by_a += wb * log_prices[at];
            by_e += wb;
        }
        found[block * LANES + lane] = by_a;
        found[slots + block * LANES + lane] = by_e;
        block += CUBE_COUNT;
    }
}

/// `(W V_i')' (W V_i')` of every product, columns aa, ae, ee by slot. `roots` has `W` of each category: column-major, T + 1 columns of T + 2 rows,
/// zero above the diagonal but for the last row.
#[cube(launch_unchecked)]
pub(crate) fn squares(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    left: &Array<f64>,
    prior: &Array<f64>,
    roots: &Array<f64>,
    blocks: &Array<u32>,
    found: &mut Array<f64>,
    periods: u32,
    slots: u32,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let thread = UNIT_POS as usize;
    let rows = periods + 2;
    let columns = periods + 1;
    // The root's columns, then the couplings' rows; at last the threads' squares.
    let mut shared = SharedMemory::<f64>::new(comptime!(2 * COLUMNS * TILE));
    // A thread writes the couplings of one product, and of the root one row.
    let p = thread % OF_SQUARES;
    let mut group = CUBE_POS;
    while group * OF_SQUARES < slots {
        let block = group * OF_SQUARES / LANES;
        let lane = group * OF_SQUARES - block * LANES + p;
        let root = blocks[2 * block] as usize * rows * columns;
        let is_product = lane < blocks[2 * block + 1] as usize;
        let slot = block * LANES + lane;
        let mut squares = Array::<f64>::new(6usize);
        #[unroll]
        for m in 0..6usize {
            squares[m] = 0.0f64;
        }
        let mut tile_row = 0usize;
        while tile_row < rows {
            let mut sums = Array::<f64>::new(comptime!(OWN * OWN));
            // Only the last row goes beyond the diagonal.
            let mut most = columns;
            if tile_row + TILE < rows {
                most = tile_row + TILE;
            }
            tile_times_couplings(
                log_prices,
                weights,
                left,
                prior[1],
                roots,
                root,
                rows,
                columns,
                most,
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
                #[unroll]
                for q in 0..2usize {
                    let a = sums[comptime!(r * OWN + 2 * q)];
                    let e = sums[comptime!(r * OWN + 2 * q + 1)];
                    squares[comptime!(3 * q)] += a * a;
                    squares[comptime!(3 * q + 1)] += a * e;
                    squares[comptime!(3 * q + 2)] += e * e;
                }
            }
            tile_row += TILE;
        }
        let sum = fold_squares(&squares, &mut shared);
        if thread < 3 * OF_SQUARES {
            let m = thread / OF_SQUARES;
            found[m * slots + slot] = sum;
        }
        sync_cube();
        group += CUBE_COUNT;
    }
}

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
