//! A sampler of one chain, for any metric.

/// A sampler of one chain, for any metric.
pub(crate) trait Sampler {
    /// Starts at a point in the sampler's own coordinates; the error is the reason if it cannot.
    fn start(&mut self, point: &[f64]) -> Result<(), String>;

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
