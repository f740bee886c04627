//! Whether a run has converged, as far as its own diagnostics go: the one verdict, with its limits.

use crate::progress::RunState;
use crate::report::{Detail, NutsReport, Report};
use crate::request::Method;

/// R-hat above which chains have not mixed. Of Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-normalization, folding, and
/// localization: an improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16 (2021).
pub const RHAT_LIMIT: f64 = 1.01;

/// Effective sample size of all chains together, in bulk and tails, below which figures are unreliable. From the same source.
pub const ESS_LIMIT: f64 = 400.0;

/// Whether a run has converged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convergence {
    /// An optimizer met its criterion; chains have mixed, and their draws suffice.
    Converged,
    /// It has not, or not yet.
    NotConverged,
    /// Nothing in the run tests it: SVI without a criterion that it could meet.
    Unknown,
}

impl Report {
    /// Whether the run of `method` has converged. Chains must have made all their draws besides.
    pub fn convergence(&self, method: &Method) -> Convergence {
        let converged = match &self.detail {
            Detail::Svi(_) => self.state == RunState::Converged,
            // A search for the mode may have met its tolerance where the run has not come to its end.
            Detail::Gaussian(gaussian) => self.state == RunState::Converged && gaussian.converged,
            Detail::Nuts(nuts) => self.state.is_complete() && nuts.have_converged(),
        };
        let tested = match method {
            Method::Svi(svi) => {
                let could_be_met = svi
                    .early_stop
                    .is_some_and(|stop| stop.can_be_met_in(svi.iterations));
                could_be_met && self.state == RunState::Finished
            }
            _ => true,
        };
        match (converged, tested) {
            (true, _) => Convergence::Converged,
            (false, true) => Convergence::NotConverged,
            (false, false) => Convergence::Unknown,
        }
    }
}

impl NutsReport {
    /// [`chains_have_converged`] of these chains.
    pub fn have_converged(&self) -> bool {
        chains_have_converged(
            self.divergences,
            self.max_rhat,
            self.min_ess_bulk,
            self.min_ess_tail,
        )
    }
}

/// Whether chains have mixed and their draws suffice: no divergences, the largest R-hat up to [`RHAT_LIMIT`], the smallest effective
/// sample sizes at least [`ESS_LIMIT`]. A figure that is not known, or not a number, meets no limit.
pub fn chains_have_converged(
    divergences: u64,
    max_rhat: Option<f64>,
    min_ess_bulk: Option<f64>,
    min_ess_tail: Option<f64>,
) -> bool {
    divergences == 0
        && max_rhat.is_some_and(|rhat| rhat <= RHAT_LIMIT)
        && [min_ess_bulk, min_ess_tail]
            .iter()
            .all(|ess| ess.is_some_and(|ess| ess >= ESS_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{GaussianReport, SviReport};
    use crate::request::{EarlyStop, LaplaceSettings, NutsSettings, SviSettings};
    use infermark_model::Centredness;

    fn report(state: RunState, detail: Detail) -> Report {
        Report {
            backend: "x".into(),
            device: "x".into(),
            threads: 1,
            setup_seconds: 0.0,
            run_seconds: 1.0,
            state,
            warnings: Vec::new(),
            detail,
        }
    }

    #[test]
    fn chains_converge_within_every_limit() {
        let good = (0, Some(RHAT_LIMIT), Some(ESS_LIMIT), Some(ESS_LIMIT));
        let verdict = |(divergences, rhat, bulk, tail)| chains_have_converged(divergences, rhat, bulk, tail);
        assert!(verdict(good));
        for bad in [
            (1, good.1, good.2, good.3),
            (0, Some(1.0101), good.2, good.3),
            (0, Some(f64::NAN), good.2, good.3),
            (0, None, good.2, good.3),
            (0, good.1, Some(399.9), good.3),
            (0, good.1, good.2, Some(399.9)),
            (0, good.1, good.2, None),
        ] {
            assert!(!verdict(bad), "{bad:?}");
        }
    }

    #[test]
    fn chains_that_lack_draws_have_not_converged() {
        let nuts = NutsReport {
            metric: crate::Metric::Structured,
            mode_search: None,
            gradients: 1,
            gradients_per_second: 1.0,
            divergences: 0,
            saturated_trees: 0,
            tree_depths: Vec::new(),
            max_rhat: Some(1.0),
            min_ess_bulk: Some(1e3),
            min_ess_tail: Some(1e3),
            every_draw_kept: true,
            chains: Vec::new(),
        };
        let method = Method::Nuts(NutsSettings::default());
        for (state, verdict) in [
            (RunState::Finished, Convergence::Converged),
            (RunState::Interrupted, Convergence::NotConverged),
            (RunState::Failed, Convergence::NotConverged),
        ] {
            assert_eq!(
                report(state, Detail::Nuts(nuts.clone())).convergence(&method),
                verdict
            );
        }
    }

    #[test]
    fn svi_is_known_to_have_converged_only_where_it_is_tested() {
        let detail = Detail::Svi(SviReport {
            iterations: 1,
            iterations_per_second: 1.0,
            mean_effective_particles: 1.0,
            centredness: Centredness::all(1.0),
            trace: Vec::new(),
            communication: None,
        });
        let method = |iterations, early_stop| {
            Method::Svi(SviSettings {
                iterations,
                early_stop,
                ..SviSettings::default()
            })
        };
        let watched = Some(EarlyStop::default());
        for (state, iterations, early_stop, verdict) in [
            (RunState::Converged, 100_000, watched, Convergence::Converged),
            (RunState::Finished, 100_000, watched, Convergence::NotConverged),
            (RunState::Interrupted, 100_000, watched, Convergence::Unknown),
            (RunState::Finished, 100, watched, Convergence::Unknown),
            (RunState::Finished, 100_000, None, Convergence::Unknown),
        ] {
            let found = report(state, detail.clone()).convergence(&method(iterations, early_stop));
            assert_eq!(found, verdict, "{state:?} {iterations} {early_stop:?}");
        }
    }

    #[test]
    fn a_search_converges_by_its_criterion_alone() {
        let detail = Detail::Gaussian(GaussianReport {
            newton_steps: 1,
            variational_steps: 0,
            skewed_products: 0,
            left_out_products: Vec::new(),
            converged: true,
            gradient_norm: 0.0,
            decrement: 0.0,
            log_joint: 0.0,
            elbo: None,
            trace: Vec::new(),
        });
        let method = Method::Laplace(LaplaceSettings::default());
        for (state, verdict) in [
            (RunState::Converged, Convergence::Converged),
            (RunState::Interrupted, Convergence::NotConverged),
            (RunState::Finished, Convergence::NotConverged),
        ] {
            assert_eq!(report(state, detail.clone()).convergence(&method), verdict);
        }
    }
}
