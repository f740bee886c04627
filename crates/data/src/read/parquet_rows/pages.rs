//! The pages of the columns that are read, checked before the decoder decodes them.

use super::delta;
use super::page_headers;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use std::fs::File;
use std::sync::Arc;

/// All row groups of a file.
pub(super) struct CheckedGroups {
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    pub(super) metadata: Arc<ParquetMetaData>,
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
        let name = || chunk.column_path().string();
        page_headers::check(&mut self.file.try_clone()?, self.bytes, chunk, rows)
            .map_err(|what| ParquetError::General(format!("the pages of column {:?} {what}", name())))?;
        Ok(CheckedPages {
            pages: SerializedPageReader::new(Arc::clone(&self.file), chunk, rows as usize, None)?,
            column: name(),
            type_: chunk.column_type(),
            nullable: chunk.column_descr().max_def_level() > 0,
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
    nullable: bool,
}

impl CheckedPages {
    /// Delta encodings state their number of values inside the page, and the decoder allocates memory for it.
    fn check(&self, page: &Page) -> Result<()> {
        let (values, levels) = match page {
            Page::DataPage { buf, .. } if self.nullable => {
                let length = buf.first_chunk().map(|length| u32::from_le_bytes(*length));
                (buf, length.map_or(u64::MAX, |length| u64::from(length) + 4))
            }
            Page::DataPage { buf, .. } => (buf, 0),
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
