//! Files that are compressed as a whole: recognized by their first bytes, with the command that unpacks them.

use crate::shell::quoted_word;
use std::path::Path;

/// How a file is compressed, or what it holds instead of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstandard,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// LZ4 with frames.
    Lz4,
    /// A zip archive; spreadsheets are zip archives too.
    Zip,
    /// A spreadsheet of Excel before 2007.
    OldExcel,
}

impl Compression {
    /// Recognizes the compression from the first bytes of a file.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstandard),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Some(Compression::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Compression::Lz4),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(Compression::Zip),
            [0xd0, 0xcf, 0x11, 0xe0, ..] => Some(Compression::OldExcel),
            _ => None,
        }
    }

    /// What the file is and the command that unpacks it.
    pub(crate) fn told(self, path: &Path, regular: bool) -> String {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let extension = extension.unwrap_or_default();
        let workbook = matches!(extension.as_str(), "xlsx" | "xlsm" | "xlsb" | "ods");
        let (by, command) = match self {
            Compression::Gzip => ("gzip", "gunzip -c"),
            Compression::Zstandard => ("Zstandard", "zstd -dc"),
            Compression::Bzip2 => ("bzip2", "bunzip2 -c"),
            Compression::Xz => ("xz", "xz -dc"),
            Compression::Lz4 => ("LZ4", "lz4 -dc"),
            Compression::Zip if !workbook => ("zip", "unzip -p"),
            Compression::Zip | Compression::OldExcel => {
                return "the file is a spreadsheet, not a table as text; save its sheet as CSV (UTF-8, commas) and name \
                        that"
                    .into();
            }
        };
        if !regular {
            return format!("what comes through the pipe is compressed by {by}; put `{command}` before it");
        }
        let stem = if matches!(
            extension.as_str(),
            "gz" | "zst" | "zstd" | "bz2" | "xz" | "lz4" | "zip"
        ) {
            path.with_extension("")
        } else {
            let mut name = path.to_path_buf();
            name.set_file_name(format!(
                "unpacked-{}",
                path.file_name().unwrap_or_default().to_string_lossy()
            ));
            name
        };
        let mut target = stem.to_string_lossy().into_owned();
        let lower = target.to_lowercase();
        if !lower.ends_with(".csv") && !lower.ends_with(".parquet") {
            target += ".csv";
        }
        format!(
            "the file is compressed by {by}; unpack it first: {command} {} > {}",
            quoted_word(&path.to_string_lossy()),
            quoted_word(&target)
        )
    }
}
