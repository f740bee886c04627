//! The figures of a finished or unfinished run.

use crate::metric::Metric;
use crate::progress::RunState;
use crate::warning::Warning;
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
