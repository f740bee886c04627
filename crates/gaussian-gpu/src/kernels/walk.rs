//! The walk over the products: one thread to each, in blocks.

use super::math::{exp, larger, size_of, smaller};
use super::{ABSENT, LANES, PRESENT};
use cubecl::prelude::*;

/// Periods whose rates are added up over the products of a block at a time.
const SPAN: usize = 16;

/// Threads to a period there, each with as many products.
const QUARTERS: usize = LANES / SPAN;

/// Number of results per cube.
pub(crate) const CUBE_SUMS: usize = 3;

/// Columns of a walk's results for products that do not move, by slot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// The factor of the product's block.
    Aa,
    /// Below its diagonal.
    Ea,
    Ee,
    /// The gradient.
    ByA,
    ByE,
    /// The factor's inverse times the gradient.
    ForwardedA,
    ForwardedE,
}

impl Column {
    /// How many there are.
    pub(crate) const COUNT: usize = 7;
}

/// A product with all that stays as it moves.
#[derive(CubeType, Clone, Copy)]
struct ProductData {
    /// Place of its row of the first period, of the effect of that, and the number of periods.
    row: usize,
    effect: usize,
    periods: usize,
    /// Its units, and their sum weighted with log prices.
    units: f64,
    units_log_price: f64,
    /// Means and precisions of its pair's prior.
    mean_a: f64,
    mean_e: f64,
    precision_a: f64,
    precision_e: f64,
}

/// Sums over a product's rows.
#[derive(CubeType, Clone, Copy)]
struct Sums {
    /// Sums of the rates times powers of the log price.
    w: f64,
    wx: f64,
    wxx: f64,
    /// The least and the largest log price.
    low: f64,
    high: f64,
}

/// The rate of a row; zero where there is none.
#[cube]
fn rate(x: f64, a: f64, level: f64) -> f64 {
    let mut found = 0.0f64;
    if x < PRESENT {
        found = exp(a * x + level);
    }
    found
}

#[cube]
fn sums_of(log_prices: &Array<f64>, effects: &Array<f64>, of: ProductData, a: f64, e: f64) -> Sums {
    let mut w = 0.0f64;
    let mut wx = 0.0f64;
    let mut wxx = 0.0f64;
    let mut low = ABSENT.runtime();
    let mut high = (-ABSENT).runtime();
    for t in 0..of.periods {
        let x = log_prices[of.row + t * LANES];
        if x < PRESENT {
            let r = exp(a * x + (e + effects[of.effect + t]));
            let along = r * x;
            w += r;
            wx += along;
            wxx += along * x;
            low = smaller(low, x);
            high = larger(high, x);
        }
    }
    Sums {
        w,
        wx,
        wxx,
        low,
        high,
    }
}

/// The Newton step of a product's pair, the effect eliminated.
#[cube]
fn newton_step(of: ProductData, a: f64, e: f64, w: f64, wx: f64, wxx: f64) -> (f64, f64) {
    let by_a = of.units_log_price - wx - (a - of.mean_a) * of.precision_a;
    let by_e = of.units - w - (e - of.mean_e) * of.precision_e;
    let h_ee = w + of.precision_e;
    let h_aa = larger(wxx - wx * (wx / h_ee), 0.0f64) + of.precision_a;
    let step_a = (by_a - wx / h_ee * by_e) / h_aa;
    (step_a, (by_e - wx * step_a) / h_ee)
}

/// Adds what every product of a block has left in `values`, [`SPAN`] periods from `start` on, to the sums of the cube by period. All threads of the cube come
/// here, and may write new values after it.
#[cube]
fn add_products(
    values: &SharedMemory<f64>,
    quarters: &mut SharedMemory<f64>,
    period_sums: &mut Array<f64>,
    start: usize,
    periods: usize,
    is_first: bool,
) {
    let lane = UNIT_POS as usize;
    let at = CUBE_POS * periods + start + lane;
    sync_cube();
    // One thread to a period and a quarter of the products, then one to a period.
    let j = lane % SPAN;
    let quarter = lane / SPAN;
    let mut sum = 0.0f64;
    for k in 0..SPAN {
        sum += values[j * LANES + quarter * SPAN + k];
    }
    quarters[lane] = sum;
    sync_cube();
    if lane < SPAN && start + lane < periods {
        let mut sum = 0.0f64;
        for k in 0..QUARTERS {
            sum += quarters[k * SPAN + lane];
        }
        if !is_first {
            sum += period_sums[at];
        }
        period_sums[at] = sum;
    }
}

/// `sum_i w (a x + e)` of each cube's products by period, `pairs` having a and e by slot.
#[cube(launch_unchecked)]
pub(crate) fn transposed_products(
    log_prices: &Array<f64>,
    weights: &Array<f64>,
    pairs: &Array<f64>,
    cubes: &Array<u32>,
    period_sums: &mut Array<f64>,
    periods: u32,
    slots: u32,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let cube = CUBE_POS;
    let lane = UNIT_POS as usize;
    let mut values = SharedMemory::<f64>::new(comptime!(LANES * SPAN));
    let mut quarters = SharedMemory::<f64>::new(LANES);
    let first = cubes[2 * cube] as usize;
    let end = cubes[2 * cube + 1] as usize;
    for block in first..end {
        let slot = block * LANES + lane;
        let a = pairs[slot];
        let e = pairs[slots + slot];
        let mut start = 0usize;
        while start < periods {
            for j in 0..SPAN {
                let t = start + j;
                let mut value = 0.0f64;
                if t < periods {
                    let at = (block * periods + t) * LANES + lane;
                    // Where there is no row the weight is zero, and what marks that is no infinity.
                    value = weights[at] * (a * log_prices[at] + e);
                }
                values[j * LANES + lane] = value;
            }
            add_products(
                &values,
                &mut quarters,
                period_sums,
                start,
                periods,
                block == first,
            );
            start += SPAN;
        }
    }
}

/// The walk.
///
/// Where products move (`moves`), each goes to its optimum by Newton steps given the effects, as the host's
/// do, and then by one more step at full accuracy, so that nothing is left but rounding. A cube leaves the
/// sums of what its products add to the value, of the sizes of what that is summed of, and of the
/// elasticities. Otherwise they stay, `weights` takes the rates, `left` the columns of [`Column`], and a cube
/// leaves the value of its rows, zero, and its products' information on `category_a`. Either way
/// `period_sums` takes the rates of each cube's products by period.
#[cube(launch_unchecked)]
pub(crate) fn products(
    log_prices: &Array<f64>,
    constants: &Array<f64>,
    effects: &Array<f64>,
    category_a: &Array<f64>,
    prior: &Array<f64>,
    tuning: &Array<f64>,
    blocks: &Array<u32>,
    cubes: &Array<u32>,
    pairs: &mut Array<f64>,
    weights: &mut Array<f64>,
    left: &mut Array<f64>,
    period_sums: &mut Array<f64>,
    cube_sums: &mut Array<f64>,
    periods: u32,
    slots: u32,
    steps: u32,
    #[comptime] moves: bool,
) {
    let periods = periods as usize;
    let slots = slots as usize;
    let cube = CUBE_POS;
    let lane = UNIT_POS as usize;
    let mut rates = SharedMemory::<f64>::new(comptime!(LANES * SPAN));
    let mut quarters = SharedMemory::<f64>::new(LANES);
    let first = cubes[2 * cube] as usize;
    let end = cubes[2 * cube + 1] as usize;
    let mut value = 0.0f64;
    let mut size = 0.0f64;
    let mut told = 0.0f64;
    for block in first..end {
        let category = blocks[2 * block] as usize;
        let is_product = (lane as u32) < blocks[2 * block + 1];
        let slot = block * LANES + lane;
        let of = ProductData {
            row: block * periods * LANES + lane,
            effect: category * periods,
            periods,
            units: constants[slot],
            units_log_price: constants[slots + slot],
            mean_a: category_a[category],
            mean_e: prior[0],
            precision_a: prior[1],
            precision_e: prior[2],
        };
        let mut a = pairs[slot];
        let mut e = pairs[slots + slot];
        if comptime!(moves) {
            let most_growth = tuning[0];
            let last_change = tuning[1];
            let mut made = 0u32;
            let mut goes_on = is_product;
            while goes_on {
                let sums = sums_of(log_prices, effects, of, a, e);
                let (step_a, step_e) = newton_step(of, a, e, sums.w, sums.wx, sums.wxx);
                let at_low = step_a * sums.low + step_e;
                let at_high = step_a * sums.high + step_e;
                let growth = larger(at_low, at_high);
                let mut length = 1.0f64;
                if growth > most_growth {
                    length = most_growth / growth;
                }
                a += length * step_a;
                e += length * step_e;
                made += 1u32;
                let change = larger(size_of(at_low), size_of(at_high));
                // NaN also ends the loop.
                goes_on = change > last_change && made < steps;
            }
            if is_product {
                let sums = sums_of(log_prices, effects, of, a, e);
                let (step_a, step_e) = newton_step(of, a, e, sums.w, sums.wx, sums.wxx);
                let at_low = step_a * sums.low + step_e;
                let at_high = step_a * sums.high + step_e;
                let change = larger(size_of(at_low), size_of(at_high));
                if change <= last_change {
                    a += step_a;
                    e += step_e;
                }
                pairs[slot] = a;
                pairs[slots + slot] = e;
            }
        }
        let mut w = 0.0f64;
        let mut wx = 0.0f64;
        let mut wxx = 0.0f64;
        let mut start = 0usize;
        while start < periods {
            for j in 0..SPAN {
                let t = start + j;
                let mut r = 0.0f64;
                if t < periods {
                    let x = log_prices[of.row + t * LANES];
                    r = rate(x, a, e + effects[of.effect + t]);
                    if comptime!(!moves) {
                        weights[of.row + t * LANES] = r;
                    }
                    w += r;
                    if x < PRESENT {
                        let along = r * x;
                        wx += along;
                        wxx += along * x;
                    }
                }
                rates[j * LANES + lane] = r;
            }
            add_products(&rates, &mut quarters, period_sums, start, periods, block == first);
            start += SPAN;
        }
        if is_product {
            let of_counts = a * of.units_log_price + e * of.units;
            if comptime!(moves) {
                let off_a = a - of.mean_a;
                let off_e = e - of.mean_e;
                let squares = off_a * off_a * of.precision_a + off_e * off_e * of.precision_e;
                value += of_counts - w - 0.5f64 * squares;
                size += size_of(a * of.units_log_price) + (1.0f64 + size_of(e)) * of.units + squares;
                told += a;
            } else {
                value += of_counts - w;
                let h_aa = wxx + of.precision_a;
                let h_ee = w + of.precision_e;
                let own = larger(wxx - wx * (wx / h_ee), 0.0f64);
                told += own / (1.0f64 + own / of.precision_a);
                let aa = f64::sqrt(h_aa);
                let ea = wx / aa;
                let ee = f64::sqrt(h_ee - ea * ea);
                let by_a = of.units_log_price - wx - (a - of.mean_a) * of.precision_a;
                let by_e = of.units - w - (e - of.mean_e) * of.precision_e;
                let forwarded = by_a / aa;
                left[comptime!(Column::Aa as usize) * slots + slot] = aa;
                left[comptime!(Column::Ea as usize) * slots + slot] = ea;
                left[comptime!(Column::Ee as usize) * slots + slot] = ee;
                left[comptime!(Column::ByA as usize) * slots + slot] = by_a;
                left[comptime!(Column::ByE as usize) * slots + slot] = by_e;
                left[comptime!(Column::ForwardedA as usize) * slots + slot] = forwarded;
                left[comptime!(Column::ForwardedE as usize) * slots + slot] = (by_e - ea * forwarded) / ee;
            }
        }
    }
    // The rates' room is free after the last barrier.
    rates[lane] = value;
    rates[LANES + lane] = size;
    rates[2 * LANES + lane] = told;
    sync_cube();
    if lane < CUBE_SUMS {
        let mut sum = 0.0f64;
        for k in 0..LANES {
            sum += rates[lane * LANES + k];
        }
        cube_sums[cube * CUBE_SUMS + lane] = sum;
    }
}
