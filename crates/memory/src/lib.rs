//! How much memory this process may still take: the least of the machine's free memory and what its control
//! groups and resource limits (`ulimit`) leave.
//!
//! Code that is about to allocate a lot calls [`check`] first, and refuses with figures: when memory runs
//! out, the system kills the process or an allocation aborts it, and neither leaves a result.

#[cfg(target_os = "linux")]
mod arenas;
#[cfg(target_os = "linux")]
mod control_groups;
#[cfg(target_os = "linux")]
mod given;
#[cfg(target_os = "linux")]
mod linux;
mod shortage;

#[cfg(target_os = "linux")]
pub use arenas::spare_address_space;
pub use shortage::{Shortage, gigabytes};

use std::fmt;

/// The limit on the memory that is still available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The machine's free memory.
    Machine,
    /// A control group of the process, for instance of a container or a job.
    ControlGroup,
    /// The limit of the address space (`ulimit -v`).
    AddressSpace,
    /// The limit of the data segment (`ulimit -d`).
    DataSegment,
    /// The bound that the process was given: [`bound_resident`].
    Given,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Machine => "the machine",
            Bound::ControlGroup => "the control group (container or job)",
            Bound::AddressSpace => "the limit of the address space (ulimit -v)",
            Bound::DataSegment => "the limit of the data segment (ulimit -d)",
            Bound::Given => "the memory that it was given",
        })
    }
}

/// Memory that is still available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Bytes.
    pub bytes: u64,
    /// Their limit.
    pub bound: Bound,
}

/// The memory that this process may still take; `None` if the system does not report it.
pub fn available() -> Option<Available> {
    #[cfg(target_os = "linux")]
    return linux::available();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Bytes of memory of the machine; `None` if the system does not report it.
pub fn total_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::meminfo("MemTotal:");
    #[cfg(not(target_os = "linux"))]
    None
}

/// Bounds what is resident of this process from now on to `bytes`, of which `window` bytes are held back for pages of mapped files.
/// [`available`] then counts against it; where the system does not report what is resident, it counts nothing. Must be called before
/// threads start.
pub fn bound_resident(bytes: u64, window: u64) {
    #[cfg(target_os = "linux")]
    {
        arenas::return_what_is_freed();
        given::bound(bytes, window);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (bytes, window);
}

/// Bytes of files' pages that are resident; `None` if the system does not report it.
pub fn resident_file_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return given::resident_file_bytes();
    #[cfg(not(target_os = "linux"))]
    None
}

/// Refuses an allocation that exceeds the available memory.
///
/// # Errors
/// [`Shortage`] with both figures.
pub fn check(what: impl Into<String>, needed_bytes: u64) -> Result<(), Shortage> {
    match available() {
        Some(available) if needed_bytes > available.bytes => Err(Shortage {
            what: what.into(),
            needed_bytes,
            available,
        }),
        _ => Ok(()),
    }
}

/// Other systems do not need this.
#[cfg(not(target_os = "linux"))]
pub fn spare_address_space() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_any_machine_is_refused_and_a_page_is_not() {
        if available().is_none() {
            return;
        }
        assert!(check("a page", 4096).is_ok());
        let shortage = check("everything", u64::MAX).unwrap_err();
        assert!(shortage.available.bytes > 0);
        assert!(
            shortage
                .to_string()
                .starts_with("everything needs 18446744073.71 GB, and "),
            "{shortage}"
        );
    }

    #[test]
    fn no_more_can_be_had_than_there_is() {
        if let (Some(available), Some(total)) = (available(), total_bytes()) {
            assert!(available.bytes <= total && total > 1 << 26);
        }
    }
}
