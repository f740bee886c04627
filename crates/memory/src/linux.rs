//! The bounds that Linux reports.

use crate::{Available, Bound, control_groups, given};
use rustix::process::{Resource, getrlimit};

/// Bytes that are allocated without a check: the pictures at the end of a fit, and its tables while they are
/// written.
const HELD_BACK: u64 = 20 << 20;
/// Additional addresses: thread stacks, file mappings, and what the allocator does not return.
const ADDRESSES_HELD_BACK: u64 = 24 << 20;

pub(crate) fn available() -> Option<Available> {
    let of = |bound, bytes: Option<u64>| {
        bytes.map(|bytes| Available {
            bytes: bytes.saturating_sub(HELD_BACK),
            bound,
        })
    };
    [
        of(Bound::Machine, meminfo("MemAvailable:")),
        of(Bound::ControlGroup, control_groups::left()),
        of(Bound::Given, given::left()),
        of(
            Bound::AddressSpace,
            limit(Resource::As)
                .map(|limit| limit.saturating_sub(status("VmSize:").unwrap_or(0) + ADDRESSES_HELD_BACK)),
        ),
        of(
            Bound::DataSegment,
            limit(Resource::Data)
                .map(|limit| limit.saturating_sub(status("VmData:").unwrap_or(0) + ADDRESSES_HELD_BACK)),
        ),
    ]
    .into_iter()
    .flatten()
    .min_by_key(|available| available.bytes)
}

/// A resource's limit; `None` if there is none.
pub(crate) fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).current
}

/// A figure of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(key: &str) -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/meminfo").ok()?, key)
}

/// A figure of `/proc/self/status`, in bytes.
pub(crate) fn status(key: &str) -> Option<u64> {
    bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?, key)
}

fn bytes_in(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
