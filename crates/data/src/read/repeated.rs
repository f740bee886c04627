//! Two rows of one product and period: what distinguishes them, and therefore what to do.

use super::columns::Columns;
use super::csv_rows::{CsvTable, failed, reader};
use super::defect::{Defects, Place, ReadError};
use super::numbers::{parse_number, small_number};
use super::shown::quoted;
use super::source::Source;
use csv::ByteRecord;
use std::collections::BTreeMap;

impl CsvTable {
    /// Gives findings of a repeated product and period a remedy that fits their rows, by reading the file
    /// once more; for a pipe they keep the general one.
    pub(crate) fn tell_repeated_apart(
        &self,
        columns: &Columns,
        defects: &mut Defects,
    ) -> Result<(), ReadError> {
        let mut rows: BTreeMap<u64, ByteRecord> = defects
            .repeated()
            .flat_map(|(row, other, _)| [row, other])
            .filter_map(row_of)
            .map(|row| (row, ByteRecord::new()))
            .collect();
        if rows.is_empty() || !self.regular {
            return Ok(());
        }
        let mut reader = reader(Source::open(&self.path)?);
        let mut record = ByteRecord::new();
        let mut next =
            |record: &mut ByteRecord| reader.read_byte_record(record).map_err(|e| failed(&self.path, e));
        next(&mut record)?;
        let mut read = 0;
        for (row, kept) in &mut rows {
            while read <= *row && next(&mut record)? {
                read += 1;
            }
            kept.clone_from(&record);
        }
        for (row, other, remedy) in defects.repeated() {
            if let (Some(row), Some(other)) = (row_of(row), row_of(other)) {
                *remedy = told_apart(&self.header, columns, [&rows[&other], &rows[&row]]).into();
            }
        }
        Ok(())
    }
}

fn row_of(place: Place) -> Option<u64> {
    match place {
        Place::Row(row) => Some(row),
        Place::File | Place::Byte(_) => None,
    }
}

/// The remedy for two rows, the earlier one first.
fn told_apart(header: &[String], columns: &Columns, rows: [&ByteRecord; 2]) -> String {
    let cells = |place: usize| rows.map(|row| row.get(place).unwrap_or_default().trim_ascii());
    let named = |name: &str| header.iter().position(|h| h == name);
    if rows[0] == rows[1] {
        return "the rows are the same: remove one of them".into();
    }
    let roles = [
        &columns.product,
        &columns.category,
        &columns.period,
        &columns.price,
        &columns.units,
    ];
    let differing: Vec<usize> = (0..header.len())
        .filter(|place| !roles.contains(&&header[*place]))
        .filter(|place| {
            let [a, b] = cells(*place);
            a != b && !is_measure(a) && !is_measure(b)
        })
        .collect();
    let time = differing
        .iter()
        .find(|place| is_time(&header[**place], cells(**place)));
    let place = differing.iter().find(|place| {
        names_a_place(&header[**place]) || !cells(**place).iter().all(|cell| parse_number(cell).is_some())
    });
    let Some(place) = time.or(place).copied() else {
        return match differing.first() {
            None => "keep one of the two rows, or add them up".into(),
            Some(place) => format!(
                "where column {} is a place or a customer, make it a part of the product; where it is an amount, keep one of the two rows, or \
                 add them up",
                quoted(&header[*place])
            ),
        };
    };
    let [a, b] = cells(place).map(String::from_utf8_lossy);
    let told = format!(
        "column {} tells the rows apart ({} and {})",
        quoted(&header[place]),
        quoted(&a),
        quoted(&b)
    );
    if time.is_some() {
        let period = named(&columns.period).and_then(|place| small_number(cells(place)[0]));
        return match (small_number(b.as_bytes()), period) {
            (Some(year @ 1900..=2100), Some(period @ 0..1000)) => {
                let width = if period < 100 { 2 } else { 3 };
                format!("{told}: make it a part of the period, such as {year}{period:0width$} here")
            }
            _ => format!("{told}: make it a part of the period"),
        };
    }
    let product = named(&columns.product).map_or(&[][..], |place| cells(place)[0]);
    let example = format!("{} {b}", String::from_utf8_lossy(product));
    format!(
        "{told}: make it a part of the product, such as {} here, or keep the rows of one {} only",
        quoted(&example),
        quoted(&header[place])
    )
}

/// Whether a cell is an amount, such as a turnover, which differs between any two rows and identifies none.
fn is_measure(cell: &[u8]) -> bool {
    parse_number(cell).is_some_and(|number| number.fract() != 0.0)
}

/// Whether the name of a numeric column suggests a place or a customer; any other may be an amount.
fn names_a_place(name: &str) -> bool {
    let name = name.to_lowercase();
    [
        "store",
        "shop",
        "branch",
        "outlet",
        "site",
        "region",
        "market",
        "country",
        "channel",
        "warehouse",
        "customer",
    ]
    .iter()
    .any(|word| name.contains(word))
}

/// Whether a column holds times, judging by its name or by two years in it.
fn is_time(name: &str, cells: [&[u8]; 2]) -> bool {
    let name = name.to_lowercase();
    ["year", "quarter", "month", "season", "date"]
        .iter()
        .any(|word| name.contains(word))
        || name == "yr"
        || cells
            .iter()
            .all(|cell| matches!(small_number(cell), Some(1900..=2100)) && cell.len() == 4)
}
