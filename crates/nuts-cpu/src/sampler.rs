//! A sampler of one chain, whatever its metric.

/// A sampler of one chain, whatever its metric.
pub(crate) trait Sampler {
    /// Starts at a point in the sampler's own coordinates; the reason where it cannot.
    fn start(&mut self, point: &[f64]) -> Result<(), String>;

    /// Makes a draw, and writes its `z`.
    fn draw(&mut self, z: &mut Vec<f64>) -> Result<DrawFigures, String>;
}

/// What a sampler reports of a draw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DrawFigures {
    /// Steps of the trajectory: gradients that the draw cost.
    pub steps: u64,
    /// The step size of the trajectory.
    pub step_size: f64,
    /// What the tuning of the step size has come to.
    pub tuned_step_size: f64,
    /// Doublings that hold the trajectory.
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
