//! Folders of results that one process at a time writes, and that are replaced as a whole.

use crate::{AtomicFile, FileError, folder_of};
use std::ffi::OsStr;
use std::fs::{DirEntry, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::{Builder, TempDir};

/// The lock's file in a folder that is being written; a process that is dead holds it no more.
pub const LOCK: &str = ".infermark.lock";

/// Reasons for not writing to a folder.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process writes in it.
    #[error("another run writes in {} at this moment; wait for it, or give another folder", .0.display())]
    Busy(PathBuf),
    /// It cannot be made or written to.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A folder that this process alone writes results in, until it is dropped.
#[derive(Debug)]
pub struct ClaimedFolder {
    path: PathBuf,
    /// Whether it was not there before.
    made: bool,
    /// The file [`LOCK`] of the folder that is in place, locked.
    lock: Mutex<File>,
}

impl ClaimedFolder {
    /// Creates the folder, takes its lock, and shows that files can be written in it, so that a run of hours does not end at
    /// that. What killed runs left in the middle of replacing the files `known` is removed.
    ///
    /// # Errors
    /// [`ClaimError::Busy`] where another process has the lock; a [`FileError`] where the folder cannot be written to.
    pub fn claim(path: &Path, known: &[&str]) -> Result<Self, ClaimError> {
        let made = !path.exists();
        std::fs::create_dir_all(path).map_err(|e| FileError::new("create the folder", path, e))?;
        let claimed = ClaimedFolder {
            path: path.to_owned(),
            made,
            lock: Mutex::new(lock(path)?),
        };
        claimed.sweep(known);
        // Dropped without being put in its place, the file leaves nothing behind.
        AtomicFile::create(&path.join(known.first().copied().unwrap_or("results")))?;
        Ok(claimed)
    }

    /// Restores files other than results that a killed run left next to `path`, unless another run is at work
    /// there. For callers that will not claim the folder.
    pub fn recover(path: &Path, known: &[&str]) {
        if path.is_dir() {
            let _ = Self::claim(path, known);
        }
    }

    /// A function that removes the traces of the claim, for a process that is about to end without dropping
    /// it.
    pub fn abandonment(&self) -> impl Fn() + Send + use<> {
        let (path, made) = (self.path.clone(), self.made);
        move || remove_traces(&path, made)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes new contents of the folder with `fill`, which gets the folder to write in, and exchanges them
    /// for the old ones at once: at any moment the files `known` are all old or all new. What else is in the
    /// folder stays.
    ///
    /// Where folders cannot be exchanged - the folder is the root of a file system or the one that the program runs in, or its
    /// parent cannot be written to - `fill` writes in the folder itself.
    ///
    /// # Errors
    /// Errors of `fill`, after which the old contents are kept; and errors of the exchange.
    pub fn replace<T, E: From<FileError>>(
        &self,
        known: &[&str],
        fill: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(beside) = self.beside() else {
            return fill(&self.path);
        };
        let whole = |e| FileError::new("replace", &self.path, e);
        // Held before it is in place, so that no other run finds the folder free.
        let next = lock(beside.path()).map_err(|e| whole(io::Error::other(e)))?;
        let filled = fill(beside.path())?;
        // Names last only once the folder is on the disk.
        sync(beside.path()).map_err(whole)?;
        // The folder itself, where the path is a link to it or ends in a point.
        let place = self.path.canonicalize().map_err(whole)?;
        // In both, so that no moment is without them.
        link_others(&place, beside.path(), known);
        exchange(beside.path(), &place).map_err(whole)?;
        *self.held() = next;
        if let Some(parent) = place.parent() {
            // Systems that cannot sync a folder need not.
            let _ = sync(parent);
        }
        // The old contents are now in the other folder. Only results are removed from it.
        let old = beside.keep();
        carry_over(&old, &self.path, known);
        let _ = std::fs::remove_dir(old);
        Ok(filled)
    }

    fn held(&self) -> MutexGuard<'_, File> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty folder next to this one, if the two can be exchanged.
    fn beside(&self) -> Option<TempDir> {
        let path = self.path.canonicalize().ok()?;
        let (parent, name) = (path.parent()?, path.file_name()?);
        if std::env::current_dir().is_ok_and(|here| here.starts_with(&path)) {
            // A process working in it would be left in a folder that is gone.
            return None;
        }
        let mut builder = Builder::new();
        let prefix = beside_prefix(name);
        builder.prefix(&prefix).suffix(PART);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).ok()?.permissions().mode();
            builder.permissions(std::fs::Permissions::from_mode(mode & 0o7777));
        }
        let beside = builder.tempdir_in(parent).ok()?;
        // A trial, with a folder that holds nothing: file systems differ in what they can.
        let trial = Builder::new()
            .prefix(&prefix)
            .suffix(PART)
            .tempdir_in(parent)
            .ok()?;
        exchange(trial.path(), beside.path()).ok()?;
        same_file_system(&path, parent).then_some(beside)
    }

    /// Removes what killed runs left; what cannot be removed is in nobody's way.
    fn sweep(&self, known: &[&str]) {
        let Ok(path) = self.path.canonicalize() else {
            return;
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        let prefix = beside_prefix(name);
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if is_part(&entry.file_name(), &prefix) && entry.file_type().is_ok_and(|t| t.is_dir()) {
                carry_over(&entry.path(), &self.path, known);
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

impl Drop for ClaimedFolder {
    fn drop(&mut self) {
        // While it is locked: whoever waits for this file finds that it is no longer the folder's.
        if is_at(&self.held(), &self.path.join(LOCK)) {
            remove_traces(&self.path, self.made);
        }
    }
}

/// Removes the lock, and a folder that was made for it and that nothing was put in.
fn remove_traces(path: &Path, made: bool) {
    let _ = std::fs::remove_file(path.join(LOCK));
    if made {
        // Refused where there is something in it.
        let _ = std::fs::remove_dir(path);
    }
}

/// End of temporary names.
pub(crate) const PART: &str = ".part";

fn beside_prefix(name: &OsStr) -> String {
    format!(".{}.", name.to_string_lossy())
}

/// Whether `name` is a temporary one: the prefix, letters without a point, and [`PART`]. `.fit.2.AbCdEf.part`
/// belongs to `fit.2`, not to `fit`.
fn is_part(name: &OsStr, prefix: &str) -> bool {
    let name = name.to_string_lossy();
    let random = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(PART));
    random.is_some_and(|random| !random.is_empty() && !random.contains('.'))
}

fn lock(folder: &Path) -> Result<File, ClaimError> {
    let path = folder.join(LOCK);
    let fail = |e| FileError::new("write", &path, e);
    loop {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(fail)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(ClaimError::Busy(folder.to_owned())),
            // A file system without locks: what cannot be known is not refused.
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(fail(e).into()),
            Ok(()) => {}
        }
        // Another run may have removed it between the two, as it ended.
        if is_at(&file, &path) {
            return Ok(file);
        }
    }
}

/// Whether `file` is the one at `path`.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Open files cannot be removed here.
#[cfg(not(unix))]
pub(crate) fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(unix)]
fn same_file_system(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn same_file_system(_a: &Path, _b: &Path) -> bool {
    true
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

/// There is no such call here.
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_a: &Path, _b: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether a name in a folder is one of its results or of what writing them leaves.
fn is_result(name: &OsStr, known: &[&str]) -> bool {
    let text = name.to_string_lossy();
    known.iter().any(|known| *known == name)
        || name == LOCK
        || (text.starts_with('.') && text.ends_with(PART))
}

/// Links the files that are not results into the new folder, as far as possible.
fn link_others(old: &Path, new: &Path, known: &[&str]) {
    for entry in std::fs::read_dir(old).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !is_result(&name, known) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = std::fs::hard_link(entry.path(), new.join(name));
        }
    }
}

/// Moves everything that is not a result from an old folder into the new one, and removes the rest, as far as
/// possible.
fn carry_over(old: &Path, new: &Path, known: &[&str]) {
    let entries: Vec<_> = std::fs::read_dir(old).into_iter().flatten().flatten().collect();
    // First what is nowhere else: folders, which cannot be linked.
    let (to_remove, to_move): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| {
        let name = entry.file_name();
        is_result(&name, known) || (cfg!(unix) && is_linked(entry, &new.join(name)))
    });
    for entry in to_move {
        let there = new.join(entry.file_name());
        if !there.exists() {
            let _ = std::fs::rename(entry.path(), there);
        }
    }
    for entry in to_remove {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Whether the file of an entry is at `there` too.
fn is_linked(entry: &DirEntry, there: &Path) -> bool {
    // Opened only where that does not wait, as for a pipe.
    entry.file_type().is_ok_and(|kind| kind.is_file())
        && File::open(entry.path()).is_ok_and(|file| is_at(&file, there))
}

/// Removes the temporary files of killed runs next to `path`; those of living ones are locked.
pub(crate) fn sweep_beside(path: &Path, prefix: &str) {
    for entry in std::fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if is_part(&entry.file_name(), prefix)
            && entry.file_type().is_ok_and(|t| t.is_file())
            && let Ok(file) = File::options().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::names;
    use crate::write_atomically;
    use std::io::Write;

    const KNOWN: [&str; 2] = ["run.json", "table.csv"];

    fn put(folder: &Path, name: &str, text: &str) -> Result<(), FileError> {
        write_atomically(&folder.join(name), |f| f.write_all(text.as_bytes()))
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole_and_what_is_no_result_stays() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let claimed = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        put(&path, "run.json", "old").unwrap();
        put(&path, "table.csv", "old").unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        std::fs::create_dir(path.join("more")).unwrap();
        claimed
            .replace(&KNOWN, |folder| {
                put(folder, "run.json", "new")?;
                assert_eq!(std::fs::read_to_string(path.join("run.json")).unwrap(), "old");
                Ok::<_, FileError>(())
            })
            .unwrap();
        drop(claimed);
        assert_eq!(names(&path), ["more", "notes.txt", "run.json"]);
        assert_eq!(std::fs::read_to_string(path.join("run.json")).unwrap(), "new");
        assert_eq!(names(base.path()), ["fit"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_behind_a_link_or_a_point_is_replaced_where_it_lies() {
        let base = tempfile::tempdir().unwrap();
        let (real, link) = (base.path().join("real"), base.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for path in [link.clone(), link.join(""), real.join("."), real.join("")] {
            let claimed = ClaimedFolder::claim(&path, &KNOWN).unwrap();
            std::fs::write(real.join("notes.txt"), "mine").unwrap();
            claimed
                .replace(&KNOWN, |folder| put(folder, "run.json", "new"))
                .unwrap();
            drop(claimed);
            assert_eq!(names(&real), ["notes.txt", "run.json"], "{}", path.display());
            assert!(link.is_symlink());
        }
        assert_eq!(names(base.path()), ["link", "real"]);
    }

    #[test]
    fn the_users_files_are_in_the_new_folder_before_it_is_in_place() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let claimed = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        let beside = tempfile::tempdir_in(base.path()).unwrap();
        link_others(&path, beside.path(), &KNOWN);
        assert_eq!(names(beside.path()), ["notes.txt"]);
        carry_over(&path, beside.path(), &KNOWN);
        assert!(names(&path).is_empty() && names(beside.path()) == ["notes.txt"]);
        drop(claimed);
    }

    #[test]
    fn a_failure_leaves_the_old_folder() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let claimed = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        put(&path, "run.json", "old").unwrap();
        let failed = claimed.replace(&KNOWN, |folder| {
            put(folder, "table.csv", "new")?;
            Err::<(), _>(FileError::new("write", folder, io::Error::other("full")))
        });
        assert!(failed.is_err());
        drop(claimed);
        assert_eq!(names(&path), ["run.json"]);
        assert_eq!(names(base.path()), ["fit"]);
    }

    #[test]
    fn a_second_run_is_refused_as_long_as_the_first_one_lives() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let first = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        let second = ClaimedFolder::claim(&path, &KNOWN);
        assert!(matches!(second, Err(ClaimError::Busy(_))), "{second:?}");
        drop(first);
        let third = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        drop(third);
        // Made for the claim, and nothing was put in it.
        assert!(!path.exists());
        // The file of a run that was killed is no lock.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(LOCK), "").unwrap();
        drop(ClaimedFolder::claim(&path, &KNOWN).unwrap());
        assert!(names(&path).is_empty());
    }

    #[test]
    fn a_folder_that_was_exchanged_is_still_claimed() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let first = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        first
            .replace(&KNOWN, |folder| put(folder, "run.json", "new"))
            .unwrap();
        let second = ClaimedFolder::claim(&path, &KNOWN);
        assert!(matches!(second, Err(ClaimError::Busy(_))), "{second:?}");
        drop(first);
        let third = ClaimedFolder::claim(&path, &KNOWN).unwrap();
        assert!(ClaimedFolder::claim(&path, &KNOWN).is_err());
        drop(third);
        assert_eq!(names(&path), ["run.json"]);
    }

    #[test]
    fn the_users_own_empty_folder_stays() {
        let base = tempfile::tempdir().unwrap();
        let claimed = ClaimedFolder::claim(base.path(), &KNOWN).unwrap();
        claimed.abandonment()();
        drop(claimed);
        assert!(base.path().exists() && names(base.path()).is_empty());
        let made = base.path().join("made");
        let claimed = ClaimedFolder::claim(&made, &KNOWN).unwrap();
        claimed.abandonment()();
        assert!(!made.exists());
    }

    #[test]
    fn what_another_run_writes_beside_a_longer_name_is_not_touched() {
        let base = tempfile::tempdir().unwrap();
        let other = base.path().join(".fit.2.AbCdEf.part");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("run.json"), "of fit.2").unwrap();
        drop(ClaimedFolder::claim(&base.path().join("fit"), &KNOWN).unwrap());
        assert_eq!(names(&other), ["run.json"]);
    }

    #[test]
    fn what_killed_runs_left_is_removed_and_what_was_the_users_comes_back() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("fit");
        let left = base.path().join(".fit.AbCdEf.part");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("run.json"), "old").unwrap();
        std::fs::write(left.join("notes.txt"), "mine").unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(".table.csv.AbCdEf.part"), "half").unwrap();
        drop(ClaimedFolder::claim(&path, &KNOWN).unwrap());
        put(&path, "table.csv", "new").unwrap();
        assert_eq!(names(&path), ["notes.txt", "table.csv"]);
        assert_eq!(names(base.path()), ["fit"]);
    }
}
