//! What a run takes in memory, told before anything is allocated.

use infermark_backend::{Precision, SviSettings};
use infermark_cpu_kernels::chunk::most_chunks;
use infermark_model::{Likelihood, Panel};

/// Lanes of the widest vectors.
const LANES: usize = 16;

/// Bytes, beside the panel, of a run and of the posterior that it hands over, about.
///
/// Rows lie in whole vectors of up to 16, of which only those with a row are kept: 4 bytes a row that is one of many in Poisson counts in
/// single precision, 12 under the negative binomial. A latent has value and two moments of both its parameters, scale and slope,
/// and three columns a particle. Against the growth of the resident memory on two threads: 98 MB for 100,000 products of 156 rows and
/// 4 particles (103 estimated), 168 MB for 32 particles (191), 83 MB for 300,000 products of 5 rows (140, with a posterior of 60 that was
/// not asked for there).
pub(crate) fn bytes(panel: &Panel, likelihood: Likelihood, settings: &SviSettings) -> u64 {
    let layout = panel.layout_for(likelihood);
    let scalar: u64 = match settings.precision {
        Precision::F32 => 4,
        Precision::F64 => 8,
    };
    let a_row = match likelihood {
        Likelihood::Poisson => scalar,
        Likelihood::NegativeBinomial => 12,
    };
    let particles = settings.particles as u64;
    let vectors = panel
        .rows()
        .min(layout.products.saturating_mul(layout.periods.div_ceil(LANES))) as u64;
    let latents = layout.latents() as u64;
    let sums_by_period = (most_chunks(&layout) as u64)
        .saturating_mul(layout.periods.next_multiple_of(LANES) as u64)
        .saturating_mul(8 * particles);
    let posterior = 12 * 8 * latents;
    // Rows that stand alone take a vector each; rows of dense products fill theirs.
    (vectors * LANES as u64)
        .saturating_mul(a_row)
        .saturating_add(16 * vectors)
        .saturating_add(latents.saturating_mul(scalar * (8 + 3 * particles) + 4))
        .saturating_add(sums_by_period)
        .saturating_add(posterior)
}
