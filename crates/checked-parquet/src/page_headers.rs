//! The headers of a column's pages, read before the decoder allocates memory for what they declare.

use crate::thrift::{Compact, Fields, Kind};
use parquet::basic::{CompressionCodec, Type};
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes that a column may take beyond what its values or its compressed bytes explain.
const SLACK: u64 = 1 << 16;
/// Text and dictionaries up to this size are accepted at any compression ratio.
const SMALL: u64 = 8 << 20;
/// Larger text and dictionaries are accepted up to this compression ratio.
const RATIO: u64 = 20;
/// Average bytes of text per value that are allowed in a page with a higher ratio.
const TEXT: u64 = 64;
/// Bytes of a page that are accepted at any compression ratio; beyond them, at most `RATIO` times its
/// compressed bytes. One page of each of the five columns is held at a time.
pub(crate) const PAGE: u64 = 16 << 20;
/// Start of the text of that error; the decoder passes errors on as texts.
pub(crate) const LARGE_PAGE: &str = "include one that is larger than is read where it is so well compressed";
/// The longest header that is read: one with two long statistics.
const LONGEST_HEADER: u64 = 16 << 20;

/// Numbers of the fields that hold the specific header of each kind of page.
const DATA_PAGE: i64 = 5;
const DICTIONARY_PAGE: i64 = 7;
const DATA_PAGE_V2: i64 = 8;

/// The fields of a page's header, and of the specific headers; the number of values is the first field of
/// each.
const HEADER: Fields = &[
    (1, Kind::I32),
    (2, Kind::I32),
    (3, Kind::I32),
    (4, Kind::I32),
    (DATA_PAGE, Kind::Struct(DATA)),
    (6, Kind::Struct(&[])),
    (DICTIONARY_PAGE, Kind::Struct(DICTIONARY)),
    (DATA_PAGE_V2, Kind::Struct(DATA_V2)),
];
const DATA: Fields = &[
    (1, Kind::I32),
    (2, Kind::I32),
    (3, Kind::I32),
    (4, Kind::I32),
    (5, Kind::Struct(STATISTICS)),
];
const DICTIONARY: Fields = &[(1, Kind::I32), (2, Kind::I32), (3, Kind::Bool)];
const DATA_V2: Fields = &[
    (1, Kind::I32),
    (2, Kind::I32),
    (3, Kind::I32),
    (4, Kind::I32),
    (5, Kind::I32),
    (6, Kind::I32),
    (7, Kind::Bool),
    (8, Kind::Struct(STATISTICS)),
];
const STATISTICS: Fields = &[
    (1, Kind::Binary),
    (2, Kind::Binary),
    (3, Kind::I64),
    (4, Kind::I64),
    (5, Kind::Binary),
    (6, Kind::Binary),
    (7, Kind::Bool),
    (8, Kind::Bool),
    (9, Kind::I64),
];

/// The sizes in a page's header.
#[derive(Default)]
struct Header {
    page: i32,
    uncompressed: i32,
    compressed: i32,
    /// The field number of the specific header, and the number of values.
    own: Option<(i64, i32)>,
}

impl Header {
    /// The header at the start of `bytes`, and its length in bytes.
    fn parse(bytes: &[u8]) -> Option<(Header, u64)> {
        let mut header = Header::default();
        let mut compact = Compact::new(bytes);
        compact.fields(HEADER, |compact, id| {
            let fields = match id {
                1 => {
                    header.page = compact.signed_32()?;
                    return Some(true);
                }
                2 => {
                    header.uncompressed = compact.signed_32()?;
                    return Some(true);
                }
                3 => {
                    header.compressed = compact.signed_32()?;
                    return Some(true);
                }
                DATA_PAGE => DATA,
                DICTIONARY_PAGE => DICTIONARY,
                DATA_PAGE_V2 => DATA_V2,
                _ => return Some(false),
            };
            let values = values(compact, fields)?;
            // The decoder goes by the kind of page, and takes the header that fits.
            header.own.replace((id, values)).is_none().then_some(true)
        })?;
        let fits = matches!(
            (header.page, header.own),
            (0, Some((DATA_PAGE, _)))
                | (2, Some((DICTIONARY_PAGE, _)))
                | (3, Some((DATA_PAGE_V2, _)))
                | (_, None)
        );
        fits.then(|| (header, compact.at() as u64))
    }
}

/// The number of values in a page's specific header with `fields`.
fn values(compact: &mut Compact<'_>, fields: Fields) -> Option<i32> {
    let mut values = 0;
    compact.fields(fields, |compact, id| {
        if id != 1 {
            return Some(false);
        }
        values = compact.signed_32()?;
        Some(true)
    })?;
    Some(values)
}

/// Whether the pages of a chunk can be what their headers declare, for a group of `declared` values in a file of
/// `bytes` bytes; otherwise the problem.
pub(crate) fn check(
    file: &mut File,
    bytes: u64,
    chunk: &ColumnChunkMetaData,
    declared: i64,
) -> Result<(), String> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let length = chunk.compressed_size();
    let inside = |start: u64, length: u64| start.checked_add(length).is_some_and(|end| end <= bytes);
    let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(length)) else {
        return Err(format!("start at byte {start} and take {length} bytes"));
    };
    if !inside(start, length) {
        return Err(format!(
            "start at byte {start} and take {length} bytes, beyond the file's {bytes}"
        ));
    }
    let (mut at, end, mut total) = (start, start + length, 0);
    // The decoder reads a chunk to its last byte, whatever the number of values.
    while at < end {
        let (header, header_length) = read_header(file, at, end)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("have no header at byte {at}"))?;
        at += header_length;
        let compressed = u64::try_from(header.compressed)
            .ok()
            .filter(|size| at + size <= end);
        let (Some(compressed), Ok(uncompressed)) = (compressed, u64::try_from(header.uncompressed)) else {
            return Err(format!(
                "declare {} bytes, {} uncompressed, where {} are left",
                header.compressed,
                header.uncompressed,
                end - at
            ));
        };
        let size = Size {
            compressed,
            uncompressed,
        };
        match header.own {
            Some((DICTIONARY_PAGE, values)) => size.check_dictionary(chunk, values)?,
            Some((_, values)) => {
                let values = i64::from(values);
                if !(0..=declared - total).contains(&values) {
                    return Err(format!(
                        "declare {} values where the row group has {declared}",
                        total.saturating_add(values)
                    ));
                }
                total += values;
                size.check_data(chunk, values as u64)?;
            }
            None if uncompressed > SMALL => {
                return Err(format!(
                    "declare {uncompressed} bytes of neither a dictionary nor data"
                ));
            }
            None => {}
        }
        at += compressed;
    }
    if total != declared {
        return Err(format!("hold {total} values where the row group has {declared}"));
    }
    Ok(())
}

/// The page header at byte `at`, with its length.
fn read_header(file: &mut File, at: u64, end: u64) -> std::io::Result<Option<(Header, u64)>> {
    // Nearly all are this short; a statistic of long texts is not.
    let mut window = 128;
    let mut bytes = Vec::new();
    loop {
        let wanted = window.min(LONGEST_HEADER).min(end - at);
        file.seek(SeekFrom::Start(at))?;
        bytes.clear();
        file.take(wanted).read_to_end(&mut bytes)?;
        let header = Header::parse(&bytes);
        if header.is_some() || wanted < window || window >= LONGEST_HEADER {
            return Ok(header);
        }
        window *= 16;
    }
}

/// What a page's header declares.
struct Size {
    compressed: u64,
    uncompressed: u64,
}

impl Size {
    /// The largest expansion of the codec.
    fn check_codec(&self, chunk: &ColumnChunkMetaData) -> Result<(), String> {
        let greatest = match chunk.compression_codec() {
            CompressionCodec::UNCOMPRESSED => 1,
            // A copy of 64 bytes takes three.
            CompressionCodec::SNAPPY => 22,
            CompressionCodec::LZ4 | CompressionCodec::LZ4_RAW => 256,
            CompressionCodec::GZIP => 1033,
            // A block of 128 KiB takes four bytes.
            _ => 1 << 15,
        };
        if self.uncompressed > self.compressed.saturating_mul(greatest).saturating_add(64) {
            return Err(format!(
                "declare {} bytes in {} bytes of {:?}",
                self.uncompressed,
                self.compressed,
                chunk.compression_codec()
            ));
        }
        Ok(())
    }

    /// The size that is accepted without further checks: text may have any length, dictionaries any number of
    /// values.
    fn plausible(&self) -> u64 {
        SMALL + self.in_proportion()
    }

    /// The size that the compressed bytes justify.
    fn in_proportion(&self) -> u64 {
        RATIO.saturating_mul(self.compressed)
    }

    fn check_dictionary(&self, chunk: &ColumnChunkMetaData, values: i32) -> Result<(), String> {
        self.check_codec(chunk)?;
        let fits = u64::try_from(values).is_ok_and(|values| {
            values
                .checked_mul(width(chunk))
                .is_some_and(|least| least <= self.uncompressed)
        });
        if !fits || self.uncompressed > self.plausible() {
            return Err(format!(
                "declare a dictionary of {values} values in {} bytes, {} compressed",
                self.uncompressed, self.compressed
            ));
        }
        Ok(())
    }

    fn check_data(&self, chunk: &ColumnChunkMetaData, values: u64) -> Result<(), String> {
        self.check_codec(chunk)?;
        // Levels, indices into a dictionary and the framing of an encoding take a few bytes per value.
        let most = match chunk.column_type() {
            Type::BYTE_ARRAY => values
                .saturating_mul(TEXT)
                .saturating_add(SLACK)
                .max(self.plausible()),
            _ => values.saturating_mul(width(chunk) + 8).saturating_add(SLACK),
        };
        if self.uncompressed > most {
            return Err(format!(
                "declare {values} values in {} bytes, {} compressed",
                self.uncompressed, self.compressed
            ));
        }
        if self.uncompressed > PAGE + self.in_proportion() {
            return Err(format!(
                "{LARGE_PAGE}, {} bytes in {} compressed ones",
                self.uncompressed, self.compressed
            ));
        }
        Ok(())
    }
}

/// Least bytes of a value in plain encoding.
fn width(chunk: &ColumnChunkMetaData) -> u64 {
    match chunk.column_type() {
        Type::BOOLEAN => 0,
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(chunk.column_descr().type_length()).unwrap_or(0),
    }
}
