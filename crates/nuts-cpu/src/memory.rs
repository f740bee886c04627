//! Whether a run fits in memory, told before anything is allocated.

use infermark_backend::{BackendError, NutsSettings};
use infermark_model::Layout;

/// Bytes of memory that the system says can still be had, where it says so.
pub(crate) fn available_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

/// Bytes of memory of the machine, where the system says so.
pub(crate) fn total_bytes() -> Option<u64> {
    meminfo("MemTotal:")
}

fn meminfo(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes that the trajectories of all chains take at their deepest: five vectors a state, two ends and a draw of
/// every level of the tree, and the estimators of the metric.
fn trajectory_bytes(settings: &NutsSettings, layout: &Layout) -> u64 {
    let states = 3 * u64::from(settings.max_depth) + 6;
    let vectors = 5 * states + 16;
    (settings.chains as u64)
        .saturating_mul(vectors)
        .saturating_mul(8 * layout.latents() as u64)
}

/// Refuses a run that needs more than `available`.
///
/// # Errors
/// [`BackendError::Memory`] with what is needed and what is there.
pub(crate) fn check(
    settings: &NutsSettings,
    layout: &Layout,
    kept_bytes: u64,
    available: Option<u64>,
) -> Result<(), BackendError> {
    let needed = kept_bytes.saturating_add(trajectory_bytes(settings, layout));
    match available {
        Some(available) if needed > available => Err(BackendError::Memory {
            what: format!("NUTS with {} chains and its draws", settings.chains),
            device: "the machine".into(),
            needed_bytes: needed,
            available_bytes: available,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let layout = Layout {
            products: 1_000_000,
            categories: 10,
            periods: 156,
        };
        let settings = NutsSettings::default();
        let error = check(&settings, &layout, 0, Some(1 << 30)).unwrap_err();
        assert!(error.to_string().contains("1073741824"), "{error}");
        assert!(check(&settings, &layout, 0, Some(1 << 40)).is_ok());
        assert!(check(&settings, &layout, 0, None).is_ok());
    }
}
