//! Calibration of elasticities: at each nominal level, the share of true values inside the intervals.

use infermark_backend::{Posterior, SiteDraws};
use infermark_diagnostics::{normal_quantile, quantile};
use infermark_model::Site;
use serde::{Deserialize, Serialize};

/// The nominal levels.
pub const LEVELS: [f64; 11] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

/// What the central intervals of one level cover.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CoveragePoint {
    /// The level, 0 to 1: what the intervals should cover.
    pub nominal: f64,
    /// The share of true values that they cover.
    pub actual: f64,
}

/// The share of `truth` (one elasticity per product) in the central intervals of each of [`LEVELS`].
///
/// The quantiles of `draws`, those of the elasticities, bound the intervals, where draws were kept. Otherwise at 90% and 95%
/// the posterior's own quantiles do, and at the other levels those of the normal with its mean and standard deviation.
///
/// # Panics
/// When `truth` or `draws` are not of the posterior's panel.
pub fn coverage(posterior: &Posterior, draws: Option<&SiteDraws>, truth: &[f64]) -> Vec<CoveragePoint> {
    let range = posterior.layout.range(Site::ProductA);
    let products = range.len();
    assert_eq!(truth.len(), products, "one true elasticity a product");
    if products == 0 {
        return Vec::new();
    }
    let mut inside = [0_usize; LEVELS.len()];
    let mut sorted = Vec::new();
    for (product, truth) in truth.iter().enumerate() {
        let latent = range.start + product;
        if let Some(draws) = draws {
            sorted.clear();
            sorted.extend(draws.values.iter().skip(product).step_by(products));
            sorted.sort_by(f64::total_cmp);
        }
        for (count, level) in inside.iter_mut().zip(LEVELS) {
            let tail = 0.5 * (1.0 - level);
            let (low, high) = if !sorted.is_empty() {
                (quantile(&sorted, tail), quantile(&sorted, 1.0 - tail))
            } else if level == 0.9 {
                (posterior.q05[latent], posterior.q95[latent])
            } else if level == 0.95 {
                (posterior.q025[latent], posterior.q975[latent])
            } else {
                let half = normal_quantile(1.0 - tail) * posterior.sd[latent];
                (posterior.mean[latent] - half, posterior.mean[latent] + half)
            };
            *count += usize::from(low <= *truth && *truth <= high);
        }
    }
    LEVELS
        .iter()
        .zip(inside)
        .map(|(nominal, count)| CoveragePoint {
            nominal: *nominal,
            actual: count as f64 / products as f64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Layout;

    /// A posterior of standard normals, and for each product a truth at another quantile of it.
    fn standard(products: usize) -> (Posterior, Vec<f64>) {
        let layout = Layout::new(products, 1, 1);
        let (mean, sd) = (vec![0.0; layout.latents()], vec![1.0; layout.latents()]);
        let truth = (0..products)
            .map(|i| normal_quantile((i as f64 + 0.5) / products as f64))
            .collect();
        (Posterior::normal(layout, mean, sd), truth)
    }

    fn largest_error(points: &[CoveragePoint]) -> f64 {
        let errors = points.iter().map(|p| (p.actual - p.nominal).abs());
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn truth_drawn_from_the_posterior_is_covered_as_the_levels_say() {
        let (posterior, truth) = standard(1000);
        let points = coverage(&posterior, None, &truth);
        assert_eq!(points.iter().map(|p| p.nominal).collect::<Vec<_>>(), LEVELS);
        // The grid of a thousand quantiles: one product more or less at each end.
        assert!(largest_error(&points) <= 2e-3, "{points:?}");
        let narrow = Posterior::normal(posterior.layout, posterior.mean, vec![0.5; posterior.sd.len()]);
        // Intervals of half the width at level 50% hold 26% of a normal: 2 Phi(0.67449 / 2) - 1.
        let half = coverage(&narrow, None, &truth)[4];
        assert!((half.actual - 0.264).abs() <= 2e-3, "{half:?}");
    }

    #[test]
    fn draws_bound_the_intervals_where_they_were_kept() {
        let (posterior, truth) = standard(40);
        // A posterior that covers nothing: what is covered comes from the draws.
        let nothing = Posterior::normal(posterior.layout, posterior.mean, vec![1e-9; posterior.sd.len()]);
        let values = (0..1000)
            .flat_map(|d| std::iter::repeat_n(normal_quantile((d as f64 + 0.5) / 1000.0), 40))
            .collect();
        let draws = SiteDraws {
            site: Site::ProductA,
            values,
        };
        let points = coverage(&nothing, Some(&draws), &truth);
        // Forty products: steps of 2.5%.
        assert!(largest_error(&points) <= 0.026, "{points:?}");
        assert_eq!(coverage(&nothing, None, &truth)[10].actual, 0.0);
    }
}
