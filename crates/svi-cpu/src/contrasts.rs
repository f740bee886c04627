//! A category's period effects in orthogonal coordinates: contrasts that sum to zero, and their level.

use crate::block::{Block, Step};
use infermark_cpu_kernels::{Scalar, Simd};
use infermark_model::coordinates::{Orthogonal, ZeroSum};
use infermark_model::guide::Guide;
use infermark_model::parameterization::LocScale;
use infermark_model::priors::Priors;
use infermark_model::site::Layout;
use infermark_svi::NoiseSource;

/// What a category has beside the block of its contrasts' free numbers.
pub(crate) struct Contrasts<S> {
    /// The level `l`, a block of one.
    level: Block<S>,
    transform: LocScale,
    /// Prior mean of the level, one entry a particle.
    level_means: Vec<f64>,
    zero_sum: ZeroSum,
    /// The weights of `w`, length T.
    share: Vec<f64>,
    effect_mean: f64,
    /// Prior mean of the products' `e''` but for their own part, `product_effect_mean + l + w`, one entry a particle.
    pub(crate) effect_means: Vec<f64>,
    /// `s - w` of the particle that was placed last, length T.
    pub(crate) values: Vec<S>,
    /// Scratch, length T each.
    contrasts: Vec<f64>,
    by_free: Vec<f64>,
}

impl<S: Scalar> Contrasts<S> {
    /// The contrasts of a category of `guide`.
    pub(crate) fn new(
        orthogonal: &Orthogonal,
        layout: &Layout,
        category: usize,
        priors: &Priors,
        guide: &Guide,
        particles: usize,
    ) -> Self {
        let periods = layout.periods;
        let level = layout.time_index(category, periods - 1) as u32;
        let sd = priors.time_cat_effects_sd / (periods as f64).sqrt();
        Contrasts {
            level: Block::new(vec![level], guide, particles),
            transform: LocScale::new(sd, 1.0),
            level_means: vec![priors.time_cat_effects_mean; particles],
            zero_sum: orthogonal.zero_sum,
            share: orthogonal.shares_of(category).to_vec(),
            effect_mean: priors.product_effect_mean,
            effect_means: vec![priors.product_effect_mean; particles],
            values: vec![S::default(); periods],
            contrasts: vec![0.0; periods],
            by_free: vec![0.0; periods - 1],
        }
    }

    /// Draws and places the level.
    #[inline(always)]
    pub(crate) fn place_level<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        noise: &NoiseSource,
        iteration: u32,
        log_weights: &mut [f64],
    ) {
        self.level.draw(isa, noise, iteration);
        self.level
            .place(isa, &self.transform, &self.level_means, log_weights);
    }

    /// Places particle k of the free numbers `free`, padded: the values, and the prior mean of the effects.
    pub(crate) fn place(&mut self, free: &[S], k: usize) {
        let periods = self.contrasts.len();
        for (y, free) in self.by_free.iter_mut().zip(free) {
            *y = free.to_f64();
        }
        self.zero_sum.contrasts(&self.by_free, &mut self.contrasts);
        let weighted: f64 = self.share.iter().zip(&self.contrasts).map(|(p, s)| p * s).sum();
        for (value, s) in self.values[..periods].iter_mut().zip(&self.contrasts) {
            *value = S::from_f64(s - weighted);
        }
        self.effect_means[k] = self.effect_mean + self.level.particle[k][0].to_f64() + weighted;
    }

    /// Turns the derivatives of particle k's log-weight by its values, length T, and by the prior mean of the effects back into those by the
    /// free numbers and the level.
    pub(crate) fn back(&mut self, by_values: &[f64], by_effect_mean: f64, k: usize, by_free: &mut [S]) {
        // A value is `s - w`; the effects' prior mean has `l + w`.
        let by_weighted = by_effect_mean - by_values.iter().sum::<f64>();
        for ((by, value), share) in self.contrasts.iter_mut().zip(by_values).zip(&self.share) {
            *by = value + share * by_weighted;
        }
        self.zero_sum.transposed(&self.contrasts, &mut self.by_free);
        for (to, by) in by_free.iter_mut().zip(&self.by_free) {
            *to = S::from_f64(*by);
        }
        self.level.particle[k][0] = S::from_f64(by_effect_mean);
    }

    /// Turns the level's derivatives back.
    #[inline(always)]
    pub(crate) fn back_level<I: Simd<Scalar = S>>(&mut self, isa: I) {
        self.level.back(isa, &self.transform, &self.level_means, None);
    }

    /// The level's step.
    #[inline(always)]
    pub(crate) fn step<I: Simd<Scalar = S>>(&mut self, isa: I, step: &Step<'_>) {
        self.level.step(isa, step);
    }

    /// Copies the level's parameters into `guide`.
    pub(crate) fn write_to(&self, guide: &mut Guide) {
        self.level.write_to(guide);
    }

    /// Writes the level's gradient.
    pub(crate) fn write_gradient<I: Simd<Scalar = S>>(&self, isa: I, weights: &[f64], gradient: &mut Guide) {
        self.level.write_gradient(isa, weights, gradient);
    }
}
