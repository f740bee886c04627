//! The types of columns that are read.

use super::Role;
use super::zone::Zone;
use crate::read::defect::{Defects, Place};
use arrow_schema::{DataType, Field};
use parquet::basic::CompressionCodec;
use parquet::file::metadata::ParquetMetaData;

/// The type as which text is read: a dictionary, as in most files, so that a key is looked up once, not once
/// per row.
pub(super) fn dictionary(data_type: &DataType) -> DataType {
    let value = match value_type(data_type) {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        _ => DataType::Utf8,
    };
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(value))
}

pub(super) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    }
}

/// Whether a type is text, or bytes that may be text: some writers do not mark it.
pub(super) fn is_text(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(
        value_type(data_type),
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView
    )
}

/// Whether numbers of a type may be whole: decimals need room for the digits before their point.
fn may_be_whole(data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => (0..=38).contains(scale),
        _ => data_type.is_numeric(),
    }
}

pub(super) fn check_type(field: &Field, role: Role, defects: &mut Defects) -> bool {
    use DataType::{Date32, Date64, Timestamp};
    let data_type = value_type(field.data_type());
    let (fits, wanted) = match role {
        Role::Key => (
            is_text(data_type) || may_be_whole(data_type),
            "text or whole numbers",
        ),
        Role::Period => (
            is_text(data_type)
                || may_be_whole(data_type)
                || matches!(data_type, Date32 | Date64 | Timestamp(..)),
            "whole numbers or dates",
        ),
        Role::Price | Role::Units => (data_type.is_numeric(), "numbers"),
    };
    if !fits {
        defects.push(Place::File, field.name(), None, || {
            (
                format!("the column has type {data_type}, it must hold {wanted}"),
                "convert the column, or name another one".into(),
            )
        });
    }
    if let DataType::Timestamp(_, Some(zone)) = data_type
        && role == Role::Period
        && Zone::named(zone).is_none()
    {
        defects.push(Place::File, field.name(), None, || {
            (
                format!("the timestamps are in the zone {zone:?}, which is not known"),
                "convert them to dates, or to a zone such as \"Europe/Paris\" or \"+02:00\"".into(),
            )
        });
        return false;
    }
    fits
}

/// Checks that the columns at `places` are uncompressed or compressed in a supported way.
pub(super) fn check_compression(metadata: &ParquetMetaData, places: &[usize], defects: &mut Defects) -> bool {
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
            defects.push(Place::File, name, None, || {
                (
                    format!("the column is compressed with {codec:?}, which is not read"),
                    "write it with Snappy, Zstandard, Gzip, LZ4 or none".into(),
                )
            });
        }
    }
    readable
}
