//! The published NUTS reference on this machine: measured for as many draws as there is time for, estimated for the rest.

use crate::published::{NUTS_DRAWS, NUTS_WARMUP};
use serde::{Deserialize, Serialize};

/// Time of 3,000 draws, of which 1,000 warm-up, one chain, diagonal metric, on the smallest published set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedNutsEstimate {
    /// Draws that were made, warm-up included.
    pub measured_draws: u64,
    /// Gradients that they took.
    pub measured_gradients: u64,
    /// Seconds that they took.
    pub measured_seconds: f64,
    /// Gradients of each measured draw, in order.
    pub gradients_per_draw: Vec<u64>,
    /// Limit of tree doublings: at most `2^max_depth - 1` gradients a draw.
    pub max_depth: u32,
}

impl PublishedNutsEstimate {
    /// Draws that were not made.
    pub fn remaining_draws(&self) -> u64 {
        NUTS_DRAWS.saturating_sub(self.measured_draws)
    }

    /// Mean gradients a draw over the last half of the measured ones, where the step size has settled.
    pub fn settled_gradients_per_draw(&self) -> f64 {
        let half = &self.gradients_per_draw[self.gradients_per_draw.len() / 2..];
        half.iter().sum::<u64>() as f64 / half.len().max(1) as f64
    }

    /// Gradients of a draw whose tree is full.
    pub fn saturated_gradients_per_draw(&self) -> f64 {
        2f64.powi(self.max_depth as i32) - 1.0
    }

    /// Seconds of one gradient.
    pub fn seconds_per_gradient(&self) -> f64 {
        self.measured_seconds / self.measured_gradients as f64
    }

    /// Measured seconds, and for the rest as many gradients a draw as in the last half of the measured draws.
    pub fn estimated_seconds(&self) -> f64 {
        self.with_rest_of(self.settled_gradients_per_draw())
    }

    /// Measured seconds, and full trees for the rest: no run of this kind takes longer.
    pub fn estimated_seconds_if_saturated(&self) -> f64 {
        self.with_rest_of(self.saturated_gradients_per_draw())
    }

    fn with_rest_of(&self, gradients_per_draw: f64) -> f64 {
        self.measured_seconds
            + self.remaining_draws() as f64 * gradients_per_draw * self.seconds_per_gradient()
    }

    /// What was assumed, in words.
    pub fn assumptions(&self) -> String {
        format!(
            "one chain, {NUTS_DRAWS} draws of which {NUTS_WARMUP} warm-up, diagonal metric, trees to depth {}: {} draws \
             ({} gradients, {:.1} s) measured, the other {} estimated at {:.0} gradients a draw, the mean of the last half \
             of the measured draws (at the full depth, {:.0}, it would be {:.2} h)",
            self.max_depth,
            self.measured_draws,
            self.measured_gradients,
            self.measured_seconds,
            self.remaining_draws(),
            self.settled_gradients_per_draw(),
            self.saturated_gradients_per_draw(),
            self.estimated_seconds_if_saturated() / 3600.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_by_hand() {
        let estimate = PublishedNutsEstimate {
            measured_draws: 4,
            measured_gradients: 1 + 7 + 511 + 1023,
            measured_seconds: 15.42,
            gradients_per_draw: vec![1, 7, 511, 1023],
            max_depth: 10,
        };
        assert_eq!(estimate.remaining_draws(), 2996);
        assert_eq!(estimate.settled_gradients_per_draw(), 767.0);
        assert!((estimate.seconds_per_gradient() - 0.01).abs() < 1e-12);
        assert!((estimate.estimated_seconds() - (15.42 + 2996.0 * 7.67)).abs() < 1e-6);
        assert!((estimate.estimated_seconds_if_saturated() - (15.42 + 2996.0 * 10.23)).abs() < 1e-6);
        assert!(estimate.assumptions().contains("4 draws"));
    }
}
