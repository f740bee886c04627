//! Where a run's noise comes from.

use infermark_model::svi::Noise;

/// The noise of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum NoiseSource {
    /// Drawn from the model's counter-based stream.
    Philox {
        /// The run's seed.
        seed: u64,
    },
    /// Recorded elsewhere, one entry an iteration: to follow another implementation step by step.
    Recorded(Vec<Noise>),
}
