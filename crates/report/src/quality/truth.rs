//! Quality, in addition to speed: distance from the truth, and the chains' own error estimates.

use crate::quality::coverage::{CoveragePoint, coverage};
use infermark_backend::{NutsReport, Posterior, SiteDraws, chains_have_converged};
use infermark_model::noise::Stream;
use infermark_model::{Panel, Site};
use serde::{Deserialize, Serialize};

/// Elasticities kept for the plot against truth; of more products a random sample is kept.
pub const SAMPLE: usize = 300;

/// A posterior interval and the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElasticityInterval {
    /// True elasticity.
    pub truth: f64,
    /// Posterior mean.
    pub mean: f64,
    /// 5% quantile.
    pub q05: f64,
    /// 95% quantile.
    pub q95: f64,
}

/// Distance of product elasticities from the truth that the data was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TruthQuality {
    /// Iterations (draws per chain for samplers) after which it was taken.
    pub after: u64,
    /// Seconds of advancing until then.
    pub seconds: f64,
    /// Mean absolute error of the posterior means of `product_a`.
    pub product_a_mae: f64,
    /// Share of true `product_a` in the 90% intervals.
    pub product_a_coverage_90: f64,
    /// Share of true `product_a` in the 95% intervals.
    pub product_a_coverage_95: f64,
    /// The coverage of the intervals at each nominal level; empty in records from before it was measured.
    #[serde(default)]
    pub coverage: Vec<CoveragePoint>,
    /// How many products these are over.
    pub products: usize,
    /// A random sample of the intervals, at most [`SAMPLE`].
    pub sample: Vec<ElasticityInterval>,
}

impl TruthQuality {
    /// Compares `posterior` with the true elasticities, one per product; `None` when they are not of the same number or
    /// the posterior is not finite. `draws` are those of `product_a`, where a sampler kept them.
    pub fn new(
        posterior: &Posterior,
        draws: Option<&SiteDraws>,
        truth: &[f64],
        after: u64,
        seconds: f64,
    ) -> Option<Self> {
        let range = posterior.layout.range(Site::ProductA);
        let mae = posterior.mean_absolute_error(Site::ProductA, truth);
        if truth.len() != range.len() || !mae.is_finite() {
            return None;
        }
        let sample = sample_of(truth.len(), SAMPLE)
            .into_iter()
            .map(|k| ElasticityInterval {
                truth: truth[k],
                mean: posterior.mean[range.start + k],
                q05: posterior.q05[range.start + k],
                q95: posterior.q95[range.start + k],
            })
            .collect();
        Some(TruthQuality {
            after,
            seconds,
            product_a_mae: mae,
            product_a_coverage_90: posterior.coverage_90(Site::ProductA, truth),
            product_a_coverage_95: posterior.coverage_95(Site::ProductA, truth),
            coverage: coverage(posterior, draws, truth),
            products: truth.len(),
            sample,
        })
    }
}

/// `count` of the indices below `n`, at random but always the same ones, ascending; all when there are no more.
pub fn sample_of(n: usize, count: usize) -> Vec<usize> {
    if n <= count {
        return (0..n).collect();
    }
    let stream = Stream {
        seed: 1,
        iteration: 0,
    };
    // The `count` indices of the smallest keys are a simple random sample.
    let mut keyed: Vec<([u32; 2], usize)> = (0..n)
        .map(|i| {
            let u = stream.uniforms(i as u64, 0);
            ([u[0].to_bits(), u[1].to_bits()], i)
        })
        .collect();
    keyed.select_nth_unstable(count);
    let mut chosen: Vec<usize> = keyed[..count].iter().map(|k| k.1).collect();
    chosen.sort_unstable();
    chosen
}

/// Posterior of a category's elasticity, with those of its products.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryElasticity {
    /// The category.
    pub category: String,
    /// Posterior mean of `category_a`.
    pub mean: f64,
    /// 5% quantile of `category_a`.
    pub q05: f64,
    /// 95% quantile of `category_a`.
    pub q95: f64,
    /// 5%, 25%, 50%, 75% and 95% points of the posterior means of its products' `product_a`.
    pub product_means: [f64; 5],
    /// Products in the category.
    pub products: usize,
}

/// The elasticities by category, in the panel's order.
pub fn elasticities_by_category(panel: &Panel, posterior: &Posterior) -> Vec<CategoryElasticity> {
    let layout = panel.layout();
    let mut means: Vec<Vec<f64>> = vec![Vec::new(); layout.categories];
    for (mean, category) in posterior
        .site_mean(Site::ProductA)
        .iter()
        .zip(panel.category_of())
    {
        means[*category as usize].push(*mean);
    }
    let start = layout.start(Site::CategoryA);
    means
        .into_iter()
        .enumerate()
        .map(|(c, mut means)| {
            means.sort_by(f64::total_cmp);
            CategoryElasticity {
                category: panel.categories().get(c).to_string(),
                mean: posterior.mean[start + c],
                q05: posterior.q05[start + c],
                q95: posterior.q95[start + c],
                product_means: [0.05, 0.25, 0.5, 0.75, 0.95].map(|q| quantile(&means, q)),
                products: means.len(),
            }
        })
        .collect()
}

/// Quantile of sorted values by linear interpolation between order statistics; every category has a product.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// The results of a short run of chains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChainQuality {
    /// Whether all requested draws were made, rather than the time being up.
    pub finished: bool,
    /// Chains.
    pub chains: usize,
    /// Warm-up draws of each chain.
    pub warmup: u64,
    /// Draws of the chain with the fewest, after warm-up.
    pub draws: u64,
    /// Wall-clock seconds, warm-up included, all chains together.
    pub seconds: f64,
    /// The part of `seconds` after warm-up, as reported by the longest chain.
    pub draw_seconds: f64,
    /// Smallest bulk effective sample size over all latents.
    pub min_ess_bulk: Option<f64>,
    /// Smallest tail effective sample size over all latents.
    pub min_ess_tail: Option<f64>,
    /// Largest R-hat over all latents.
    pub max_rhat: Option<f64>,
    /// Divergent transitions after warm-up.
    pub divergences: u64,
    /// Draws whose tree met the depth limit.
    pub saturated_trees: u64,
    /// Gradients, all chains, warm-up included.
    pub gradients: u64,
}

impl ChainQuality {
    /// Whether the chains have converged, as far as their diagnostics go.
    pub fn has_converged(&self) -> bool {
        chains_have_converged(
            self.divergences,
            self.max_rhat,
            self.min_ess_bulk,
            self.min_ess_tail,
        )
    }

    /// From the report of a run that took `seconds`.
    pub fn new(report: &NutsReport, warmup: u64, seconds: f64, finished: bool) -> Self {
        let chains = &report.chains;
        ChainQuality {
            finished,
            chains: chains.len(),
            warmup,
            draws: chains.iter().map(|c| c.draws).min().unwrap_or(0),
            seconds,
            draw_seconds: chains.iter().map(|c| c.seconds).fold(0.0, f64::max),
            min_ess_bulk: report.min_ess_bulk.filter(|e| e.is_finite()),
            min_ess_tail: report.min_ess_tail.filter(|e| e.is_finite()),
            max_rhat: report.max_rhat.filter(|r| r.is_finite()),
            divergences: report.divergences,
            saturated_trees: report.saturated_trees,
            gradients: report.gradients,
        }
    }

    /// Smallest bulk effective sample size over the seconds of the whole run, warm-up included.
    pub fn ess_per_second(&self) -> Option<f64> {
        self.min_ess_bulk
            .map(|e| e / self.seconds)
            .filter(|e| e.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_the_same_each_time_and_spread_out() {
        let chosen = sample_of(100_000, 300);
        assert_eq!(chosen, sample_of(100_000, 300));
        assert_eq!(chosen.len(), 300);
        assert!(chosen.is_sorted_by(|a, b| a < b));
        let mean = chosen.iter().sum::<usize>() as f64 / 300.0;
        // Five standard errors of the mean of uniform indices.
        assert!((mean - 5e4).abs() < 5.0 * 1e5 / (12f64 * 300.0).sqrt());
        assert_eq!(sample_of(3, 300), [0, 1, 2]);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.3), 5.0);
    }
}
