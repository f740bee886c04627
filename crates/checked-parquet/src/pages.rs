//! The pages of the columns that are read, checked before the decoder decodes them.

use crate::{delta, page_headers};
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use std::fs::File;
use std::sync::Arc;

/// All row groups of a file.
pub struct CheckedGroups {
    /// The file.
    pub file: Arc<File>,
    /// Its size.
    pub bytes: u64,
    /// Its metadata, by [`read_metadata`](crate::read_metadata).
    pub metadata: Arc<ParquetMetaData>,
    /// Values per row in the columns that are read: one, or the length of the lists.
    pub values_per_row: usize,
}

impl RowGroups for CheckedGroups {
    fn num_rows(&self) -> usize {
        let rows = self.row_groups().map(|group| group.num_rows().max(0) as usize);
        rows.fold(0, usize::saturating_add)
    }

    fn column_chunks(&self, column: usize) -> Result<Box<dyn PageIterator>> {
        Ok(Box::new(Chunks {
            file: Arc::clone(&self.file),
            bytes: self.bytes,
            metadata: Arc::clone(&self.metadata),
            values_per_row: self.values_per_row,
            column,
            next_group: 0,
        }))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(self.metadata.row_groups().iter())
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The chunks of a column, one per row group.
struct Chunks {
    file: Arc<File>,
    bytes: u64,
    metadata: Arc<ParquetMetaData>,
    values_per_row: usize,
    column: usize,
    next_group: usize,
}

impl Chunks {
    fn open(&self, group: &RowGroupMetaData) -> Result<CheckedPages> {
        let chunk = group
            .columns()
            .get(self.column)
            .ok_or_else(|| ParquetError::General("a row group lacks a column".into()))?;
        let rows = group.num_rows();
        // Nulls take the width of a value; the widest number has 32 bytes.
        if chunk.column_descr().type_length() > 32 {
            return Err(ParquetError::General("a number is wider than 256 bits".into()));
        }
        let values = i64::try_from(self.values_per_row).ok();
        let values = values
            .and_then(|each| rows.checked_mul(each))
            .ok_or_else(|| ParquetError::General(format!("a row group declares {rows} rows")))?;
        let name = || chunk.column_path().string();
        page_headers::check(&mut self.file.try_clone()?, self.bytes, chunk, values)
            .map_err(|what| ParquetError::General(format!("the pages of column {:?} {what}", name())))?;
        Ok(CheckedPages {
            pages: SerializedPageReader::new(Arc::clone(&self.file), chunk, rows as usize, None)?,
            column: name(),
            type_: chunk.column_type(),
            levels: [
                chunk.column_descr().max_rep_level(),
                chunk.column_descr().max_def_level(),
            ]
            .into_iter()
            .filter(|most| *most > 0)
            .count(),
        })
    }
}

impl Iterator for Chunks {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        let group = self.metadata.row_groups().get(self.next_group)?;
        self.next_group += 1;
        Some(
            self.open(group)
                .map(|pages| Box::new(pages) as Box<dyn PageReader>),
        )
    }
}

impl PageIterator for Chunks {}

/// The pages of a chunk, decompressed.
struct CheckedPages {
    pages: SerializedPageReader<File>,
    column: String,
    type_: Type,
    /// How many kinds of levels, of repetition and definition, precede the values.
    levels: usize,
}

impl CheckedPages {
    /// Delta encodings state their number of values inside the page, and the decoder allocates memory for it.
    fn check(&self, page: &Page) -> Result<()> {
        let (values, levels) = match page {
            Page::DataPage { buf, .. } => (buf, levels(buf, self.levels)),
            Page::DataPageV2 {
                buf,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => (
                buf,
                u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len),
            ),
            Page::DictionaryPage { .. } => return Ok(()),
        };
        let texts = matches!(self.type_, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
        let streams = match page.encoding() {
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY if texts => 2,
            _ => return Ok(()),
        };
        let values = usize::try_from(levels)
            .ok()
            .and_then(|levels| values.get(levels..));
        match values {
            Some(values) if delta::possible(values, streams, page.num_values()) => Ok(()),
            _ => Err(ParquetError::General(format!(
                "a page of column {:?} does not hold the values that it declares",
                self.column
            ))),
        }
    }
}

/// The bytes that `kinds` of levels take at the start of a page, each after its length; beyond any page if they are not
/// in it.
fn levels(page: &[u8], kinds: usize) -> u64 {
    let passed = (0..kinds).try_fold(0usize, |at, _| {
        let length = page.get(at..)?.first_chunk()?;
        at.checked_add(4)?
            .checked_add(u32::from_le_bytes(*length) as usize)
    });
    passed.map_or(u64::MAX, |bytes| bytes as u64)
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}
