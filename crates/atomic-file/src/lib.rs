//! Files that are either whole or not there: written next to their destination under a temporary name, synced
//! to the disk, then renamed. Folders that one process at a time writes, and that are replaced as a whole.

mod error;
mod folder;

pub use error::FileError;
pub use folder::{ClaimError, ClaimedFolder, LOCK};

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// A file under way: whatever is written goes to a hidden temporary name, and dropping it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

/// A file that is written, on the disk, and still under its temporary name.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl AtomicFile {
    /// Opens a temporary file in the folder of `path`, which is created where it is missing.
    ///
    /// # Errors
    /// When the folder or the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        let folder = folder_of(path);
        std::fs::create_dir_all(folder).map_err(|e| FileError::new("create the folder", folder, e))?;
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let e = io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no regular file, and would be replaced",
            );
            return Err(FileError::new("write", path, e));
        }
        let name = path.file_name().ok_or_else(|| {
            let e = io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
            FileError::new("write", path, e)
        })?;
        let mut builder = Builder::new();
        let prefix = format!(".{}.", name.to_string_lossy());
        builder.prefix(&prefix).suffix(folder::PART);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // A temporary file is private by default; a result is as readable as the umask says.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        folder::sweep_beside(path, &prefix);
        let file = loop {
            let file = builder
                .tempfile_in(folder)
                .map_err(|e| FileError::new("write", path, e))?;
            // Held as long as the file has its temporary name and this process lives: others remove what is not locked, and may
            // have done so already. Where there are no locks nobody removes anything.
            match file.as_file().try_lock() {
                Err(TryLockError::WouldBlock) => {}
                Ok(()) if !folder::is_at(file.as_file(), file.path()) => {}
                _ => break file,
            }
        };
        Ok(AtomicFile {
            path: path.to_owned(),
            writer: BufWriter::with_capacity(1 << 18, file),
        })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the contents to the disk, without moving the file to its destination.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn stage(self) -> Result<StagedFile, FileError> {
        let path = self.path;
        let fail = |e: io::Error| FileError::new("write", &path, e);
        let file = self.writer.into_inner().map_err(|e| fail(e.into_error()))?;
        file.as_file().sync_all().map_err(fail)?;
        Ok(StagedFile { path, file })
    }

    /// Moves the complete file to its destination.
    ///
    /// # Errors
    /// When the disk is full or fails; an earlier file is untouched.
    pub fn commit(self) -> Result<(), FileError> {
        self.stage()?.commit()
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.writer.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl StagedFile {
    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file to its destination.
    ///
    /// # Errors
    /// When it cannot be renamed; an earlier file is untouched.
    pub fn commit(self) -> Result<(), FileError> {
        let StagedFile { path, file } = self;
        file.persist(&path)
            .map_err(|e| FileError::new("write", &path, e.error))?;
        // The rename itself lasts only once the folder is on the disk; systems that cannot sync a folder need not.
        if let Ok(folder) = File::open(folder_of(&path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// Writes a whole file with `fill`, or leaves an earlier one unchanged.
///
/// # Errors
/// When `fill` or the disk fails.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut AtomicFile) -> io::Result<()>,
) -> Result<(), FileError> {
    stage(path, fill)?.commit()
}

/// Writes a file under its temporary name with `fill`.
///
/// # Errors
/// When `fill` or the disk fails; nothing is left behind then.
pub fn stage(
    path: &Path,
    fill: impl FnOnce(&mut AtomicFile) -> io::Result<()>,
) -> Result<StagedFile, FileError> {
    let mut file = AtomicFile::create(path)?;
    fill(&mut file).map_err(|e| FileError::new("write", path, e))?;
    file.stage()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a folder, sorted.
    pub(crate) fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_error_in_the_middle_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, |f| f.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |f| {
            // More than the buffer holds, so that the disk has a part of it.
            f.write_all(&[b'x'; 600_000])?;
            assert_eq!(names(folder.path()).len(), 2);
            Err(io::Error::other("stopped"))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.txt") && error.to_string().contains("stopped"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn the_old_file_stands_until_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/a.txt");
        write_atomically(&path, |f| f.write_all(b"old")).unwrap();
        let staged = stage(&path, |f| f.write_all(b"new!")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let hidden = names(path.parent().unwrap());
        assert!(
            hidden[0].starts_with(".a.txt.") && hidden.len() == 2,
            "{hidden:?}"
        );
        staged.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new!");
        assert_eq!(names(path.parent().unwrap()), ["a.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn results_are_readable_by_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, |f| f.write_all(b"x")).unwrap();
        let plain = folder.path().join("plain.txt");
        std::fs::write(&plain, b"x").unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = AtomicFile::create(&file.join("a.txt")).unwrap_err().to_string();
        assert!(error.contains("another folder"), "{error}");
    }
}
