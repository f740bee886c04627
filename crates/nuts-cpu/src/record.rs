//! The record of a chain: every draw if all of them fit, otherwise moments of every latent and the draws of
//! chosen sites.

use crate::sampler::SamplerState;
use infermark_backend::{ChainReport, DrawStatistics, NutsSettings};
use infermark_diagnostics::StreamingChain;
use infermark_model::{Layout, Site};
use serde::{Deserialize, Serialize};

/// Which draws are kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Retention {
    /// All draws of all latents.
    Every,
    /// Moments of all latents, and the draws of these sites, in the order of the flat vector.
    Moments(Vec<Site>),
}

impl Retention {
    /// The retention that the settings' limit allows on a panel of these sizes.
    pub(crate) fn of(settings: &NutsSettings, layout: &Layout) -> Self {
        if bytes_of_draws(settings, layout.latents()) <= settings.draw_bytes_limit {
            return Retention::Every;
        }
        let mut sites = settings.sites_beyond_limit.clone();
        sites.sort_unstable();
        sites.dedup();
        sites.retain(|site| layout.sites().contains(site));
        Retention::Moments(sites)
    }

    /// Bytes that all chains together will keep, and the copy that callers get of the draws.
    pub(crate) fn bytes(&self, settings: &NutsSettings, layout: &Layout) -> u64 {
        let twice = |latents| bytes_of_draws(settings, latents).saturating_mul(2);
        match self {
            Retention::Every => twice(layout.latents()),
            Retention::Moments(sites) => {
                let chosen = sites.iter().map(|s| layout.len(*s)).sum();
                let moments = settings.chains as u64 * StreamingChain::bytes(layout.latents());
                twice(chosen).saturating_add(moments)
            }
        }
    }

    /// The sites whose draws are kept.
    pub(crate) fn sites(&self, layout: &Layout) -> &[Site] {
        match self {
            Retention::Every => layout.sites(),
            Retention::Moments(sites) => sites,
        }
    }
}

fn bytes_of_draws(settings: &NutsSettings, latents: usize) -> u64 {
    (settings.chains as u64)
        .saturating_mul(settings.draws)
        .saturating_mul(8 * latents as u64)
}

/// The sampler's figures of one draw, in warm-up or after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawOutcome {
    /// The statistics that are exported after warm-up.
    pub statistics: DrawStatistics,
    /// The trajectory met the limit of steps.
    pub saturated: bool,
    /// Gradients computed, including those of a search for the first step size.
    pub gradients: u64,
    /// Seconds of work.
    pub seconds: f64,
    /// Step size without jitter after the draw.
    pub step_size: f64,
}

/// The record of one chain, all of which is in a checkpoint but what follows from the request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ChainRecord {
    layout: Layout,
    /// Counts and times.
    pub report: ChainReport,
    /// Divergent transitions after warm-up.
    pub divergences: u64,
    /// Draws after warm-up whose trajectory met the limit of steps.
    pub saturated: u64,
    /// Draws after warm-up by depth.
    pub depths: Vec<u64>,
    /// The last draw's depth, warm-up included.
    pub last_depth: u32,
    /// One entry per draw after warm-up.
    pub statistics: Vec<DrawStatistics>,
    /// Kept sites, in the order of [`Retention::sites`]; draw after draw, each of the sites' latents.
    kept: Vec<f64>,
    /// Offset of each kept site in an entry of `kept`.
    #[serde(skip)]
    kept_sites: Vec<(Site, usize)>,
    #[serde(skip)]
    kept_latents: usize,
    /// Moments of all latents, if not every draw is kept.
    pub moments: Option<StreamingChain>,
    /// The sampler's state after the last draw; `None` before the first, and for a sampler that cannot go on from one.
    pub sampler: Option<SamplerState>,
}

impl ChainRecord {
    /// An empty record.
    pub(crate) fn new(layout: Layout, retention: &Retention, settings: &NutsSettings) -> Self {
        let mut kept_sites = Vec::new();
        let mut kept_latents = 0;
        for site in retention.sites(&layout) {
            kept_sites.push((*site, kept_latents));
            kept_latents += layout.len(*site);
        }
        ChainRecord {
            layout,
            report: ChainReport {
                warmup_draws: 0,
                draws: 0,
                warmup_gradients: 0,
                gradients: 0,
                warmup_seconds: 0.0,
                seconds: 0.0,
                step_size: 0.0,
                acceptance: None,
            },
            divergences: 0,
            saturated: 0,
            depths: vec![0; settings.max_depth as usize + 1],
            last_depth: 0,
            statistics: Vec::new(),
            kept: Vec::new(),
            kept_sites,
            kept_latents,
            moments: matches!(retention, Retention::Moments(_))
                .then(|| StreamingChain::new(layout.latents())),
            sampler: None,
        }
    }

    /// This record, which is empty, with what `saved` holds of a chain of the same request; `None` if that is of another.
    pub(crate) fn gone_on_from(self, saved: ChainRecord) -> Option<Self> {
        let draws = saved.statistics.len();
        let state_fits = match &saved.sampler {
            Some(state) => state.position.len() == self.layout.latents(),
            None => saved.all_draws() == 0,
        };
        let moments_fit = match (&self.moments, &saved.moments) {
            (Some(own), Some(saved)) => {
                own.quantities() == saved.quantities() && saved.draws() == draws as u64
            }
            (own, saved) => own.is_none() && saved.is_none(),
        };
        let fits = saved.layout == self.layout
            && saved.report.draws == draws as u64
            && saved.kept.len() == draws * self.kept_latents
            && saved.depths.len() == self.depths.len()
            && state_fits
            && moments_fit;
        fits.then_some(ChainRecord {
            kept_sites: self.kept_sites,
            kept_latents: self.kept_latents,
            ..saved
        })
    }

    /// Draws made, warm-up included.
    pub(crate) fn all_draws(&self) -> u64 {
        self.report.warmup_draws + self.report.draws
    }

    /// Counts a draw of the warm-up.
    pub(crate) fn push_warmup(&mut self, outcome: &DrawOutcome) {
        self.report.warmup_draws += 1;
        self.report.warmup_gradients += outcome.gradients;
        self.report.warmup_seconds += outcome.seconds;
        self.report.step_size = outcome.step_size;
        self.last_depth = outcome.statistics.tree_depth;
    }

    /// Adds a draw after warm-up; `natural` has one entry per latent.
    pub(crate) fn push_draw(&mut self, outcome: &DrawOutcome, natural: &[f64]) {
        let depth = outcome.statistics.tree_depth;
        self.report.draws += 1;
        self.report.gradients += outcome.gradients;
        self.report.seconds += outcome.seconds;
        self.report.step_size = outcome.step_size;
        let mean = self.report.acceptance.unwrap_or(0.0);
        self.report.acceptance =
            Some(mean + (outcome.statistics.acceptance - mean) / self.report.draws as f64);
        self.divergences += u64::from(outcome.statistics.diverging);
        self.saturated += u64::from(outcome.saturated);
        self.depths[depth as usize] += 1;
        self.last_depth = depth;
        self.statistics.push(outcome.statistics);
        for (site, _) in &self.kept_sites {
            self.kept.extend_from_slice(&natural[self.layout.range(*site)]);
        }
        if let Some(moments) = &mut self.moments {
            moments.push(natural);
        }
    }

    /// Takes what another rank has recorded of the chain, whose request is the same.
    pub(crate) fn replace(&mut self, recorded: ChainRecord) {
        *self = ChainRecord {
            kept_sites: std::mem::take(&mut self.kept_sites),
            kept_latents: self.kept_latents,
            ..recorded
        };
    }

    /// The values of all latents of a site in one draw; `None` when the site is not kept.
    pub(crate) fn site_draw(&self, site: Site, draw: usize) -> Option<&[f64]> {
        let (_, start) = self.kept_sites.iter().find(|(s, _)| *s == site)?;
        Some(&self.kept[draw * self.kept_latents + start..][..self.layout.len(site)])
    }
}
