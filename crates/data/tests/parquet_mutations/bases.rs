//! Small valid files of every kind.

use arrow_array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use std::sync::Arc;

const PRODUCTS: i64 = 12;
const PERIODS: i64 = 25;

/// A panel whose columns have the types of most files, or others.
fn batch(plain_types: bool, nullable: bool) -> RecordBatch {
    let rows = || (0..PRODUCTS).flat_map(|p| (0..PERIODS).map(move |t| (p, t)));
    let products = rows().map(|(p, _)| format!("product {p}"));
    let categories = rows().map(|(p, _)| format!("category {}", p % 3));
    let price = |(p, t): (i64, i64)| 100 + 10 * p + (7 * t) % 13;
    let category: ArrayRef = Arc::new(StringArray::from_iter_values(categories));
    let units: ArrayRef = Arc::new(Int64Array::from_iter_values(rows().map(|(p, t)| (p * t) % 9)));
    let (product, week, price): (ArrayRef, ArrayRef, ArrayRef) = if plain_types {
        (
            Arc::new(StringArray::from_iter_values(products)),
            Arc::new(Int32Array::from_iter_values(rows().map(|(_, t)| t as i32))),
            Arc::new(Float64Array::from_iter_values(
                rows().map(|row| price(row) as f64 / 100.0),
            )),
        )
    } else {
        let day = |(_, t): (i64, i64)| (t * 7 * 24 + 5) * 3_600_000_000;
        let decimals = Decimal128Array::from_iter_values(rows().map(|row| i128::from(price(row))));
        (
            Arc::new(
                Decimal128Array::from_iter_values(rows().map(|(p, _)| i128::from(p)))
                    .with_precision_and_scale(38, 0)
                    .unwrap(),
            ),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows().map(day))
                    .with_timezone("America/New_York"),
            ),
            Arc::new(decimals.with_precision_and_scale(12, 2).unwrap()),
        )
    };
    let columns = [
        ("product", product),
        ("category", category),
        ("week", week),
        ("price", price),
        ("units", units),
    ];
    let columns = columns.map(|(name, array)| (name, array, nullable));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A file whose prices are one page of 256 MiB of zeros, which is compressed a thousandfold.
pub(crate) fn constant_page() -> Vec<u8> {
    const ROWS: usize = 1 << 25;
    let ones = || Arc::new(Int32Array::from(vec![1; ROWS])) as ArrayRef;
    let columns: [(&str, ArrayRef); 5] = [
        ("product", ones()),
        ("category", ones()),
        ("week", ones()),
        ("price", Arc::new(Float64Array::from(vec![0.0; ROWS]))),
        ("units", ones()),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::GZIP(GzipLevel::default()))
        .set_column_dictionary_enabled("price".into(), false)
        .set_data_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(1 << 30)
        .set_max_row_group_row_count(None);
    write(&RecordBatch::try_from_iter(columns).unwrap(), properties.build())
}

fn write(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// All files, with their names.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let new = WriterProperties::builder;
    let v2 = || new().set_writer_version(WriterVersion::PARQUET_2_0);
    let encoded = |text, numbers| {
        let properties = new().set_dictionary_enabled(false);
        let properties = properties.set_column_encoding("product".into(), text);
        let properties = properties.set_column_encoding("category".into(), text);
        let properties = properties.set_column_encoding("week".into(), numbers);
        properties.set_column_encoding("units".into(), numbers)
    };
    let small = |properties: WriterPropertiesBuilder| {
        properties
            .set_max_row_group_row_count(Some(100))
            .set_data_page_row_count_limit(40)
            .set_write_batch_size(20)
    };
    let (delta, length) = (Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY);
    let packed = Encoding::DELTA_BINARY_PACKED;
    let kinds = [
        ("dictionary", new()),
        ("plain", new().set_dictionary_enabled(false)),
        ("several groups", small(new())),
        ("version 2", v2()),
        (
            "version 2, several groups",
            small(v2().set_dictionary_enabled(false)),
        ),
        ("delta", encoded(delta, packed)),
        ("delta lengths", encoded(length, packed)),
        ("snappy", new().set_compression(Compression::SNAPPY)),
        (
            "gzip",
            v2().set_compression(Compression::GZIP(GzipLevel::default())),
        ),
        (
            "zstd",
            new().set_compression(Compression::ZSTD(ZstdLevel::default())),
        ),
        ("lz4", new().set_compression(Compression::LZ4)),
        ("lz4 raw", v2().set_compression(Compression::LZ4_RAW)),
        (
            "statistics of pages",
            small(new()).set_statistics_enabled(EnabledStatistics::Page),
        ),
        (
            "no statistics",
            new().set_statistics_enabled(EnabledStatistics::None),
        ),
    ];
    let mut files = Vec::new();
    for (name, properties) in kinds {
        let properties = properties.build();
        for nullable in [false, true] {
            files.push((name, write(&batch(true, nullable), properties.clone())));
        }
        if !name.starts_with("delta") {
            files.push((name, write(&batch(false, true), properties)));
        }
    }
    files
}
