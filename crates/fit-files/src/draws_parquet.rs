//! `draws.parquet` and `coordinates.json`: every kept draw, in a form that MCMC tools read.
//!
//! One row per draw, chain-major. Columns: `chain`, `draw` (int32); `global_a` (double); the other kept sites as
//! fixed-size lists of double in the order of the panel's sorted labels (`time_cat_effects` category-major); then
//! `diverging` (bool), `tree_depth`, `n_steps` (int32), `acceptance_rate`, `step_size`, `energy`, `lp` (double).

use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use infermark_backend::{DrawStatistics, Draws, SiteDraws};
use infermark_checked_parquet::{CheckedGroups, Failure, contained, read_metadata};
use infermark_model::{Axis, Labels, Panel, Site};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::{ArrowWriter, ProjectionMask, parquet_to_arrow_field_levels};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

/// Values that one batch may hold: 8 MiB of doubles.
const BATCH_VALUES: usize = 1 << 20;

/// Names along the axes of the draws.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawLabels {
    /// Products, sorted.
    pub product: Vec<String>,
    /// Categories, sorted.
    pub category: Vec<String>,
    /// Periods, sorted.
    pub period: Vec<String>,
    /// Chains.
    pub chains: usize,
    /// Draws of each chain.
    pub draws: usize,
}

impl DrawLabels {
    /// The coordinates of `draws` over `panel`.
    pub fn new(panel: &Panel, draws: &Draws) -> Self {
        let names = |labels: &Labels| labels.iter().map(|l| l.to_string()).collect();
        DrawLabels {
            product: names(panel.products()),
            category: names(panel.categories()),
            period: names(panel.periods()),
            chains: draws.chains,
            draws: draws.draws,
        }
    }
}

/// Writes the draws as Parquet, batch by batch.
///
/// # Errors
/// When `out` fails.
///
/// # Panics
/// When a site's values or the statistics are not one entry per draw.
pub fn write_draws_parquet(out: impl Write + Send, draws: &Draws) -> io::Result<()> {
    let rows = draws.chains * draws.draws;
    assert_eq!(draws.statistics.len(), rows, "statistics, one a draw");
    let schema = Arc::new(Schema::new(fields(draws)));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Draws hardly repeat: a dictionary would be built only to be thrown away.
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(io::Error::other)?;
    let latents: usize = draws.sites.iter().map(|s| draws.layout.len(s.site)).sum();
    let step = (BATCH_VALUES / latents.max(1)).clamp(1, 1 << 16);
    let mut first = 0;
    while first < rows {
        let end = (first + step).min(rows);
        let batch = batch(&schema, draws, first..end)?;
        writer.write(&batch).map_err(io::Error::other)?;
        // A row group is held until it ends.
        writer.flush().map_err(io::Error::other)?;
        first = end;
    }
    writer.close().map_err(io::Error::other)?;
    Ok(())
}

/// Reads the draws of `product_a` back, for a panel of `products`; `None` if the file does not have that site
/// because it was too large to keep.
///
/// # Errors
/// When it is not such a file, is damaged, or has another number of products.
pub fn read_elasticity_draws(mut file: File, products: usize) -> io::Result<Option<SiteDraws>> {
    let site = Site::ProductA;
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let damaged = |failure: Failure| invalid(failure.problem_and_remedy().0);
    let wrong = || invalid(format!("its {} are not of {products} products", site.name()));
    let bytes = file.metadata()?.len();
    let metadata = read_metadata(&mut file, bytes).map_err(damaged)?;
    let Ok(place) = metadata.schema().index_of(site.name()) else {
        return Ok(None);
    };
    if *metadata.schema().field(place).data_type() != list(products) {
        return Err(wrong());
    }
    let groups = CheckedGroups {
        file: Arc::new(file),
        bytes,
        metadata: Arc::clone(metadata.metadata()),
        values_per_row: products,
    };
    let reader = || {
        let descriptor = groups.metadata.file_metadata().schema_descr();
        let alone = ProjectionMask::roots(descriptor, [place]);
        let levels = parquet_to_arrow_field_levels(descriptor, alone, Some(metadata.schema().fields()))?;
        let rows = (BATCH_VALUES / products.max(1)).max(1);
        ParquetRecordBatchReader::try_new_with_row_groups(&levels, &groups, rows, None)
    };
    let mut reader = contained(reader).map_err(damaged)?;
    let mut values = Vec::new();
    while let Some(batch) = contained(|| reader.next().transpose()).map_err(damaged)? {
        let column = batch.column(0).as_any().downcast_ref::<FixedSizeListArray>();
        let numbers = column.and_then(|lists| lists.values().as_any().downcast_ref::<Float64Array>());
        values.extend_from_slice(numbers.ok_or_else(wrong)?.values());
    }
    Ok(Some(SiteDraws { site, values }))
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float64, false))
}

/// The type of a site's column: a list of `length` numbers a draw.
fn list(length: usize) -> DataType {
    DataType::FixedSizeList(item(), i32::try_from(length).expect("a list's length"))
}

fn fields(draws: &Draws) -> Vec<Field> {
    let field = |name: &str, kind| Field::new(name, kind, false);
    let mut fields = vec![field("chain", DataType::Int32), field("draw", DataType::Int32)];
    for SiteDraws { site, .. } in &draws.sites {
        let kind = match site.axis() {
            Axis::Scalar => DataType::Float64,
            _ => list(draws.layout.len(*site)),
        };
        fields.push(field(site.name(), kind));
    }
    fields.extend([
        field("diverging", DataType::Boolean),
        field("tree_depth", DataType::Int32),
        field("n_steps", DataType::Int32),
        field("acceptance_rate", DataType::Float64),
        field("step_size", DataType::Float64),
        field("energy", DataType::Float64),
        field("lp", DataType::Float64),
    ]);
    fields
}

fn batch(schema: &Arc<Schema>, draws: &Draws, rows: std::ops::Range<usize>) -> io::Result<RecordBatch> {
    let index = |f: &dyn Fn(usize) -> usize| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|r| f(r) as i32)))
    };
    let mut columns = vec![index(&|r| r / draws.draws), index(&|r| r % draws.draws)];
    for SiteDraws { site, values } in &draws.sites {
        let length = draws.layout.len(*site);
        assert_eq!(
            values.len(),
            length * draws.chains * draws.draws,
            "{}",
            site.name()
        );
        let values =
            Float64Array::from_iter_values(values[rows.start * length..rows.end * length].iter().copied());
        columns.push(match site.axis() {
            Axis::Scalar => Arc::new(values),
            _ => Arc::new(
                FixedSizeListArray::try_new(item(), length as i32, Arc::new(values), None)
                    .map_err(io::Error::other)?,
            ),
        });
    }
    let statistics = &draws.statistics[rows.clone()];
    let whole = |f: fn(&DrawStatistics) -> u32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(
            statistics.iter().map(|s| f(s) as i32),
        ))
    };
    let real = |f: fn(&DrawStatistics) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(statistics.iter().map(f)))
    };
    let diverging: Vec<bool> = statistics.iter().map(|s| s.diverging).collect();
    columns.extend([
        Arc::new(BooleanArray::from(diverging)) as ArrayRef,
        whole(|s| s.tree_depth),
        whole(|s| s.leapfrog_steps),
        real(|s| s.acceptance),
        real(|s| s.step_size),
        real(|s| s.energy),
        real(|s| s.log_joint),
    ]);
    RecordBatch::try_new(schema.clone(), columns).map_err(io::Error::other)
}
