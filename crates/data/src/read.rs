//! Reading a panel from a CSV or Parquet file: every defect is named, none is repaired in silence.

mod columns;
mod csv_rows;
mod defect;
mod keys;
mod ledger;
mod numbers;
mod parquet_rows;
mod periods;
mod quoting;

pub use columns::Columns;
pub(crate) use csv_rows::CsvTable;
pub use defect::{Defect, ReadError, SHOWN_DEFECTS};
pub(crate) use defect::{Findings, Place};

use infermark_model::Panel;
use ledger::Ledger;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads a panel.
///
/// A file that starts with the Parquet magic is read as Parquet whatever it is called, otherwise the extension
/// decides (`.csv` or `.parquet`). Rows may come in any order; columns that are not named in `columns` are ignored.
///
/// - product and category: text or whole numbers; a column of whole numbers only is sorted by value, any other by
///   Unicode code point. Text is taken as it is, blanks included.
/// - period: whole numbers, or dates (`YYYY-MM-DD` in CSV and text columns; Date or Timestamp in Parquet, of which
///   the time of day is dropped; a timestamp with a zone has the date of that zone).
/// - price: a positive finite number, in the currency unit.
/// - units: a whole number from 0 to 2^31 - 1; `3.0` is 3.
///
/// A Parquet file's columns may be compressed with Snappy, Zstandard, Gzip, LZ4 or not at all.
///
/// A CSV file is comma-separated UTF-8 with a header, quoted as RFC 4180 says; a byte-order mark and line ends
/// as CRLF or CR are accepted. While it is read and sorted the panel takes 16 more bytes a row than when it is done, 28 more if the
/// rows are not grouped by product.
///
/// # Errors
/// [`ReadError`] lists up to [`SHOWN_DEFECTS`] defects with row, column, value and remedy, and counts the rest.
pub fn read_panel(path: &Path, columns: &Columns) -> Result<Panel, ReadError> {
    let mut findings = Findings::default();
    let mut ledger = Ledger::default();
    match Format::of(path)? {
        Format::Csv => {
            let mut table = CsvTable::open(path)?;
            csv_rows::fill(&mut table, columns, &mut ledger, &mut findings)?;
            let panel = ledger.assemble(columns, &mut findings);
            conclude(panel, findings, path, "line", |places| table.lines(places))
        }
        Format::Parquet => {
            parquet_rows::fill(path, columns, &mut ledger, &mut findings)?;
            let panel = ledger.assemble(columns, &mut findings);
            conclude(panel, findings, path, "row", |places| {
                Ok(places.iter().map(|p| p.parquet_row()).collect())
            })
        }
    }
}

/// The panel when nothing was found, the defects otherwise.
pub(crate) fn conclude<T>(
    read: Option<T>,
    findings: Findings,
    path: &Path,
    row_word: &'static str,
    locate: impl FnOnce(&[Place]) -> Result<Vec<Option<u64>>, ReadError>,
) -> Result<T, ReadError> {
    match read {
        Some(read) if findings.is_empty() => Ok(read),
        _ => Err(findings.into_error(path, row_word, locate)?),
    }
}

enum Format {
    Csv,
    Parquet,
}

impl Format {
    fn of(path: &Path) -> Result<Self, ReadError> {
        let io = |cause| ReadError::Io {
            path: path.to_owned(),
            cause,
        };
        if path.is_dir() {
            return Err(ReadError::Directory {
                path: path.to_owned(),
            });
        }
        let mut head = [0; 4];
        let mut file = File::open(path).map_err(io)?;
        let mut filled = 0;
        while filled < head.len() {
            match file.read(&mut head[filled..]).map_err(io)? {
                0 => break,
                n => filled += n,
            }
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match (extension.as_deref(), &head) {
            (_, b"PAR1") | (Some("parquet"), _) => Ok(Format::Parquet),
            (_, [0x1f, 0x8b, ..]) => Err(ReadError::Compressed {
                path: path.to_owned(),
            }),
            (Some("csv"), _) => Ok(Format::Csv),
            _ => Err(ReadError::Extension {
                path: path.to_owned(),
            }),
        }
    }
}
