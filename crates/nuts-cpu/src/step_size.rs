//! The step size: Nesterov's dual averaging towards a target acceptance (Hoffman and Gelman, "The No-U-Turn
//! sampler", 2014, section 3.2), with their constants, and a step that is never longer than useful for a
//! trajectory.

use serde::{Deserialize, Serialize};

/// Dual averaging of the log step size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DualAveraging {
    target: f64,
    longest: f64,
    /// The value towards which log steps are pulled.
    centre: f64,
    /// Mean shortfall of the acceptance.
    shortfall: f64,
    log_step: f64,
    log_mean: f64,
    count: u64,
}

/// Strength of the pull towards `centre`.
const GAMMA: f64 = 0.05;
/// Offset that reduces the weight of the first updates.
const T0: f64 = 10.0;
/// How fast the mean forgets.
const KAPPA: f64 = 0.75;

impl DualAveraging {
    /// Tuning that starts from a first step size.
    pub(crate) fn new(first: f64, target: f64, longest: f64) -> Self {
        let first = first.min(longest);
        DualAveraging {
            target,
            longest,
            // Trying longer steps is cheap; none are longer than the longest.
            centre: (10.0 * first).min(longest).ln(),
            shortfall: 0.0,
            log_step: first.ln(),
            log_mean: first.ln(),
            count: 0,
        }
    }

    /// Takes the acceptance of a trajectory. NaN counts as a rejection, because it must not stay in the
    /// means.
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

    /// The tuned step size.
    pub(crate) fn tuned(&self) -> f64 {
        self.log_mean.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acceptance that falls with the step, as for a leapfrog integrator.
    fn acceptance(step_size: f64) -> f64 {
        (-2.0 * step_size.powi(2)).exp()
    }

    #[test]
    fn it_comes_to_the_step_of_the_target() {
        for first in [1e-3, 0.3, 1.5] {
            for target in [0.6, 0.8, 0.9] {
                let mut tuning = DualAveraging::new(first, target, 1.57);
                for _ in 0..2000 {
                    tuning.update(acceptance(tuning.step_size()));
                }
                let exact = (-0.5 * f64::ln(target)).sqrt();
                assert!(
                    (tuning.tuned() / exact - 1.0).abs() < 0.02,
                    "{first} {target}: {}",
                    tuning.tuned()
                );
            }
        }
    }

    #[test]
    fn no_step_is_longer_than_the_longest() {
        let mut tuning = DualAveraging::new(10.0, 0.8, 1.5);
        for _ in 0..100 {
            assert!(tuning.step_size() <= 1.5 * (1.0 + 1e-12) && tuning.tuned() <= 1.5 * (1.0 + 1e-12));
            tuning.update(1.0);
        }
        assert!((tuning.tuned() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn an_acceptance_that_is_no_number_does_not_stay() {
        let mut tuning = DualAveraging::new(1.0, 0.8, 1.57);
        tuning.update(f64::NAN);
        assert!(tuning.step_size() < 1.0);
        for _ in 0..2000 {
            tuning.update(acceptance(tuning.step_size()));
        }
        let exact = (-0.5 * f64::ln(0.8)).sqrt();
        assert!((tuning.tuned() / exact - 1.0).abs() < 0.02, "{}", tuning.tuned());
    }
}
