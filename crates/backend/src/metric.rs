//! The mass matrix of NUTS.

use serde::{Deserialize, Serialize};

/// Mass matrix of the sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One variance per latent, tuned during warm-up.
    Diagonal,
    /// The precision at the posterior mode, whose block-arrowhead factor whitens the latents; centred
    /// parameterization only. Trajectories are then about a quarter rotation long, so there is no search for
    /// a U-turn.
    #[default]
    Structured,
}

impl Metric {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Diagonal => "diagonal",
            Metric::Structured => "structured",
        }
    }

    /// Warm-up draws that it needs: the structured one is known before the first draw, so that only a step
    /// size is tuned.
    pub const fn default_warmup(self) -> u64 {
        match self {
            Metric::Diagonal => 1000,
            Metric::Structured => 300,
        }
    }

    /// Acceptance that the step size is tuned to. The structured metric accepts or rejects the end of a
    /// trajectory alone, so every rejection repeats a draw: more and shorter steps pay off.
    pub const fn default_target_accept(self) -> f64 {
        match self {
            Metric::Diagonal => 0.8,
            Metric::Structured => 0.9,
        }
    }
}
