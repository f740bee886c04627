//! Reading a panel from a CSV or Parquet file: every defect is reported, none is repaired silently.

mod columns;
mod compression;
mod csv_rows;
mod defect;
mod folder;
mod keys;
mod ledger;
mod lines;
mod numbers;
mod parquet_rows;
mod periods;
mod quoting;
mod repeated;
mod source;

pub use columns::Columns;
pub use compression::Compression;
pub(crate) use csv_rows::CsvTable;
pub use defect::{Defect, ReadError, SHOWN_DEFECTS};
pub(crate) use defect::{Findings, Place, quoted};
pub(crate) use keys::without_zero_decimals;

use infermark_model::Panel;
use ledger::Ledger;
use source::{Format, Source};
use std::path::Path;

/// Reads a panel.
///
/// A file that starts with the Parquet magic bytes is read as Parquet whatever its name; otherwise the
/// extension decides (`.csv` or `.parquet`); a pipe is CSV, and is read once. Rows may come in any order;
/// columns that are not named in `columns` are ignored.
///
/// - product and category: text or whole numbers; a column of whole numbers only is sorted by value, any
///   other by Unicode code point. In text, `1001.0` is the whole number 1001 if the whole column consists of
///   such numbers, and a defect next to a `1001`. Text is taken as it is, including blanks.
/// - period: whole numbers (`202401.0` is 202401), or dates (`YYYY-MM-DD` in CSV and text columns; Date or Timestamp in Parquet, of which
///   the time of day is dropped; a timestamp with a zone has the date of that zone).
/// - price: a positive finite number, in the currency unit.
/// - units: a whole number from 0 to 2^31 - 1; `3.0` is 3.
///
/// A Parquet file's columns may be compressed with Snappy, Zstandard, Gzip, LZ4 or not at all.
///
/// A CSV file is comma-separated UTF-8 with a header, quoted as RFC 4180 says; a byte-order mark and line
/// ends as CRLF or CR are accepted. A record has at most 1 MiB. While it is read and sorted, the panel takes
/// 16 more bytes per row than afterwards, or 28 more if the rows are not grouped by product.
///
/// # Errors
/// [`ReadError`] lists up to [`SHOWN_DEFECTS`] defects with row, column, value and remedy, and counts the rest.
pub fn read_panel(path: &Path, columns: &Columns) -> Result<Panel, ReadError> {
    let mut findings = Findings::default();
    let mut ledger = Ledger::default();
    let source = Source::open(path)?;
    match source.format()? {
        Format::Csv => {
            let mut table = CsvTable::read(path, source)?;
            csv_rows::fill(&mut table, columns, &mut ledger, &mut findings)?;
            check_memory(&ledger, path)?;
            let panel = ledger.assemble(columns, &mut findings);
            table.tell_repeated_apart(columns, &mut findings)?;
            conclude(panel, findings, path, table.row_word(), |places| {
                table.lines(places)
            })
        }
        Format::Parquet => {
            parquet_rows::fill(path, columns, &mut ledger, &mut findings)?;
            check_memory(&ledger, path)?;
            let panel = ledger.assemble(columns, &mut findings);
            conclude(panel, findings, path, "row", |places| {
                Ok(places.iter().map(|p| p.data_row()).collect())
            })
        }
    }
}

/// Refuses rows that did not fit in memory, and panels that will not fit.
fn check_memory(ledger: &Ledger, path: &Path) -> Result<(), ReadError> {
    let fits = match ledger.shortage() {
        Some(shortage) => Err(shortage.clone()),
        None => ledger.panel_fits(),
    };
    fits.map_err(|shortage| ReadError::Memory {
        path: path.to_owned(),
        shortage,
    })
}

/// The panel if there are no defects, otherwise the defects.
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
