//! The allocator under a limit of the address space.

use crate::linux::limit;
use rustix::process::Resource;

/// Below this much address space a thread's own arena is a waste.
const AMPLE: u64 = 16 << 30;

/// Keeps the allocator from reserving an arena of 64 MiB of addresses for every thread where the address space is limited: the
/// first few threads would take all of it. To be called before threads start.
pub fn spare_address_space() {
    if limit(Resource::As).is_some_and(|limit| limit < AMPLE) {
        one_arena();
    }
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn one_arena() {
    // SAFETY: mallopt changes a parameter of the allocator, under the allocator's own lock; no memory is handed over.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Other allocators have no such arenas.
#[cfg(not(target_env = "gnu"))]
fn one_arena() {}
