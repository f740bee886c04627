//! Why a file could not be written or read.

use std::io;
use std::path::{Path, PathBuf};

/// A file or folder that could not be written or read.
///
/// The cause is a part of the message, which ends with the remedy, and therefore not a `source()` as well.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {cause}{}", path.display(), remedy(cause))]
pub struct FileError {
    /// What was tried, for instance `write`.
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Why not.
    pub cause: io::Error,
}

impl FileError {
    /// An error of `action` on `path`.
    pub fn new(action: &'static str, path: &Path, cause: io::Error) -> Self {
        FileError {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; give a folder that you may write to",
        io::ErrorKind::StorageFull => "; free some space or give a folder on another disk",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a file stands where a folder is needed, give another folder"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    #[test]
    fn the_cause_is_told_once_and_the_remedy_last() {
        let error = FileError::new(
            "write",
            Path::new("a.txt"),
            io::Error::from(io::ErrorKind::PermissionDenied),
        );
        assert_eq!(
            error.to_string(),
            "cannot write a.txt: permission denied; give a folder that you may write to"
        );
        assert!(error.source().is_none());
    }
}
