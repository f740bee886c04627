//! Parquet files that are damaged in ways that make the decoder panic, or that request unlimited memory.

mod in_parts;

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use in_parts::read_panel;
use infermark_data::Columns;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use std::path::Path;
use std::sync::Arc;

/// The message for a file, which must report damage.
fn damaged(path: &Path) -> String {
    let message = read_panel(path, &Columns::default()).unwrap_err().to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(
        message.contains("the Parquet file is truncated or damaged ("),
        "{message}"
    );
    assert!(message.contains("export or copy the file again"), "{message}");
    assert!(message.len() < 2_000, "{message}");
    message
}

fn stored(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/parquet")
        .join(name)
}

#[test]
fn files_that_the_decoder_panics_over_are_damaged() {
    for name in [
        "panic_bit_chunk_235",
        "panic_byte_array_391",
        "panic_decoder_374",
        "panic_delta_101",
        "panic_metadata_1043",
    ] {
        damaged(&stored(&format!("{name}.parquet")));
    }
}

#[test]
fn a_dictionary_has_no_more_values_than_bytes() {
    let message = damaged(&stored("dictionary_of_2_31_values.parquet"));
    assert!(message.contains("2147483647 values"), "{message}");
}

#[test]
fn a_field_of_another_kind_hides_nothing() {
    // The decoder accepts the number of values whatever the wire type of the field.
    let mut bytes = std::fs::read(stored("dictionary_of_2_31_values.parquet")).unwrap();
    let head = [0x4c, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let at = bytes.windows(head.len()).position(|found| found == head).unwrap();
    bytes[at + 1] = 0x16;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    std::fs::write(&path, bytes).unwrap();
    let message = damaged(&path);
    assert!(message.contains("have no header at byte"), "{message}");
}

#[test]
fn pages_behind_the_declared_rows_are_checked() {
    // The groups declare no rows, and their pages hold some.
    let (_folder, path) = rewritten(&[], Some(0));
    let message = damaged(&path);
    assert!(
        message.contains("declare 3 values where the row group has 0"),
        "{message}"
    );
}

/// A file of 2^22 rows of one product and week, all with price 0; where `plain`, the prices are one page of
/// 32 MiB.
fn rows_without_prices(plain: bool) -> (tempfile::TempDir, std::path::PathBuf) {
    const ROWS: usize = 1 << 22;
    let ones = || Arc::new(Int32Array::from(vec![1; ROWS])) as ArrayRef;
    let columns: [(&str, ArrayRef); 5] = [
        ("product", ones()),
        ("category", ones()),
        ("week", ones()),
        ("price", Arc::new(Float64Array::from(vec![0.0; ROWS]))),
        ("units", ones()),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::GZIP(GzipLevel::default()))
        .set_column_dictionary_enabled("price".into(), !plain)
        .set_data_page_size_limit(1 << 30)
        .set_data_page_row_count_limit(1 << 30)
        .set_max_row_group_row_count(None)
        .build();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (folder, path)
}

#[test]
fn a_page_is_no_larger_than_its_bytes_justify() {
    let (_folder, path) = rows_without_prices(true);
    let message = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    let found = "has a page that is too large (the pages of column \"price\" include one";
    assert!(message.contains(found), "{message}");
    assert!(message.contains("33554432 bytes in "), "{message}");
    assert!(
        message.contains("write it with pages of at most 16 MiB"),
        "{message}"
    );
}

#[test]
fn refused_rows_are_not_read_without_end() {
    let (_folder, path) = rows_without_prices(false);
    let error = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    let found = "have defects, the rest is not read; mend the rows that are named";
    assert!(error.contains(found), "{error}");
}

#[test]
fn a_header_of_any_length_is_not_read() {
    // An unknown field of a text, before the others of the first header.
    let field = |length: usize| {
        let mut field = vec![0x08, 0];
        field.extend((0..4).map(|i| (length >> (7 * i)) as u8 & 0x7f | if i < 3 { 0x80 } else { 0 }));
        field.resize(field.len() + length, b'x');
        field
    };
    let (_folder, path) = rewritten(&field(1 << 20), None);
    read_panel(&path, &Columns::default()).unwrap();
    let (_folder, path) = rewritten(&field(17 << 20), None);
    let message = damaged(&path);
    assert!(message.contains("have no header at byte 4"), "{message}");
}

/// A valid file with bytes inserted before its first page, whose groups declare this many rows.
fn rewritten(before: &[u8], rows: Option<i64>) -> (tempfile::TempDir, std::path::PathBuf) {
    let bytes = sound();
    let tail = bytes.len() - 8;
    let footer = tail - u32::from_le_bytes(bytes[tail..tail + 4].try_into().unwrap()) as usize;
    let metadata = ParquetMetaDataReader::decode_metadata(&bytes[footer..tail]).unwrap();
    let grown = before.len() as i64;
    let mut metadata = metadata.into_builder();
    let groups = metadata.take_row_groups().into_iter().map(|group| {
        let rows = rows.unwrap_or(group.num_rows());
        let mut group = group.into_builder().set_num_rows(rows);
        let chunks = group.take_columns().into_iter().map(|chunk| {
            let first = chunk.byte_range().0 == 4;
            let dictionary = chunk
                .dictionary_page_offset()
                .map(|at| if first { at } else { at + grown });
            let (data, size) = (chunk.data_page_offset() + grown, chunk.compressed_size());
            let chunk = chunk.into_builder().set_data_page_offset(data);
            let chunk = chunk.set_dictionary_page_offset(dictionary);
            chunk
                .set_total_compressed_size(if first { size + grown } else { size })
                .build()
                .unwrap()
        });
        let chunks = chunks.collect();
        group.set_column_metadata(chunks).build().unwrap()
    });
    let groups = groups.collect();
    let metadata = metadata.set_row_groups(groups).build();
    let mut changed = [b"PAR1", before, &bytes[4..footer]].concat();
    ParquetMetaDataWriter::new(&mut changed, &metadata)
        .finish()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    std::fs::write(&path, changed).unwrap();
    (folder, path)
}

/// A sound file of the five columns, without compression.
fn sound() -> Vec<u8> {
    let columns: [(&str, ArrayRef); 5] = [
        ("product", Arc::new(StringArray::from(vec!["p1", "p1", "p2"]))),
        ("category", Arc::new(StringArray::from(vec!["a", "a", "b"]))),
        ("week", Arc::new(Int32Array::from(vec![2, 1, 1]))),
        ("price", Arc::new(Float64Array::from(vec![2.5, 2.0, 4.0]))),
        ("units", Arc::new(Int64Array::from(vec![3, 0, 7]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// A file that ends in `footer`.
fn with_footer(footer: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    let length = (footer.len() as u32).to_le_bytes();
    std::fs::write(&path, [b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
    (folder, path)
}

#[test]
fn a_schema_of_endless_groups_is_not_descended() {
    // version 1, and a list of a million groups of one child each, named "g".
    const GROUPS: usize = 1_000_000;
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    footer.extend([0xc0, 0x84, 0x3d]);
    for _ in 0..GROUPS {
        // Field 4, the name; field 5, the number of children.
        footer.extend([0x48, 1, b'g', 0x15, 2, 0]);
    }
    footer.push(0);
    let (_folder, path) = with_footer(&footer);
    let message = damaged(&path);
    assert!(message.contains("nests more than 100 groups"), "{message}");
    // The decoder follows the schema whatever the wire type of its field, also after a version that is not a
    // number.
    let schema = footer[2..].to_vec();
    for (start, head) in [(&[0x15, 2][..], 0x16), (&[0x18, 2][..], 0x19)] {
        let mut other = start.to_vec();
        other.extend(&schema);
        other[start.len()] = head;
        let (_folder, path) = with_footer(&other);
        let message = damaged(&path);
        assert!(message.contains("its footer cannot be followed"), "{message}");
    }
}

#[test]
fn a_file_without_columns_says_so() {
    let batch = RecordBatch::new_empty(Arc::new(arrow_schema::Schema::empty()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    let file = std::fs::File::create(&path).unwrap();
    let writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.close().unwrap();
    let message = read_panel(&path, &Columns::default()).unwrap_err().to_string();
    assert!(
        message.contains("the Parquet file has no columns; export it again"),
        "{message}"
    );
}

#[test]
fn a_footer_declares_no_more_than_it_holds() {
    // A list of 2^31 - 1 schema elements.
    let (_folder, path) = with_footer(&[0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0]);
    damaged(&path);
    // A footer that is longer than the file.
    let mut bytes = sound();
    let tail = bytes.len() - 8;
    bytes[tail..tail + 4].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let message = damaged(&path);
    assert!(message.contains("a footer of 4294967295 bytes"), "{message}");
}

#[test]
fn panics_elsewhere_are_shown_as_before() {
    // The hook that silences the decoder's panics passes others on to the previous hook.
    let shown = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&shown);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic
            .location()
            .is_some_and(|place| place.file().ends_with("parquet_hostile.rs"))
        {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        } else {
            before(panic);
        }
    }));
    damaged(&stored("panic_delta_101.parquet"));
    assert!(std::panic::catch_unwind(|| panic!("elsewhere")).is_err());
    assert_eq!(shown.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn well_compressed_files_are_sound() {
    // One plain page per column: the constant columns shrink a thousandfold and more.
    let rows = || (0..500i64).flat_map(|p| (0..400i64).map(move |t| (p, t)));
    let count = rows().count();
    let category = StringArray::from(vec!["the only category"; count]);
    let columns: [(&str, ArrayRef); 5] = [
        (
            "product",
            Arc::new(Int64Array::from_iter_values(rows().map(|(p, _)| p))),
        ),
        ("category", Arc::new(category)),
        (
            "week",
            Arc::new(Int64Array::from_iter_values(rows().map(|(_, t)| t))),
        ),
        ("price", Arc::new(Float64Array::from(vec![2.5; count]))),
        ("units", Arc::new(Int64Array::from(vec![0; count]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.parquet");
    for compression in [
        Compression::ZSTD(ZstdLevel::default()),
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::SNAPPY,
    ] {
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(1 << 30)
            .set_data_page_row_count_limit(1 << 30)
            .build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let panel = read_panel(&path, &Columns::default());
        let panel = panel.unwrap_or_else(|e| panic!("{compression}: {e}"));
        assert_eq!(panel.units().len(), count, "{compression}");
    }
}
