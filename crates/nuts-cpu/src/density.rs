//! The log density that is sampled: a value and its gradient.

use crate::whitening::Whitening;
use infermark_cpu_kernels::FusedLogJoint;
use infermark_model::{Centredness, Likelihood, Panel, Priors};
use std::sync::Arc;

/// A log density over real vectors.
pub(crate) trait Density {
    /// Length of the vectors.
    fn dimension(&self) -> usize;

    /// The log density at `z`; its gradient is written to `gradient`. Both have [`Density::dimension`] entries.
    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64;

    /// Threads that the gradient uses.
    fn threads(&self) -> usize {
        1
    }

    /// Coordinates in which it is close to a standard normal, if they are known; the sampler then moves in
    /// these.
    fn whitening(&self) -> Option<Arc<Whitening>> {
        None
    }
}

/// The log joint of a panel, in `z` of fixed centredness.
pub(crate) struct PanelDensity {
    latents: usize,
    log_joint: FusedLogJoint,
    whitening: Option<Arc<Whitening>>,
}

impl PanelDensity {
    /// The log joint of `panel`, whose gradient uses `threads` threads.
    pub(crate) fn new(
        panel: &Arc<Panel>,
        likelihood: Likelihood,
        priors: Priors,
        centredness: Centredness,
        threads: usize,
    ) -> Self {
        PanelDensity {
            latents: panel.layout_for(likelihood).latents(),
            log_joint: FusedLogJoint::of_counts(likelihood, panel.clone(), priors, centredness, threads),
            whitening: None,
        }
    }

    /// A clone whose gradient uses `threads` threads, to be sampled in these coordinates.
    pub(crate) fn with_threads(&self, threads: usize, whitening: Option<Arc<Whitening>>) -> Self {
        PanelDensity {
            latents: self.latents,
            log_joint: self.log_joint.with_threads(threads),
            whitening,
        }
    }

    /// Bytes of the densities of `chains` chains, whose gradients use `threads` threads in total.
    pub(crate) fn bytes(panel: &Panel, chains: usize, threads: usize) -> u64 {
        FusedLogJoint::bytes(panel, chains, threads)
    }
}

impl Density for PanelDensity {
    fn dimension(&self) -> usize {
        self.latents
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        self.log_joint.value_and_gradient(z, gradient)
    }

    fn threads(&self) -> usize {
        self.log_joint.threads()
    }

    fn whitening(&self) -> Option<Arc<Whitening>> {
        self.whitening.clone()
    }
}
