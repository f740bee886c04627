//! A sampler of one chain, for any metric.

use crate::step_size::DualAveraging;
use serde::{Deserialize, Serialize};

/// What a sampler carries from one draw to the next; log density and gradient follow from the position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SamplerState {
    /// In the sampler's own coordinates.
    pub position: Vec<f64>,
    /// The tuning of the step size.
    pub tuning: DualAveraging,
    /// Words of the chain's stream of random numbers that were taken, the low half first.
    pub random_words: [u64; 2],
}

/// A sampler of one chain, for any metric.
pub(crate) trait Sampler {
    /// Starts at a point in the sampler's own coordinates; the error is the reason if it cannot.
    fn start(&mut self, point: &[f64]) -> Result<(), String>;

    /// Goes on after `draws` draws, instead of starting; the error is the reason if it cannot.
    fn go_on(&mut self, _state: &SamplerState, _draws: u64) -> Result<(), String> {
        Err("the sampler cannot go on from a checkpoint".into())
    }

    /// Writes what [`Sampler::go_on`] takes; nothing, where it cannot.
    fn save(&self, _state: &mut Option<SamplerState>) {}

    /// Makes a draw and writes its `z`.
    fn draw(&mut self, z: &mut Vec<f64>) -> Result<DrawFigures, String>;
}

/// A sampler's report on a draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawFigures {
    /// Steps of the trajectory: gradients that the draw cost.
    pub steps: u64,
    /// The step size of the trajectory.
    pub step_size: f64,
    /// The tuned step size.
    pub tuned_step_size: f64,
    /// Number of doublings that contain the trajectory.
    pub depth: u64,
    /// The trajectory met the limit of its length.
    pub saturated: bool,
    /// The trajectory diverged.
    pub diverging: bool,
    /// Mean acceptance probability of the trajectory.
    pub acceptance: f64,
    /// The Hamiltonian at the draw.
    pub energy: f64,
    /// The log joint there.
    pub log_joint: f64,
}
