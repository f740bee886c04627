//! Panels from generators, CSV and Parquet files, and back.
//!
//! | module | holds |
//! |---|---|
//! | `read` | a sales file becomes a [`infermark_model::Panel`], or a list of its defects |
//! | [`shell`] | names in the commands and options that messages name |
//! | `generate` | synthetic panels, in memory or streamed to a file |
//! | `truth` | the parameters that a synthetic panel was drawn from, in memory and as a file |

mod generate;
mod read;
pub mod shell;
mod truth;

pub use generate::{GenerateError, GenerateProgress, Generator, Process, generate_panel, generate_to_file};
pub use read::{
    Columns, Compression, Defect, DefectRemedy, PanelColumn, ReadError, RowStorage, SHOWN_DEFECTS,
    read_own_rows, read_panel, read_stored_panel,
};
pub use truth::{Truth, read_true_elasticities, read_truth};
