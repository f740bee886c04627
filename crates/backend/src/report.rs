//! The figures of a finished or unfinished run.

use crate::metric::Metric;
use crate::progress::RunState;
use crate::warning::Warning;
use infermark_communicator::Traffic;
use infermark_model::Centredness;
use serde::{Deserialize, Serialize};

/// The figures of a run; result files record it whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// The devices, in plain words.
    pub device: String,
    /// CPU threads used.
    pub threads: usize,
    /// Seconds spent once: checks, layouts, uploads, compilation, start values.
    pub setup_seconds: f64,
    /// Seconds spent advancing.
    pub run_seconds: f64,
    /// State of the run.
    pub state: RunState,
    /// What a reader of the posterior must know; sentences in files.
    pub warnings: Vec<Warning>,
    /// Figures of the method.
    pub detail: Detail,
}

/// Figures that are specific to a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Detail {
    /// Figures of SVI.
    Svi(SviReport),
    /// Figures of NUTS.
    Nuts(NutsReport),
    /// Figures of a Gaussian posterior: Laplace, structured or mean-field.
    Gaussian(GaussianReport),
}

/// Figures of a Gaussian posterior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GaussianReport {
    /// Newton steps to the mode.
    pub newton_steps: u64,
    /// Steps of the variational iteration; 0 for Laplace.
    pub variational_steps: u64,
    /// Products whose marginals are not normal but corrected for their skewness.
    #[serde(default)]
    pub skewed_products: u64,
    /// Products whose rows are all left out because of counts at the upper bound of the log rate; their
    /// posterior comes from their category and the priors alone.
    #[serde(default)]
    pub left_out_products: Vec<usize>,
    /// Whether the last step was within the tolerance.
    pub converged: bool,
    /// Norm of the gradient: of the log joint at the mode, or of the bound with respect to the means.
    pub gradient_norm: f64,
    /// Half the squared Newton decrement there: the log density still to be gained, in nats.
    pub decrement: f64,
    /// Log joint at the mode.
    pub log_joint: f64,
    /// Evidence lower bound, without Monte Carlo error, ignoring the clip of the log rate; `None` for
    /// Laplace.
    pub elbo: Option<f64>,
    /// One entry per step.
    pub trace: Vec<StepPoint>,
}

/// An entry of the trace of a Gaussian posterior.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// Steps done.
    pub step: u64,
    /// Seconds of advancing until then.
    pub seconds: f64,
    /// Log joint at the point that the step started from, or the bound.
    pub value: f64,
    /// The quantity that is compared with the tolerance.
    pub remaining: f64,
}

/// Figures of an SVI run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SviReport {
    /// Iterations done.
    pub iterations: u64,
    /// Iterations per second while advancing.
    pub iterations_per_second: f64,
    /// Mean effective particles over the iterations, between 1 and K; 0 where the backend does not tell them.
    pub mean_effective_particles: f64,
    /// Centredness of each site at the end.
    pub centredness: Centredness,
    /// Loss against time.
    pub trace: Vec<TracePoint>,
    /// What crossed between the ranks; `None` for a run of one rank, and in reports written before this field existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communication: Option<CommunicationReport>,
}

/// What crossed between the ranks of a run, in its iterations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CommunicationReport {
    /// Ranks.
    pub ranks: usize,
    /// All-reduces of an iteration.
    pub operations_per_iteration: f64,
    /// Bytes of the buffers that a rank brings to them in an iteration, whatever an algorithm sends of them.
    pub bytes_per_iteration: f64,
    /// Seconds that the first rank of this process spent in them, waiting for slower ranks included.
    pub seconds: f64,
    /// Bus bandwidth as NCCL's tests define it: `2 (n - 1) / n` times the bytes of all iterations, over the seconds; bytes per second.
    pub bus_bandwidth: f64,
}

impl CommunicationReport {
    /// The figures of `traffic` between `ranks` ranks in `iterations` iterations.
    pub fn new(ranks: usize, traffic: Traffic, iterations: u64) -> Self {
        let each = |total: u64| total as f64 / iterations.max(1) as f64;
        let seconds = traffic.time.as_secs_f64();
        let sent = 2.0 * (ranks as f64 - 1.0) / ranks as f64 * traffic.bytes as f64;
        CommunicationReport {
            ranks,
            operations_per_iteration: each(traffic.operations),
            bytes_per_iteration: each(traffic.bytes),
            seconds,
            bus_bandwidth: if seconds > 0.0 { sent / seconds } else { 0.0 },
        }
    }
}

/// An entry of the loss trace.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TracePoint {
    /// Iterations done.
    pub iteration: u64,
    /// Seconds of advancing until then.
    pub seconds: f64,
    /// The loss of that iteration.
    pub loss: f64,
    /// Effective particles of that iteration; 0 where the backend does not tell them.
    pub effective_particles: f64,
    /// Learning rate of that iteration.
    pub learning_rate: f64,
}

/// Figures of a NUTS run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NutsReport {
    /// Mass matrix; reports without this field used the diagonal one.
    #[serde(default = "diagonal")]
    pub metric: Metric,
    /// The search for the mode at which the structured metric is evaluated, part of the set-up; `None` for
    /// the diagonal one.
    #[serde(default)]
    pub mode_search: Option<ModeSearchReport>,
    /// Gradients computed, all chains, warm-up included.
    pub gradients: u64,
    /// Gradients per second while advancing.
    pub gradients_per_second: f64,
    /// Divergent transitions after warm-up.
    pub divergences: u64,
    /// Draws after warm-up whose tree met the depth limit.
    pub saturated_trees: u64,
    /// Draws after warm-up by tree depth, from depth 0.
    pub tree_depths: Vec<u64>,
    /// Largest R-hat over the latents for which it is known, for both kinds of
    /// [`ChainDiagnostics`](crate::posterior::ChainDiagnostics).
    pub max_rhat: Option<f64>,
    /// Smallest bulk effective sample size over the latents for which it is known; the mean's for latents of which
    /// only moments were kept.
    pub min_ess_bulk: Option<f64>,
    /// Smallest tail effective sample size over the latents for which it is known: those whose draws were kept.
    pub min_ess_tail: Option<f64>,
    /// Whether every draw was kept, rather than moments and the draws of chosen sites.
    pub every_draw_kept: bool,
    /// One entry per chain.
    pub chains: Vec<ChainReport>,
}

const fn diagonal() -> Metric {
    Metric::Diagonal
}

/// How the posterior mode was found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModeSearchReport {
    /// Newton steps.
    pub newton_steps: u64,
    /// Whether the last one was within the tolerance.
    pub converged: bool,
    /// Half the squared Newton decrement at the end: the log density still to be gained, in nats.
    pub decrement: f64,
    /// Seconds of the search and of the metric's factor.
    pub seconds: f64,
}

/// Figures of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChainReport {
    /// Warm-up draws done.
    pub warmup_draws: u64,
    /// Draws done after warm-up.
    pub draws: u64,
    /// Gradients in warm-up.
    pub warmup_gradients: u64,
    /// Gradients after warm-up.
    pub gradients: u64,
    /// Seconds in warm-up.
    pub warmup_seconds: f64,
    /// Seconds after warm-up.
    pub seconds: f64,
    /// Step size at the end.
    pub step_size: f64,
    /// Mean acceptance probability of the trajectories after warm-up; `None` while there is none, and in reports of version 3
    /// and before.
    #[serde(default)]
    pub acceptance: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn bus_bandwidth_is_that_of_nccls_tests() {
        let traffic = Traffic {
            operations: 20,
            bytes: 4_000_000_000,
            time: Duration::from_millis(500),
        };
        let report = CommunicationReport::new(4, traffic, 10);
        assert_eq!(report.operations_per_iteration, 2.0);
        assert_eq!(report.bytes_per_iteration, 4e8);
        // 8 GB/s of buffers, of which each link carries three quarters twice.
        assert_eq!(report.bus_bandwidth, 12e9);
        let none = CommunicationReport::new(2, Traffic::default(), 0);
        assert_eq!((none.bytes_per_iteration, none.bus_bandwidth), (0.0, 0.0));
    }
}
