//! AdamW with decoupled decay and the published learning-rate schedule.
//!
//! Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, in the form of `optax.adamw`.

use serde::{Deserialize, Serialize};

/// Settings of the optimizer; the defaults are the published ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the first moment.
    pub b1: f64,
    /// Decay of the second moment.
    pub b2: f64,
    /// Added to the root of the second moment (outside the root).
    pub eps: f64,
    /// Decoupled decay; a step removes `learning_rate * weight_decay` of the parameter.
    pub weight_decay: f64,
    /// Learning rate at iteration 0.
    pub learning_rate: f64,
    /// Factor on the learning rate over [`AdamW::decay_iterations`].
    pub decay_rate: f64,
    /// Iterations over which the learning rate falls by [`AdamW::decay_rate`].
    pub decay_iterations: f64,
    /// Floor of the learning rate.
    pub learning_rate_floor: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW {
            b1: 0.9,
            b2: 0.999,
            eps: 1e-8,
            weight_decay: 1e-4,
            learning_rate: 0.01,
            decay_rate: 0.99,
            decay_iterations: 1000.0,
            learning_rate_floor: 1e-5,
        }
    }
}

/// The scalars of one iteration, equal for every parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepScalars {
    /// Learning rate of the iteration.
    pub learning_rate: f64,
    /// `1 / (1 - b1^(t+1))`.
    pub first_correction: f64,
    /// `1 / (1 - b2^(t+1))`.
    pub second_correction: f64,
}

/// One parameter's moments.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// Running mean of the gradient.
    pub first: f64,
    /// Running mean of the squared gradient.
    pub second: f64,
}

impl AdamW {
    /// The published optimizer with a learning rate that falls from `learning_rate` to its floor over `iterations`.
    ///
    /// Standard deviations of a posterior lie orders of magnitude apart. A mean with the standard deviation
    /// `s` is found to a small fraction of `s` once the rate is well below `s`; a rate that falls
    /// exponentially spends as many iterations on each order of magnitude.
    pub fn falling_over(iterations: u64, learning_rate: f64) -> Self {
        let published = AdamW::default();
        AdamW {
            learning_rate,
            decay_rate: (published.learning_rate_floor / learning_rate).clamp(1e-12, 1.0),
            decay_iterations: iterations as f64,
            ..published
        }
    }

    /// `max(floor, rate * decay^(t / iterations))`, iterations counted from 0.
    pub fn learning_rate_at(&self, iteration: u64) -> f64 {
        let decay = self.decay_rate.powf(iteration as f64 / self.decay_iterations);
        (self.learning_rate * decay).max(self.learning_rate_floor)
    }

    /// The scalars of an iteration, counted from 0.
    pub fn scalars(&self, iteration: u64) -> StepScalars {
        let power = (iteration + 1).min(i32::MAX as u64) as i32;
        StepScalars {
            learning_rate: self.learning_rate_at(iteration),
            first_correction: 1.0 / (1.0 - self.b1.powi(power)),
            second_correction: 1.0 / (1.0 - self.b2.powi(power)),
        }
    }

    /// One parameter's step down the gradient; returns the new parameter.
    pub fn step(&self, scalars: &StepScalars, parameter: f64, gradient: f64, moments: &mut Moments) -> f64 {
        moments.first = self.b1 * moments.first + (1.0 - self.b1) * gradient;
        moments.second = self.b2 * moments.second + (1.0 - self.b2) * gradient * gradient;
        let first = moments.first * scalars.first_correction;
        let second = moments.second * scalars.second_correction;
        let update = first / (second.sqrt() + self.eps) + self.weight_decay * parameter;
        parameter - scalars.learning_rate * update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_moves_by_the_learning_rate() {
        let adam = AdamW::default();
        let mut moments = Moments::default();
        let next = adam.step(&adam.scalars(0), 2.0, -3.5, &mut moments);
        // Bias correction makes the first step the sign of the gradient; then 1e-6 of the parameter decays.
        assert!((next - (2.0 + 0.01 - 0.01 * 1e-4 * 2.0)).abs() < 1e-10);
    }

    #[test]
    fn schedule_decays_to_its_floor() {
        let adam = AdamW::default();
        assert_eq!(adam.learning_rate_at(0), 0.01);
        assert!((adam.learning_rate_at(1000) - 0.0099).abs() < 1e-15);
        assert_eq!(adam.learning_rate_at(1_000_000), 1e-5);
    }
}
