//! Settings of stochastic variational inference.

use crate::error::BackendError;
use crate::precision::Precision;
use infermark_model::Coordinates;
use infermark_model::objective::Objective;
use infermark_model::optimizer::AdamW;
use serde::{Deserialize, Serialize};

/// Settings of SVI; the defaults are the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SviSettings {
    /// Iterations.
    pub iterations: u64,
    /// K, particles per iteration.
    pub particles: usize,
    /// What is maximized.
    pub objective: Objective,
    /// The coordinates of the guide; requests written before this field existed use the published ones.
    #[serde(default)]
    pub coordinates: Coordinates,
    /// The optimizer and its schedule.
    pub optimizer: AdamW,
    /// Floating-point type of the passes over the panel.
    pub precision: Precision,
    /// Stop before the last iteration once this criterion is met; `None` runs the whole schedule.
    pub early_stop: Option<EarlyStop>,
    /// Iterations between two entries of the loss trace.
    pub trace_every: u64,
    /// Products of a mini-batch, about; `None`, as in requests written before this field existed, passes over all in every iteration.
    /// It goes with the ELBO, whose sums over a batch are right in the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_products: Option<usize>,
}

impl Default for SviSettings {
    fn default() -> Self {
        SviSettings {
            iterations: 1_000_000,
            particles: 4,
            objective: Objective::default(),
            coordinates: Coordinates::Published,
            optimizer: AdamW::default(),
            precision: Precision::F32,
            early_stop: None,
            trace_every: 100,
            batch_products: None,
        }
    }
}

impl SviSettings {
    /// The defaults in orthogonal coordinates: objective and particles as published, and 50,000 iterations
    /// over which the learning rate falls from 0.01 to 1e-5, without early stopping.
    pub fn orthogonal() -> Self {
        SviSettings {
            coordinates: Coordinates::Orthogonal,
            ..SviSettings::default()
        }
        .falling_over(50_000)
    }

    /// The settings with `iterations` over which the learning rate falls from its start to its floor.
    #[must_use]
    pub fn falling_over(self, iterations: u64) -> Self {
        SviSettings {
            iterations,
            optimizer: AdamW::falling_over(iterations, self.optimizer.learning_rate),
            ..self
        }
    }
}

/// When a run has converged: the mean loss of the last `window` iterations is lower than that of the `window` before
/// by less than `tolerance` standard errors of their difference, or by less than `least_fall` for each latent, `patience` windows in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// Iterations of a window.
    pub window: u64,
    /// Standard errors.
    pub tolerance: f64,
    /// Windows in a row.
    pub patience: u32,
    /// Nats for each latent.
    #[serde(default)]
    pub least_fall: f64,
}

impl Default for EarlyStop {
    fn default() -> Self {
        EarlyStop {
            window: 2_000,
            tolerance: 1.0,
            patience: 5,
            least_fall: 0.0,
        }
    }
}

impl EarlyStop {
    /// Whether a run of this many iterations can meet the criterion: one first window, and then the required
    /// number of flat ones.
    pub fn can_be_met_in(&self, iterations: u64) -> bool {
        self.window.saturating_mul(u64::from(self.patience) + 1) <= iterations
    }

    /// The criterion for a learning rate that falls over `iterations`, a twentieth of which is a window. The
    /// loss of such a run falls until its end, because a lower rate leaves the means closer to their optimum:
    /// means that are on average `d` of their standard deviations away cost `d^2 / 2` nats each, and a fall
    /// of 0.001 nats is one from 0.08 to 0.07.
    ///
    /// `None` below 2,000 iterations: a rate that falls that fast may stop the means, and with them the loss,
    /// before the optimum.
    pub fn falling_over(iterations: u64) -> Option<Self> {
        (iterations >= 2_000).then_some(EarlyStop {
            window: iterations / 20,
            tolerance: 1.0,
            patience: 3,
            least_fall: 1e-3,
        })
    }
}

impl SviSettings {
    pub(super) fn validate(&self) -> Result<(), BackendError> {
        let refuse = |text: String| Err(BackendError::request(text));
        if self.iterations == 0 || self.iterations >= u64::from(u32::MAX) {
            return refuse(format!(
                "iterations is {}; give 1 to {}",
                self.iterations,
                u32::MAX - 1
            ));
        }
        if self.particles == 0 || self.particles > 1024 {
            return refuse(format!("particles is {}; give 1 to 1024", self.particles));
        }
        if let Objective::Renyi { alpha } = self.objective
            && !alpha.is_finite()
        {
            return refuse(format!(
                "alpha is {alpha}; give a finite number (0 is the importance-weighted bound)"
            ));
        }
        match self.batch_products {
            Some(0) => return refuse("batch_products is 0; give at least 1".into()),
            Some(_) if self.objective != Objective::Elbo => {
                return Err(BackendError::request(
                    "a mini-batch gives no unbiased estimate of a Renyi bound; mini-batches go with the ELBO",
                ));
            }
            _ => {}
        }
        if self.trace_every == 0 {
            return refuse("trace_every is 0; give at least 1".into());
        }
        let adam = &self.optimizer;
        for (name, value, low, high) in [
            ("b1", adam.b1, 0.0, 1.0 - 1e-9),
            ("b2", adam.b2, 0.0, 1.0 - 1e-9),
            ("eps", adam.eps, 0.0, 1.0),
            ("weight_decay", adam.weight_decay, 0.0, 1e6),
            ("learning_rate", adam.learning_rate, 1e-12, 1e3),
            ("decay_rate", adam.decay_rate, 1e-12, 1.0),
            ("decay_iterations", adam.decay_iterations, 1e-3, 1e15),
            ("learning_rate_floor", adam.learning_rate_floor, 0.0, 1e3),
        ] {
            if !(low..=high).contains(&value) {
                return refuse(format!("{name} is {value}; give a number from {low} to {high}"));
            }
        }
        if adam.learning_rate < adam.learning_rate_floor {
            return refuse(format!(
                "learning_rate is {}, below the {} that it would fall to; give at least that",
                adam.learning_rate, adam.learning_rate_floor
            ));
        }
        let Some(stop) = self.early_stop else {
            return Ok(());
        };
        if stop.window < 10 {
            return refuse(format!("window is {}; give at least 10", stop.window));
        }
        if stop.patience == 0 {
            return refuse("patience is 0; give at least 1".into());
        }
        if stop.tolerance.is_nan() || stop.tolerance <= 0.0 {
            return refuse(format!("tolerance is {}; give a positive number", stop.tolerance));
        }
        if !(0.0..=1e3).contains(&stop.least_fall) {
            return refuse(format!(
                "least_fall is {}; give a number from 0 to 1000",
                stop.least_fall
            ));
        }
        Ok(())
    }
}
