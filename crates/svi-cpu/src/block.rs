//! A run of latents of one site with their guide: parameters, moments, noise and particles, as columns.
//!
//! Every vector is padded to [`PAD`]; entries beyond `len` are finite and ignored.

use infermark_cpu_kernels::chunk::PAD;
use infermark_cpu_kernels::lanes_below;
use infermark_cpu_kernels::{Scalar, Simd, noise};
use infermark_model::LocScale;
use infermark_model::guide::Guide;
use infermark_model::noise::{PARTICLES_PER_BLOCK, Stream};
use infermark_model::optimizer::{AdamW, StepScalars};
use infermark_svi::{GuideState, NoiseSource};
use std::f64::consts::LOG2_E;

/// One parameter of the guide for every latent, with AdamW's moments.
#[derive(Debug, Clone)]
struct Column<S> {
    value: Vec<S>,
    first: Vec<S>,
    second: Vec<S>,
}

impl<S: Scalar> Column<S> {
    fn new(values: impl Iterator<Item = f64>, padded: usize) -> Self {
        let mut value: Vec<S> = values.map(S::from_f64).collect();
        let pad = value.first().copied().unwrap_or_default();
        value.resize(padded, pad);
        Column {
            value,
            first: vec![S::default(); padded],
            second: vec![S::default(); padded],
        }
    }

    /// Takes value and moments from `of`, which has them for all latents.
    fn read(&mut self, latents: &[u32], of: [&[f64]; 3]) {
        for (column, of) in [&mut self.value, &mut self.first, &mut self.second]
            .into_iter()
            .zip(of)
        {
            for (entry, latent) in column.iter_mut().zip(latents) {
                *entry = S::from_f64(of[*latent as usize]);
            }
        }
    }

    /// Copies value and moments into `to`, which has a place for all latents.
    fn write_to(&self, latents: &[u32], to: [&mut [f64]; 3]) {
        for (column, to) in [&self.value, &self.first, &self.second].into_iter().zip(to) {
            for (entry, latent) in column.iter().zip(latents) {
                to[*latent as usize] = entry.to_f64();
            }
        }
    }
}

/// Sums over a block that its parent and its centredness need, for one particle.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ParentSums {
    /// Derivative of the log-weight with respect to the prior mean.
    pub(crate) by_mean: f64,
    /// Derivative of the log-weight with respect to the site's centredness.
    pub(crate) by_centredness: f64,
}

/// What blocks start from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockStart<'a> {
    /// The parameters.
    pub(crate) guide: &'a Guide,
    pub(crate) particles: usize,
    /// Whether log-weights and gradients have the parts of prior and guide. Where every rank has all parameters, they are the first
    /// one's share.
    pub(crate) has_prior: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Block<S> {
    latents: Vec<u32>,
    len: usize,
    has_prior: bool,
    loc: Column<S>,
    unconstrained_scale: Column<S>,
    /// `softplus(u)` and its derivative, as of the last [`Block::place`].
    sigma: Vec<S>,
    sigma_slope: Vec<S>,
    eps: Vec<Vec<S>>,
    /// `z - c * mean`, one column per particle.
    residual: Vec<Vec<S>>,
    /// One column per particle: values after [`Block::place`], derivatives with respect to the value after
    /// the likelihood's pass, derivatives with respect to `z` after [`Block::back`].
    pub(crate) particle: Vec<Vec<S>>,
}

/// The scalars of an optimizer step in the block's type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    /// Weights of the particles.
    pub(crate) weights: &'a [f64],
    /// Learning rate and bias corrections.
    pub(crate) scalars: StepScalars,
    /// The optimizer.
    pub(crate) adam: &'a AdamW,
}

impl<S: Scalar> Block<S> {
    /// A block of the given latents of `guide`, of which there may be none.
    pub(crate) fn new(latents: Vec<u32>, start: &BlockStart<'_>) -> Self {
        let BlockStart {
            guide,
            particles,
            has_prior,
        } = *start;
        let len = latents.len();
        let padded = len.next_multiple_of(PAD);
        let column = |from: &[f64]| Column::new(latents.iter().map(|j| from[*j as usize]), padded);
        let (loc, unconstrained_scale) = (column(&guide.loc), column(&guide.unconstrained_scale));
        let columns = || vec![vec![S::default(); padded]; particles];
        let mut latents = latents;
        let pad = latents.first().copied().unwrap_or_default();
        latents.resize(padded, pad);
        Block {
            len,
            has_prior,
            loc,
            unconstrained_scale,
            sigma: vec![S::default(); padded],
            sigma_slope: vec![S::default(); padded],
            eps: columns(),
            residual: columns(),
            particle: columns(),
            latents,
        }
    }

    /// Copies the block's parameters into `guide`.
    pub(crate) fn write_to(&self, guide: &mut Guide) {
        for (i, latent) in self.latents[..self.len].iter().enumerate() {
            guide.loc[*latent as usize] = self.loc.value[i].to_f64();
            guide.unconstrained_scale[*latent as usize] = self.unconstrained_scale.value[i].to_f64();
        }
    }

    /// Copies the block's parameters and their moments into `state`.
    pub(crate) fn write_state(&self, state: &mut GuideState) {
        let latents = &self.latents[..self.len];
        let [guide, first, second] = state.parts_mut();
        self.loc
            .write_to(latents, [&mut guide.loc, &mut first.loc, &mut second.loc]);
        self.unconstrained_scale.write_to(
            latents,
            [guide, first, second].map(|part| &mut part.unconstrained_scale[..]),
        );
    }

    /// Takes the block's parameters and their moments from `state`.
    pub(crate) fn read_state(&mut self, state: &GuideState) {
        let parts = state.parts();
        self.loc.read(&self.latents, parts.map(|part| &part.loc[..]));
        self.unconstrained_scale
            .read(&self.latents, parts.map(|part| &part.unconstrained_scale[..]));
    }

    /// Draws the noise of an iteration.
    #[inline(always)]
    pub(crate) fn draw<I: Simd<Scalar = S>>(&mut self, isa: I, source: &NoiseSource, iteration: u32) {
        match source {
            NoiseSource::Philox { seed } => self.draw_philox(
                isa,
                Stream {
                    seed: *seed,
                    iteration,
                },
            ),
            NoiseSource::Recorded(recording) => {
                // A run draws one iteration ahead of its last step: after the end of the record the last
                // noise is kept.
                let Some(step) = recording.noise.get(iteration as usize) else {
                    return;
                };
                for (column, recorded) in self.eps.iter_mut().zip(step) {
                    for (eps, latent) in column.iter_mut().zip(&self.latents) {
                        *eps = S::from_f64(recorded[*latent as usize]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn draw_philox<I: Simd<Scalar = S>>(&mut self, isa: I, stream: Stream) {
        let mut group = 0;
        while group * PARTICLES_PER_BLOCK < self.eps.len() {
            let first = group * PARTICLES_PER_BLOCK;
            let count = PARTICLES_PER_BLOCK.min(self.eps.len() - first);
            for start in (0..self.latents.len()).step_by(<I::Noise as Simd>::LANES) {
                let normals = noise::normals(isa.noise(), stream, group as u32, &self.latents[start..]);
                for p in 0..count {
                    isa.store_noise(normals[p], &mut self.eps[first + p][start..]);
                }
            }
            group += 1;
        }
    }

    /// Places the particles: `z = loc + sigma * eps` and from it the values. Adds the block's prior and guide to the
    /// log-weights; `means[k]` is the prior mean for particle k.
    #[inline(always)]
    pub(crate) fn place<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        transform: &LocScale,
        means: &[f64],
        log_weights: &mut [f64],
    ) {
        let mean_at = |k: usize| {
            let vector = |x: f64| isa.splat(S::from_f64(x));
            let (mean, anchor) = (vector(means[k]), vector(transform.centredness * means[k]));
            move |_: usize| [mean, anchor]
        };
        self.place_about(isa, transform, mean_at, log_weights);
    }

    /// [`Block::place`] of centred latents whose prior means are `means[k] + slope * of.particle[k]`, of another block's values.
    #[inline(always)]
    pub(crate) fn place_along<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        transform: &LocScale,
        means: &[f64],
        slope: &[S],
        of: &Block<S>,
        log_weights: &mut [f64],
    ) {
        let mean_at = |k: usize| {
            let (mean, values) = (isa.splat(S::from_f64(means[k])), &of.particle[k]);
            move |i: usize| {
                let mean = isa.mul_add(isa.load(&slope[i..]), isa.load(&values[i..]), mean);
                [mean, mean]
            }
        };
        self.place_about(isa, transform, mean_at, log_weights);
    }

    /// Adds to the derivatives with respect to this block's values the terms from the prior of `of`, whose
    /// means depend on them.
    #[inline(always)]
    pub(crate) fn pull_back_along<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        transform: &LocScale,
        slope: &[S],
        of: &Block<S>,
    ) {
        let precision = isa.splat(S::from_f64(of.prior_precision(transform)));
        for (by_value, residual) in self.particle.iter_mut().zip(&of.residual) {
            for i in (0..by_value.len()).step_by(I::LANES) {
                let pull = isa.mul(isa.load(&residual[i..]), precision);
                let moved = isa.mul_add(pull, isa.load(&slope[i..]), isa.load(&by_value[i..]));
                isa.store(moved, &mut by_value[i..]);
            }
        }
    }

    /// [`Block::place`] where `mean_at(k)(i)` gives, for particle k and the vector at `i`, the prior mean and the centredness times it.
    #[inline(always)]
    fn place_about<I: Simd<Scalar = S>, At: Fn(usize) -> [I::V; 2]>(
        &mut self,
        isa: I,
        transform: &LocScale,
        mean_at: impl Fn(usize) -> At,
        log_weights: &mut [f64],
    ) {
        let wide = isa.wide();
        let ln_sigma = self.scales(isa);
        let constant = ln_sigma - self.len as f64 * transform.centredness * transform.ln_sd;
        let scalar = |x: f64| isa.splat(S::from_f64(x));
        let (stretch, half) = (scalar(transform.stretch), scalar(0.5));
        let minus_half_precision = scalar(-0.5 * transform.precision);
        for k in 0..self.eps.len() {
            let mean_at = mean_at(k);
            let mut total = [wide.zero(); 2];
            for i in (0..self.latents.len()).step_by(I::LANES) {
                let eps = isa.load(&self.eps[k][i..]);
                let z = isa.mul_add(isa.load(&self.sigma[i..]), eps, isa.load(&self.loc.value[i..]));
                let [mean, anchor] = mean_at(i);
                let r = isa.sub(z, anchor);
                isa.store(r, &mut self.residual[k][i..]);
                let value = if transform.centredness == 1.0 {
                    z
                } else {
                    isa.mul_add(stretch, r, mean)
                };
                isa.store(value, &mut self.particle[k][i..]);
                let prior = isa.mul(isa.mul(r, r), minus_half_precision);
                let term = isa.mul_add(isa.mul(eps, half), eps, prior);
                let term = isa.widen(isa.keep(term, self.lanes::<I>(i)));
                total = [wide.add(total[0], term[0]), wide.add(total[1], term[1])];
            }
            if self.has_prior {
                log_weights[k] += wide.sum(wide.add(total[0], total[1])) + constant;
            }
        }
    }

    /// The precision of the prior where the block has its part.
    #[inline(always)]
    fn prior_precision(&self, transform: &LocScale) -> f64 {
        if self.has_prior { transform.precision } else { 0.0 }
    }

    /// Lanes of the vector at `i` that hold latents.
    #[inline(always)]
    fn lanes<I: Simd>(&self, i: usize) -> u32 {
        lanes_below::<I>(self.len.saturating_sub(i))
    }

    /// `sigma = softplus(u)` and its derivative; returns the sum of `ln sigma`.
    #[inline(always)]
    fn scales<I: Simd<Scalar = S>>(&mut self, isa: I) -> f64 {
        let wide = isa.wide();
        let scalar = |x: f64| isa.splat(S::from_f64(x));
        let one = scalar(1.0);
        let mut total = [wide.zero(); 2];
        for i in (0..self.latents.len()).step_by(I::LANES) {
            let u = isa.load(&self.unconstrained_scale.value[i..]);
            // e = exp(-|u|); below 2^-120 it no longer matters, and exp2 requires its range.
            let magnitude = isa.max(u, isa.sub(isa.zero(), u));
            let exponent = isa.max(isa.mul(magnitude, scalar(-LOG2_E)), scalar(-120.0));
            let e = isa.exp2(exponent);
            let log_1p = isa.ln_1p_unit(e);
            let sigma = isa.add(isa.max(u, isa.zero()), log_1p);
            let positive = isa.equal(isa.max(u, isa.zero()), u);
            let slope = isa.div(isa.select(positive, one, e), isa.add(one, e));
            isa.store(sigma, &mut self.sigma[i..]);
            isa.store(slope, &mut self.sigma_slope[i..]);
            let ln = isa.widen(isa.keep(isa.ln(sigma), self.lanes::<I>(i)));
            total = [wide.add(total[0], ln[0]), wide.add(total[1], ln[1])];
        }
        wide.sum(wide.add(total[0], total[1]))
    }

    /// Converts derivatives with respect to the value into derivatives with respect to `z`. If `sums` is
    /// given, adds the sums that the parent and the centredness need.
    #[inline(always)]
    pub(crate) fn back<I: Simd<Scalar = S>>(
        &mut self,
        isa: I,
        transform: &LocScale,
        means: &[f64],
        mut sums: Option<&mut [ParentSums]>,
    ) {
        let scalar = |x: f64| isa.splat(S::from_f64(x));
        let precision = self.prior_precision(transform);
        let scales = if self.has_prior { self.len as f64 } else { 0.0 };
        let (stretch, minus_precision) = (scalar(transform.stretch), scalar(-precision));
        for k in 0..self.particle.len() {
            let mut totals = [isa.zero(); 4];
            for i in (0..self.latents.len()).step_by(I::LANES) {
                let by_value = isa.load(&self.particle[k][i..]);
                let r = isa.load(&self.residual[k][i..]);
                let by_z = isa.mul_add(by_value, stretch, isa.mul(r, minus_precision));
                isa.store(by_z, &mut self.particle[k][i..]);
                if sums.is_some() {
                    let lanes = self.lanes::<I>(i);
                    let (by_value, r) = (isa.keep(by_value, lanes), isa.keep(r, lanes));
                    totals[0] = isa.add(totals[0], by_value);
                    totals[1] = isa.mul_add(by_value, r, totals[1]);
                    totals[2] = isa.add(totals[2], r);
                    totals[3] = isa.mul_add(r, r, totals[3]);
                }
            }
            if let Some(sums) = &mut sums {
                let [by_value, by_value_r, r, r2] = [
                    isa.sum(totals[0]).to_f64(),
                    isa.sum(totals[1]).to_f64(),
                    isa.sum(totals[2]).to_f64(),
                    isa.sum(totals[3]).to_f64(),
                ];
                let (c, ln_s, mean) = (transform.centredness, transform.ln_sd, means[k]);
                sums[k].by_mean += transform.mean_coefficient() * by_value + c * precision * r;
                sums[k].by_centredness += -transform.stretch * (ln_s * by_value_r + mean * by_value)
                    + precision * (mean * r + ln_s * r2)
                    - scales * ln_s;
            }
        }
    }

    /// Gradient of the loss with respect to `loc` and `u` for the vector at `i`, from the weighted particles.
    #[inline(always)]
    fn gradient_at<I: Simd<Scalar = S>>(&self, isa: I, weights: &[f64], i: usize) -> [I::V; 2] {
        let of_guide = isa.splat(S::from_f64(f64::from(u8::from(self.has_prior))));
        let mut by_loc = isa.zero();
        let mut by_sigma = isa.div(of_guide, isa.load(&self.sigma[i..]));
        for k in 0..weights.len() {
            // The weights are one-hot on large panels: particles without weight need not be read.
            if weights[k] != 0.0 {
                let weighted = isa.mul(
                    isa.splat(S::from_f64(weights[k])),
                    isa.load(&self.particle[k][i..]),
                );
                by_loc = isa.add(by_loc, weighted);
                by_sigma = isa.mul_add(weighted, isa.load(&self.eps[k][i..]), by_sigma);
            }
        }
        let by_u = isa.mul(by_sigma, isa.load(&self.sigma_slope[i..]));
        [isa.sub(isa.zero(), by_loc), isa.sub(isa.zero(), by_u)]
    }

    /// Writes the gradient of the loss into `gradient`, which has a guide's shape.
    #[inline(always)]
    pub(crate) fn write_gradient<I: Simd<Scalar = S>>(&self, isa: I, weights: &[f64], gradient: &mut Guide) {
        let mut lanes = [S::default(); 16];
        for i in (0..self.len).step_by(I::LANES) {
            let by = self.gradient_at(isa, weights, i);
            let outputs = [&mut gradient.loc, &mut gradient.unconstrained_scale];
            for (v, out) in by.into_iter().zip(outputs) {
                isa.store(v, &mut lanes);
                for lane in 0..I::LANES.min(self.len - i) {
                    out[self.latents[i + lane] as usize] = lanes[lane].to_f64();
                }
            }
        }
    }

    /// Latents of the block.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the gradient of the loss: with respect to `loc` of every latent, then to `u`.
    #[inline(always)]
    pub(crate) fn write_share<I: Simd<Scalar = S>>(&self, isa: I, weights: &[f64], share: &mut [f64]) {
        let mut lanes = [S::default(); 16];
        let (by_loc, by_u) = share.split_at_mut(self.len);
        for i in (0..self.len).step_by(I::LANES) {
            let [loc, u] = self.gradient_at(isa, weights, i);
            let count = I::LANES.min(self.len - i);
            for (v, out) in [(loc, &mut *by_loc), (u, &mut *by_u)] {
                isa.store(v, &mut lanes);
                for (to, lane) in out[i..i + count].iter_mut().zip(&lanes) {
                    *to = lane.to_f64();
                }
            }
        }
    }

    /// Copies what [`Block::write_share`] wrote to the latents' places in a guide's shape.
    pub(crate) fn copy_share(&self, share: &[f64], gradient: &mut Guide) {
        let (by_loc, by_u) = share.split_at(self.len);
        for (i, latent) in self.latents[..self.len].iter().enumerate() {
            gradient.loc[*latent as usize] = by_loc[i];
            gradient.unconstrained_scale[*latent as usize] = by_u[i];
        }
    }

    /// One AdamW step with a gradient as [`Block::write_share`] orders it.
    #[inline(always)]
    pub(crate) fn step_by<I: Simd<Scalar = S>>(&mut self, isa: I, step: &Step<'_>, gradient: &[f64]) {
        let (by_loc, by_u) = gradient.split_at(self.len);
        for i in (0..self.len).step_by(I::LANES) {
            let count = I::LANES.min(self.len - i);
            let at = |by: &[f64]| {
                let mut lanes = [S::default(); 16];
                for (lane, by) in lanes.iter_mut().zip(&by[i..i + count]) {
                    *lane = S::from_f64(*by);
                }
                isa.load(&lanes)
            };
            adam(isa, step, &mut self.loc, at(by_loc), i);
            adam(isa, step, &mut self.unconstrained_scale, at(by_u), i);
        }
    }

    /// One AdamW step of the block's parameters.
    #[inline(always)]
    pub(crate) fn step<I: Simd<Scalar = S>>(&mut self, isa: I, step: &Step<'_>) {
        for i in (0..self.latents.len()).step_by(I::LANES) {
            let [by_loc, by_u] = self.gradient_at(isa, step.weights, i);
            adam(isa, step, &mut self.loc, by_loc, i);
            adam(isa, step, &mut self.unconstrained_scale, by_u, i);
        }
    }
}

/// [`AdamW::step`] for the vector at `i`.
#[inline(always)]
fn adam<I: Simd>(isa: I, step: &Step<'_>, column: &mut Column<I::Scalar>, gradient: I::V, i: usize) {
    let scalar = |x: f64| isa.splat(I::Scalar::from_f64(x));
    let (adam, scalars) = (step.adam, &step.scalars);
    let value = isa.load(&column.value[i..]);
    let first = isa.mul(isa.load(&column.first[i..]), scalar(adam.b1));
    let first = isa.mul_add(gradient, scalar(1.0 - adam.b1), first);
    let second = isa.mul(isa.load(&column.second[i..]), scalar(adam.b2));
    let second = isa.mul_add(isa.mul(gradient, gradient), scalar(1.0 - adam.b2), second);
    isa.store(first, &mut column.first[i..]);
    isa.store(second, &mut column.second[i..]);
    let root = isa.sqrt(isa.mul(second, scalar(scalars.second_correction)));
    let update = isa.div(
        isa.mul(first, scalar(scalars.first_correction)),
        isa.add(root, scalar(adam.eps)),
    );
    let update = isa.mul_add(value, scalar(adam.weight_decay), update);
    isa.store(
        isa.mul_add(update, scalar(-scalars.learning_rate), value),
        &mut column.value[i..],
    );
}
