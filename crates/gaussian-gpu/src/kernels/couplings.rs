//! Products with the couplings of products and borders: the Schur complements, the marginals' squares, and the borders' part of a solution.
//!
//! `U_i`, of T + 2 rows and a column each for elasticity and effect, is `V_i = L_i^-1 B_i` followed by
//! `L_i^-1 g_i`. It is recomputed from weights, log prices and `L_i` wherever it is needed, [`COLUMNS`]
//! columns or as many rows at a time, in shared memory.

use super::LANES;
use super::tiles::{
    COLUMNS, OF_SCHUR, OF_SQUARES, OWN, SIDE, THREADS, TILE, add_outer, coupling, fold_squares,
    tile_times_couplings,
};
use cubecl::prelude::*;

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
