//! Rows of a Parquet file.

use super::columns::Columns;
use super::csv_rows::{PERIOD_REMEDY, PRICE_PROBLEM, PRICE_REMEDY, UNITS_REMEDY, whole_units};
use super::defect::{Findings, Place, ReadError};
use super::keys::Keys;
use super::ledger::{Ledger, MAX_UNITS};
use super::periods::{NO_PERIOD, Period, PeriodKind, parse_period};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::CompressionCodec;
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const BATCH_ROWS: usize = 1 << 16;

/// What a column must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Period,
    Price,
    Units,
}

const ROLES: [Role; 5] = [Role::Key, Role::Key, Role::Period, Role::Price, Role::Units];

/// Reads every row into the ledger.
pub(crate) fn fill(
    path: &Path,
    columns: &Columns,
    ledger: &mut Ledger,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    let file = File::open(path).map_err(|cause| ReadError::Io {
        path: path.to_owned(),
        cause,
    })?;
    if let Err(error) = rows(file, columns, ledger, findings) {
        findings.push(Place::File, "", None, || {
            (
                format!("the Parquet file is truncated or damaged ({error})"),
                "export or copy the file again".into(),
            )
        });
    }
    Ok(())
}

fn rows(
    file: File,
    columns: &Columns,
    ledger: &mut Ledger,
    findings: &mut Findings,
) -> Result<(), parquet::errors::ParquetError> {
    let bytes = file.metadata()?.len();
    let options = ArrowReaderOptions::new();
    let metadata = ArrowReaderMetadata::load(&file, options.clone())?;
    let header: Vec<String> = metadata
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let Some(places) = columns.locate(&header, findings) else {
        return Ok(());
    };
    let schema = Arc::clone(metadata.schema());
    let mut sound = true;
    for (place, role) in places.iter().zip(ROLES) {
        sound &= check_type(schema.field(*place), role, findings);
    }
    if !sound || !check_compression(metadata.metadata(), &places, findings) {
        return Ok(());
    }
    // Text is read as a dictionary, as most files hold it: a key is then looked up once, not once a row.
    let fields = schema.fields().iter().enumerate().map(|(i, field)| {
        if places[..3].contains(&i) && is_text(field.data_type()) {
            Arc::new(Field::new(field.name(), dictionary(), field.is_nullable()))
        } else {
            Arc::clone(field)
        }
    });
    let hinted = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let metadata =
        ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options.with_schema(hinted))?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    // The footer may be damaged; prices and units of a row seldom take less than a byte together.
    let rows = builder.metadata().file_metadata().num_rows().max(0) as u64;
    ledger.reserve(rows.min(bytes) as usize);
    let mask = ProjectionMask::roots(builder.parquet_schema(), places);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()?;

    // A projection keeps the file's order of columns.
    let mut sorted = places;
    sorted.sort_unstable();
    let order = places.map(|p| sorted.iter().position(|s| *s == p).expect("a permutation"));
    let mut codes = [KeyCodes::default(), KeyCodes::default()];
    let mut first_row = 0;
    for batch in reader {
        if ledger.shortage().is_some() {
            break;
        }
        let batch = batch?;
        add_batch(&batch, order, first_row, &mut codes, columns, ledger, findings)?;
        first_row += batch.num_rows() as u64;
    }
    Ok(())
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

fn is_text(data_type: &DataType) -> bool {
    use DataType::{LargeUtf8, Utf8, Utf8View};
    matches!(value_type(data_type), Utf8 | LargeUtf8 | Utf8View)
}

fn check_type(field: &Field, role: Role, findings: &mut Findings) -> bool {
    use DataType::{Date32, Date64, Timestamp};
    let data_type = value_type(field.data_type());
    let (fits, wanted) = match role {
        Role::Key => (
            is_text(data_type) || data_type.is_integer(),
            "text or whole numbers",
        ),
        Role::Period => (
            is_text(data_type)
                || data_type.is_integer()
                || matches!(data_type, Date32 | Date64 | Timestamp(..)),
            "whole numbers or dates",
        ),
        Role::Price | Role::Units => (data_type.is_numeric(), "numbers"),
    };
    if !fits {
        findings.push(Place::File, field.name(), None, || {
            (
                format!("the column has type {data_type}, it must hold {wanted}"),
                "convert the column, or name another one".into(),
            )
        });
    }
    fits
}

/// Whether the columns at `places` are compressed, if at all, with what can be read.
fn check_compression(metadata: &ParquetMetaData, places: &[usize], findings: &mut Findings) -> bool {
    let schema = metadata.file_metadata().schema_descr();
    let mut readable = true;
    for place in places {
        let mut chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
        let other = chunks.find_map(|chunk| {
            let root = chunk.column_path().parts().first()?;
            let codec = chunk.compression_codec();
            let read = matches!(
                codec,
                CompressionCodec::UNCOMPRESSED
                    | CompressionCodec::SNAPPY
                    | CompressionCodec::GZIP
                    | CompressionCodec::ZSTD
                    | CompressionCodec::LZ4
                    | CompressionCodec::LZ4_RAW
            );
            (!read && *root == schema.root_schema().get_fields()[*place].name()).then_some(codec)
        });
        if let Some(codec) = other {
            readable = false;
            let name = schema.root_schema().get_fields()[*place].name();
            findings.push(Place::File, name, None, || {
                (
                    format!("the column is compressed with {codec:?}, which is not read"),
                    "write it with Snappy, Zstandard, Gzip, LZ4 or none".into(),
                )
            });
        }
    }
    readable
}

/// A column of keys or periods, in one of the two forms that are read.
enum Cells {
    Text(DictionaryArray<Int32Type>),
    Number(Int64Array),
}

impl Cells {
    fn new(array: &ArrayRef) -> Result<Self, arrow_schema::ArrowError> {
        if is_text(array.data_type()) {
            Ok(Cells::Text(cast(array, &dictionary())?.as_dictionary().clone()))
        } else if *value_type(array.data_type()) == DataType::UInt64 {
            // Such a number may exceed Int64; as text it is still the same key.
            let text = cast(array, &DataType::Utf8)?;
            Ok(Cells::Text(cast(&text, &dictionary())?.as_dictionary().clone()))
        } else {
            Ok(Cells::Number(
                cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            ))
        }
    }
}

/// Codes of the keys of the dictionary at hand; it stays the same over many batches.
#[derive(Default)]
struct KeyCodes {
    dictionary: Option<StringArray>,
    codes: Vec<u32>,
    last: Option<(i64, u32)>,
}

const UNKNOWN: u32 = u32::MAX;

impl KeyCodes {
    fn enter(&mut self, cells: &Cells) {
        let Cells::Text(array) = cells else { return };
        let values = array.values().as_string::<i32>();
        let same = self.dictionary.as_ref().is_some_and(|held| {
            held.len() == values.len()
                && held.value_data().as_ptr() == values.value_data().as_ptr()
                && held.value_offsets().as_ptr() == values.value_offsets().as_ptr()
        });
        if !same {
            self.codes.clear();
            self.codes.resize(values.len(), UNKNOWN);
            self.dictionary = Some(values.clone());
        }
    }

    /// Code of a row's key, `None` when it is null or blank.
    fn code(&mut self, cells: &Cells, row: usize, keys: &mut Keys) -> Option<u32> {
        match cells {
            Cells::Number(array) => {
                if array.is_null(row) {
                    return None;
                }
                let key = array.value(row);
                if let Some((last, code)) = self.last
                    && last == key
                {
                    return Some(code);
                }
                let code = keys.integer(key);
                self.last = Some((key, code));
                Some(code)
            }
            Cells::Text(array) => {
                let keys_of_rows = array.keys();
                if keys_of_rows.is_null(row) {
                    return None;
                }
                let slot = keys_of_rows.value(row) as usize;
                if self.codes[slot] == UNKNOWN {
                    let values = self.dictionary.as_ref().expect("entered");
                    if values.is_null(slot) || values.value(slot).trim_ascii().is_empty() {
                        return None;
                    }
                    self.codes[slot] = keys
                        .text(values.value(slot).as_bytes())
                        .expect("Arrow text is UTF-8");
                }
                Some(self.codes[slot])
            }
        }
    }
}

/// The periods of a batch.
struct PeriodCells {
    cells: Cells,
    kind: PeriodKind,
}

impl PeriodCells {
    fn new(array: &ArrayRef) -> Result<Self, arrow_schema::ArrowError> {
        use DataType::{Date32, Date64, Timestamp};
        let data_type = value_type(array.data_type());
        if matches!(data_type, Date32 | Date64 | Timestamp(..)) {
            let days = cast(array, &Date32)?;
            let days = days.as_primitive::<Date32Type>().unary::<_, Int64Type>(i64::from);
            return Ok(PeriodCells {
                cells: Cells::Number(days),
                kind: PeriodKind::Date,
            });
        }
        Ok(PeriodCells {
            cells: Cells::new(array)?,
            kind: PeriodKind::Integer,
        })
    }

    /// A row's period, or why it has none.
    fn period(&self, row: usize) -> Result<Period, &'static str> {
        match &self.cells {
            Cells::Number(array) if array.is_valid(row) => Ok((self.kind, array.value(row))),
            Cells::Number(_) => Err(NO_PERIOD),
            Cells::Text(array) => {
                let values = array.values().as_string::<i32>();
                match array.key(row).filter(|slot| values.is_valid(*slot)) {
                    Some(slot) => parse_period(values.value(slot).trim_ascii().as_bytes()),
                    None => Err(NO_PERIOD),
                }
            }
        }
    }
}

/// The units of a batch.
enum UnitCells {
    Whole(Int64Array),
    Real(Float64Array),
}

impl UnitCells {
    fn new(array: &ArrayRef) -> Result<Self, arrow_schema::ArrowError> {
        // Unsigned 64-bit numbers may exceed Int64; as floats they are refused as too large, not as missing.
        if value_type(array.data_type()).is_integer() && *value_type(array.data_type()) != DataType::UInt64 {
            Ok(UnitCells::Whole(
                cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            ))
        } else {
            Ok(UnitCells::Real(
                cast(array, &DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .clone(),
            ))
        }
    }

    fn units(&self, row: usize) -> Result<u32, &'static str> {
        const MISSING: &str = "the units are missing";
        match self {
            UnitCells::Whole(array) if array.is_valid(row) => {
                let units = array.value(row);
                if (0..=i64::from(MAX_UNITS)).contains(&units) {
                    Ok(units as u32)
                } else {
                    whole_units(units as f64)
                }
            }
            UnitCells::Real(array) if array.is_valid(row) => whole_units(array.value(row)),
            _ => Err(MISSING),
        }
    }
}

fn add_batch(
    batch: &RecordBatch,
    order: [usize; 5],
    first_row: u64,
    codes: &mut [KeyCodes; 2],
    columns: &Columns,
    ledger: &mut Ledger,
    findings: &mut Findings,
) -> Result<(), arrow_schema::ArrowError> {
    let arrays = order.map(|i| batch.column(i));
    let product = Cells::new(arrays[0])?;
    let category = Cells::new(arrays[1])?;
    let period = PeriodCells::new(arrays[2])?;
    let price = cast(arrays[3], &DataType::Float64)?;
    let price = price.as_primitive::<Float64Type>();
    let units = UnitCells::new(arrays[4])?;
    let [product_codes, category_codes] = codes;
    product_codes.enter(&product);
    category_codes.enter(&category);
    let cell = |column: usize, row: usize| match arrays[column].is_null(row) {
        true => "null".to_owned(),
        false => array_value_to_string(arrays[column], row).unwrap_or_default(),
    };
    for i in 0..batch.num_rows() {
        let row = first_row + i as u64;
        let mut bad = |column: usize, name: &str, problem: &str, remedy: &str| {
            findings.push(Place::Row(row), name, Some(&|| cell(column, i)), || {
                (problem.to_owned(), remedy.to_owned())
            });
        };
        let category = category_codes.code(&category, i, &mut ledger.categories);
        if category.is_none() {
            bad(
                1,
                &columns.category,
                "the category is empty",
                "fill it in or remove the row",
            );
        }
        let product = product_codes.code(&product, i, &mut ledger.products);
        if product.is_none() {
            bad(
                0,
                &columns.product,
                "the product is empty",
                "fill it in or remove the row",
            );
            category.inspect(|category| ledger.orphan(*category, row));
        }
        let price =
            (price.is_valid(i) && price.value(i) > 0.0 && price.value(i).is_finite()).then(|| price.value(i));
        if price.is_none() {
            bad(3, &columns.price, PRICE_PROBLEM, PRICE_REMEDY);
        }
        let units = units
            .units(i)
            .map_err(|problem| bad(4, &columns.units, problem, UNITS_REMEDY))
            .ok();
        let period = match period.period(i) {
            Ok(parsed) => ledger.period(row, parsed, || cell(2, i), columns, findings),
            Err(problem) => {
                bad(2, &columns.period, problem, PERIOD_REMEDY);
                None
            }
        };
        match (product, category, period, price, units) {
            (Some(product), Some(category), Some(period), Some(price), Some(units)) => {
                ledger.push(row, (product, category, period), price, units, columns, findings);
            }
            (Some(_), Some(category), ..) => {
                ledger.has_product(category);
                ledger.leave_out();
            }
            _ => ledger.leave_out(),
        }
    }
    Ok(())
}
