//! The posterior from the kept draws of the chains.

use crate::record::ChainRecord;
use infermark_backend::{ChainDiagnostics, NORMAL_Q95, NORMAL_Q975, Posterior};
use infermark_diagnostics::{StreamingSummary, Workspace, quantile};
use infermark_model::{Layout, Site};
use infermark_threads::run_parts;

/// Latents that are gathered from the draws at a time: a draw's entries of one block lie in a few cache lines.
const BLOCK: usize = 32;

/// Figures of one latent.
#[derive(Debug, Clone, Copy)]
struct Marginal {
    mean: f64,
    sd: f64,
    /// 2.5%, 5%, 95%, 97.5%.
    quantiles: [f64; 4],
    mcse_mean: f64,
    ess_bulk: f64,
    ess_tail: f64,
    rhat: f64,
}

/// Summarizes every latent, on `threads` threads; `None` while a chain has no draw after warm-up.
///
/// Kept sites are summarized from as many draws as every chain has. The others are summarized from their moments:
/// quantiles are those of the normal, R-hat is not rank-normalised, the bulk effective sample size is the mean's by
/// batch means, and there is no tail effective sample size.
pub(crate) fn summarize(records: &[&ChainRecord], layout: &Layout, threads: usize) -> Option<Posterior> {
    let draws = records.iter().map(|r| r.statistics.len()).min()?;
    if draws == 0 {
        return None;
    }
    let mut marginals = Vec::with_capacity(layout.latents());
    for site in layout.sites().iter().copied() {
        let count = layout.len(site);
        let first = marginals.len();
        marginals.resize(first + count, None);
        let share = count.div_ceil(threads).next_multiple_of(BLOCK);
        run_parts(
            marginals[first..]
                .chunks_mut(share)
                .enumerate()
                .map(|(part, out)| {
                    let start = part * share;
                    move || match records[0].site_draw(site, 0) {
                        Some(_) => from_draws(records, site, start, draws, out),
                        None => from_moments(records, layout.start(site) + start, out),
                    }
                }),
        );
    }
    let marginals: Vec<Marginal> = marginals
        .into_iter()
        .map(|m| m.expect("every latent was summarized"))
        .collect();
    let column = |f: fn(&Marginal) -> f64| marginals.iter().map(f).collect();
    Some(Posterior {
        layout: *layout,
        mean: column(|m| m.mean),
        sd: column(|m| m.sd),
        q025: column(|m| m.quantiles[0]),
        q05: column(|m| m.quantiles[1]),
        q95: column(|m| m.quantiles[2]),
        q975: column(|m| m.quantiles[3]),
        diagnostics: Some(ChainDiagnostics {
            mcse_mean: column(|m| m.mcse_mean),
            ess_bulk: column(|m| m.ess_bulk),
            ess_tail: column(|m| m.ess_tail),
            rhat: column(|m| m.rhat),
        }),
    })
}

/// Latents `start ..` of a kept site.
fn from_draws(
    records: &[&ChainRecord],
    site: Site,
    start: usize,
    draws: usize,
    out: &mut [Option<Marginal>],
) {
    let mut workspace = Workspace::new();
    let of_latent = records.len() * draws;
    let mut gathered = vec![0.0; BLOCK * of_latent];
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let first = start + block * BLOCK;
        for (chain, record) in records.iter().enumerate() {
            for draw in 0..draws {
                let values = record.site_draw(site, draw).expect("a kept site");
                for (k, value) in values[first..first + out.len()].iter().enumerate() {
                    gathered[k * of_latent + chain * draws + draw] = *value;
                }
            }
        }
        for (latent, marginal) in gathered.chunks_exact(of_latent).zip(out) {
            let chains: Vec<&[f64]> = latent.chunks_exact(draws).collect();
            let d = workspace.diagnose(&chains);
            *marginal = Some(Marginal {
                mean: d.mean,
                sd: d.sd,
                quantiles: [0.025, 0.05, 0.95, 0.975].map(|p| quantile(workspace.sorted(), p)),
                mcse_mean: d.mcse_mean,
                ess_bulk: d.ess_bulk,
                ess_tail: d.ess_tail,
                rhat: d.rhat,
            });
        }
    }
}

/// Latents `start ..` of the flat vector, from their moments.
fn from_moments(records: &[&ChainRecord], start: usize, out: &mut [Option<Marginal>]) {
    let chains: Vec<_> = records.iter().filter_map(|r| r.moments.as_ref()).collect();
    for (k, marginal) in out.iter_mut().enumerate() {
        let s = StreamingSummary::of(&chains, start + k);
        *marginal = Some(Marginal {
            mean: s.mean,
            sd: s.sd,
            quantiles: [-NORMAL_Q975, -NORMAL_Q95, NORMAL_Q95, NORMAL_Q975].map(|q| s.mean + q * s.sd),
            mcse_mean: s.mcse_mean,
            ess_bulk: s.ess,
            ess_tail: f64::NAN,
            rhat: s.rhat,
        });
    }
}
