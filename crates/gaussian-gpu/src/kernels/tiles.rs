//! Tiles of products with the couplings of products and borders, which a cube multiplies in shared memory.

use super::LANES;
use super::walk::Column;
use cubecl::prelude::*;

/// Rows, and in the marginals columns, of a tile that a cube of 16 x 16 threads multiplies; each has 4 x 4 sums.
pub(crate) const TILE: usize = 64;

/// What is multiplied from one barrier to the next: columns in the Schur complements, rows in the marginals.
pub(super) const COLUMNS: usize = 16;

/// Products whose couplings are in shared memory at a time: of the Schur complements, of the marginals.
pub(super) const OF_SCHUR: usize = COLUMNS / 2;
pub(super) const OF_SQUARES: usize = TILE / 2;

/// Threads along each side of a tile, and the sums of one along each.
pub(super) const SIDE: usize = 16;
pub(super) const OWN: usize = TILE / SIDE;
/// Threads of a cube.
pub(crate) const THREADS: usize = SIDE * SIDE;

/// Bytes of shared memory that a cube takes at most: two tiles' worth, and the inner products of half a block.
pub(crate) const SHARED_BYTES: usize = 8 * (2 * COLUMNS * TILE + 3 * OF_SQUARES);

/// One row of `U_i` of the product in a slot: of its elasticity, of its effect.
#[cube]
pub(super) fn coupling(
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

/// Adds the outer product of four entries from `left` on and four from `right` on.
#[cube]
pub(super) fn add_outer(of: &SharedMemory<f64>, left: usize, right: usize, sums: &mut Array<f64>) {
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
pub(super) fn tile_times_couplings(
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
pub(super) fn fold_squares(squares: &Array<f64>, shared: &mut SharedMemory<f64>) -> f64 {
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
