//! The source of a run's noise.

use infermark_model::svi::Noise;

/// The noise of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum NoiseSource {
    /// Drawn from the model's counter-based stream.
    Philox {
        /// The run's seed.
        seed: u64,
    },
    /// Noise recorded elsewhere.
    Recorded(Recording),
}

/// The noise of another implementation, for following it step by step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recording {
    /// Noise, one entry per iteration.
    pub noise: Vec<Noise>,
    /// Learning rates, one per iteration, of an implementation that rounds its schedule; after the end of the
    /// list the settings' schedule applies.
    pub learning_rates: Vec<f64>,
}

impl NoiseSource {
    /// Recorded noise under the settings' schedule.
    pub fn recorded(noise: Vec<Noise>) -> Self {
        NoiseSource::Recorded(Recording {
            noise,
            learning_rates: Vec::new(),
        })
    }

    /// The seed of what is drawn besides the noise.
    pub fn seed(&self) -> u64 {
        match self {
            NoiseSource::Philox { seed } => *seed,
            NoiseSource::Recorded(_) => 0,
        }
    }

    /// The recorded learning rate of an iteration, if there is one.
    pub fn learning_rate(&self, iteration: u32) -> Option<f64> {
        match self {
            NoiseSource::Philox { .. } => None,
            NoiseSource::Recorded(recording) => recording.learning_rates.get(iteration as usize).copied(),
        }
    }
}
