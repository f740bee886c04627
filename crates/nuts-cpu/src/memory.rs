//! Whether a run fits in memory, told before anything is allocated.

use infermark_backend::request::Metric;
use infermark_backend::{BackendError, NutsSettings};
use infermark_model::Layout;

/// Bytes that the trajectories of all chains take: under the diagonal metric at their deepest, five vectors a state, two ends
/// and a draw of every level of the tree, and the estimators of the metric; under the structured one two points of two vectors, the
/// momentum, four more for the coordinates and the draw.
fn trajectory_bytes(settings: &NutsSettings, layout: &Layout) -> u64 {
    let vectors = match settings.metric {
        Metric::Diagonal => 5 * (3 * u64::from(settings.max_depth) + 6) + 16,
        Metric::Structured => 9,
    };
    (settings.chains as u64)
        .saturating_mul(vectors)
        .saturating_mul(8 * layout.latents() as u64)
}

/// Refuses a run that needs more than there is: its trajectories, and `besides` them the densities and what is kept
/// of the draws.
///
/// # Errors
/// [`BackendError::Memory`] with what is needed and what is there.
pub(crate) fn check(settings: &NutsSettings, layout: &Layout, besides: u64) -> Result<(), BackendError> {
    let needed = besides
        .saturating_add(trajectory_bytes(settings, layout))
        .saturating_add(statistics_bytes(layout));
    infermark_memory::check(
        format!("NUTS with {} chains, its rows and its draws", settings.chains),
        needed,
    )
    .map_err(|shortage| {
        BackendError::short_of_memory(
            shortage,
            "give it more memory, or fewer --chains, --draws or --threads, or fit fewer products at a time",
        )
    })
}

/// Bytes of what is told of every latent at the end: mean, standard deviation, quantiles, R-hat, effective sample sizes and
/// errors, and a copy of them as they are written; and the batch of draws that is being written, one draw or 8 MiB, as it is and encoded.
fn statistics_bytes(layout: &Layout) -> u64 {
    let draw = 8 * layout.latents() as u64;
    (2 * 12 * draw).saturating_add(2 * draw.max(8 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

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
