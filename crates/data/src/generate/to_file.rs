//! A synthetic panel streamed to a file, without holding it in memory.

use super::candidate::{Candidates, Draw, ProductRows};
use super::in_memory::{categories_in_use, truth_of};
use super::survivors::{Grouping, draw_survivors};
use super::{GenerateError, GenerateProgress, Generator, on_threads};
use crate::output_file::OutputFile;
use crate::truth::{Axes, write_truth};
use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use infermark_model::Labels;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows that are drawn at a time, about.
const WAVE_ROWS: usize = 4 << 20;

/// Rows of a Parquet row group.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Draws a panel into the file `out` (`.parquet` or `.csv` by its name; columns product, category, week, price, units;
/// sorted by product and week) and its parameters into the CSV file `truth`, on `threads` threads (0: one a core).
/// Reading the file gives the panel of [`super::generate_panel`].
///
/// Both files get their names when they are complete, the truth last. Memory: about 100 bytes a product and 200 MB.
///
/// # Errors
/// [`GenerateError`] for sizes or priors that cannot be drawn from, and files that cannot be written.
pub fn generate_to_file(
    generator: &Generator,
    out: &Path,
    truth: &Path,
    threads: usize,
    progress: &mut (dyn FnMut(GenerateProgress) + Send),
) -> Result<(), GenerateError> {
    generator.validate()?;
    let failed = |path: &Path, source: io::Error| GenerateError::Io {
        path: path.to_owned(),
        source,
    };
    let output = OutputFile::create(out).map_err(|e| failed(out, e))?;
    let mut writer = RowWriter::new(generator, out, &output)?;
    let draws = on_threads(threads, || write_rows(generator, out, &mut writer, progress))??;
    writer.finish().map_err(|e| failed(out, e))?;

    let candidates = Candidates::new(generator);
    let kept = categories_in_use(generator.categories, &draws);
    let values = truth_of(generator, &candidates.demand, &draws, &kept);
    let mut index = vec![0; generator.categories];
    for (i, c) in kept.iter().enumerate() {
        index[*c] = i as u32;
    }
    let category_of: Vec<u32> = draws.iter().map(|d| index[d.category as usize]).collect();
    let axes = Axes {
        products: &generator.product_labels(),
        categories: &generator.category_labels(&kept),
        periods: &generator.period_labels(),
        category_of: &category_of,
    };
    let truth_output = OutputFile::create(truth).map_err(|e| failed(truth, e))?;
    truth_output
        .handle()
        .and_then(|file| write_truth(file, &axes, &values))
        .map_err(|e| failed(truth, e))?;
    output.publish().map_err(|e| failed(out, e))?;
    truth_output.publish().map_err(|e| failed(truth, e))
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
    progress: &mut (dyn FnMut(GenerateProgress) + Send),
) -> Result<Vec<Draw>, GenerateError> {
    let candidates = Candidates::new(generator);
    let block = (1usize << 16).div_ceil(generator.periods).clamp(1, 1024);
    let wave = (WAVE_ROWS / (block * generator.periods)).max(1);
    let mut draws: Vec<Draw> = Vec::with_capacity(generator.products);
    draw_survivors(
        generator.products,
        Grouping { block, wave },
        |range, limit| {
            let mut block = Block::default();
            let mut rows = ProductRows::default();
            for candidate in range {
                if block.draws.len() == limit {
                    break;
                }
                if let Some(draw) = candidates.draw(candidate, &mut rows) {
                    block.draws.push(draw);
                    block.prices.extend(&rows.prices);
                    block.units.extend(&rows.units);
                }
            }
            block
        },
        |block| block.draws.len(),
        |blocks| {
            for block in blocks {
                writer
                    .write(draws.len(), &block)
                    .map_err(|source| GenerateError::Io {
                        path: out.to_owned(),
                        source,
                    })?;
                draws.extend(block.draws);
                progress(GenerateProgress {
                    products_done: draws.len(),
                    products: generator.products,
                });
            }
            Ok(())
        },
    )?;
    Ok(draws)
}

enum RowWriter {
    Csv {
        file: BufWriter<File>,
        labels: RowLabels,
    },
    Parquet {
        writer: Box<ArrowWriter<File>>,
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
    fn new(generator: &Generator, out: &Path, output: &OutputFile) -> Result<Self, GenerateError> {
        let labels = RowLabels {
            products: generator.product_labels(),
            categories: Labels::numbered("c", generator.categories)
                .iter()
                .map(|l| l.to_string())
                .collect(),
            periods: generator.periods,
        };
        let failed = |source| GenerateError::Io {
            path: out.to_owned(),
            source,
        };
        let file = output.handle().map_err(failed)?;
        match out
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase())
            .as_deref()
        {
            Some("csv") => {
                let mut file = BufWriter::with_capacity(1 << 20, file);
                file.write_all(b"product,category,week,price,units\n")
                    .map_err(failed)?;
                Ok(RowWriter::Csv { file, labels })
            }
            Some("parquet") => {
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
                let writer = ArrowWriter::try_new_with_options(file, Arc::clone(&schema), options)
                    .map_err(|e| failed(e.into()))?;
                Ok(RowWriter::Parquet {
                    writer: Box::new(writer),
                    schema,
                    labels,
                })
            }
            _ => Err(GenerateError::Extension { path: out.to_owned() }),
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

    fn finish(self) -> io::Result<()> {
        match self {
            RowWriter::Csv { mut file, .. } => file.flush(),
            RowWriter::Parquet { writer, .. } => writer.close().map(drop).map_err(Into::into),
        }
    }
}

fn write_csv(
    file: &mut BufWriter<File>,
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
