//! The compile-time parameters of a launch, and the values from the priors.

use super::super::fold::Sums;
use super::sums::THREADS;
use cubecl::prelude::*;

/// The parameters of a launch that are fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::fused) struct Task {
    /// K.
    pub(in crate::fused) particles: usize,
    /// Weigh the particles and turn derivatives back.
    pub(in crate::fused) back: bool,
    /// Make the step.
    pub(in crate::fused) learn: bool,
    /// Draw and place.
    pub(in crate::fused) place: bool,
    /// Take the period effects.
    pub(in crate::fused) periods: bool,
    /// Take the top.
    pub(in crate::fused) top: bool,
    /// Whether the centredness is learned.
    pub(in crate::fused) learned: bool,
    /// Whether the coordinates are the orthogonal ones.
    pub(in crate::fused) orthogonal: bool,
    /// Whether the objective is the plain ELBO.
    pub(in crate::fused) elbo: bool,
}

impl Task {
    /// What the products left.
    pub(super) fn sums(self) -> Sums {
        Sums {
            particles: self.particles,
            learned: self.learned,
            orthogonal: self.orthogonal,
        }
    }

    /// Threads that share a particle, a power of two.
    pub(super) fn slices(&self) -> usize {
        THREADS / self.particles.next_power_of_two()
    }
}

/// The priors' values for the sites above the products, and the learning of every site's centredness.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(in crate::fused) struct Sites {
    pub(in crate::fused) global_mean: f32,
    pub(in crate::fused) time_mean: f32,
    /// `ln` of the prior sds, in the order of the sites.
    pub(in crate::fused) global_ln_sd: f32,
    pub(in crate::fused) category_ln_sd: f32,
    pub(in crate::fused) product_ln_sd: f32,
    pub(in crate::fused) effect_ln_sd: f32,
    pub(in crate::fused) time_ln_sd: f32,
}
