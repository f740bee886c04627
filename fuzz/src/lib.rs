//! What the fuzz targets share: the bytes as a file, since that is what is read.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    // In memory where there is such a file system: a file is written for each input.
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a folder for the inputs")
});

/// A path in the process's own folder.
pub fn place(name: &str) -> PathBuf {
    FOLDER.path().join(name)
}

/// Writes a file there.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = place(name);
    let folder = path.parent().expect("below the folder");
    std::fs::create_dir_all(folder).expect("a folder in it");
    std::fs::write(&path, bytes).expect("an input is written");
    path
}

/// A message is some text, and no longer than a person reads.
pub fn assert_readable(message: &impl std::fmt::Display) {
    let message = message.to_string();
    assert!(
        !message.is_empty() && message.len() <= 8192,
        "{} bytes",
        message.len()
    );
}
