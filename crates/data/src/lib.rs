//! Panels from generators, CSV and Parquet files, and back.
//!
//! | module | holds |
//! |---|---|
//! | [`read`] | a sales file becomes a [`infermark_model::Panel`], or a list of its defects |
//! | [`truth`] | the parameters that a synthetic panel was drawn from |

pub mod read;
pub mod truth;

pub use read::{Columns, Defect, ReadError, read_panel};
pub use truth::Truth;
