//! Draws of Markov chains, as far as they are kept.

use infermark_model::{Layout, Site};

/// The draws of a site, in natural parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteDraws {
    /// The site.
    pub site: Site,
    /// Values, `chains * draws * len(site)`: chain-major, then draw, then latent.
    pub values: Vec<f64>,
}

/// What the sampler says of one draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrawStatistics {
    /// The trajectory's energy error passed the limit.
    pub diverging: bool,
    /// Doublings of the trajectory.
    pub tree_depth: u32,
    /// Leapfrog steps of the trajectory.
    pub leapfrog_steps: u32,
    /// Mean acceptance probability of the trajectory.
    pub acceptance: f64,
    /// Step size used.
    pub step_size: f64,
    /// Hamiltonian at the draw.
    pub energy: f64,
    /// Log joint at the draw.
    pub log_joint: f64,
}

/// The kept draws of all chains after warm-up.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// The panel's sizes.
    pub layout: Layout,
    /// Chains.
    pub chains: usize,
    /// Draws of each chain.
    pub draws: usize,
    /// The sites that were kept; all of them on panels small enough.
    pub sites: Vec<SiteDraws>,
    /// One entry a draw, chain-major.
    pub statistics: Vec<DrawStatistics>,
}
