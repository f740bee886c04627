//! A file that is opened once: the first bytes of a pipe are examined and passed on with the rest.

use super::compression::Compression;
use super::defect::ReadError;
use super::folder::describe;
use std::fs::File;
use std::io::{Chain, Cursor, Read};
use std::path::{Path, PathBuf};

/// An open file whose first bytes are known.
pub(crate) struct Source {
    path: PathBuf,
    head: Vec<u8>,
    file: File,
    /// Whether the path can be opened again and gives the same bytes.
    regular: bool,
}

/// What a file holds.
pub(crate) enum Format {
    Csv,
    Parquet,
}

/// Enough for every magic number.
const HEAD_BYTES: usize = 8;

impl Source {
    /// Opens a file; a folder or a compressed file is an error that says what to do.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |cause| ReadError::Io {
            path: path.to_owned(),
            cause,
        };
        if path.is_dir() {
            return Err(ReadError::Directory {
                path: path.to_owned(),
                remedy: describe(path),
            });
        }
        let file = File::open(path).map_err(io)?;
        let regular = file.metadata().map_err(io)?.is_file();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&file)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(io)?;
        if let Some(by) = Compression::of(&head) {
            return Err(ReadError::Compressed {
                path: path.to_owned(),
                by,
                regular,
            });
        }
        Ok(Source {
            path: path.to_owned(),
            head,
            file,
            regular,
        })
    }

    /// The format of the file, from its content and then from its name; a pipe without an extension is CSV.
    pub(crate) fn format(&self) -> Result<Format, ReadError> {
        let parquet = self.head.starts_with(b"PAR1");
        let extension = self.path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("parquet") if self.regular => Ok(Format::Parquet),
            _ if parquet && self.regular => Ok(Format::Parquet),
            _ if parquet => Err(ReadError::ParquetPipe {
                path: self.path.clone(),
            }),
            Some("csv") => Ok(Format::Csv),
            // `/dev/stdin` is a regular file where one is redirected to it.
            None if self.path.starts_with("/dev") => Ok(Format::Csv),
            _ if !self.regular => Ok(Format::Csv),
            _ => Err(ReadError::Extension {
                path: self.path.clone(),
            }),
        }
    }

    /// Whether the path can be opened again and gives the same bytes.
    pub(crate) fn regular(&self) -> bool {
        self.regular
    }

    /// All bytes, from the first.
    pub(crate) fn into_reader(self) -> Chain<Cursor<Vec<u8>>, File> {
        Cursor::new(self.head).chain(self.file)
    }
}
