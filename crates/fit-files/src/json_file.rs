//! Reading JSON files: limits of size, and versions.

use crate::fit_record::SCHEMA_VERSION;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Largest number of bytes of a record of a fit or of a measured case: far more than any has.
pub const MOST_RECORD_BYTES: u64 = 1 << 30;

/// Reads the text of a file, or of a pipe, that has at most `most` bytes.
///
/// # Errors
/// When it cannot be read, is not UTF-8, or is longer; it is not read to the end then.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(most.saturating_add(1))
        .read_to_string(&mut text)?;
    if read as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {most} bytes, which no such file needs; give another file"),
        ));
    }
    Ok(text)
}

/// The problem with a record's text.
#[derive(Debug)]
pub enum RecordFault {
    /// It was written by a later version of this program.
    Newer(u64),
    /// It is not a record.
    Json(serde_json::Error),
}

/// The common start of every record.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    schema_version: Option<u64>,
}

/// The record in `text`.
///
/// # Errors
/// When its version is later than [`SCHEMA_VERSION`], or it is not such a record.
pub fn parse_record<T: DeserializeOwned>(text: &str) -> Result<T, RecordFault> {
    // A structure would take an array's entries in their order.
    if !text.trim_start().starts_with('{') {
        return Err(RecordFault::Json(serde_json::Error::custom(
            "a record is a JSON object",
        )));
    }
    // If the version itself is not a number, parsing the record reports that with its place.
    match serde_json::from_str::<Version>(text) {
        Ok(Version {
            schema_version: Some(found),
        }) if found > u64::from(SCHEMA_VERSION) => Err(RecordFault::Newer(found)),
        _ => serde_json::from_str(text).map_err(RecordFault::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, "[1, 2]").unwrap();
        assert_eq!(read_text(&path, 6).unwrap(), "[1, 2]");
        let error = read_text(&path, 5).unwrap_err().to_string();
        assert!(error.contains("more than 5 bytes"), "{error}");
        if cfg!(target_os = "linux") {
            assert!(read_text(Path::new("/dev/zero"), 1 << 16).is_err());
        }
    }

    #[test]
    fn versions_come_before_the_rest() {
        let later = format!("{{\"x\": 1, \"schema_version\": {}}}", SCHEMA_VERSION + 1);
        let found = parse_record::<Vec<u8>>(&later).unwrap_err();
        assert!(matches!(found, RecordFault::Newer(v) if v == u64::from(SCHEMA_VERSION) + 1));
        for text in [
            "",
            "{\"schema_version\": \"4\"}",
            "[4]",
            "[[[[",
            "{\"schema_version\": 1}",
        ] {
            let found = parse_record::<Vec<u8>>(text).unwrap_err();
            assert!(matches!(found, RecordFault::Json(_)), "{text}");
        }
        let deep = "[".repeat(1 << 20);
        assert!(matches!(
            parse_record::<Vec<u8>>(&deep),
            Err(RecordFault::Json(_))
        ));
    }
}
