//! Rows of a Parquet file.

mod ahead;
mod cells;
mod dates;
mod types;
mod zone;

use super::columns::{Columns, Places};
use super::csv_rows::{PERIOD_REMEDY, PRICE_PROBLEM, PRICE_REMEDY, UNITS_REMEDY};
use super::defect::{Defects, Place, ReadError};
use super::panel_builder::{FollowingRows, PanelBuilder};
use ahead::{Ahead, Decoded};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use arrow_cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, Fields, Schema};
use cells::{Cells, KeyCodes, NoKey, PeriodCells, UnitCells};
use dates::Clock;
use infermark_checked_parquet::{CheckedGroups, Failure, contained, read_metadata};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, RowGroups};
use parquet::arrow::{ProjectionMask, parquet_to_arrow_field_levels};
use parquet::file::metadata::ParquetMetaData;
use std::fs::File;
use std::ops::ControlFlow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use types::{check_compression, check_type, dictionary, is_text};

const BATCH_ROWS: usize = 1 << 16;

/// What a column must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    Period,
    Number,
}

const ROLES: [Role; 5] = [Role::Key, Role::Key, Role::Period, Role::Number, Role::Number];

/// Reads every row into the panel builder.
pub(crate) fn fill(
    path: &Path,
    columns: &Columns,
    panel_builder: &mut PanelBuilder,
    defects: &mut Defects,
) -> Result<(), ReadError> {
    let file = File::open(path).map_err(|cause| ReadError::Io {
        path: path.to_owned(),
        cause,
    })?;
    if let Err(error) = rows(file, columns, panel_builder, defects) {
        defects.push(Place::File, "", None, || error.problem_and_remedy());
    }
    Ok(())
}

fn rows(
    mut file: File,
    columns: &Columns,
    panel_builder: &mut PanelBuilder,
    defects: &mut Defects,
) -> Result<(), Failure> {
    let bytes = file.metadata()?.len();
    let metadata = read_metadata(&mut file, bytes)?;
    let schema = Arc::clone(metadata.schema());
    let header: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    if header.is_empty() {
        defects.push(Place::File, "", None, || {
            (
                "the Parquet file has no columns".into(),
                "export it again with the columns of the panel".into(),
            )
        });
        return Ok(());
    }
    let Some(places) = columns.locate(&header, defects) else {
        return Ok(());
    };
    let mut sound = true;
    for (place, role) in places.iter().zip(ROLES) {
        sound &= check_type(schema.field(*place), role, defects);
    }
    if !sound || !check_compression(metadata.metadata(), &places, defects) {
        return Ok(());
    }
    let (file, metadata) = (Arc::new(file), metadata.metadata());
    let of_groups = |groups: Arc<ParquetMetaData>| CheckedGroups {
        file: Arc::clone(&file),
        bytes,
        metadata: groups,
        values_per_row: 1,
    };
    let all = of_groups(Arc::clone(metadata));
    // The footer may be damaged; price and units of a row together seldom take less than a byte.
    panel_builder.reserve((all.num_rows() as u64).min(bytes) as usize);
    let rows_of: Vec<u64> = all.row_groups().map(|of| of.num_rows().max(0) as u64).collect();
    panel_builder.announce_groups(&rows_of);

    // A projection keeps the column order of the file.
    let mut sorted = places;
    sorted.sort_unstable();
    let order = places.map(|p| sorted.iter().position(|s| *s == p).expect("a permutation"));
    let mut clock = Clock::default();
    let mut file_rows = FileRows {
        bytes,
        first_row: 0,
        codes: Default::default(),
        columns,
        panel_builder,
        defects,
    };
    let mut next = 0;
    for run in file_rows.panel_builder.groups_to_read(rows_of.len()) {
        file_rows.skip(rows_of[next..run.start].iter().sum());
        next = run.end;
        let groups = match run.len() == rows_of.len() {
            true => of_groups(Arc::clone(metadata)),
            false => of_groups(Arc::new(ParquetMetaData::new(
                metadata.file_metadata().clone(),
                metadata.row_groups()[run].to_vec(),
            ))),
        };
        let reader = contained(|| batches(&groups, &schema, places))?;
        Ahead::new(reader, order).each(|decoded| {
            clock = decoded.clock.clone();
            file_rows.add(&decoded, order)
        })?;
    }
    clock.check(&columns.period, defects);
    Ok(())
}

/// The rows of a file on their way into the panel builder.
struct FileRows<'a> {
    /// Bytes of the file.
    bytes: u64,
    /// The next row.
    first_row: u64,
    codes: [KeyCodes; 2],
    columns: &'a Columns,
    panel_builder: &'a mut PanelBuilder,
    defects: &'a mut Defects,
}

impl FileRows<'_> {
    /// Goes on after rows that are not read.
    fn skip(&mut self, rows: u64) {
        if rows > 0 {
            self.panel_builder.leave_out_rows(rows);
            self.first_row += rows;
        }
    }

    /// Adds a batch; breaks off where no more is read.
    fn add(&mut self, decoded: &Decoded, order: Places) -> ControlFlow<()> {
        let batch = &decoded.batch;
        let left = self.panel_builder.end().saturating_sub(self.first_row);
        let rows = (batch.num_rows() as u64).min(left) as usize;
        self.add_batch(batch, rows, order, &decoded.cells);
        self.first_row += rows as u64;
        self.panel_builder.passed(self.first_row);
        let first_row = self.first_row;
        if rows < batch.num_rows() {
            return ControlFlow::Break(());
        }
        // A second pass goes as far as the first.
        let is_second = self.panel_builder.end() < u64::MAX;
        if !is_second && first_row > self.bytes.saturating_add(REPEATED_ROWS) {
            let repeated = self.panel_builder.more_rows_than_pairs();
            if !repeated && self.defects.is_empty() {
                return ControlFlow::Continue(());
            }
            self.defects.push(Place::File, "", None, || match repeated {
                true => (
                    format!("the first {first_row} rows repeat products and periods, the rest is not read"),
                    "keep one row of a product and period, or add them up".into(),
                ),
                false => (
                    format!("the first {first_row} rows have defects, the rest is not read"),
                    "mend the rows that are named, and read the file again".into(),
                ),
            });
            return ControlFlow::Break(());
        }
        match self.panel_builder.is_full() {
            false => ControlFlow::Continue(()),
            true => ControlFlow::Break(()),
        }
    }
}

/// How many more rows than bytes a file may have if some rows are repeated or refused: a few bytes can encode
/// the same row billions of times.
const REPEATED_ROWS: u64 = 1 << 21;

/// A reader of the columns at `places`.
fn batches(
    groups: &CheckedGroups,
    schema: &Schema,
    places: Places,
) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
    let fields = schema.fields().iter().enumerate().map(|(i, field)| {
        if places[..3].contains(&i) && is_text(field.data_type()) {
            Arc::new(Field::new(
                field.name(),
                dictionary(field.data_type()),
                field.is_nullable(),
            ))
        } else {
            Arc::clone(field)
        }
    });
    let hinted: Fields = fields.collect();
    let descriptor = groups.metadata.file_metadata().schema_descr();
    let mask = ProjectionMask::roots(descriptor, places);
    let levels = parquet_to_arrow_field_levels(descriptor, mask, Some(&hinted))?;
    ParquetRecordBatchReader::try_new_with_row_groups(&levels, groups, BATCH_ROWS, None)
}

/// The five columns of a batch, in the forms in which they are read.
struct BatchCells {
    product: Cells,
    category: Cells,
    period: PeriodCells,
    price: Float64Array,
    units: UnitCells,
}

impl BatchCells {
    fn new(batch: &RecordBatch, order: Places, clock: &mut Clock) -> Result<Self, arrow_schema::ArrowError> {
        let arrays = order.map(|i| batch.column(i));
        Ok(BatchCells {
            product: Cells::new(arrays[0])?,
            category: Cells::new(arrays[1])?,
            period: PeriodCells::new(arrays[2], clock)?,
            price: cast(arrays[3], &DataType::Float64)?
                .as_primitive::<Float64Type>()
                .clone(),
            units: UnitCells::new(arrays[4])?,
        })
    }
}

/// A batch without nulls whose columns are of the usual types: codes of texts, whole numbers, and prices.
struct PlainCells<'a> {
    product: &'a [i32],
    category: &'a [i32],
    rows: FollowingRows<'a>,
}

impl PlainCells<'_> {
    /// The end of the rows, from row `i` on and before `end`, that have the same product and category as row
    /// `i`.
    fn end_of_keys(&self, i: usize, end: usize) -> usize {
        let keys = (self.product[i], self.category[i]);
        let same = |j: &usize| (self.product[*j], self.category[*j]) == keys;
        (i + 1..end).find(|j| !same(j)).unwrap_or(end)
    }

    fn rows(&self, rows: Range<usize>) -> FollowingRows<'_> {
        FollowingRows {
            period: &self.rows.period[rows.clone()],
            price: &self.rows.price[rows.clone()],
            units: &self.rows.units[rows],
        }
    }
}

impl BatchCells {
    fn plain(&self) -> Option<PlainCells<'_>> {
        let whole = |of: &'_ dyn Array| of.null_count() == 0;
        let (Cells::Text(product, _), Cells::Text(category, _)) = (&self.product, &self.category) else {
            return None;
        };
        let (period, UnitCells::Whole(units)) = (self.period.whole_numbers()?, &self.units) else {
            return None;
        };
        let columns: [&dyn Array; 5] = [product, category, period, &self.price, units];
        columns.into_iter().all(whole).then(|| PlainCells {
            product: product.values(),
            category: category.values(),
            rows: FollowingRows {
                period: period.values(),
                price: self.price.values(),
                units: units.values(),
            },
        })
    }
}

impl FileRows<'_> {
    /// Adds the first `rows` rows of a batch.
    fn add_batch(&mut self, batch: &RecordBatch, rows: usize, order: Places, cells: &BatchCells) {
        let FileRows {
            first_row,
            codes,
            columns,
            panel_builder,
            defects,
            ..
        } = self;
        let first_row = *first_row;
        let arrays = order.map(|i| batch.column(i));
        let BatchCells {
            product,
            category,
            period,
            price,
            units,
        } = cells;
        let [product_codes, category_codes] = codes;
        product_codes.enter(product);
        category_codes.enter(category);
        let cell = |column: usize, row: usize| match arrays[column].is_null(row) {
            true => "null".to_owned(),
            false => shown(arrays[column], row),
        };
        let plain = cells.plain();
        let mut i = 0;
        let mut same_until = 0;
        while i < rows {
            let row = first_row + i as u64;
            let mut bad = |column: usize, name: &str, problem: &str, remedy: &str| {
                defects.push(Place::Row(row), name, Some(&|| cell(column, i)), || {
                    (problem.to_owned(), remedy.to_owned())
                });
            };
            let category = category_codes
                .code(category, i, &mut panel_builder.categories)
                .map_err(|none| {
                    let (problem, remedy) = none.texts("the category is empty");
                    bad(1, &columns.category, problem, remedy);
                })
                .ok();
            let product = product_codes.code(product, i, &mut panel_builder.products);
            if let Err(none) = product {
                let (problem, remedy) = none.texts("the product is empty");
                bad(0, &columns.product, problem, remedy);
                category.inspect(|category| match none {
                    NoKey::Empty => panel_builder.orphan(*category, row),
                    _ => panel_builder.has_product(*category),
                });
            }
            let price = (price.is_valid(i) && price.value(i) > 0.0 && price.value(i).is_finite())
                .then(|| price.value(i));
            if price.is_none() {
                bad(3, &columns.price, PRICE_PROBLEM, PRICE_REMEDY);
            }
            let units = units
                .units(i)
                .map_err(|problem| bad(4, &columns.units, problem, UNITS_REMEDY))
                .ok();
            let period = match period.period(i) {
                Ok(parsed) => panel_builder.period(row, parsed, || cell(2, i), columns, defects),
                Err(problem) => {
                    bad(2, &columns.period, problem, PERIOD_REMEDY);
                    None
                }
            };
            match (product, category, period, price, units) {
                (Ok(product), Some(category), Some(period), Some(price), Some(units)) => {
                    panel_builder.push(row, (product, category, period), price, units, columns, defects);
                }
                (Ok(_), Some(category), ..) => {
                    panel_builder.has_product(category);
                    panel_builder.leave_out();
                }
                _ => panel_builder.leave_out(),
            }
            i += 1;
            if let (Some(plain), Ok(product), Some(category)) = (&plain, product, category) {
                // Consecutive rows that do not qualify compute it only once.
                if same_until < i {
                    same_until = plain.end_of_keys(i - 1, rows);
                }
                let rest = plain.rows(i..same_until);
                i += panel_builder.follow((product, category), first_row + i as u64, &rest);
            }
        }
    }
}

/// A value as the file has it.
fn shown(array: &ArrayRef, row: usize) -> String {
    let shown = match types::value_type(array.data_type()) {
        // Arrow has no database of named zones: such a time is shown in UTC.
        DataType::Timestamp(unit, Some(_)) => cast(array, &DataType::Timestamp(*unit, None))
            .and_then(|times| array_value_to_string(&times, row)),
        _ => array_value_to_string(array, row),
    };
    shown.unwrap_or_else(|_| "not to be shown".into())
}
