//! Reading a panel from a CSV or Parquet file: every defect is reported, none is repaired silently.

mod columns;
mod compression;
mod csv_rows;
mod defect;
mod folder;
mod keys;
mod lines;
mod numbers;
mod own_rows;
mod panel_builder;
mod panel_column;
mod parquet_rows;
mod periods;
mod quoting;
mod remedy;
mod repeated;
mod shown;
mod source;

pub use columns::Columns;
pub use compression::Compression;
pub(crate) use csv_rows::CsvTable;
pub use defect::{Defect, ReadError, SHOWN_DEFECTS};
pub(crate) use defect::{Defects, Place};
pub(crate) use keys::without_zero_decimals;
pub use own_rows::read_own_rows;
pub use panel_column::PanelColumn;
pub use remedy::DefectRemedy;
pub(crate) use shown::quoted;

use infermark_model::Panel;
pub use panel_builder::RowStorage;
use panel_builder::{Full, PanelBuilder};
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
    read_into(PanelBuilder::default(), path, columns)
}

/// Reads a panel that may be larger than memory, as [`read_panel`] does, with its rows in the scratch folder: 12 bytes per row there, and
/// 16 more while it is read. Labels and what else there is of every product are in memory.
///
/// A file that is sorted by product is read and stored in order. Any other order is read as well, but the rows of a product are then collected from
/// all over the folder's files.
///
/// # Errors
/// Those of [`read_panel`], and [`ReadError::Scratch`] when the folder cannot be written to or has too little room.
pub fn read_stored_panel(path: &Path, columns: &Columns, storage: &RowStorage) -> Result<Panel, ReadError> {
    read_into(PanelBuilder::stored(storage)?, path, columns)
}

fn read_into(mut panel_builder: PanelBuilder, path: &Path, columns: &Columns) -> Result<Panel, ReadError> {
    let mut defects = Defects::default();
    let table = pass_over(path, columns, &mut panel_builder, &mut defects)?;
    let panel = panel_builder.assemble(columns, &mut defects)?;
    conclude_pass(panel, defects, path, columns, table)
}

/// Reads all rows of a file into the panel builder. Returns the table of a CSV file.
fn pass_over(
    path: &Path,
    columns: &Columns,
    panel_builder: &mut PanelBuilder,
    defects: &mut Defects,
) -> Result<Option<CsvTable>, ReadError> {
    let source = Source::open(path)?;
    let table = match source.format()? {
        Format::Csv => {
            let mut table = CsvTable::read(path, source)?;
            csv_rows::fill(&mut table, columns, panel_builder, defects)?;
            Some(table)
        }
        Format::Parquet => {
            parquet_rows::fill(path, columns, panel_builder, defects)?;
            None
        }
    };
    check_room(panel_builder, path)?;
    Ok(table)
}

/// The panel if there are no defects, otherwise the defects, with what tells repeated rows apart.
fn conclude_pass(
    panel: Option<Panel>,
    mut defects: Defects,
    path: &Path,
    columns: &Columns,
    table: Option<CsvTable>,
) -> Result<Panel, ReadError> {
    match table {
        Some(table) => {
            table.tell_repeated_apart(columns, &mut defects)?;
            conclude(panel, defects, path, table.row_word(), |places| {
                table.lines(places)
            })
        }
        None => conclude(panel, defects, path, "row", |places| {
            Ok(places.iter().map(|p| p.data_row()).collect())
        }),
    }
}

/// Refuses rows for which there was no room, and panels that will not fit in memory.
fn check_room(panel_builder: &mut PanelBuilder, path: &Path) -> Result<(), ReadError> {
    let fits = match panel_builder.take_full() {
        Some(Full::Memory(shortage)) => Err(shortage),
        Some(Full::Scratch(error)) => return Err(error.into()),
        None => panel_builder.panel_fits(),
    };
    fits.map_err(|shortage| ReadError::Memory {
        path: path.to_owned(),
        shortage,
    })
}

/// The panel if there are no defects, otherwise the defects.
pub(crate) fn conclude<T>(
    read: Option<T>,
    defects: Defects,
    path: &Path,
    row_word: &'static str,
    locate: impl FnOnce(&[Place]) -> Result<Vec<Option<u64>>, ReadError>,
) -> Result<T, ReadError> {
    match read {
        Some(read) if defects.is_empty() => Ok(read),
        _ => Err(defects.into_error(path, row_word, locate)?),
    }
}
