//! Rows of a panel that is larger than memory: columns in files of a scratch folder, mapped into memory, of which only a
//! [`Window`] is resident.
//!
//! | module | holds |
//! |---|---|
//! | `folder` | the folder, and files in it that have no name and so end with the process |
//! | `mapping` | a mapped file; the only unsafe code |
//! | `window` | the bound on what is resident of all mappings |
//! | `column` | numbers that are appended to a file and then read through its mapping |
//! | `pieces` | rows that are gathered until they are worth a write |
//! | `rows` | the columns of a panel's rows |
//!
//! A pass reads a mapping as it reads memory, without a copy, and the kernel reads ahead what [`Window::visit`] announces, so that reading
//! overlaps the computation. What lies behind is unmapped whenever half of the window is resident; the pages then stay in the
//! system's cache for as long as nothing else needs the memory, and count as nobody's.

mod column;
mod folder;
#[cfg(unix)]
mod mapping;
#[cfg(not(unix))]
#[path = "no_mapping.rs"]
mod mapping;
mod pieces;
mod rows;
mod window;

pub use column::{Column, ColumnWriter};
pub use folder::{ScratchError, ScratchFolder};
pub use rows::{RowFiles, RowFilesWriter, bytes_of_rows};
pub use window::Window;
