//! A mapped file.

#![allow(unsafe_code)]

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// A file without a name, mapped as a whole and shared, so that pages that are let go are read again as they were left. It owns its bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: Arc<MmapRaw>,
    writable: bool,
}

/// The pages of a [`Mapping`], which can be let go and no more.
#[derive(Debug)]
pub(crate) struct Pages(Weak<MmapRaw>);

impl Mapping {
    /// Maps a file that is not empty, and that nobody else has open.
    pub(crate) fn of(file: &File, writable: bool) -> io::Result<Self> {
        let options = MmapOptions::new();
        let raw = match writable {
            true => options.map_raw(file)?,
            false => options.map_raw_read_only(file)?,
        };
        Ok(Mapping {
            raw: Arc::new(raw),
            writable,
        })
    }

    pub(crate) fn pages(&self) -> Pages {
        Pages(Arc::downgrade(&self.raw))
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: The mapping has `len` bytes for as long as `self` lives. Its file has no name, so that no other process opens it; its
        // length does not change, and it is written to only through a `&mut` of its owner: `bytes_mut` and `Column::replace`.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.raw.len()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.writable, "a mapping to write to");
        // SAFETY: As above; the mapping is writable, and the exclusive borrow of its owner keeps all other slices of it away, since `Pages`
        // gives none.
        unsafe { std::slice::from_raw_parts_mut(self.raw.as_mut_ptr(), self.raw.len()) }
    }

    /// Asks for some of its bytes to be read ahead.
    pub(crate) fn read_ahead(&self, bytes: Range<usize>) {
        let end = bytes.end.min(self.raw.len());
        if bytes.start < end {
            // Advice that is not taken costs time, not correctness.
            let _ = self
                .raw
                .advise_range(Advice::WillNeed, bytes.start, end - bytes.start);
        }
    }
}

impl Pages {
    /// Whether the mapping is still there.
    pub(crate) fn are_mapped(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Lets go of all pages that are resident.
    pub(crate) fn let_go(&self) {
        if let Some(raw) = self.0.upgrade() {
            // SAFETY: The mapping is shared and has a file: a page that is accessed after it was let go comes from that file, with all that
            // was written to it. So slices of it, of whichever thread, keep their contents.
            let _ = unsafe { raw.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }
}
