//! Draws of Markov chains, as far as they are kept.

use infermark_model::{Layout, Site};
use serde::{Deserialize, Serialize};

/// The draws of a site, in natural parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteDraws {
    /// The site.
    pub site: Site,
    /// Values, `chains * draws * len(site)`: chain-major, then draw, then latent.
    pub values: Vec<f64>,
}

/// The sampler's statistics of one draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DrawStatistics {
    /// The trajectory's energy error passed the limit.
    pub diverging: bool,
    /// Doublings of the trajectory.
    pub tree_depth: u32,
    /// Integrator steps of the trajectory.
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
    /// One entry per draw, chain-major.
    pub statistics: Vec<DrawStatistics>,
}

impl Draws {
    /// A draw as natural parameters, of length [`Layout::latents`]; `draw` counts all draws of the first
    /// chain, then those of the second, and so on. `None` when a site was not kept.
    ///
    /// # Panics
    /// When there is no such draw.
    pub fn point(&self, draw: usize) -> Option<Vec<f64>> {
        let mut point = vec![0.0; self.layout.latents()];
        for site in self.layout.sites() {
            let kept = self.sites.iter().find(|kept| kept.site == *site)?;
            let width = self.layout.len(*site);
            point[self.layout.range(*site)].copy_from_slice(&kept.values[draw * width..][..width]);
        }
        Some(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_a_point_where_all_sites_were_kept() {
        let layout = Layout::new(2, 1, 3);
        let mut draws = Draws {
            layout,
            chains: 1,
            draws: 2,
            sites: layout
                .sites()
                .iter()
                .map(|site| SiteDraws {
                    site: *site,
                    values: (0..2 * layout.len(*site))
                        .map(|k| (10 * site.index() + k) as f64)
                        .collect(),
                })
                .collect(),
            statistics: Vec::new(),
        };
        assert_eq!(
            draws.point(1).unwrap(),
            [1.0, 11.0, 22.0, 23.0, 32.0, 33.0, 43.0, 44.0, 45.0]
        );
        draws.sites.remove(3);
        assert_eq!(draws.point(1), None);
    }
}
