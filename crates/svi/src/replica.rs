//! What crosses where the panel is cut by row.
//!
//! Every rank has all parameters and their optimizer's state, and computes from its rows its share of the gradient with respect to each.
//! Two all-reduces an iteration: the particles' log-weights, which decide how much each of them counts, and then the weighted gradient.
//! From that every rank makes the same step. The priors are the first rank's share.

use crate::Chart;
use infermark_backend::BackendError;
use infermark_communicator::Communicator;
use infermark_model::{Layout, Parameterization, Site};

/// A rank's connection to the others; see the module.
pub struct ReplicaLink {
    communicator: Box<dyn Communicator>,
    /// The log-weights, and a number that is positive if a rank was interrupted.
    log_weights: Vec<f64>,
}

impl ReplicaLink {
    /// The connection of a run with K particles.
    pub fn new(communicator: Box<dyn Communicator>, particles: usize) -> Self {
        ReplicaLink {
            communicator,
            log_weights: vec![0.0; particles + 1],
        }
    }

    /// Numbers of the gradient: two for each latent, and the centredness of each site where it is learned.
    pub fn gradient_numbers(layout: &Layout, chart: &Chart) -> usize {
        let centredness = match chart.parameterization() {
            Parameterization::Learned => Site::REPARAMETERIZED.len(),
            Parameterization::Centered | Parameterization::Noncentered => 0,
        };
        2 * layout.latents() + centredness
    }

    /// Numbers that cross in an iteration, K + 1 besides the gradient. Each has 8 bytes.
    pub fn numbers(layout: &Layout, chart: &Chart, particles: usize) -> usize {
        Self::gradient_numbers(layout, chart) + particles + 1
    }

    /// Replaces the log-weights by their sums over the ranks. Returns whether any rank was interrupted: all then stop after the same
    /// iteration.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    pub fn all_reduce_log_weights(
        &mut self,
        log_weights: &mut [f64],
        interrupted: bool,
    ) -> Result<bool, BackendError> {
        let (flag, own) = self
            .log_weights
            .split_last_mut()
            .expect("a number for interrupts");
        *flag = f64::from(u8::from(interrupted));
        own.copy_from_slice(log_weights);
        self.communicator.all_reduce(&mut self.log_weights)?;
        let (flag, sums) = self.log_weights.split_last().expect("a number for interrupts");
        log_weights.copy_from_slice(sums);
        Ok(*flag > 0.0)
    }

    /// Replaces the share of the gradient by the sum over the ranks.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    pub fn all_reduce_gradient(&mut self, gradient: &mut [f64]) -> Result<(), BackendError> {
        Ok(self.communicator.all_reduce(gradient)?)
    }

    /// What carries them.
    pub fn communicator(&mut self) -> &mut dyn Communicator {
        &mut *self.communicator
    }
}
