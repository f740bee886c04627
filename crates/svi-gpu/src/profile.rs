//! Where an iteration's time goes on a device.

use infermark_backend::Limits;
use serde::Serialize;

/// The parts of an iteration, measured on one panel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// What the device can do at most.
    pub limits: Limits,
    /// The launches of an iteration, each repeated alone until the device is busy all the time.
    pub launches: Vec<LaunchTime>,
    /// Complete iterations, by how many are issued between two readings of the losses.
    pub batches: Vec<BatchTime>,
}

/// A launch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LaunchTime {
    /// What it does.
    pub name: &'static str,
    /// Seconds.
    pub seconds: f64,
}

/// Iterations between two readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchTime {
    /// How many.
    pub iterations: u32,
    /// Seconds of one, with its share of the reading; the best of the passes.
    pub seconds_per_iteration: f64,
}
