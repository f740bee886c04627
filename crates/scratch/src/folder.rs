//! The scratch folder.

use infermark_memory::gigabytes;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder for files that end with the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchFolder {
    path: PathBuf,
}

/// Rows cannot be stored in a scratch folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what} takes {} there: {cause}; free some space, or choose another scratch folder", folder.display(), gigabytes(*needed_bytes))]
pub struct ScratchError {
    /// The folder.
    pub folder: PathBuf,
    /// What is stored.
    pub what: &'static str,
    /// Bytes that it takes in all.
    pub needed_bytes: u64,
    /// The system's error; it is part of the message and therefore not also a `source()`.
    pub cause: io::Error,
}

/// Tells the files of a process apart for the moment in which they have names.
static FILES: AtomicU64 = AtomicU64::new(0);

impl ScratchFolder {
    /// The folder at `path`, which exists.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        ScratchFolder { path: path.into() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An empty file without a name: it is gone when it is closed, however the process ends.
    ///
    /// # Errors
    /// When the folder cannot be written to, or the system keeps the names of open files.
    pub fn file(&self) -> io::Result<File> {
        if !cfg!(unix) {
            return Err(io::Error::other(
                "this system cannot remove the name of an open file",
            ));
        }
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = self
            .path
            .join(format!(".infermark-rows-{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// An empty file of `bytes` bytes, which are set aside.
    ///
    /// # Errors
    /// When the file system has less room.
    pub(crate) fn file_of(&self, bytes: u64) -> io::Result<File> {
        let file = self.file()?;
        set_aside(&file, bytes)?;
        Ok(file)
    }

    /// The error of storing `what`, which takes `needed_bytes` in all.
    pub fn error(&self, what: &'static str, needed_bytes: u64, cause: io::Error) -> ScratchError {
        ScratchError {
            folder: self.path.clone(),
            what,
            needed_bytes,
            cause,
        }
    }

    /// Refuses what exceeds the free space of the folder's file system.
    ///
    /// # Errors
    /// [`ScratchError`] with both figures.
    pub fn check(&self, what: &'static str, needed_bytes: u64) -> Result<(), ScratchError> {
        match free_bytes(&self.path) {
            Some(free) if free < needed_bytes => {
                let cause = io::Error::other(format!("its file system has {} left", gigabytes(free)));
                Err(self.error(what, needed_bytes, cause))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// Gives a file its length, with blocks where the file system can set them aside.
#[cfg(target_os = "linux")]
fn set_aside(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(bytes),
        other => Ok(other?),
    }
}

/// Gives the first bytes of a file back to the file system; they are zero then. Where the system cannot, they stay.
#[cfg(target_os = "linux")]
pub(crate) fn give_back(file: &File, bytes: u64) {
    use rustix::fs::FallocateFlags;
    if bytes > 0 {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(file, flags, 0, bytes);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn give_back(_: &File, _: u64) {}

#[cfg(not(target_os = "linux"))]
fn set_aside(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_name_and_an_error_names_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = ScratchFolder::new(folder.path());
        let file = scratch.file_of(1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(scratch.check("nothing", 0).is_ok());
        let error = scratch.check("the panel", u64::MAX).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains("the panel takes 18446744073.71 GB"), "{error}");
        let missing = ScratchFolder::new(folder.path().join("none"));
        assert_eq!(missing.file().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
