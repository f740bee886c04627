//! The memory of a run, estimated before anything is allocated.

use crate::state::chunk_size;
use infermark_backend::{Precision, SviSettings};
use infermark_model::{Coordinates, Cut, Layout, Likelihood, Shard};

/// Lanes of the widest vectors.
const LANES: usize = 16;

/// Approximate bytes, in addition to the panel, of the run of a shard and of its part of the posterior.
///
/// Rows are stored in whole vectors of up to 16, only those that contain a row: 4 bytes per row of Poisson
/// counts in single precision. Under the negative binomial the count is stored as well, in double precision.
/// A latent has value and two moments of both its parameters, scale and slope, and three columns per
/// particle; a product has its index and its sums. The tests compare the estimate with the growth of the
/// resident memory. Rows that lie outside of memory are packed anew in every pass: `at_work` chunks at a time, one per thread.
pub(crate) fn bytes(
    shard: &Shard,
    cut: Cut,
    likelihood: Likelihood,
    settings: &SviSettings,
    at_work: usize,
) -> u64 {
    let layout = Layout {
        products: shard.products().len(),
        ..shard.layout_for(likelihood)
    };
    let scalar: u64 = match settings.precision {
        Precision::F32 => 4,
        Precision::F64 => 8,
    };
    let a_row = match likelihood {
        Likelihood::Poisson => scalar,
        Likelihood::NegativeBinomial => 12,
    };
    let particles = settings.particles as u64;
    let of_product = layout.periods.div_ceil(LANES);
    let vectors = match shard.panel().stored() {
        None => shard.rows().min(layout.products.saturating_mul(of_product)) as u64,
        Some(_) => (at_work * chunk_size(shard, settings) * of_product) as u64,
    };
    let latents = layout.latents() as u64;
    // Each category ends a chunk early. A mini-batch needs the units of its chunks as well.
    let chunks = layout.products / chunk_size(shard, settings) + layout.categories;
    let units = u64::from(settings.batch_products.is_some());
    let sums_by_period = (chunks as u64)
        .saturating_mul(layout.periods.next_multiple_of(LANES) as u64)
        .saturating_mul(8 * (particles + units));
    let posterior = 12 * 8 * latents;
    // A product's origin twice and its category, a period's share.
    let coordinates = match settings.coordinates {
        Coordinates::Published => 0,
        Coordinates::Orthogonal => {
            (12 + scalar) * layout.products as u64
                + 8 * (layout.categories as u64).saturating_mul(layout.periods as u64)
        }
    };
    // The share of the gradient, the gradient, and what the communicator holds of it: two numbers for each latent.
    let gradients = match cut {
        Cut::Product => 0,
        Cut::Row => 3 * 16 * latents,
    };
    // Isolated rows take a vector each; rows of dense products fill theirs.
    (vectors * LANES as u64)
        .saturating_mul(a_row)
        .saturating_add(16 * vectors)
        .saturating_add(latents.saturating_mul(scalar * (8 + 3 * particles) + 4))
        .saturating_add(32 * layout.products as u64)
        .saturating_add(coordinates)
        .saturating_add(gradients)
        .saturating_add(sums_by_period)
        .saturating_add(posterior)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::{Labels, Panel, PanelPart};
    use std::sync::Arc;

    fn panel(products: usize, periods: usize) -> Arc<Panel> {
        let mut part = PanelPart::with_capacity(10, periods, products, products * periods);
        for product in 0..products {
            part.push_product(product % 10, None, &vec![1.5; periods], &vec![2; periods])
                .unwrap();
        }
        let [p, c, t] =
            [("p", products), ("c", 10), ("t", periods)].map(|(axis, n)| Labels::numbered(axis, n));
        Arc::new(Panel::from_parts(p, c, t, vec![part]).unwrap())
    }

    /// Megabytes without the posterior, which was not asked for when these were measured.
    fn megabytes(panel: &Arc<Panel>, particles: usize) -> f64 {
        let settings = SviSettings {
            particles,
            ..SviSettings::default()
        };
        let posterior = 12 * 8 * panel.layout().latents() as u64;
        let shard = Shard::whole(panel.clone());
        (bytes(&shard, Cut::Product, Likelihood::Poisson, &settings, 1) - posterior) as f64 / 1e6
    }

    #[test]
    fn estimates_are_near_what_was_measured_and_not_below() {
        for (products, periods, particles, measured) in [
            (100_000, 156, 4, 98.0),
            (100_000, 156, 32, 168.0),
            (300_000, 5, 4, 83.0),
        ] {
            // A tenth of the products: all but the sums by period grows with them.
            let estimated = 10.0 * megabytes(&panel(products / 10, periods), particles);
            let ratio = estimated / measured;
            assert!(
                (1.0..1.6).contains(&ratio),
                "{products} x {periods}, K = {particles}: {estimated} MB"
            );
        }
    }
}
