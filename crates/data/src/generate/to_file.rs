//! A synthetic panel streamed to a file, without holding it in memory.

use super::accepted::{Grouping, draw_accepted};
use super::candidate::{Candidates, Draw, ProductRows};
use super::in_memory::{categories_in_use, truth_of};
use super::{GenerateError, GenerateProgress, Generator};
use crate::truth::write_truth;
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use infermark_atomic_file::{AtomicFile, FileError};
use infermark_model::{Axes, Labels};
use infermark_threads::on_pool;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Approximate number of rows that are drawn at a time.
const WAVE_ROWS: usize = 4 << 20;

/// Rows of a Parquet row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Draws a panel into the file `out` (`.parquet` or `.csv` by its name; columns product, category, week, price, units;
/// sorted by product and week) and its parameters into the CSV file `truth`, on `threads` threads (0: one per core).
/// Reading the file gives the panel of [`super::generate_panel`].
///
/// Both files get their names when they are complete, the truth last; missing folders are created. `progress`
/// is called with the progress of the work, and stops it by returning [`ControlFlow::Break`]. Memory: about
/// 100 bytes per product and 200 MB.
///
/// # Errors
/// [`GenerateError`] for sizes or priors that cannot be drawn from, files that cannot be written, and a stop
/// by `progress`; no part of a file is left behind.
pub fn generate_to_file(
    generator: &Generator,
    out: &Path,
    truth: &Path,
    threads: usize,
    progress: &mut (dyn FnMut(GenerateProgress) -> ControlFlow<()> + Send),
) -> Result<(), GenerateError> {
    generator.validate()?;
    check_memory(generator)?;
    let format = Format::of(out)?;
    if resolved(out) == resolved(truth) {
        return Err(GenerateError::SameFile { path: out.to_owned() });
    }
    let failed = |path: &Path, cause: io::Error| FileError::new("write", path, cause);
    let output = AtomicFile::create(out)?;
    // Before the work, so that a truth that cannot be written does not cost it.
    let mut truth_output = AtomicFile::create(truth)?;
    // Checked again, because missing folders now exist.
    if resolved(out) == resolved(truth) {
        return Err(GenerateError::SameFile { path: out.to_owned() });
    }
    let mut writer = RowWriter::new(generator, format, output).map_err(|e| failed(out, e))?;
    let draws = on_pool(threads, || write_rows(generator, out, &mut writer, progress))?;
    let output = writer.finish().map_err(|e| failed(out, e))?;

    let candidates = Candidates::new(generator);
    let kept = categories_in_use(generator.categories, &draws);
    let values = truth_of(generator, &candidates, &draws, &kept);
    let mut index = vec![0; generator.categories];
    for (i, c) in kept.iter().enumerate() {
        index[*c] = i as u32;
    }
    let category_of: Vec<u32> = draws.iter().map(|d| index[d.category as usize]).collect();
    let axes = Axes {
        products: &generator.product_labels(),
        categories: &generator.category_labels(&kept),
        periods: &generator.period_labels(),
    };
    write_truth(&mut truth_output, &axes, &category_of, &values).map_err(|e| failed(truth, e))?;
    let (output, truth_output) = (output.stage()?, truth_output.stage()?);
    output.commit()?;
    Ok(truth_output.commit()?)
}

/// Refuses what does not fit in memory: the wave of rows being written, the next one that is drawn meanwhile,
/// buffers, and the products' parameters.
fn check_memory(generator: &Generator) -> Result<(), GenerateError> {
    let (products, periods) = (generator.products as u64, generator.periods as u64);
    let wave = (products * periods).min(WAVE_ROWS as u64);
    let needed = 2 * 16 * wave + 100 * products + 8 * generator.categories as u64 * periods + (16 << 20);
    Ok(infermark_memory::check(
        format!("drawing {products} products"),
        needed,
    )?)
}

/// A path with its folder's links and relative parts resolved, as far as the folder exists.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
        // Some file systems ignore case.
        (Some(Ok(folder)), Some(name)) => folder.join(name.to_ascii_lowercase()),
        _ => absolute,
    }
}

/// Rows of consecutive products, T each.
#[derive(Default)]
struct Block {
    draws: Vec<Draw>,
    prices: Vec<f64>,
    units: Vec<u32>,
}

fn write_rows(
    generator: &Generator,
    out: &Path,
    writer: &mut RowWriter,
    progress: &mut (dyn FnMut(GenerateProgress) -> ControlFlow<()> + Send),
) -> Result<Vec<Draw>, GenerateError> {
    let candidates = Candidates::new(generator);
    let block = (1usize << 16).div_ceil(generator.periods).clamp(1, 1024);
    let wave = (WAVE_ROWS / (block * generator.periods)).max(1);
    let mut draws: Vec<Draw> = Vec::with_capacity(generator.products);
    draw_accepted(
        generator.products,
        Grouping { block, wave },
        |range, limit| {
            let mut block = Block::default();
            let mut rows = ProductRows::default();
            for candidate in range {
                if block.draws.len() == limit {
                    break;
                }
                if let Some(draw) = candidates.draw(candidate, &mut rows)? {
                    block.draws.push(draw);
                    block.prices.extend(&rows.prices);
                    block.units.extend(&rows.units);
                }
            }
            Ok(block)
        },
        |block: &Result<Block, GenerateError>| block.as_ref().map_or(0, |block| block.draws.len()),
        |blocks| {
            for block in blocks {
                let block = block?;
                writer
                    .write(draws.len(), &block)
                    .map_err(|cause| FileError::new("write", out, cause))?;
                draws.extend(block.draws);
                let done = GenerateProgress {
                    products_done: draws.len(),
                    products: generator.products,
                };
                if progress(done).is_break() {
                    return Err(GenerateError::Stopped(done));
                }
            }
            Ok(())
        },
    )?;
    Ok(draws)
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Csv,
    Parquet,
}

impl Format {
    fn of(out: &Path) -> Result<Self, GenerateError> {
        let extension = out.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("csv") => Ok(Format::Csv),
            Some("parquet") => Ok(Format::Parquet),
            _ => Err(GenerateError::Extension { path: out.to_owned() }),
        }
    }
}

enum RowWriter {
    Csv {
        file: AtomicFile,
        labels: RowLabels,
    },
    Parquet {
        writer: Box<ArrowWriter<AtomicFile>>,
        schema: Arc<Schema>,
        labels: RowLabels,
    },
}

struct RowLabels {
    products: Labels,
    categories: Vec<String>,
    periods: usize,
}

impl RowWriter {
    fn new(generator: &Generator, format: Format, mut file: AtomicFile) -> io::Result<Self> {
        let labels = RowLabels {
            products: generator.product_labels(),
            categories: Labels::numbered("c", generator.categories)
                .iter()
                .map(|l| l.to_string())
                .collect(),
            periods: generator.periods,
        };
        match format {
            Format::Csv => {
                file.write_all(b"product,category,week,price,units\n")?;
                Ok(RowWriter::Csv { file, labels })
            }
            Format::Parquet => {
                let schema = parquet_schema();
                // Prices seldom repeat: a dictionary of them would be given up after the first page anyway.
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .set_column_dictionary_enabled(ColumnPath::from("price"), false)
                    .build();
                let options = ArrowWriterOptions::new()
                    .with_properties(properties)
                    .with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options)?;
                Ok(RowWriter::Parquet {
                    writer: Box::new(writer),
                    schema,
                    labels,
                })
            }
        }
    }

    fn write(&mut self, first_product: usize, block: &Block) -> io::Result<()> {
        match self {
            RowWriter::Csv { file, labels } => write_csv(file, labels, first_product, block),
            RowWriter::Parquet {
                writer,
                schema,
                labels,
            } => {
                let batch = RecordBatch::try_new(Arc::clone(schema), labels.arrays(first_product, block))
                    .map_err(io::Error::other)?;
                writer.write(&batch).map_err(Into::into)
            }
        }
    }

    /// Completes the file and returns it.
    fn finish(self) -> io::Result<AtomicFile> {
        match self {
            RowWriter::Csv { file, .. } => Ok(file),
            RowWriter::Parquet { writer, .. } => Ok(writer.into_inner()?),
        }
    }
}

fn write_csv(
    file: &mut AtomicFile,
    labels: &RowLabels,
    first_product: usize,
    block: &Block,
) -> io::Result<()> {
    let mut start = String::new();
    for (i, draw) in block.draws.iter().enumerate() {
        start.clear();
        let category = &labels.categories[draw.category as usize];
        std::fmt::Write::write_fmt(
            &mut start,
            format_args!("{},{category},", labels.products.get(first_product + i)),
        )
        .map_err(io::Error::other)?;
        let rows = i * labels.periods..(i + 1) * labels.periods;
        for (week, row) in rows.enumerate() {
            let (cents, units) = ((block.prices[row] * 100.0).round() as u64, block.units[row]);
            writeln!(
                file,
                "{start}{},{}.{:02},{units}",
                week + 1,
                cents / 100,
                cents % 100
            )?;
        }
    }
    Ok(())
}

fn parquet_schema() -> Arc<Schema> {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("product", text(), false),
        Field::new("category", text(), false),
        Field::new("week", DataType::Int32, false),
        Field::new("price", DataType::Float64, false),
        Field::new("units", DataType::Int32, false),
    ]))
}

impl RowLabels {
    fn arrays(&self, first_product: usize, block: &Block) -> Vec<ArrayRef> {
        let products = block.draws.len();
        let names = (0..products).map(|i| self.products.get(first_product + i).to_string());
        let per_row = |of: &dyn Fn(usize) -> i32| -> Int32Array {
            (0..products)
                .flat_map(|i| std::iter::repeat_n(of(i), self.periods))
                .collect::<Vec<i32>>()
                .into()
        };
        let weeks = (0..products).flat_map(|_| 1..=self.periods as i32);
        vec![
            Arc::new(DictionaryArray::new(
                per_row(&|i| i as i32),
                Arc::new(StringArray::from_iter_values(names)),
            )),
            Arc::new(DictionaryArray::new(
                per_row(&|i| block.draws[i].category as i32),
                Arc::new(StringArray::from_iter_values(&self.categories)),
            )),
            Arc::new(weeks.collect::<Int32Array>()),
            Arc::new(Float64Array::from(block.prices.clone())),
            // Counts are below 2^31 by the bound on rates.
            Arc::new(block.units.iter().map(|y| *y as i32).collect::<Int32Array>()),
        ]
    }
}
