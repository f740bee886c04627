//! Defective Parquet files, and the column types that are read.

mod in_parts;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeStringArray, RecordBatch, StringArray,
    StringViewArray, TimestampMillisecondArray, UInt32Array, UInt64Array,
};
use in_parts::read_panel;
use infermark_data::{Columns, ReadError};
use infermark_model::{Labels, Panel};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

fn text(cells: [&str; 3]) -> ArrayRef {
    Arc::new(StringArray::from(cells.to_vec()))
}

/// Columns of three valid rows, to be replaced one by one.
fn sound() -> [(&'static str, ArrayRef); 5] {
    [
        ("product", text(["p1", "p1", "p2"])),
        ("category", text(["a", "a", "b"])),
        ("week", Arc::new(Int32Array::from(vec![2, 1, 1]))),
        ("price", Arc::new(Float64Array::from(vec![2.5, 2.0, 4.0]))),
        ("units", Arc::new(Int64Array::from(vec![3, 0, 7]))),
    ]
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn read_with(changes: Vec<(&'static str, ArrayRef)>) -> Result<Panel, ReadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    let mut columns = sound().to_vec();
    for (name, array) in changes {
        columns.iter_mut().find(|(n, _)| *n == name).unwrap().1 = array;
    }
    columns.insert(2, ("note", Arc::new(BooleanArray::from(vec![true; 3]))));
    write(&path, columns);
    read_panel(&path, &Columns::default())
}

/// The shown defects, one per line.
fn defects(changes: Vec<(&'static str, ArrayRef)>) -> Vec<String> {
    let error = read_with(changes).unwrap_err();
    error.defects().iter().map(|d| d.to_string()).collect()
}

fn check_sound(panel: &Panel) {
    assert_eq!(panel.layout().products, 2);
    assert_eq!(panel.units(), [0, 3, 7]);
    assert_eq!(panel.category_of(), [0, 1]);
    let log_prices: Vec<f64> = (0..2)
        .flat_map(|p| panel.product_rows(p).map(|r| r.log_price))
        .collect();
    for (log_price, price) in log_prices.iter().zip([2.0f64, 2.5, 4.0]) {
        assert!((log_price - price.ln()).abs() < 1e-13);
    }
}

#[test]
fn every_sound_type_is_read() {
    let keys = Int32Array::from(vec![1, 1, 0]);
    let alternatives: Vec<(&'static str, ArrayRef)> = vec![
        (
            "product",
            Arc::new(LargeStringArray::from(vec!["p1", "p1", "p2"])),
        ),
        ("product", Arc::new(StringViewArray::from(vec!["p1", "p1", "p2"]))),
        (
            "product",
            Arc::new(DictionaryArray::new(
                keys,
                Arc::new(StringArray::from(vec!["p2", "p1"])),
            )),
        ),
        ("product", Arc::new(Int64Array::from(vec![9, 9, 10]))),
        ("product", Arc::new(Int8Array::from(vec![9, 9, 10]))),
        // Beyond the signed numbers, and on both sides of their end.
        (
            "product",
            Arc::new(UInt64Array::from(vec![u64::MAX - 1, u64::MAX - 1, u64::MAX])),
        ),
        (
            "category",
            Arc::new(UInt64Array::from(vec![
                i64::MAX as u64,
                i64::MAX as u64,
                i64::MAX as u64 + 1,
            ])),
        ),
        ("category", Arc::new(UInt32Array::from(vec![9, 9, 10]))),
        ("week", Arc::new(UInt64Array::from(vec![2, 1, 1]))),
        ("week", Arc::new(Int16Array::from(vec![2, 1, 1]))),
        ("week", text(["2", "1", "1"])),
        ("week", text(["2024-01-08", "2024-01-01", "2024-01-01"])),
        ("week", Arc::new(Date32Array::from(vec![19_730, 19_723, 19_723]))),
        ("price", Arc::new(Float32Array::from(vec![2.5, 2.0, 4.0]))),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![250, 200, 400])
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
        ),
        ("units", Arc::new(Int32Array::from(vec![3, 0, 7]))),
        ("units", Arc::new(UInt64Array::from(vec![3, 0, 7]))),
        ("units", Arc::new(Float64Array::from(vec![3.0, 0.0, 7.0]))),
    ];
    check_sound(&read_with(vec![]).unwrap());
    for (name, array) in alternatives {
        let label = format!("{name}: {}", array.data_type());
        check_sound(&read_with(vec![(name, array)]).unwrap_or_else(|e| panic!("{label}: {e}")));
    }
}

#[test]
fn unsigned_keys_are_whole_numbers() {
    let panel = read_with(vec![("product", Arc::new(UInt64Array::from(vec![10, 10, 9])))]).unwrap();
    assert_eq!(*panel.products(), Labels::Integer(vec![9, 10]));
    let found = defects(vec![(
        "week",
        Arc::new(UInt64Array::from(vec![None, Some(1 << 63), Some(1)])),
    )]);
    let remedy = "number the periods, or write them as YYYY-MM-DD";
    assert_eq!(
        found,
        [
            format!(
                r#"row 1, column "week", value "null": the period is neither a whole number nor a date; {remedy}"#
            ),
            format!(
                r#"row 2, column "week", value "9223372036854775808": the period is a number beyond 64 bits; {remedy}"#
            ),
        ]
    );
}

fn write_with(path: &Path, compression: Compression) {
    let batch = RecordBatch::try_from_iter(sound()).unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn every_compression_that_is_promised_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
    ] {
        write_with(&path, compression);
        let panel = read_panel(&path, &Columns::default());
        check_sound(&panel.unwrap_or_else(|e| panic!("{compression}: {e}")));
    }
}

/// Writes a sound file again with another footer.
fn with_footer(path: &Path, change: impl FnOnce(ParquetMetaData) -> ParquetMetaData) {
    write_with(path, Compression::UNCOMPRESSED);
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&File::open(path).unwrap())
        .unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    // The file ends with the length of the footer and the magic, four bytes each.
    let tail = bytes.len() - 8;
    let footer = u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize;
    bytes.truncate(tail - footer);
    ParquetMetaDataWriter::new(&mut bytes, &change(metadata))
        .finish()
        .unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_compression_that_is_not_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    with_footer(&path, |metadata| {
        let mut metadata = metadata.into_builder();
        let groups = metadata.take_row_groups().into_iter().map(|group| {
            let mut group = group.into_builder();
            let columns = group.take_columns().into_iter().map(|column| {
                let price = column.column_path().string() == "price";
                let codec = if price {
                    Compression::BROTLI(Default::default())
                } else {
                    column.compression()
                };
                column.into_builder().set_compression(codec).build().unwrap()
            });
            let columns = columns.collect();
            group.set_column_metadata(columns).build().unwrap()
        });
        let groups = groups.collect();
        metadata.set_row_groups(groups).build()
    });
    let error = read_panel(&path, &Columns::default()).unwrap_err();
    let found: Vec<String> = error.defects().iter().map(|d| d.to_string()).collect();
    assert_eq!(
        found,
        [
            r#"column "price": the column is compressed with BROTLI, which is not read; write it with Snappy, Zstandard, Gzip, LZ4 or none"#
        ]
    );
}

#[test]
fn one_column_cannot_be_two_things() {
    let folder = tempfile::tempdir().unwrap();
    let parquet = folder.path().join("panel.parquet");
    write(&parquet, sound().to_vec());
    let csv = folder.path().join("panel.csv");
    std::fs::write(&csv, "product,category,week,price,units\np1,a,1,2,3\n").unwrap();
    let columns = Columns {
        category: "product".into(),
        units: "price".into(),
        ..Columns::default()
    };
    for path in [&parquet, &csv] {
        let error = read_panel(path, &columns).unwrap_err();
        let found: Vec<String> = error.defects().iter().map(|d| d.to_string()).collect();
        let remedy = "name a different column for each:";
        assert_eq!(
            found,
            [
                format!(
                    r#"column "product": product and category are both read from this column; {remedy} Columns::product and Columns::category"#
                ),
                format!(
                    r#"column "price": price and units are both read from this column; {remedy} Columns::price and Columns::units"#
                ),
            ]
        );
    }
}

#[test]
fn a_damaged_number_of_rows_reserves_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    with_footer(&path, |metadata| {
        let mut metadata = metadata.into_builder();
        let groups = metadata.take_row_groups().into_iter().map(|group| {
            let group = group.into_builder().set_num_rows(i64::MAX);
            group.build().unwrap()
        });
        let groups = groups.collect();
        metadata.set_row_groups(groups).build()
    });
    let footer = ParquetMetaDataReader::new()
        .parse_and_finish(&File::open(&path).unwrap())
        .unwrap();
    assert_eq!(footer.file_metadata().num_rows(), i64::MAX);
    let error = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    let found = r#"damaged (the pages of column "product" hold 3 values where the row group has 9223372036854775807)"#;
    assert!(error.contains(found), "{error}");
}

#[test]
fn labels_have_the_kind_of_their_column() {
    let millis = vec![86_400_000 * 8 + 5, 86_400_000, 86_400_000];
    let panel = read_with(vec![
        ("product", Arc::new(Int64Array::from(vec![10, 10, -2]))),
        ("week", Arc::new(TimestampMillisecondArray::from(millis))),
    ])
    .unwrap();
    assert_eq!(*panel.products(), Labels::Integer(vec![-2, 10]));
    assert_eq!(*panel.periods(), Labels::Date(vec![1, 8]));
    assert_eq!(panel.units(), [7, 0, 3]);
}

#[test]
fn wrong_types_are_named() {
    let boolean = || Arc::new(BooleanArray::from(vec![true; 3])) as ArrayRef;
    let remedy = "convert the column, or name another one";
    assert_eq!(
        defects(vec![("price", text(["2.5", "2", "4"])), ("units", boolean())]),
        [
            format!(r#"column "price": the column has type Utf8, it must hold numbers; {remedy}"#),
            format!(r#"column "units": the column has type Boolean, it must hold numbers; {remedy}"#),
        ]
    );
    assert_eq!(
        defects(vec![("week", boolean()), ("product", boolean())]),
        [
            format!(
                r#"column "product": the column has type Boolean, it must hold text or whole numbers; {remedy}"#
            ),
            format!(
                r#"column "week": the column has type Boolean, it must hold whole numbers or dates; {remedy}"#
            ),
        ]
    );
}

#[test]
fn nulls_and_bad_values_are_named_by_row() {
    let found = defects(vec![
        (
            "product",
            Arc::new(StringArray::from(vec![Some("p1"), None, Some(" ")])),
        ),
        (
            "category",
            Arc::new(StringArray::from(vec![None, Some("a"), Some("b")])),
        ),
        ("week", Arc::new(Int32Array::from(vec![Some(1), Some(2), None]))),
        (
            "price",
            Arc::new(Float64Array::from(vec![Some(f64::INFINITY), None, Some(1.0)])),
        ),
        (
            "units",
            Arc::new(Float64Array::from(vec![Some(0.5), None, Some(3e9)])),
        ),
    ]);
    let starts = [
        r#"row 1, column "category", value "null": the category is empty"#,
        r#"row 1, column "price", value "inf": the price is not a positive"#,
        r#"row 1, column "units", value "0.5": the units are fractional"#,
        r#"row 2, column "product", value "null": the product is empty"#,
        r#"row 2, column "price", value "null": the price is not a positive"#,
        r#"row 2, column "units", value "null": the units are missing"#,
        r#"row 2, column "category", value "a": the category has no products"#,
        r#"row 3, column "product", value " ": the product is empty"#,
        r#"row 3, column "units", value "3000000000.0": the units exceed 2147483647"#,
        r#"row 3, column "week", value "null": the period is neither"#,
    ];
    assert_eq!(found.len(), starts.len());
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n{start}");
    }
}

#[test]
fn contradictions_name_both_rows() {
    assert_eq!(
        defects(vec![
            ("week", Arc::new(Int32Array::from(vec![1, 1, 1]))),
            ("category", text(["a", "a", "a"])),
        ]),
        [
            r#"row 2, column "week", value "1": product "p1" has this period already, on row 1; keep one of the two rows, or, where another column (a year, a store) tells them apart, make it a part of the period or the product"#
        ]
    );
    assert_eq!(
        defects(vec![("category", text(["a", "b", "b"]))]),
        [
            r#"row 2, column "category", value "b": product "p1" has another category, "a", on row 1; give the product one category, or two names"#
        ]
    );
}

#[test]
fn a_cut_file_is_truncated_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.parquet");
    write(&whole, sound().to_vec());
    let bytes = std::fs::read(&whole).unwrap();
    let cut = folder.path().join("cut.parquet");
    for length in [4, 11, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).unwrap();
        let error = read_panel(&cut, &Columns::default()).unwrap_err().to_string();
        assert!(
            error.contains("the Parquet file is truncated or damaged"),
            "{length}: {error}"
        );
    }
}

#[test]
fn no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.parquet");
    let empty = sound().map(|(name, array)| (name, array.slice(0, 0)));
    write(&path, empty.to_vec());
    let error = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    assert!(
        error.ends_with("the file has a header and no rows; check how it was exported"),
        "{error}"
    );
}
