//! Rows of a CSV file.

use super::columns::Columns;
use super::defect::{Defects, Place, ReadError};
use super::numbers::{parse_number, small_number};
use super::panel_builder::{MAX_UNITS, PanelBuilder};
use super::periods::parse_period;
use super::quoting::{QuoteCheck, QuoteFault};
use super::source::Source;
use csv::ByteRecord;
use std::fs::File;
use std::io::{Chain, Cursor};
use std::path::{Path, PathBuf};

pub(super) const BUFFER_BYTES: usize = 1 << 18;

pub(super) type CsvReader = csv::Reader<QuoteCheck<Chain<Cursor<Vec<u8>>, File>>>;

/// A CSV file that is read record by record.
pub(crate) struct CsvTable {
    pub(super) path: PathBuf,
    pub(super) header: Vec<String>,
    /// Whether the file can be read once more, to count lines.
    pub(super) regular: bool,
    reader: CsvReader,
    /// Places of the first faults, if lines are not counted.
    fault_places: Vec<Place>,
    /// Place of the last record read, if lines are not counted.
    latest: Place,
}

impl CsvTable {
    /// Opens a file and reads its header, which is empty if the file is.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        Self::read(path, Source::open(path)?)
    }

    /// Reads the header of an open file, which is empty if the file is.
    pub(super) fn read(path: &Path, source: Source) -> Result<Self, ReadError> {
        let regular = source.regular();
        let mut reader = reader(source);
        let mut first = ByteRecord::new();
        reader.read_byte_record(&mut first).map_err(|e| failed(path, e))?;
        let header = first
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let mut table = CsvTable {
            path: path.to_owned(),
            header,
            regular,
            reader,
            fault_places: Vec::new(),
            latest: Place::File,
        };
        table.note_fault_places(Place::File);
        Ok(table)
    }

    /// Names of the columns.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// Checks the header; `false`, with a finding, if it cannot be one.
    pub(crate) fn check_header(&self, defects: &mut Defects) -> bool {
        if self.header.is_empty() {
            defects.push(Place::File, "", None, || {
                ("the file is empty".into(), "check how it was exported".into())
            });
        } else if self.header[0].starts_with(char::REPLACEMENT_CHARACTER) || self.header[0].contains('\0') {
            defects.push(Place::File, "", None, || {
                (
                    "the header is not UTF-8 text".into(),
                    "save the file as UTF-8 (it may be UTF-16)".into(),
                )
            });
        } else if !self.fault_places.is_empty() || self.reader.get_ref().stopped() {
            self.check_quotes(defects);
        }
        defects.is_empty()
    }

    /// Passes every record of the right length to `each`, with its row from 0; others become findings.
    pub(crate) fn for_each(
        &mut self,
        defects: &mut Defects,
        mut each: impl FnMut(u64, Option<&ByteRecord>, &mut Defects),
    ) -> Result<(), ReadError> {
        let fields = self.header.len();
        let mut record = ByteRecord::new();
        let mut row = 0;
        // A short record is a truncated file if nothing follows.
        let mut short: Option<(u64, usize, String)> = None;
        while self
            .reader
            .read_byte_record(&mut record)
            .map_err(|e| failed(&self.path, e))?
        {
            if !self.regular {
                self.note_fault_places(Place::Row(row));
            }
            if let Some((row, len, cells)) = short.take() {
                count_differs(defects, row, len, fields, &cells);
            }
            if record.len() == fields {
                each(row, Some(&record), defects);
            } else {
                let cells = start_of(&record);
                if record.len() < fields {
                    short = Some((row, record.len(), cells));
                } else {
                    count_differs(defects, row, record.len(), fields, &cells);
                }
                each(row, None, defects);
            }
            row += 1;
        }
        if let Some((row, len, cells)) = short {
            defects.push(Place::Row(row), "", Some(&|| cells.clone()), || {
                (
                    format!("the file ends within this row, after {len} of {fields} cells: it is truncated"),
                    "export or copy the file again".into(),
                )
            });
        }
        self.check_quotes(defects);
        Ok(())
    }

    /// Broken quoting shifts every cell after it, so its finding replaces all others.
    fn check_quotes(&self, defects: &mut Defects) {
        let faults = self.reader.get_ref().faults();
        if !faults.is_empty() {
            defects.clear();
        }
        for (i, (offset, fault)) in faults.into_iter().enumerate() {
            let place = if self.regular {
                Place::Byte(offset)
            } else {
                // A quote that is never closed is only detected at the end of the file, which is also the end
                // of its record.
                self.fault_places.get(i).copied().unwrap_or(self.latest)
            };
            defects.push(place, "", None, || {
                let (problem, remedy) = fault_texts(fault);
                (problem.into(), remedy.into())
            });
        }
    }

    /// Records `place` for the faults that were seen up to the end of the record just read and have no place
    /// yet.
    fn note_fault_places(&mut self, place: Place) {
        self.latest = place;
        let end = self.reader.position().byte();
        let seen = self.reader.get_ref().seen_before(end);
        if self.fault_places.len() < seen {
            self.fault_places.resize(seen, place);
        }
    }

    /// The next record; `None` after the last.
    pub(super) fn next_record(&mut self) -> Result<Option<ByteRecord>, ReadError> {
        let mut record = ByteRecord::new();
        let read = self.reader.read_byte_record(&mut record);
        Ok(read.map_err(|e| failed(&self.path, e))?.then_some(record))
    }
}

fn fault_texts(fault: QuoteFault) -> (&'static str, &'static str) {
    const QUOTING: &str = "quote the whole cell and write quotes inside it twice (\"\")";
    const DAMAGED: &str = "export or copy the file again";
    match fault {
        QuoteFault::Stray => (
            "broken quoting: a quote inside a cell that does not start with one",
            QUOTING,
        ),
        QuoteFault::AfterClosing => (
            "broken quoting: text between a closing quote and the comma",
            QUOTING,
        ),
        QuoteFault::Unclosed => ("broken quoting: the quote opened here is never closed", QUOTING),
        QuoteFault::UnclosedSoFar => (
            "broken quoting: the quote opened here is not closed within 1 MiB",
            QUOTING,
        ),
        QuoteFault::TooLong => (
            "the line is longer than 1 MiB",
            "check that the file is CSV with one line per row, and export it again",
        ),
        QuoteFault::Nul => ("a NUL byte, which no text has: the file is damaged", DAMAGED),
    }
}

/// A reader of records from the start of a file.
pub(super) fn reader(source: Source) -> CsvReader {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(QuoteCheck::new(source.into_reader()))
}

/// The first cells of a record, as shown in a message.
fn start_of(record: &ByteRecord) -> String {
    const SHOWN_BYTES: usize = 256;
    let mut start = Vec::new();
    for (i, cell) in record.iter().enumerate() {
        if start.len() > SHOWN_BYTES {
            break;
        }
        if i > 0 {
            start.push(b',');
        }
        start.extend_from_slice(&cell[..cell.len().min(SHOWN_BYTES)]);
    }
    String::from_utf8_lossy(&start).into_owned()
}

pub(super) fn failed(path: &Path, error: csv::Error) -> ReadError {
    ReadError::Io {
        path: path.to_owned(),
        cause: error.into(),
    }
}

fn count_differs(defects: &mut Defects, row: u64, len: usize, fields: usize, cells: &str) {
    defects.push(Place::Row(row), "", Some(&|| cells.to_owned()), || {
        (
            format!("the row has {len} cells, the header {fields}"),
            "check for missing or extra commas; cells with commas need quotes".into(),
        )
    });
}

/// Reads every row into the panel builder.
pub(crate) fn fill(
    table: &mut CsvTable,
    columns: &Columns,
    panel_builder: &mut PanelBuilder,
    defects: &mut Defects,
) -> Result<(), ReadError> {
    if !table.check_header(defects) {
        return Ok(());
    }
    let header = table.header().to_vec();
    // The first row shows what a column holds, if one is to be suggested.
    let mut first: Option<ByteRecord> = None;
    let mut failure = None;
    let fits = |role: usize, place: usize| {
        if first.is_none() {
            match table.next_record() {
                Ok(record) => first = Some(record.unwrap_or_default()),
                Err(e) => failure = Some(e),
            }
        }
        let cell = first.as_ref().and_then(|record| record.get(place));
        cell.is_none_or(|cell| may_hold(role, cell.trim_ascii()))
    };
    let Some(places) = columns.locate_where(&header, fits, defects) else {
        return failure.map_or(Ok(()), Err);
    };
    table.for_each(defects, |row, record, defects| {
        if panel_builder.is_full() {
            return;
        }
        let cells = record.map(|record| places.map(|i| record.get(i).unwrap_or_default()));
        match cells.and_then(|cells| check_row(row, cells, columns, panel_builder, defects)) {
            Some((keys, price, units)) => panel_builder.push(row, keys, price, units, columns, defects),
            None => panel_builder.leave_out(),
        }
    })
}

/// Whether a cell may belong to the column with this role: product, category, period, price, units, counted
/// from 0.
fn may_hold(role: usize, cell: &[u8]) -> bool {
    match role {
        2 => parse_period(cell).is_ok(),
        3 | 4 => parse_number(cell).is_some(),
        _ => true,
    }
}

/// Codes, price and units of a row, or `None`, with findings.
fn check_row(
    row: u64,
    [product, category, period, price, units]: [&[u8]; 5],
    columns: &Columns,
    panel_builder: &mut PanelBuilder,
    defects: &mut Defects,
) -> Option<((u32, u32, u32), f64, u32)> {
    let category = check_key(row, category, &columns.category, "category", defects).and_then(|key| {
        check_text(
            row,
            key,
            &columns.category,
            panel_builder.categories.text(key),
            defects,
        )
    });
    let product = match check_key(row, product, &columns.product, "product", defects) {
        Some(key) => check_text(
            row,
            key,
            &columns.product,
            panel_builder.products.text(key),
            defects,
        ),
        None => {
            category.inspect(|category| panel_builder.orphan(*category, row));
            None
        }
    };
    let period = match parse_period(period.trim_ascii()) {
        Ok(parsed) => panel_builder.period(
            row,
            parsed,
            || String::from_utf8_lossy(period).into_owned(),
            columns,
            defects,
        ),
        Err(problem) => {
            bad_cell(defects, row, &columns.period, period, problem, PERIOD_REMEDY);
            None
        }
    };
    let price = match parse_number(price.trim_ascii()).filter(|p| *p > 0.0 && p.is_finite()) {
        Some(price) => Some(price),
        None => {
            bad_cell(defects, row, &columns.price, price, PRICE_PROBLEM, PRICE_REMEDY);
            None
        }
    };
    let units = match parse_units(units.trim_ascii()) {
        Ok(units) => Some(units),
        Err(problem) => {
            bad_cell(defects, row, &columns.units, units, problem, UNITS_REMEDY);
            None
        }
    };
    match (product, category, period, price, units) {
        (Some(product), Some(category), Some(period), Some(price), Some(units)) => {
            Some(((product, category, period), price, units))
        }
        (Some(_), Some(category), ..) => {
            panel_builder.has_product(category);
            None
        }
        _ => None,
    }
}

pub(crate) const PERIOD_REMEDY: &str = "number the periods, or write them as YYYY-MM-DD";
pub(crate) const PRICE_PROBLEM: &str = "the price is not a positive finite number";
pub(crate) const PRICE_REMEDY: &str = "correct the price or remove the row";
pub(crate) const UNITS_REMEDY: &str =
    "units are whole numbers from 0 to 2147483647: correct them or remove the row";

fn check_key<'c>(
    row: u64,
    cell: &'c [u8],
    column: &str,
    axis: &str,
    defects: &mut Defects,
) -> Option<&'c [u8]> {
    if cell.trim_ascii().is_empty() {
        bad_cell(
            defects,
            row,
            column,
            cell,
            &format!("the {axis} is empty"),
            "fill it in or remove the row",
        );
        return None;
    }
    Some(cell)
}

fn check_text(
    row: u64,
    cell: &[u8],
    column: &str,
    code: Result<u32, std::str::Utf8Error>,
    defects: &mut Defects,
) -> Option<u32> {
    if code.is_err() {
        bad_cell(
            defects,
            row,
            column,
            cell,
            "the cell is not UTF-8 text",
            "save the file as UTF-8",
        );
    }
    code.ok()
}

fn bad_cell(defects: &mut Defects, row: u64, column: &str, cell: &[u8], problem: &str, remedy: &str) {
    defects.push(
        Place::Row(row),
        column,
        Some(&|| String::from_utf8_lossy(cell).into_owned()),
        || (problem.to_owned(), remedy.to_owned()),
    );
}

fn parse_units(cell: &[u8]) -> Result<u32, &'static str> {
    match small_number(cell) {
        Some(units) => Ok(units),
        None => parse_number(cell).map_or(Err("the units are not a number"), whole_units),
    }
}

/// The number as units, or why it cannot be.
pub(crate) fn whole_units(units: f64) -> Result<u32, &'static str> {
    if !units.is_finite() {
        Err("the units are not a finite number")
    } else if units < 0.0 {
        Err("the units are negative")
    } else if units > f64::from(MAX_UNITS) {
        Err("the units exceed 2147483647")
    } else if units.fract() != 0.0 {
        Err("the units are fractional")
    } else {
        Ok(units as u32)
    }
}
