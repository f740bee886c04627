//! The allocator under a limit of the address space.

use crate::linux::limit;
use rustix::process::Resource;

/// Below this much address space separate arenas per thread waste it.
const AMPLE: u64 = 16 << 30;
/// Blocks of this many bytes and more are separate mappings, which are returned as a whole.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 1 << 18;

/// Keeps the allocator from wasting addresses if the address space is limited. Must be called before threads
/// start.
///
/// An arena of 64 MiB for every thread would let the first few threads take all of it. In the one arena that they then share,
/// the matrix products' workspaces, which come and go with threads, would leave holes that nothing else fits into: glibc's
/// threshold for mappings grows with what is freed, so it is fixed.
pub fn spare_address_space() {
    if limit(Resource::As).is_some_and(|limit| limit < AMPLE) {
        one_arena();
    }
}

/// Keeps the allocator from holding back what is freed in arenas of threads that have ended. Must be called before threads start.
pub(crate) fn return_what_is_freed() {
    one_arena();
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn one_arena() {
    // SAFETY: mallopt changes a parameter of the allocator, under the allocator's own lock; no memory is handed over.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Other allocators have no such arenas.
#[cfg(not(target_env = "gnu"))]
fn one_arena() {}
