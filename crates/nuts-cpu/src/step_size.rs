//! The step size: Nesterov's dual averaging towards a target acceptance (Hoffman and Gelman, "The No-U-Turn sampler", 2014,
//! section 3.2), with their constants, and a step that is never longer than the trajectory has a use for.

/// Dual averaging of the log step size.
#[derive(Debug, Clone)]
pub(crate) struct DualAveraging {
    target: f64,
    longest: f64,
    /// Where log steps are pulled to.
    centre: f64,
    /// Mean shortfall of the acceptance.
    shortfall: f64,
    log_step: f64,
    log_mean: f64,
    count: u64,
}

/// How far a step is drawn to `centre`.
const GAMMA: f64 = 0.05;
/// Updates by which the first ones count for less.
const T0: f64 = 10.0;
/// How fast the mean forgets.
const KAPPA: f64 = 0.75;

impl DualAveraging {
    /// From a first step size.
    pub(crate) fn new(first: f64, target: f64, longest: f64) -> Self {
        let first = first.min(longest);
        DualAveraging {
            target,
            longest,
            // Longer steps are cheap to have tried; beyond the longest there are none.
            centre: (10.0 * first).min(longest).ln(),
            shortfall: 0.0,
            log_step: first.ln(),
            log_mean: first.ln(),
            count: 0,
        }
    }

    /// Takes the acceptance of a trajectory. What is not a number counts as a rejection: it must not stay in the means.
    pub(crate) fn update(&mut self, acceptance: f64) {
        let acceptance = if acceptance.is_nan() { 0.0 } else { acceptance };
        self.count += 1;
        let t = self.count as f64;
        let weight = 1.0 / (t + T0);
        self.shortfall += weight * (self.target - acceptance - self.shortfall);
        self.log_step = (self.centre - t.sqrt() / GAMMA * self.shortfall).min(self.longest.ln());
        let weight = t.powf(-KAPPA);
        self.log_mean += weight * (self.log_step - self.log_mean);
    }

    /// The step size to try next.
    pub(crate) fn step_size(&self) -> f64 {
        self.log_step.exp()
    }

    /// The step size that the tuning has come to.
    pub(crate) fn tuned(&self) -> f64 {
        self.log_mean.exp()
    }
}
