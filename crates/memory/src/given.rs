//! The bound on what is resident that the process was given.

use crate::linux::status;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy)]
struct Given {
    bytes: u64,
    /// Held back for the pages of mapped files, and what is resident of the program's own.
    of_files: u64,
}

static GIVEN: OnceLock<Given> = OnceLock::new();

/// Of the program's own pages those that it has not touched yet, about: 25 MiB of files' pages were resident at most in whole fits, with a window of 16 MiB
/// of which half is used.
const PROGRAM_BYTES: u64 = 8 << 20;

pub(crate) fn bound(bytes: u64, window: u64) {
    let of_files = window + resident_file_bytes().unwrap_or(0) + PROGRAM_BYTES;
    // The first holds.
    let _ = GIVEN.set(Given { bytes, of_files });
}

/// What is left of the bound; `None` where there is none.
pub(crate) fn left() -> Option<u64> {
    let given = GIVEN.get()?;
    let taken = status("RssAnon:")? + given.of_files;
    Some(given.bytes.saturating_sub(taken))
}

/// The third number of `/proc/self/statm`, pages of files and of shared memory.
pub(crate) fn resident_file_bytes() -> Option<u64> {
    static STATM: OnceLock<Option<File>> = OnceLock::new();
    let file = STATM
        .get_or_init(|| File::open("/proc/self/statm").ok())
        .as_ref()?;
    let mut text = [0; 128];
    let length = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let pages: u64 = text.split(' ').nth(2)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
