//! The file by which the processes of a run find each other: NCCL's id of the run.

use crate::NcclError;
use crate::library::Id;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the file begins with.
const MAGIC: &[u8] = b"infermark nccl id 1\n";

/// How long a process waits between two looks.
const NAP: Duration = Duration::from_millis(20);

fn refused(path: &Path, reason: impl Into<String>) -> NcclError {
    NcclError::Rendezvous {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Writes the id to a file that must not be there.
pub(crate) fn write(path: &Path, id: &Id) -> Result<(), NcclError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => refused(
            path,
            "it is there already, of another run or of one that has ended early; remove it, or name another",
        ),
        _ => refused(path, format!("it cannot be written: {error}")),
    })?;
    file.write_all(&[MAGIC, id].concat())
        .and_then(|()| file.sync_all())
        .map_err(|error| refused(path, format!("it cannot be written: {error}")))
}

/// Reads the id, as soon as it is there whole.
pub(crate) fn read(path: &Path, deadline: Duration) -> Result<Id, NcclError> {
    let begin = Instant::now();
    loop {
        match std::fs::read(path) {
            Ok(bytes) => {
                if let Some(id) = bytes.strip_prefix(MAGIC)
                    && let Ok(id) = Id::try_from(id)
                {
                    return Ok(id);
                }
                if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
                    return Err(refused(path, "it is not a file of this program; name another"));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(refused(path, format!("it cannot be read: {error}"))),
        }
        if begin.elapsed() > deadline {
            let seconds = deadline.as_secs();
            return Err(refused(
                path,
                format!(
                    "the first process has not written it in {seconds} s; do all processes see this folder?"
                ),
            ));
        }
        sleep(NAP);
    }
}

/// Removes the file, which all have read.
pub(crate) fn remove(path: &Path) {
    // A file that is left is refused by the next run, by name.
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(60);

    #[test]
    fn what_one_writes_the_others_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let id: Id = std::array::from_fn(|i| i as u8 ^ 0x5a);
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || read(&path, Duration::from_secs(20)))
        };
        sleep(SOON);
        write(&path, &id).unwrap();
        assert_eq!(reader.join().unwrap(), Ok(id));
        let again = write(&path, &id).unwrap_err().to_string();
        assert!(again.contains("it is there already"), "{again}");
        remove(&path);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_there_in_time_or_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        let late = read(&path, SOON).unwrap_err().to_string();
        assert!(late.contains("has not written it in 0 s"), "{late}");
        // Half of it: the first process is still writing.
        std::fs::write(&path, &MAGIC[..9]).unwrap();
        assert!(
            read(&path, SOON)
                .unwrap_err()
                .to_string()
                .contains("has not written")
        );
        std::fs::write(&path, "something else that is longer").unwrap();
        let other = read(&path, SOON).unwrap_err().to_string();
        assert!(other.contains("not a file of this program"), "{other}");
        let nowhere = folder.path().join("none/id");
        assert!(
            write(&nowhere, &[0; 128])
                .unwrap_err()
                .to_string()
                .contains("cannot be written")
        );
    }
}
