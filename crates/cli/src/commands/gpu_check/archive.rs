//! The file of a step: an archive of its folder, which is brought up to date as the folder grows.

use infermark_atomic_file::write_atomically;
use infermark_peer_process::ProcessGroup;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The status of tar where a file changed while it was read: such files are taken as they are.
const CHANGED: i32 = 1;

/// A folder and the archive of it.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    file: PathBuf,
}

impl Archive {
    /// Creates the folder in `temporary`, under the name of the archive, which is `<name>.tar.gz` in `out`, or `<name>-2.tar.gz`,
    /// `-3` .. where that is there already.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub(super) fn create(temporary: &Path, out: &Path, name: &str) -> io::Result<Self> {
        let file_of = |name: &str| out.join(format!("{name}.tar.gz"));
        let mut numbered = name.to_owned();
        for number in 2.. {
            if !file_of(&numbered).exists() {
                break;
            }
            numbered = format!("{name}-{number}");
        }
        let folder = temporary.join(&numbered);
        std::fs::create_dir(&folder)?;
        Ok(Archive {
            folder,
            file: file_of(&numbered),
        })
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The archive.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes `summary` to `summary.md` in the folder, then the archive anew; it is whole at every moment.
    ///
    /// # Errors
    /// When either cannot be written.
    pub(super) fn update(&self, summary: &str) -> anyhow::Result<()> {
        std::fs::write(self.folder.join("summary.md"), summary)?;
        write_atomically(&self.file, |archive| {
            // In a group of its own: the Ctrl-C that stops the check lets it finish.
            let mut tar = ProcessGroup::start(&mut self.tar())?;
            if let Some(mut packed) = tar.leader().stdout.take() {
                io::copy(&mut packed, archive)?;
            }
            let status = tar.wait()?;
            match status.code() {
                Some(0 | CHANGED) => Ok(()),
                _ => Err(io::Error::other(format!("tar ended with {status}"))),
            }
        })?;
        Ok(())
    }

    /// Tar with the packed folder on its standard output.
    fn tar(&self) -> Command {
        let mut tar = Command::new("tar");
        tar.arg("-C").args(self.folder.parent()).args(["-czf", "-"]);
        tar.args(self.folder.file_name());
        tar.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        tar
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_folder_as_it_is_and_a_number_of_its_own() {
        let (temporary, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let create = || Archive::create(temporary.path(), out.path(), "2026-11-28-card-speed").unwrap();
        let first = create();
        first.update("# one\n").unwrap();
        std::fs::write(first.folder().join("bench.log"), "log").unwrap();
        first.update("# two\n").unwrap();
        let unpacked = tempfile::tempdir().unwrap();
        let status = Command::new("tar")
            .arg("-C")
            .arg(unpacked.path())
            .arg("-xf")
            .arg(first.file())
            .status();
        assert!(status.unwrap().success());
        let read = |name: &str| {
            let folder = unpacked.path().join("2026-11-28-card-speed");
            std::fs::read_to_string(folder.join(name)).unwrap()
        };
        assert_eq!(
            (read("summary.md"), read("bench.log")),
            ("# two\n".into(), "log".into())
        );
        let second = create();
        assert!(second.file().ends_with("2026-11-28-card-speed-2.tar.gz"));
        std::fs::remove_dir_all(second.folder()).unwrap();
        assert!(second.update("").is_err());
        assert!(!second.file().exists());
    }
}
