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
    /// Limit of tree doublings: at most `2^max_depth - 1` gradients per draw.
    pub max_depth: u32,
}

impl PublishedNutsEstimate {
    /// Draws that were not made.
    pub fn remaining_draws(&self) -> u64 {
        NUTS_DRAWS.saturating_sub(self.measured_draws)
    }

    /// Gradients assumed for a draw that was not made. Before warm-up has ended the chain has not converged
    /// and its trees are shorter than later, so until then every further tree counts as full; afterwards, the
    /// mean over the last half of the measured draws.
    pub fn assumed_gradients_per_draw(&self) -> f64 {
        if self.is_upper_bound() {
            return self.saturated_gradients_per_draw();
        }
        let half = &self.gradients_per_draw[self.gradients_per_draw.len() / 2..];
        half.iter().map(|gradients| *gradients as f64).sum::<f64>() / half.len().max(1) as f64
    }

    /// Gradients of a draw whose tree is full.
    pub fn saturated_gradients_per_draw(&self) -> f64 {
        2f64.powi(self.max_depth as i32) - 1.0
    }

    /// Whether [`PublishedNutsEstimate::estimated_seconds`] is an upper bound instead of an estimate: every draw that was not
    /// made counts with a full tree.
    pub fn is_upper_bound(&self) -> bool {
        self.remaining_draws() > 0 && self.measured_draws < NUTS_WARMUP
    }

    /// Seconds of one gradient.
    pub fn seconds_per_gradient(&self) -> f64 {
        self.measured_seconds / self.measured_gradients as f64
    }

    /// Measured seconds, and for the rest [`PublishedNutsEstimate::assumed_gradients_per_draw`].
    pub fn estimated_seconds(&self) -> f64 {
        let rest = self.remaining_draws() as f64 * self.assumed_gradients_per_draw();
        self.measured_seconds + rest * self.seconds_per_gradient()
    }

    /// What was assumed, in words.
    pub fn assumptions(&self) -> String {
        let why = if self.is_upper_bound() {
            "full trees and so an upper bound, since the chain was still warming up and its trees were not yet those of the \
             posterior"
        } else {
            "the mean of the last half of the measured draws"
        };
        format!(
            "one chain, {NUTS_DRAWS} draws of which {NUTS_WARMUP} warm-up, diagonal metric, trees to depth {}: {} draws \
             ({} gradients, {:.1} s) measured, the other {} estimated at {:.0} gradients a draw, {why}",
            self.max_depth,
            self.measured_draws,
            self.measured_gradients,
            self.measured_seconds,
            self.remaining_draws(),
            self.assumed_gradients_per_draw(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_by_hand() {
        let mut estimate = PublishedNutsEstimate {
            measured_draws: 4,
            measured_gradients: 1 + 7 + 511 + 1023,
            measured_seconds: 15.42,
            gradients_per_draw: vec![1, 7, 511, 1023],
            max_depth: 10,
        };
        assert_eq!(estimate.remaining_draws(), 2996);
        assert!((estimate.seconds_per_gradient() - 0.01).abs() < 1e-12);
        assert!((estimate.estimated_seconds() - (15.42 + 2996.0 * 10.23)).abs() < 1e-6);
        assert!(estimate.is_upper_bound());
        for words in ["4 draws", "an upper bound"] {
            assert!(estimate.assumptions().contains(words));
        }
        // After warm-up the measured trees are used.
        estimate.measured_draws = 1500;
        estimate.measured_gradients = 1500 * 300;
        estimate.measured_seconds = 4500.0;
        estimate.gradients_per_draw = [vec![400; 750], vec![200; 750]].concat();
        assert!(!estimate.is_upper_bound() && !estimate.assumptions().contains("upper bound"));
        assert_eq!(estimate.assumed_gradients_per_draw(), 200.0);
        assert!((estimate.estimated_seconds() - (4500.0 + 1500.0 * 200.0 * 0.01)).abs() < 1e-6);
    }
}
