//! Whether a run fits in memory, checked before anything is allocated.

use infermark_backend::{BackendError, Metric, NutsSettings, Remedy, Setting};
use infermark_model::Layout;

/// Bytes of the trajectories of all chains. Diagonal metric, at greatest depth: five vectors per state, two
/// ends and a draw at every level of the tree, and the estimators of the metric. Structured metric: two
/// points of two vectors, the momentum, four more for the coordinates and the draw, and the position to go on from.
fn trajectory_bytes(settings: &NutsSettings, layout: &Layout) -> u64 {
    let vectors = match settings.metric {
        Metric::Diagonal => 5 * (3 * u64::from(settings.max_depth) + 6) + 16,
        Metric::Structured => 10,
    };
    (settings.chains as u64)
        .saturating_mul(vectors)
        .saturating_mul(8 * layout.latents() as u64)
}

/// Refuses a run that needs more memory than there is: its trajectories, plus `besides`, the densities and
/// the kept draws.
///
/// # Errors
/// [`BackendError::Memory`] with the bytes needed and available.
pub(crate) fn check(settings: &NutsSettings, layout: &Layout, besides: u64) -> Result<(), BackendError> {
    infermark_memory::check(
        format!("NUTS with {} chains, its rows and its draws", settings.chains),
        needed(settings, layout, besides),
    )
    .map_err(|shortage| {
        BackendError::short_of_memory(
            shortage,
            [
                Remedy::GiveMemory,
                Remedy::Lower(Setting::Chains),
                Remedy::Lower(Setting::Draws),
                Remedy::Lower(Setting::Threads),
                Remedy::FitFewer("products"),
            ],
        )
    })
}

fn needed(settings: &NutsSettings, layout: &Layout, besides: u64) -> u64 {
    besides
        .saturating_add(trajectory_bytes(settings, layout))
        .saturating_add(statistics_bytes(layout))
}

/// Bytes of the statistics reported for every latent at the end: mean, standard deviation, quantiles, R-hat,
/// effective sample sizes and errors, and a copy of them while they are written; and the batch of draws being
/// written, one draw or 8 MiB, plain and encoded.
fn statistics_bytes(layout: &Layout) -> u64 {
    let draw = 8 * layout.latents() as u64;
    (2 * 12 * draw).saturating_add(2 * draw.max(8 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_those_of_the_points_and_of_what_is_told_of_each_latent() {
        let (large, larger) = (Layout::new(1_000_000, 10, 156), Layout::new(2_000_000, 20, 156));
        let of = |settings: &NutsSettings, layout: &Layout| needed(settings, layout, 7) as f64;
        let structured = NutsSettings::default();
        // 4 chains of 10 vectors, 24 columns of statistics, and 2 of the draw being written, for 2 million
        // latents.
        assert!((of(&structured, &large) / (2.0016e6 * 8.0 * (40.0 + 26.0)) - 1.0).abs() < 1e-3);
        assert!((of(&structured, &larger) / of(&structured, &large) - 2.0).abs() < 1e-3);
        // Trees of ten doublings hold far more points.
        assert!(of(&NutsSettings::diagonal(), &large) > 10.0 * of(&structured, &large));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_figures() {
        let layout = Layout::new(1_000, 10, 156);
        let settings = NutsSettings::diagonal();
        assert!(check(&settings, &layout, 0).is_ok());
        if infermark_memory::available().is_some() {
            let error = check(&settings, &layout, 1 << 50).unwrap_err();
            assert!(error.to_string().contains("GB, and "), "{error}");
        }
    }
}
