//! When a run has converged: windows of losses that no longer fall.

use infermark_backend::EarlyStop;
use serde::{Deserialize, Serialize};

/// Mean and variance of a window's losses (Welford).
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Window {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Window {
    fn push(&mut self, loss: f64) {
        self.count += 1;
        let delta = loss - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (loss - self.mean);
    }

    /// Squared standard error of the mean, treating the losses as independent.
    fn error2(&self) -> f64 {
        self.squares / (self.count as f64 * (self.count as f64 - 1.0))
    }
}

/// Watches the losses of a run for [`EarlyStop`]'s criterion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConvergenceWatch {
    criterion: EarlyStop,
    /// A fall of the loss that counts as none: [`EarlyStop::least_fall`] times the number of latents.
    least_fall: f64,
    previous: Option<Window>,
    current: Window,
    flat_windows: u32,
}

impl ConvergenceWatch {
    /// A watch that has seen no loss yet, for a guide over `latents` latents.
    pub fn new(criterion: EarlyStop, latents: usize) -> Self {
        ConvergenceWatch {
            criterion,
            least_fall: criterion.least_fall * latents as f64,
            previous: None,
            current: Window::default(),
            flat_windows: 0,
        }
    }

    /// Whether it watches for `criterion`, or for none.
    pub(crate) fn is_for(watch: Option<&Self>, criterion: Option<EarlyStop>) -> bool {
        watch.map(|watch| watch.criterion) == criterion
    }

    /// Losses until the present window is full, at least 1.
    pub fn decides_in(&self) -> u64 {
        self.criterion.window - self.current.count
    }

    /// Takes the next loss; true once the criterion is met.
    pub fn push(&mut self, loss: f64) -> bool {
        self.current.push(loss);
        if self.current.count < self.criterion.window {
            return false;
        }
        if let Some(previous) = self.previous {
            let fall = previous.mean - self.current.mean;
            let error = (previous.error2() + self.current.error2()).sqrt();
            let flat = fall < (self.criterion.tolerance * error).max(self.least_fall);
            self.flat_windows = if flat { self.flat_windows + 1 } else { 0 };
        }
        self.previous = Some(std::mem::take(&mut self.current));
        self.flat_windows >= self.criterion.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    fn stops_at(least_fall: f64, loss: impl Fn(u64) -> f64) -> Option<u64> {
        let mut rng = StdRng::seed_from_u64(1);
        let criterion = EarlyStop {
            window: 100,
            tolerance: 1.0,
            patience: 3,
            least_fall,
        };
        let mut watch = ConvergenceWatch::new(criterion, 1000);
        (0..20_000).find(|t| watch.push(loss(*t) + rng.random_range(-1.0..1.0)))
    }

    #[test]
    fn stops_where_the_loss_stops_falling() {
        assert_eq!(stops_at(0.0, |t| -0.1 * t as f64), None);
        let at = stops_at(0.0, |t| 1000.0 * (-(t as f64) / 300.0).exp()).unwrap();
        // The fall over a window is one standard error (0.08) after about 2,900 iterations.
        assert!((2_000..8_000).contains(&at), "{at}");
    }

    #[test]
    fn a_fall_that_is_small_for_each_latent_is_none() {
        // 10 nats per window, of 1000 latents.
        assert_eq!(stops_at(0.009, |t| -0.1 * t as f64), None);
        // The first window has none before it; the third flat one ends the run.
        assert_eq!(stops_at(0.011, |t| -0.1 * t as f64), Some(399));
    }
}
