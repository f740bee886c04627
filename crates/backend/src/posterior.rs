//! The posterior: marginal summaries of every natural parameter.

use infermark_model::{Layout, Site};

/// The 95% quantile of the standard normal.
pub const NORMAL_Q95: f64 = 1.644_853_626_951_472_7;
/// The 97.5% quantile of the standard normal.
pub const NORMAL_Q975: f64 = 1.959_963_984_540_054;

/// Marginal summaries in natural parameters; every vector has length [`Layout::latents`] and its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Posterior {
    /// The panel's sizes.
    pub layout: Layout,
    /// Means.
    pub mean: Vec<f64>,
    /// Standard deviations.
    pub sd: Vec<f64>,
    /// 2.5% quantiles; those of the normal where no draws were kept; the same holds for the other three.
    pub q025: Vec<f64>,
    /// 5% quantiles.
    pub q05: Vec<f64>,
    /// 95% quantiles.
    pub q95: Vec<f64>,
    /// 97.5% quantiles.
    pub q975: Vec<f64>,
    /// The chains' own error estimates.
    pub diagnostics: Option<ChainDiagnostics>,
}

/// Diagnostics of every latent, each vector of length [`Layout::latents`]; `NaN` where there are too few
/// draws.
///
/// They are of two kinds, depending on what was kept of a latent's site: all draws or, at large sizes, only
/// moments ([`draw_bytes_limit`](crate::NutsSettings::draw_bytes_limit)).
#[derive(Debug, Clone, PartialEq)]
pub struct ChainDiagnostics {
    /// Monte Carlo standard error of the mean: from the draws' autocorrelations, or by batch means.
    pub mcse_mean: Vec<f64>,
    /// Effective sample size. Draws kept: of the bulk, rank-normalised. Moments kept: of the mean, by batch means.
    pub ess_bulk: Vec<f64>,
    /// Effective sample size of the tails, the smaller of the 5% and 95% quantiles'. Moments kept: `NaN`.
    pub ess_tail: Vec<f64>,
    /// Split R-hat. Draws kept: the larger of the rank-normalised and the folded. Moments kept: the classic one.
    pub rhat: Vec<f64>,
}

impl Posterior {
    /// A posterior with normal marginals.
    ///
    /// # Panics
    /// When the vectors are not of length [`Layout::latents`].
    pub fn normal(layout: Layout, mean: Vec<f64>, sd: Vec<f64>) -> Self {
        assert_eq!(mean.len(), layout.latents());
        assert_eq!(sd.len(), layout.latents());
        let quantile = |q: f64| mean.iter().zip(&sd).map(|(m, s)| m + q * s).collect();
        Posterior {
            layout,
            q025: quantile(-NORMAL_Q975),
            q05: quantile(-NORMAL_Q95),
            q95: quantile(NORMAL_Q95),
            q975: quantile(NORMAL_Q975),
            mean,
            sd,
            diagnostics: None,
        }
    }

    /// Means of one site.
    pub fn site_mean(&self, site: Site) -> &[f64] {
        &self.mean[self.layout.range(site)]
    }

    /// Share of `truth` (one value per latent of the site) that lies in the central 95% intervals.
    pub fn coverage_95(&self, site: Site, truth: &[f64]) -> f64 {
        self.coverage(site, truth, &self.q025, &self.q975)
    }

    /// Share of `truth` that lies in the central 90% intervals.
    pub fn coverage_90(&self, site: Site, truth: &[f64]) -> f64 {
        self.coverage(site, truth, &self.q05, &self.q95)
    }

    fn coverage(&self, site: Site, truth: &[f64], low: &[f64], high: &[f64]) -> f64 {
        let range = self.layout.range(site);
        let inside = low[range.clone()]
            .iter()
            .zip(&high[range])
            .zip(truth)
            .filter(|((low, high), truth)| *low <= *truth && *truth <= *high)
            .count();
        inside as f64 / truth.len() as f64
    }

    /// Mean absolute error of one site's means against `truth`.
    pub fn mean_absolute_error(&self, site: Site, truth: &[f64]) -> f64 {
        let errors = self.site_mean(site).iter().zip(truth).map(|(m, t)| (m - t).abs());
        errors.sum::<f64>() / truth.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_and_error_by_hand() {
        let layout = Layout::new(2, 1, 1);
        let posterior = Posterior::normal(layout, vec![0.0; 7], vec![1.0; 7]);
        assert_eq!(posterior.coverage_95(Site::ProductA, &[1.9, 2.0]), 0.5);
        assert_eq!(posterior.coverage_90(Site::ProductA, &[1.64, -1.65]), 0.5);
        assert_eq!(posterior.mean_absolute_error(Site::ProductA, &[1.0, -3.0]), 2.0);
    }
}
