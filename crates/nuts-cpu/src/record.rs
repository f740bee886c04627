//! The record of a chain: every draw if all of them fit, otherwise moments of every latent and the draws of
//! chosen sites.

use infermark_backend::{ChainReport, DrawStatistics, NutsSettings};
use infermark_diagnostics::StreamingChain;
use infermark_model::{Layout, Site};

/// Figures of a draw in [`DrawStatistics`].
const STATISTICS: usize = 7;

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

/// The record of one chain.
#[derive(Debug)]
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
    kept_sites: Vec<(Site, usize)>,
    kept_latents: usize,
    /// Moments of all latents, if not every draw is kept.
    pub moments: Option<StreamingChain>,
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
        }
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

    /// All that is recorded, as plain numbers, for another rank.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        let report = &self.report;
        let mut numbers = vec![
            report.warmup_draws as f64,
            report.draws as f64,
            report.warmup_gradients as f64,
            report.gradients as f64,
            report.warmup_seconds,
            report.seconds,
            report.step_size,
            f64::from(u8::from(report.acceptance.is_some())),
            report.acceptance.unwrap_or(0.0),
            self.divergences as f64,
            self.saturated as f64,
            f64::from(self.last_depth),
        ];
        numbers.extend(self.depths.iter().map(|count| *count as f64));
        for of in &self.statistics {
            numbers.extend([
                f64::from(u8::from(of.diverging)),
                f64::from(of.tree_depth),
                f64::from(of.leapfrog_steps),
                of.acceptance,
                of.step_size,
                of.energy,
                of.log_joint,
            ]);
        }
        numbers.extend_from_slice(&self.kept);
        if let Some(moments) = &self.moments {
            numbers.extend(moments.numbers());
        }
        numbers
    }

    /// Takes what another rank has recorded of the chain: the inverse of [`ChainRecord::numbers`].
    ///
    /// # Panics
    /// When it was recorded with other settings.
    pub(crate) fn take(&mut self, numbers: &[f64]) {
        let mut rest = numbers;
        let mut next = |count: usize| {
            let (own, others) = rest.split_at(count);
            rest = others;
            own
        };
        let counts = |of: &[f64]| of.iter().map(|count| *count as u64).collect::<Vec<u64>>();
        let draws = counts(next(4));
        let times = next(3);
        let acceptance = next(2);
        let [divergences, saturated, last_depth] = counts(next(3))[..] else {
            unreachable!("three were taken")
        };
        self.report = ChainReport {
            warmup_draws: draws[0],
            draws: draws[1],
            warmup_gradients: draws[2],
            gradients: draws[3],
            warmup_seconds: times[0],
            seconds: times[1],
            step_size: times[2],
            acceptance: (acceptance[0] == 1.0).then_some(acceptance[1]),
        };
        (self.divergences, self.saturated) = (divergences, saturated);
        self.last_depth = last_depth as u32;
        self.depths = counts(next(self.depths.len()));
        let draws = draws[1] as usize;
        let statistics = next(STATISTICS * draws).chunks_exact(STATISTICS);
        let statistics = statistics.map(|of| DrawStatistics {
            diverging: of[0] == 1.0,
            tree_depth: of[1] as u32,
            leapfrog_steps: of[2] as u32,
            acceptance: of[3],
            step_size: of[4],
            energy: of[5],
            log_joint: of[6],
        });
        self.statistics = statistics.collect();
        self.kept = next(self.kept_latents * draws).to_vec();
        if self.moments.is_some() {
            self.moments = Some(StreamingChain::of_numbers(rest, self.layout.latents()));
        }
    }

    /// The values of all latents of a site in one draw; `None` when the site is not kept.
    pub(crate) fn site_draw(&self, site: Site, draw: usize) -> Option<&[f64]> {
        let (_, start) = self.kept_sites.iter().find(|(s, _)| *s == site)?;
        Some(&self.kept[draw * self.kept_latents + start..][..self.layout.len(site)])
    }
}
