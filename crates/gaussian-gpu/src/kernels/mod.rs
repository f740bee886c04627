//! The passes over the rows, in double precision.
//!
//! Rows lie on the grid of periods, in blocks of [`LANES`] products of one category: the log price of the
//! product in lane `l` of block `b` in period `t` is entry `(b T + t) LANES + l`. So a thread with a product
//! of its own reads next to its neighbours, and sums over the periods of a product stay in its registers.
//! Data of a product is stored by slot, `b LANES + l`, one column after the other. Blocks at the end of a
//! category have lanes without a product: their rows are absent, and nothing is added of them.

mod couplings;
mod math;
mod rows;
mod third;
mod tiles;
mod walk;

pub(crate) use couplings::{border_products, fold, schur, squares};
pub(crate) use rows::{fill, gather, place_rows};
pub(crate) use third::{Third, third_order};
pub(crate) use tiles::{SHARED_BYTES, THREADS, TILE};
pub(crate) use walk::{CUBE_SUMS, Column, products, transposed_products};

/// Products of a block; threads of a cube that has one to each.
pub(crate) const LANES: usize = 64;

/// The log price that marks an absent row; anything beyond [`PRESENT`] does.
pub(crate) const ABSENT: f64 = 1e300;
const PRESENT: f64 = 1e299;

/// The deviation of a log price that marks an absent row on its way to the device.
pub(crate) const ABSENT_DEVIATION: f32 = 3e38;
