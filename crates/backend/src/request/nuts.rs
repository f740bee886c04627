//! Settings of NUTS.

use crate::error::BackendError;
use crate::metric::Metric;
use infermark_model::Site;
use serde::{Deserialize, Serialize};

/// Settings of NUTS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NutsSettings {
    /// Chains.
    pub chains: usize,
    /// Warm-up draws of each chain, which tune step size and metric and are not kept.
    pub warmup: u64,
    /// Draws of each chain after warm-up.
    pub draws: u64,
    /// Target mean acceptance statistic.
    pub target_accept: f64,
    /// Limit of the doublings of a trajectory, which has at most `2^max_depth - 1` steps.
    pub max_depth: u32,
    /// Mass matrix.
    pub metric: Metric,
    /// All draws are kept if they take at most this many bytes; otherwise moments of every latent and the
    /// draws of `sites_beyond_limit` are.
    pub draw_bytes_limit: u64,
    /// Sites whose draws are kept when not all can be.
    pub sites_beyond_limit: Vec<Site>,
}

impl Default for NutsSettings {
    fn default() -> Self {
        NutsSettings {
            chains: 4,
            warmup: Metric::default().default_warmup(),
            draws: 1000,
            target_accept: Metric::default().default_target_accept(),
            max_depth: 10,
            metric: Metric::default(),
            draw_bytes_limit: 2 << 30,
            sites_beyond_limit: Site::parents().collect(),
        }
    }
}

impl NutsSettings {
    /// The defaults under the diagonal metric.
    pub fn diagonal() -> Self {
        NutsSettings {
            metric: Metric::Diagonal,
            warmup: Metric::Diagonal.default_warmup(),
            target_accept: Metric::Diagonal.default_target_accept(),
            ..NutsSettings::default()
        }
    }

    pub(super) fn validate(&self) -> Result<(), BackendError> {
        let refuse = |text: String| Err(BackendError::request(text));
        if self.chains == 0 || self.chains > 1024 {
            return refuse(format!("chains is {}; give 1 to 1024", self.chains));
        }
        if self.draws == 0 {
            return refuse("draws is 0; give at least 1".into());
        }
        if !(self.target_accept > 0.0 && self.target_accept < 1.0) {
            return refuse(format!(
                "target_accept is {}; give a number between 0 and 1",
                self.target_accept
            ));
        }
        if self.max_depth == 0 || self.max_depth > 20 {
            return refuse(format!("max_depth is {}; give 1 to 20", self.max_depth));
        }
        Ok(())
    }
}
