//! A category's period effects in orthogonal coordinates: contrasts that sum to zero, and their level.

use crate::block::{Block, BlockStart, Step};
use infermark_cpu_kernels::chunk::PAD;
use infermark_cpu_kernels::{Scalar, Simd};
use infermark_model::guide::Guide;
use infermark_model::{Layout, LocScale, Orthogonal, Priors, ZeroSum};
use infermark_svi::{GuideState, NoiseSource};

/// The parts of a category in addition to the block of its contrasts' free numbers.
pub(crate) struct Contrasts<S> {
    /// The level `l`, a block of one.
    pub(crate) level: Block<S>,
    transform: LocScale,
    /// Prior mean of the level, one entry per particle.
    level_means: Vec<f64>,
    zero_sum: ZeroSum,
    /// The weights of `w` except that of the last period, padded with zeros.
    share: Vec<f64>,
    last_share: f64,
    effect_mean: f64,
    /// Prior mean of the products' `e''` without their own part, `product_effect_mean + l + w`, one entry per
    /// particle.
    pub(crate) effect_means: Vec<f64>,
    /// `s - w` of the particle that was placed last, length T.
    pub(crate) values: Vec<S>,
    /// Scratch, padded.
    free: Vec<f64>,
}

impl<S: Scalar> Contrasts<S> {
    /// The contrasts of a category.
    pub(crate) fn new(
        orthogonal: &Orthogonal,
        layout: &Layout,
        category: usize,
        priors: &Priors,
        start: &BlockStart<'_>,
    ) -> Self {
        let particles = start.particles;
        let periods = layout.periods;
        let level = layout.time_index(category, periods - 1) as u32;
        let (last_share, shares) = orthogonal.shares_of(category).split_last().expect("a period");
        let padded = (periods - 1).next_multiple_of(PAD);
        let mut share = shares.to_vec();
        share.resize(padded, 0.0);
        let sd = priors.time_cat_effects_sd / (periods as f64).sqrt();
        Contrasts {
            level: Block::new(vec![level], start),
            transform: LocScale::new(sd, 1.0),
            level_means: vec![priors.time_cat_effects_mean; particles],
            zero_sum: orthogonal.zero_sum,
            share,
            last_share: *last_share,
            effect_mean: priors.product_effect_mean,
            effect_means: vec![priors.product_effect_mean; particles],
            values: vec![S::default(); periods],
            free: vec![0.0; padded],
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
    #[inline(always)]
    pub(crate) fn place<I: Simd<Scalar = S>>(&mut self, isa: I, free: &[S], k: usize) {
        let others = self.values.len() - 1;
        for (to, free) in self.free.iter_mut().zip(&free[..others]) {
            *to = free.to_f64();
        }
        let [sum, weighted] = self.sums(isa);
        let ZeroSum { shared, last } = self.zero_sum;
        // A contrast is `y_t - shared sum`, the last one `-last sum`.
        let of_shares = self.sum_of_shares();
        let w = weighted - sum * (shared * of_shares + last * self.last_share);
        let less = shared * sum + w;
        for (value, free) in self.values.iter_mut().zip(&self.free[..others]) {
            *value = S::from_f64(free - less);
        }
        self.values[others] = S::from_f64(-last * sum - w);
        self.effect_means[k] = self.effect_mean + self.level.particle[k][0].to_f64() + w;
    }

    /// Converts the derivatives of particle k's log-weight with respect to its values, length T, and to the
    /// prior mean of the effects into those with respect to the free numbers and the level.
    #[inline(always)]
    pub(crate) fn back<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        by_values: &[f64],
        by_effect_mean: f64,
        k: usize,
        by_free: &mut [S],
    ) {
        let others = self.values.len() - 1;
        self.free[..others].copy_from_slice(&by_values[..others]);
        let [sum, _] = self.sums(isa);
        let by_last = by_values[others];
        // A value is `s - w`; the effects' prior mean has `l + w`.
        let by_w = by_effect_mean - (sum + by_last);
        let ZeroSum { shared, last } = self.zero_sum;
        let common = shared * (sum + by_w * self.sum_of_shares()) + last * (by_last + by_w * self.last_share);
        let by_values = self.free[..others].iter().zip(&self.share);
        for (to, (by_value, share)) in by_free.iter_mut().zip(by_values) {
            *to = S::from_f64(by_value + share * by_w - common);
        }
        self.level.particle[k][0] = S::from_f64(by_effect_mean);
    }

    /// The shares of all periods but the last; with the last they sum to one.
    fn sum_of_shares(&self) -> f64 {
        1.0 - self.last_share
    }

    /// Sums of the scratch, and of it times the shares. Its padding is zero.
    #[inline(always)]
    fn sums<I: Simd<Scalar = S>>(&self, isa: I) -> [f64; 2] {
        let wide = isa.wide();
        let mut sums = [wide.zero(); 2];
        for i in (0..self.free.len()).step_by(<I::Wide as Simd>::LANES) {
            let free = wide.load(&self.free[i..]);
            sums[0] = wide.add(sums[0], free);
            sums[1] = wide.mul_add(free, wide.load(&self.share[i..]), sums[1]);
        }
        sums.map(|sum| wide.sum(sum))
    }

    /// Converts the level's derivatives.
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

    /// Copies the level's parameters and moments into `state`.
    pub(crate) fn write_state(&self, state: &mut GuideState) {
        self.level.write_state(state);
    }

    /// Takes the level's parameters and moments from `state`.
    pub(crate) fn read_state(&mut self, state: &GuideState) {
        self.level.read_state(state);
    }

    /// Writes the level's gradient.
    pub(crate) fn write_gradient<I: Simd<Scalar = S>>(&self, isa: I, weights: &[f64], gradient: &mut Guide) {
        self.level.write_gradient(isa, weights, gradient);
    }
}
