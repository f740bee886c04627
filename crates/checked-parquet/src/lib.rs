//! Parquet files that may be damaged: footer, page headers and delta streams are checked before the decoder decodes
//! them or allocates memory for what they declare, and its panics become errors ([`contained`]).

mod contained;
mod delta;
mod failure;
mod footer;
mod page_headers;
mod pages;
mod thrift;

pub use contained::contained;
pub use failure::Failure;
pub use pages::CheckedGroups;

use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use std::fs::File;

/// Reads the metadata of `file`, which has `bytes` bytes, once its footer has passed the checks.
///
/// # Errors
/// When it is not a Parquet file, or is damaged.
pub fn read_metadata(file: &mut File, bytes: u64) -> Result<ArrowReaderMetadata, Failure> {
    footer::check(file, bytes)?;
    contained(|| ArrowReaderMetadata::load(&*file, ArrowReaderOptions::new()))
}
