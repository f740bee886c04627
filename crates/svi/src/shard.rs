//! Runs of several ranks, and what crosses where the panel is cut by product: one shard a rank. (By row: [`crate::ReplicaLink`].)
//!
//! A rank has its products' latents to itself. The hierarchy above them - means and shapes of categories, period effects, the
//! global mean - every rank computes alike, from sums over all products that cross once an iteration, in one buffer ([`Sums`]).

use crate::{Chart, Iterate, NoiseSource};
use infermark_backend::{Backend, BackendError, Request};
use infermark_communicator::Communicator;
use infermark_model::guide::Guide;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Cut, Layout, Parameterization, Shard};
use std::ops::Range;

/// A backend that can iterate one shard of a panel, as one rank of several.
pub trait ShardEngine: Backend {
    /// How the panel of the shards that it iterates may be cut; by default by product.
    fn cuts(&self) -> &'static [Cut] {
        &[Cut::Product]
    }

    /// The iterations of a shard, of which the first is prepared.
    ///
    /// # Errors
    /// As [`Backend::start`].
    fn start_shard(&self, setup: ShardSetup<'_>) -> Result<Box<dyn ShardIterate>, BackendError>;

    /// Loss and gradient of the setup's guide under the noise of `iteration`. The gradient of products of other shards, of a panel that is cut
    /// by product, is 0.
    ///
    /// # Errors
    /// As [`ShardEngine::start_shard`], and when another rank has gone.
    fn shard_loss_and_gradient(
        &self,
        setup: ShardSetup<'_>,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError>;
}

/// Iterates a shard. The guide has the shard's products, and the hierarchy; entries of other products are 0.
pub trait ShardIterate: Iterate {
    /// CPU threads that iterations use.
    fn threads(&self) -> usize;

    /// The connection to the other ranks.
    fn communicator(&mut self) -> &mut dyn Communicator;
}

/// Where a shard's run starts.
pub struct ShardSetup<'a> {
    /// The shard, cut as the request says.
    pub shard: Shard,
    /// The request, with the device and the threads of this shard.
    pub request: &'a Request,
    /// The coordinates of the guide.
    pub chart: &'a Chart,
    /// Where it starts, for all latents of the whole panel.
    pub guide: &'a Guide,
    /// Its noise, the same on all ranks.
    pub noise: NoiseSource,
    /// The other ranks.
    pub communicator: Box<dyn Communicator>,
    /// Shards on its device, itself included: what they share of the device's memory.
    pub shards_on_device: usize,
}

/// Where the sums over products are in the buffer that crosses in an iteration. All are sums over the products of a rank, and
/// after the all-reduce over all.
///
/// With C categories, T periods and K particles there are K log-weights, C K derivatives with respect to the prior means of
/// elasticities, C K T to the period effects and one number that says whether a rank was interrupted; in orthogonal
/// coordinates another C K, to the prior means of effects; where the centredness is learned 2 K, to that of elasticities and
/// effects; under the negative binomial C K, to the shapes. At C = 10, T = 156, K = 4 with learned centredness: 6,293 numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    particles: usize,
    categories: usize,
    periods: usize,
    has_effect_means: bool,
    has_centredness: bool,
    has_shapes: bool,
}

impl Sums {
    /// The sums of a run.
    pub fn new(layout: &Layout, chart: &Chart, particles: usize) -> Self {
        Sums {
            particles,
            categories: layout.categories,
            periods: layout.periods,
            has_effect_means: chart.orthogonal().is_some(),
            has_centredness: chart.parameterization() == Parameterization::Learned,
            has_shapes: layout.likelihood.has_shape(),
        }
    }

    /// Particles K.
    pub fn particles(&self) -> usize {
        self.particles
    }

    /// Numbers of the buffer.
    pub fn numbers(&self) -> usize {
        self.interrupted() + 1
    }

    /// Log-weights of the particles: prior, guide and likelihood of products.
    pub fn log_weights(&self) -> Range<usize> {
        0..self.particles
    }

    /// A category's derivatives with respect to the prior mean of elasticities, by particle.
    pub fn means(&self, category: usize) -> Range<usize> {
        self.by_particle(self.particles, category)
    }

    /// A category's derivatives with respect to the prior mean of effects, by particle, in orthogonal coordinates.
    pub fn effect_means(&self, category: usize) -> Option<Range<usize>> {
        self.has_effect_means
            .then(|| self.by_particle(self.end_of_means(), category))
    }

    /// Derivatives with respect to the centredness of elasticities, then of effects, by particle, where it is learned.
    pub fn centredness(&self) -> Option<[Range<usize>; 2]> {
        let start = self.end_of_effect_means();
        let half = start + self.particles;
        self.has_centredness
            .then_some([start..half, half..half + self.particles])
    }

    /// A category's derivatives with respect to its log shape, by particle, under the negative binomial.
    pub fn shapes(&self, category: usize) -> Option<Range<usize>> {
        self.has_shapes
            .then(|| self.by_particle(self.end_of_centredness(), category))
    }

    /// A category's sums of rates by period, of one particle.
    pub fn rates(&self, category: usize, particle: usize) -> Range<usize> {
        let at = self.end_of_shapes() + (category * self.particles + particle) * self.periods;
        at..at + self.periods
    }

    /// The number that is positive if a rank was interrupted.
    pub fn interrupted(&self) -> usize {
        self.end_of_shapes() + self.categories * self.particles * self.periods
    }

    fn by_particle(&self, start: usize, category: usize) -> Range<usize> {
        let at = start + category * self.particles;
        at..at + self.particles
    }

    fn end_of_means(&self) -> usize {
        self.particles * (1 + self.categories)
    }

    fn end_of_effect_means(&self) -> usize {
        self.end_of_means() + self.optional(self.has_effect_means, self.categories)
    }

    fn end_of_centredness(&self) -> usize {
        self.end_of_effect_means() + self.optional(self.has_centredness, 2)
    }

    fn end_of_shapes(&self) -> usize {
        self.end_of_centredness() + self.optional(self.has_shapes, self.categories)
    }

    fn optional(&self, there: bool, count: usize) -> usize {
        if there { count * self.particles } else { 0 }
    }
}

/// A rank's connection to the others: the buffer, and what carries it.
pub struct Link {
    communicator: Box<dyn Communicator>,
    sums: Sums,
    buffer: Vec<f64>,
}

impl Link {
    /// The connection of a run with these sums.
    pub fn new(communicator: Box<dyn Communicator>, sums: Sums) -> Self {
        Link {
            buffer: vec![0.0; sums.numbers()],
            communicator,
            sums,
        }
    }

    /// Where the sums are in the buffer.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// The buffer.
    pub fn buffer(&self) -> &[f64] {
        &self.buffer
    }

    /// The buffer, to be filled with this rank's sums.
    pub fn buffer_mut(&mut self) -> &mut [f64] {
        &mut self.buffer
    }

    /// Adds the buffers of all ranks up. Returns whether any rank was interrupted: all then stop after the same iteration.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    pub fn all_reduce(&mut self, interrupted: bool) -> Result<bool, BackendError> {
        let at = self.sums.interrupted();
        self.buffer[at] = f64::from(u8::from(interrupted));
        self.communicator
            .all_reduce(&mut self.buffer)
            .map_err(BackendError::from)?;
        Ok(self.buffer[at] > 0.0)
    }

    /// What carries the buffer.
    pub fn communicator(&mut self) -> &mut dyn Communicator {
        &mut *self.communicator
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;

    fn layout(likelihood: Likelihood) -> Layout {
        Layout {
            products: 1000,
            categories: 10,
            periods: 156,
            likelihood,
        }
    }

    #[test]
    fn every_number_has_one_place() {
        for (learned, likelihood, expected) in [
            (true, Likelihood::Poisson, 6_293),
            (false, Likelihood::Poisson, 6_285),
            (true, Likelihood::NegativeBinomial, 6_333),
        ] {
            let parameterization = match learned {
                true => Parameterization::Learned,
                false => Parameterization::Centered,
            };
            let sums = Sums::new(&layout(likelihood), &Chart::Published(parameterization), 4);
            assert_eq!(sums.numbers(), expected);
            let mut seen = vec![0; sums.numbers()];
            let mut see = |range: Range<usize>| seen[range].iter_mut().for_each(|n| *n += 1);
            see(sums.log_weights());
            for category in 0..10 {
                see(sums.means(category));
                sums.effect_means(category).into_iter().for_each(&mut see);
                sums.shapes(category).into_iter().for_each(&mut see);
                (0..4).for_each(|k| see(sums.rates(category, k)));
            }
            sums.centredness().into_iter().flatten().for_each(&mut see);
            see(sums.interrupted()..sums.interrupted() + 1);
            assert!(seen.iter().all(|n| *n == 1));
        }
    }
}
