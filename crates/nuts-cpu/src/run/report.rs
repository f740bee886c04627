//! The report of a run, and warnings for readers of its posterior.

use super::NutsRun;
use crate::hmc::LONGEST_STEP;
use crate::record::Retention;
use infermark_backend::{
    ChainDiagnostics, ChainReport, Detail, ESS_LIMIT, Metric, NutsReport, NutsSettings, NutsWarning,
    RHAT_LIMIT, Report, RunState, Warning,
};
use infermark_model::Parameterization;
use infermark_processor::processor_name;

impl NutsRun {
    /// The report of the run at this point.
    pub(super) fn report_of_backend(&self, backend: &str) -> Report {
        let diagnostics = self.summary().and_then(|p| p.diagnostics);
        let records = self.records();
        let gradients = NutsRun::gradients_of(&records);
        let mut tree_depths = vec![0; self.settings.max_depth as usize + 1];
        for record in &records {
            for (total, count) in tree_depths.iter_mut().zip(&record.depths) {
                *total += count;
            }
        }
        let extreme = |column: fn(&ChainDiagnostics) -> &Vec<f64>, better: fn(f64, f64) -> f64| {
            diagnostics
                .as_ref()
                .and_then(|d| column(d).iter().copied().filter(|v| !v.is_nan()).reduce(better))
        };
        let detail = NutsReport {
            metric: self.settings.metric,
            mode_search: self.mode_search,
            gradients,
            gradients_per_second: if self.run_seconds > 0.0 {
                gradients as f64 / self.run_seconds
            } else {
                0.0
            },
            divergences: records.iter().map(|r| r.divergences).sum(),
            saturated_trees: records.iter().map(|r| r.saturated).sum(),
            tree_depths,
            max_rhat: extreme(|d| &d.rhat, f64::max),
            min_ess_bulk: extreme(|d| &d.ess_bulk, f64::min),
            min_ess_tail: extreme(|d| &d.ess_tail, f64::min),
            every_draw_kept: self.retention == Retention::Every,
            chains: records.iter().map(|r| r.report).collect(),
        };
        Report {
            backend: backend.to_owned(),
            device: processor_name(),
            threads: self.threads,
            setup_seconds: self.setup_seconds,
            run_seconds: self.run_seconds,
            state: self.state,
            warnings: warnings(self, &detail, diagnostics.as_ref()),
            detail: Detail::Nuts(detail),
        }
    }
}

fn warnings(run: &NutsRun, detail: &NutsReport, diagnostics: Option<&ChainDiagnostics>) -> Vec<Warning> {
    let mut warnings: Vec<NutsWarning> = Vec::new();
    let settings = &run.settings;
    let draws: Vec<u64> = detail.chains.iter().map(|c| c.draws).collect();
    let fewest = draws.iter().copied().min().unwrap_or(0);
    let most = draws.iter().copied().max().unwrap_or(0);
    match run.state {
        RunState::Finished | RunState::Converged => {}
        RunState::Failed => warnings.push(NutsWarning::Failed),
        RunState::Running | RunState::Interrupted => warnings.push(NutsWarning::Unfinished {
            fewest,
            most,
            draws: settings.draws,
        }),
    }
    if fewest < most && detail.every_draw_kept {
        warnings.push(NutsWarning::UnequalChains { used: fewest });
    }
    let least = match settings.metric {
        Metric::Diagonal => 100,
        Metric::Structured => 50,
    };
    if settings.warmup < least {
        warnings.push(NutsWarning::ShortWarmup {
            warmup: settings.warmup,
            metric: settings.metric,
        });
    }
    if let Some(search) = run.mode_search.filter(|search| !search.converged) {
        warnings.push(NutsWarning::ModeNotReached {
            steps: search.newton_steps,
            decrement: search.decrement,
        });
    }
    if run.request.parameterization == Parameterization::Learned {
        warnings.push(NutsWarning::FixedCentredness);
    }
    if let Some(diagnostics) = diagnostics {
        let transitions = draws.iter().sum();
        if detail.divergences > 0 {
            warnings.push(NutsWarning::Divergences {
                divergences: detail.divergences,
                transitions,
                metric: settings.metric,
            });
        }
        if detail.saturated_trees > 0 {
            warnings.push(NutsWarning::SaturatedTrees {
                saturated: detail.saturated_trees,
                trajectories: transitions,
                max_depth: settings.max_depth,
            });
        }
        acceptance_warnings(&mut warnings, settings, &detail.chains);
        mixing_warnings(&mut warnings, settings.chains, diagnostics, &|latent| {
            place(run, latent)
        });
        if let Retention::Moments(kept) = &run.retention {
            warnings.push(NutsWarning::MomentsOnly {
                limit_bytes: settings.draw_bytes_limit,
                kept: kept.clone(),
            });
        }
    }
    warnings.into_iter().map(Warning::from).collect()
}

/// Largest distance of a chain's acceptance from the target of its tuning; 300 draws of warm-up get within
/// 0.03.
const ACCEPTANCE_MARGIN: f64 = 0.1;

/// Warns of chains whose step size does not give the requested acceptance.
fn acceptance_warnings(warnings: &mut Vec<NutsWarning>, settings: &NutsSettings, chains: &[ChainReport]) {
    // The mean of a chain's first few draws says little.
    const LEAST_DRAWS: u64 = 100;
    let target = settings.target_accept;
    for (k, chain) in chains.iter().enumerate() {
        let Some(acceptance) = chain.acceptance.filter(|_| chain.draws >= LEAST_DRAWS) else {
            continue;
        };
        // The longest step of the structured metric may be accepted more often than requested: a longer one
        // would be useless.
        let at_longest = settings.metric == Metric::Structured && chain.step_size > 0.5 * LONGEST_STEP;
        let too_high = acceptance > target + ACCEPTANCE_MARGIN && !at_longest;
        if acceptance.is_nan() || acceptance < target - ACCEPTANCE_MARGIN || too_high {
            warnings.push(NutsWarning::Acceptance {
                chain: k + 1,
                acceptance,
                target,
                step_size: chain.step_size,
            });
        }
    }
}

fn mixing_warnings(
    warnings: &mut Vec<NutsWarning>,
    chains: usize,
    diagnostics: &ChainDiagnostics,
    place: &dyn Fn(usize) -> String,
) {
    let latents = diagnostics.rhat.len();
    if chains < 2 {
        warnings.push(NutsWarning::OneChain);
    } else {
        let undefined = diagnostics.rhat.iter().filter(|r| r.is_nan()).count();
        if undefined > 0 {
            warnings.push(NutsWarning::UndefinedRhat { undefined, latents });
        }
    }
    if let Some((latent, worst, above)) = beyond(&diagnostics.rhat, |r| r > RHAT_LIMIT, f64::gt) {
        warnings.push(NutsWarning::Rhat {
            above,
            latents,
            worst,
            place: place(latent),
        });
    }
    for (kind, column) in [("bulk", &diagnostics.ess_bulk), ("tail", &diagnostics.ess_tail)] {
        if let Some((latent, worst, below)) = beyond(column, |e| e < ESS_LIMIT, f64::lt) {
            warnings.push(NutsWarning::EffectiveSamples {
                kind,
                below,
                latents,
                worst,
                place: place(latent),
            });
        }
    }
}

/// The index of the worst entry of a column, its value, and the number of bad entries; `None` if none is bad.
fn beyond(
    column: &[f64],
    bad: impl Fn(f64) -> bool,
    worse: fn(&f64, &f64) -> bool,
) -> Option<(usize, f64, usize)> {
    let mut found: Option<(usize, f64, usize)> = None;
    for (latent, value) in column.iter().enumerate().filter(|(_, v)| bad(**v)) {
        found = Some(match found {
            Some((worst, of, count)) if !worse(value, &of) => (worst, of, count + 1),
            Some((_, _, count)) => (latent, *value, count + 1),
            None => (latent, *value, 1),
        });
    }
    found
}

/// A latent by site and key, or only by site if there is no panel.
fn place(run: &NutsRun, latent: usize) -> String {
    match &run.panel {
        Some(panel) => panel.axes().latent_in_words(&run.layout, latent),
        None => run.layout.site_of(latent).name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(acceptance: f64, step_size: f64, draws: u64) -> ChainReport {
        ChainReport {
            warmup_draws: 300,
            draws,
            warmup_gradients: 1,
            gradients: 1,
            warmup_seconds: 0.1,
            seconds: 0.1,
            step_size,
            acceptance: Some(acceptance),
        }
    }

    #[test]
    fn chains_that_accept_otherwise_than_asked_are_named() {
        let chains = [
            chain(0.93, 0.4, 1000),
            chain(0.55, 1.57, 1000),
            chain(f64::NAN, 1.57, 1000),
            chain(0.2, 0.4, 50),
        ];
        let mut warnings = Vec::new();
        acceptance_warnings(&mut warnings, &NutsSettings::default(), &chains);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(matches!(
            warnings[..],
            [
                NutsWarning::Acceptance {
                    chain: 2,
                    acceptance: 0.55,
                    ..
                },
                NutsWarning::Acceptance { chain: 3, .. }
            ]
        ));
        let words: Vec<String> = warnings
            .into_iter()
            .map(|warning| Warning::from(warning).to_string())
            .collect();
        assert!(words[0].contains("accepts 0.55"), "{words:?}");
        assert!(words[1].contains("accepts NaN"), "{words:?}");
        // A step that is too short is as far from the target, unless it is the longest one.
        let settings = NutsSettings {
            target_accept: 0.8,
            ..NutsSettings::default()
        };
        let mut warnings = Vec::new();
        acceptance_warnings(
            &mut warnings,
            &settings,
            &[chain(0.99, 0.1, 1000), chain(0.99, 1.5, 1000)],
        );
        assert!(
            matches!(warnings[..], [NutsWarning::Acceptance { chain: 1, .. }]),
            "{warnings:?}"
        );
    }
}
