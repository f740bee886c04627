//! Rows of a CSV file.

use super::columns::Columns;
use super::defect::{Findings, Place, ReadError};
use super::ledger::{Ledger, MAX_UNITS};
use super::numbers::{parse_number, small_number};
use super::periods::parse_period;
use super::quoting::{QuoteCheck, QuoteFault};
use csv::ByteRecord;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 18;

/// A CSV file that is read record by record.
pub(crate) struct CsvTable {
    path: PathBuf,
    reader: csv::Reader<QuoteCheck<File>>,
    header: Vec<String>,
}

impl CsvTable {
    /// Opens a file and reads its header, empty when the file is.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let mut reader = reader(path)?;
        let mut first = ByteRecord::new();
        reader.read_byte_record(&mut first).map_err(|e| failed(path, e))?;
        let header = first
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        Ok(CsvTable {
            path: path.to_owned(),
            reader,
            header,
        })
    }

    /// Names of the columns.
    pub(crate) fn header(&self) -> &[String] {
        &self.header
    }

    /// Finding of a file whose header cannot be one; `false` if there is such.
    pub(crate) fn check_header(&self, findings: &mut Findings) -> bool {
        if self.header.is_empty() {
            findings.push(Place::File, "", None, || {
                ("the file is empty".into(), "check how it was exported".into())
            });
        } else if self.header[0].starts_with(char::REPLACEMENT_CHARACTER) || self.header[0].contains('\0') {
            findings.push(Place::File, "", None, || {
                (
                    "the header is not UTF-8 text".into(),
                    "save the file as UTF-8 (it may be UTF-16)".into(),
                )
            });
        }
        findings.is_empty()
    }

    /// Hands every record of the right length to `each`, with its row from 0; others become findings.
    pub(crate) fn for_each(
        &mut self,
        findings: &mut Findings,
        mut each: impl FnMut(u64, Option<&ByteRecord>, &mut Findings),
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
            if let Some((row, len, cells)) = short.take() {
                count_differs(findings, row, len, fields, &cells);
            }
            if record.len() == fields {
                each(row, Some(&record), findings);
            } else {
                let cells = record
                    .iter()
                    .map(String::from_utf8_lossy)
                    .collect::<Vec<_>>()
                    .join(",");
                if record.len() < fields {
                    short = Some((row, record.len(), cells));
                } else {
                    count_differs(findings, row, record.len(), fields, &cells);
                }
                each(row, None, findings);
            }
            row += 1;
        }
        if let Some((row, len, cells)) = short {
            findings.push(Place::Row(row), "", Some(&|| cells.clone()), || {
                (
                    format!("the file ends within this row, after {len} of {fields} cells: it is truncated"),
                    "export or copy the file again".into(),
                )
            });
        }
        self.check_quotes(findings);
        Ok(())
    }

    /// Broken quoting shifts every cell behind it, so it hides all that was found so far.
    fn check_quotes(&self, findings: &mut Findings) {
        let faults = self.reader.get_ref().faults();
        if !faults.is_empty() {
            findings.clear();
        }
        for (offset, fault) in faults {
            findings.push(Place::Byte(offset), "", None, || {
                let problem = match fault {
                    QuoteFault::Stray => "broken quoting: a quote inside a cell that does not start with one",
                    QuoteFault::AfterClosing => "broken quoting: text between a closing quote and the comma",
                    QuoteFault::Unclosed => "broken quoting: the quote opened here is never closed",
                };
                (
                    problem.into(),
                    "quote the whole cell and write quotes inside it twice (\"\")".into(),
                )
            });
        }
    }

    /// Line of every place, from 1, by reading the file once more.
    pub(crate) fn lines(&self, places: &[Place]) -> Result<Vec<Option<u64>>, ReadError> {
        let offsets = self.offsets(places)?;
        let io = |cause| ReadError::Io {
            path: self.path.clone(),
            cause,
        };
        let mut order: Vec<(u64, usize)> = offsets
            .iter()
            .enumerate()
            .filter_map(|(i, offset)| Some(((*offset)?, i)))
            .collect();
        order.sort_unstable();
        let mut lines = vec![None; places.len()];
        let mut file = File::open(&self.path).map_err(io)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut position, mut line) = (0u64, 1u64);
        // CR, LF and CRLF each end one line; the two bytes of a CRLF may come in two buffers.
        let mut after_return = false;
        let mut next = order.into_iter().peekable();
        while next.peek().is_some() {
            let read = file.read(&mut buffer).map_err(io)?;
            if read == 0 {
                break;
            }
            for byte in &buffer[..read] {
                // A record's offset is before the line ends and blank lines that precede it.
                let at_line_end = matches!(byte, b'\n' | b'\r');
                while !at_line_end && next.peek().is_some_and(|(offset, _)| *offset <= position) {
                    lines[next.next().expect("peeked").1] = Some(line);
                }
                line += u64::from(*byte == b'\r' || (*byte == b'\n' && !after_return));
                after_return = *byte == b'\r';
                position += 1;
            }
        }
        Ok(lines)
    }

    fn offsets(&self, places: &[Place]) -> Result<Vec<Option<u64>>, ReadError> {
        let mut wanted: Vec<(u64, usize)> = Vec::new();
        let mut offsets = vec![None; places.len()];
        for (i, place) in places.iter().enumerate() {
            match place {
                Place::Row(row) => wanted.push((*row, i)),
                Place::Byte(offset) => offsets[i] = Some(*offset),
                Place::File => {}
            }
        }
        wanted.sort_unstable();
        let mut reader = reader(&self.path)?;
        let mut record = ByteRecord::new();
        reader
            .read_byte_record(&mut record)
            .map_err(|e| failed(&self.path, e))?;
        let mut read = 0;
        for (row, i) in wanted {
            while read <= row
                && reader
                    .read_byte_record(&mut record)
                    .map_err(|e| failed(&self.path, e))?
            {
                read += 1;
            }
            offsets[i] = record.position().map(|p| p.byte());
        }
        Ok(offsets)
    }
}

fn reader(path: &Path) -> Result<csv::Reader<QuoteCheck<File>>, ReadError> {
    let file = File::open(path).map_err(|cause| ReadError::Io {
        path: path.to_owned(),
        cause,
    })?;
    Ok(csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(QuoteCheck::new(file)))
}

fn failed(path: &Path, error: csv::Error) -> ReadError {
    ReadError::Io {
        path: path.to_owned(),
        cause: error.into(),
    }
}

fn count_differs(findings: &mut Findings, row: u64, len: usize, fields: usize, cells: &str) {
    findings.push(Place::Row(row), "", Some(&|| cells.to_owned()), || {
        (
            format!("the row has {len} cells, the header {fields}"),
            "check for missing or extra commas; cells with commas need quotes".into(),
        )
    });
}

/// Reads every row into the ledger.
pub(crate) fn fill(
    table: &mut CsvTable,
    columns: &Columns,
    ledger: &mut Ledger,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    if !table.check_header(findings) {
        return Ok(());
    }
    let header = table.header().to_vec();
    let Some(places) = columns.locate(&header, findings) else {
        return Ok(());
    };
    table.for_each(findings, |row, record, findings| {
        if ledger.shortage().is_some() {
            return;
        }
        let cells = record.map(|record| places.map(|i| record.get(i).unwrap_or_default()));
        match cells.and_then(|cells| check_row(row, cells, columns, ledger, findings)) {
            Some((keys, price, units)) => ledger.push(row, keys, price, units, columns, findings),
            None => ledger.leave_out(),
        }
    })
}

/// Codes, price and units of a row, or `None` after findings.
fn check_row(
    row: u64,
    [product, category, period, price, units]: [&[u8]; 5],
    columns: &Columns,
    ledger: &mut Ledger,
    findings: &mut Findings,
) -> Option<((u32, u32, u32), f64, u32)> {
    let category = check_key(row, category, &columns.category, "category", findings)
        .and_then(|key| check_text(row, key, &columns.category, ledger.categories.text(key), findings));
    let product = match check_key(row, product, &columns.product, "product", findings) {
        Some(key) => check_text(row, key, &columns.product, ledger.products.text(key), findings),
        None => {
            category.inspect(|category| ledger.orphan(*category, row));
            None
        }
    };
    let period = match parse_period(period.trim_ascii()) {
        Ok(parsed) => ledger.period(
            row,
            parsed,
            || String::from_utf8_lossy(period).into_owned(),
            columns,
            findings,
        ),
        Err(problem) => {
            bad_cell(findings, row, &columns.period, period, problem, PERIOD_REMEDY);
            None
        }
    };
    let price = match parse_number(price.trim_ascii()).filter(|p| *p > 0.0 && p.is_finite()) {
        Some(price) => Some(price),
        None => {
            bad_cell(findings, row, &columns.price, price, PRICE_PROBLEM, PRICE_REMEDY);
            None
        }
    };
    let units = match parse_units(units.trim_ascii()) {
        Ok(units) => Some(units),
        Err(problem) => {
            bad_cell(findings, row, &columns.units, units, problem, UNITS_REMEDY);
            None
        }
    };
    match (product, category, period, price, units) {
        (Some(product), Some(category), Some(period), Some(price), Some(units)) => {
            Some(((product, category, period), price, units))
        }
        (Some(_), Some(category), ..) => {
            ledger.has_product(category);
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
    findings: &mut Findings,
) -> Option<&'c [u8]> {
    if cell.trim_ascii().is_empty() {
        bad_cell(
            findings,
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
    findings: &mut Findings,
) -> Option<u32> {
    if code.is_err() {
        bad_cell(
            findings,
            row,
            column,
            cell,
            "the cell is not UTF-8 text",
            "save the file as UTF-8",
        );
    }
    code.ok()
}

fn bad_cell(findings: &mut Findings, row: u64, column: &str, cell: &[u8], problem: &str, remedy: &str) {
    findings.push(
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

/// Units as a number, or why they cannot be units.
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
