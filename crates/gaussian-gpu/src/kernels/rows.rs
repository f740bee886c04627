//! Rows to their places.

use super::{ABSENT, ABSENT_DEVIATION, LANES};
use cubecl::prelude::*;

/// Fills `out`.
#[cube(launch_unchecked)]
pub(crate) fn fill(out: &mut Array<f64>, with: &Array<f64>) {
    let step = CUBE_COUNT * CUBE_DIM as usize;
    let mut at = ABSOLUTE_POS;
    while at < out.len() {
        out[at] = with[0];
        at += step;
    }
}

/// Puts the log prices of some products on the grid: `mean + (deviation + residual)`, both of the latter with `periods` entries per product.
#[cube(launch_unchecked)]
pub(crate) fn place_rows(
    deviation: &Array<f32>,
    residual: &Array<f32>,
    means: &Array<f64>,
    slots: &Array<u32>,
    log_prices: &mut Array<f64>,
    periods: u32,
) {
    let at = ABSOLUTE_POS;
    if at < deviation.len() {
        let periods = periods as usize;
        let product = at / periods;
        let t = at - product * periods;
        let slot = slots[product] as usize;
        let block = slot / LANES;
        let d = deviation[at];
        let mut x = ABSENT.runtime();
        if d < ABSENT_DEVIATION {
            x = means[product] + (f64::cast_from(d) + f64::cast_from(residual[at]));
        }
        log_prices[(block * periods + t) * LANES + (slot - block * LANES)] = x;
    }
}

/// Takes the weights of the products in some slots from the grid, T of each.
#[cube(launch_unchecked)]
pub(crate) fn gather(weights: &Array<f64>, slots: &Array<u32>, found: &mut Array<f64>, periods: u32) {
    let at = ABSOLUTE_POS;
    if at < found.len() {
        let periods = periods as usize;
        let product = at / periods;
        let t = at - product * periods;
        let slot = slots[product] as usize;
        let block = slot / LANES;
        found[at] = weights[(block * periods + t) * LANES + (slot - block * LANES)];
    }
}
