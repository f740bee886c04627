//! The bound on what is resident of mapped files.

use crate::mapping::Pages;
use infermark_memory::resident_file_bytes;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes that a thread visits before it reports them.
const REPORTED: usize = 1 << 18;

/// Bytes that one fault may make resident in each of three columns, beside what it was for.
const AROUND_A_FAULT: usize = 3 << 16;

/// The part of the window that may be visited between two looks at what is resident.
const LOOKS: usize = 8;

/// Bounds what is resident of mapped files: at most about this many bytes, of which one half is let go when it is reached.
///
/// What is resident is looked up after every eighth of the window that was visited, so that the bound holds however passes
/// walk; where the system does not report it, what was visited counts.
#[derive(Debug)]
pub struct Window {
    bytes: usize,
    /// Resident pages of files before there was a window: those of the program.
    of_program: u64,
    visited: AtomicUsize,
    mappings: Mutex<Vec<Pages>>,
}

thread_local! {
    static UNREPORTED: Cell<usize> = const { Cell::new(0) };
}

impl Window {
    /// A window of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Window {
            bytes,
            of_program: resident_file_bytes().unwrap_or(0),
            visited: AtomicUsize::new(0),
            mappings: Mutex::default(),
        }
    }

    pub(crate) fn add(&self, pages: Pages) {
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.retain(Pages::are_mapped);
        mappings.push(pages);
    }

    /// Counts bytes that are visited next; `apart` if they do not follow those before.
    #[inline]
    pub fn visit(&self, bytes: usize, apart: bool) {
        let unreported = UNREPORTED.get() + bytes + if apart { AROUND_A_FAULT } else { 0 };
        if unreported < REPORTED.min(self.bytes / (4 * LOOKS)) {
            UNREPORTED.set(unreported);
            return;
        }
        UNREPORTED.set(0);
        self.report(unreported);
    }

    #[cold]
    fn report(&self, bytes: usize) {
        let visited = self.visited.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if visited < self.bytes / LOOKS {
            return;
        }
        match resident_file_bytes() {
            Some(resident) => {
                self.visited.store(0, Ordering::Relaxed);
                if resident.saturating_sub(self.of_program) >= self.bytes as u64 / 2 {
                    self.let_go();
                }
            }
            None if visited >= self.bytes / 2 => {
                self.visited.store(0, Ordering::Relaxed);
                self.let_go();
            }
            None => {}
        }
    }

    /// Lets go of all that is resident.
    pub fn let_go(&self) {
        let mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.iter().for_each(Pages::let_go);
    }
}
