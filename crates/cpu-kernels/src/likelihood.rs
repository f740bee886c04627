//! The Poisson likelihood of a chunk and its gradient by elasticities and effects, for up to four particles at once.

use crate::chunk::Chunk;
use crate::rows::{
    ANCHOR_HEADROOM, ClipBounds2, Particles, ProductRows, RowSums, clipped, inside, vectors_of,
};
use crate::simd::{Kernel, Scalar, Simd};
use infermark_model::panel::Panel;
use infermark_model::priors::Priors;
use std::f64::consts::LOG2_E;

/// Most particles that one pass over the rows serves.
pub const GROUP: usize = 4;

/// How many products before its turn a product's rows are asked for: about a microsecond at 156 periods.
const PRODUCTS_AHEAD: usize = 4;

/// A category's period effects for a group of particles, laid out for the pass.
#[derive(Debug, Clone)]
pub struct PeriodTable<I: Simd> {
    /// For each vector of periods one vector a particle: effects times `log2 e`; zero beyond T.
    effect2: Vec<I::V>,
    /// Smallest and largest entry of each particle.
    range2: [[f64; 2]; GROUP],
    particles: usize,
}

impl<I: Simd> PeriodTable<I> {
    /// A table for T periods and up to [`GROUP`] particles.
    pub fn new(isa: I, periods: usize, particles: usize) -> Self {
        PeriodTable {
            effect2: vec![isa.zero(); vectors_of::<I>(periods) * particles],
            range2: [[0.0; 2]; GROUP],
            particles,
        }
    }

    /// Sets a particle's effects, length T.
    pub fn set(&mut self, isa: I, particle: usize, effects: &[I::Scalar]) {
        let mut range = [f64::INFINITY, f64::NEG_INFINITY];
        for (j, block) in effects.chunks(I::LANES).enumerate() {
            let mut lanes = [I::Scalar::default(); 16];
            for (lane, effect) in lanes.iter_mut().zip(block) {
                let effect2 = effect.to_f64() * LOG2_E;
                range = [range[0].min(effect2), range[1].max(effect2)];
                *lane = I::Scalar::from_f64(effect2);
            }
            self.effect2[j * self.particles + particle] = isa.load(&lanes);
        }
        // A value that is not a number must reach the loss: min and max would skip it.
        let finite = effects.iter().all(|e| e.to_f64().is_finite());
        self.range2[particle] = if finite { range } else { [f64::NAN; 2] };
    }
}

/// Sums of rates (counts, where the clip bites) by period, for a group of particles.
#[derive(Debug, Clone)]
pub struct PeriodSums<I: Simd> {
    vectors: Vec<I::V>,
    particles: usize,
}

impl<I: Simd> PeriodSums<I> {
    /// Zero sums for T periods.
    pub fn new(isa: I, periods: usize, particles: usize) -> Self {
        PeriodSums {
            vectors: vec![isa.zero(); vectors_of::<I>(periods) * particles],
            particles,
        }
    }

    /// Sets all sums to zero.
    pub fn clear(&mut self, isa: I) {
        self.vectors.fill(isa.zero());
    }

    /// Adds a particle's sums to `totals`, length T.
    pub fn add_to(&self, isa: I, particle: usize, totals: &mut [f64]) {
        let mut lanes = [I::Scalar::default(); 16];
        for (j, block) in totals.chunks_mut(I::LANES).enumerate() {
            isa.store(self.vectors[j * self.particles + particle], &mut lanes);
            for (total, lane) in block.iter_mut().zip(&lanes) {
                *total += lane.to_f64();
            }
        }
    }
}

/// Scratch of a pass, one a thread: everything that a product and particle need between the loops.
#[derive(Debug, Clone, Default)]
pub struct Scratch<S> {
    by_particle: [ParticleScratch<S>; GROUP],
    inside: Vec<u32>,
}

#[derive(Debug, Clone, Default)]
struct ParticleScratch<S> {
    slope2: Vec<S>,
    base2: Vec<S>,
    scale: Vec<S>,
    anchor: Vec<S>,
    exp_base: Vec<f64>,
    rate: Vec<S>,
    rate_residual: Vec<S>,
    moment: Vec<S>,
}

impl<S: Scalar> Scratch<S> {
    fn resize(&mut self, padded: usize) {
        self.inside.clear();
        self.inside.resize(padded, u32::MAX);
        for p in &mut self.by_particle {
            for v in [
                &mut p.slope2,
                &mut p.base2,
                &mut p.scale,
                &mut p.anchor,
                &mut p.rate,
                &mut p.rate_residual,
                &mut p.moment,
            ] {
                v.resize(padded, S::default());
            }
            p.exp_base.resize(padded, 0.0);
        }
    }
}

/// What a pass reads and does not change.
#[derive(Debug, Clone, Copy)]
pub struct Likelihood<'p> {
    panel: &'p Panel,
    low: f64,
    high: f64,
}

impl<'p> Likelihood<'p> {
    /// The likelihood of `panel` with the clip bounds of `priors`.
    pub fn new(panel: &'p Panel, priors: &Priors) -> Self {
        Likelihood {
            panel,
            low: priors.clip_low,
            high: priors.clip_high,
        }
    }

    /// Log likelihood of a chunk but for `sum_t effect * counts` and `ln y!`, one a particle.
    ///
    /// `elasticity[k]` and `effect[k]` hold the particles' values, padded; they are replaced by the gradient. Sums of
    /// rates by period are added to `by_period`.
    #[allow(clippy::too_many_arguments)] // In-place columns and scratch belong to the caller's thread.
    #[inline(always)]
    pub fn chunk<I: Simd, const K: usize>(
        &self,
        isa: I,
        chunk: &Chunk,
        table: &PeriodTable<I>,
        elasticity: &mut [Vec<I::Scalar>],
        effect: &mut [Vec<I::Scalar>],
        by_period: &mut PeriodSums<I>,
        scratch: &mut Scratch<I::Scalar>,
    ) -> [f64; K] {
        scratch.resize(chunk.padded());
        let mut log_likelihood = [0.0; K];
        for k in 0..K {
            log_likelihood[k] = self.prepare(isa, chunk, table, k, &elasticity[k], &effect[k], scratch);
        }
        let correction = self.rows::<I, K>(isa, chunk, table, by_period, scratch);
        for k in 0..K {
            log_likelihood[k] += correction[k];
            log_likelihood[k] -= finish(
                isa,
                chunk,
                &scratch.by_particle[k],
                &mut elasticity[k],
                &mut effect[k],
            );
        }
        log_likelihood
    }

    /// Per product: slope, base, scale and anchor, and whether its rows can leave the bounds. Returns the part of the
    /// log likelihood that is linear in the product's parameters.
    #[allow(clippy::too_many_arguments)] // As `chunk`.
    #[inline(always)]
    fn prepare<I: Simd>(
        &self,
        isa: I,
        chunk: &Chunk,
        table: &PeriodTable<I>,
        k: usize,
        elasticity: &[I::Scalar],
        effect: &[I::Scalar],
        scratch: &mut Scratch<I::Scalar>,
    ) -> f64 {
        let wide = isa.wide();
        let parts = I::LANES / <I::Wide as Simd>::LANES;
        let scalar = I::Scalar::from_f64;
        let out = &mut scratch.by_particle[k];
        let log2_e = isa.splat(scalar(LOG2_E));
        let table_low = isa.splat(scalar(table.range2[k][0]));
        let table_high = isa.splat(scalar(table.range2[k][1]));
        // The bounds are drawn in by more than the rounding of the estimate.
        let margin = if I::ANCHORED { 1e-3 } else { 1e-9 };
        let bound_low = isa.splat(scalar(self.low * LOG2_E + margin));
        let bound_high = isa.splat(scalar(self.high * LOG2_E - margin));
        let exponent_limit = isa.splat(scalar(100.0));
        let mut linear = wide.zero();
        for i in (0..chunk.padded()).step_by(I::LANES) {
            let a = isa.load(&elasticity[i..]);
            let e = isa.load(&effect[i..]);
            let (a_wide, e_wide) = (isa.widen(a), isa.widen(e));
            let mut base2_wide = [wide.zero(); 2];
            let mut exp_base_wide = [wide.zero(); 2];
            for part in 0..parts {
                let at = i + part * <I::Wide as Simd>::LANES;
                let base = wide.mul_add(a_wide[part], wide.load(&chunk.mean_log_price[at..]), e_wide[part]);
                linear = wide.mul_add(a_wide[part], wide.load(&chunk.units_deviation[at..]), linear);
                linear = wide.mul_add(base, wide.load(&chunk.units[at..]), linear);
                let base2 = wide.mul(base, wide.splat(LOG2_E));
                base2_wide[part] = base2;
                let held = wide.min(wide.max(base2, wide.splat(-1000.0)), wide.splat(1000.0));
                exp_base_wide[part] = wide.exp2(held);
                wide.store(exp_base_wide[part], &mut out.exp_base[at..]);
            }
            let base2 = isa.narrow(base2_wide);
            let slope2 = isa.mul(a, log2_e);
            let at_low = isa.mul(slope2, isa.load_deviation(&chunk.deviation_low[i..], &ZEROS));
            let at_high = isa.mul(slope2, isa.load_deviation(&chunk.deviation_high[i..], &ZEROS));
            let t_low = isa.add(isa.min(at_low, at_high), table_low);
            let t_high = isa.add(isa.max(at_low, at_high), table_high);
            let (eta_low, eta_high) = (isa.add(t_low, base2), isa.add(t_high, base2));
            // Comparisons by `equal` are false for what is not a number: such products take the exact path.
            let lanes = isa.equal(isa.max(eta_low, bound_low), eta_low)
                & isa.equal(isa.min(eta_high, bound_high), eta_high)
                & isa.equal(isa.min(t_high, exponent_limit), t_high)
                & isa.equal(isa.max(t_low, isa.sub(isa.zero(), exponent_limit)), t_low);
            scratch.inside[i] &= lanes;
            isa.store(slope2, &mut out.slope2[i..]);
            isa.store(base2, &mut out.base2[i..]);
            isa.store(isa.narrow(exp_base_wide), &mut out.scale[i..]);
            if I::ANCHORED {
                let top = isa.min(t_high, exponent_limit);
                let anchor = isa.exp2(isa.add(top, isa.splat(scalar(ANCHOR_HEADROOM))));
                isa.store(isa.power_of_two_below(anchor), &mut out.anchor[i..]);
            }
        }
        wide.sum(linear)
    }

    /// The pass over the rows. Returns the corrections of the clipped rows.
    #[inline(always)]
    fn rows<I: Simd, const K: usize>(
        &self,
        isa: I,
        chunk: &Chunk,
        table: &PeriodTable<I>,
        by_period: &mut PeriodSums<I>,
        scratch: &mut Scratch<I::Scalar>,
    ) -> [f64; K] {
        let panel = self.panel;
        let periods = panel.layout().periods;
        let bounds = ClipBounds2 {
            low: I::Scalar::from_f64(self.low * LOG2_E),
            high: I::Scalar::from_f64(self.high * LOG2_E),
        };
        let zero = I::Scalar::default();
        let mut correction = [0.0; K];
        for (i, product) in chunk.products.iter().enumerate() {
            let product = *product as usize;
            // Products of a category do not lie side by side, so the processor does not see the next one coming.
            if let Some(next) = chunk.products.get(i + PRODUCTS_AHEAD) {
                let next = panel.row_range(*next as usize);
                isa.prefetch(&panel.deviation()[next.clone()]);
                if !I::ANCHORED {
                    isa.prefetch(&panel.deviation_residual()[next]);
                }
            }
            let range = panel.row_range(product);
            let rows = ProductRows {
                deviation: &panel.deviation()[range.clone()],
                residual: &panel.deviation_residual()[range.clone()],
                units: &panel.units()[range],
                present: panel.presence().map(|p| p.product(product)),
                periods,
            };
            let mut particles = Particles {
                slope2: [zero; K],
                scale: [zero; K],
                anchor: [zero; K],
                base2: [zero; K],
            };
            for k in 0..K {
                let p = &scratch.by_particle[k];
                particles.slope2[k] = p.slope2[i];
                particles.scale[k] = p.scale[i];
                particles.anchor[k] = p.anchor[i];
                particles.base2[k] = p.base2[i];
            }
            let lane = i % I::LANES;
            let is_inside = scratch.inside[i - lane] >> lane & 1 == 1;
            // A call of its own a product: inlined, the passes would make one function too large to compile well.
            let (effect2, by_period) = (&table.effect2[..], &mut by_period.vectors[..]);
            let pass = ProductPass {
                rows,
                particles: &particles,
                effect2,
                by_period,
            };
            let sums = if is_inside {
                isa.vectorize(InsidePass(pass))
            } else {
                isa.vectorize(ClippedPass(pass, bounds))
            };
            for k in 0..K {
                let p = &mut scratch.by_particle[k];
                p.rate[i] = sums.rate[k];
                p.rate_residual[i] = sums.rate_residual[k];
                p.moment[i] = sums.moment[k];
                if !is_inside {
                    p.exp_base[i] = 1.0;
                    correction[k] += sums.clip_correction[k];
                }
            }
        }
        correction
    }
}

struct ProductPass<'a, I: Simd, const K: usize> {
    rows: ProductRows<'a>,
    particles: &'a Particles<I::Scalar, K>,
    effect2: &'a [I::V],
    by_period: &'a mut [I::V],
}

struct InsidePass<'a, I: Simd, const K: usize>(ProductPass<'a, I, K>);

impl<I: Simd, const K: usize> Kernel<I> for InsidePass<'_, I, K> {
    type Output = RowSums<I::Scalar, K>;

    #[inline(always)]
    fn run(self, isa: I) -> Self::Output {
        inside(
            isa,
            &self.0.rows,
            self.0.particles,
            self.0.effect2,
            self.0.by_period,
        )
    }
}

struct ClippedPass<'a, I: Simd, const K: usize>(ProductPass<'a, I, K>, ClipBounds2<I::Scalar>);

impl<I: Simd, const K: usize> Kernel<I> for ClippedPass<'_, I, K> {
    type Output = RowSums<I::Scalar, K>;

    #[inline(always)]
    fn run(self, isa: I) -> Self::Output {
        clipped(
            isa,
            &self.0.rows,
            self.0.particles,
            self.1,
            self.0.effect2,
            self.0.by_period,
        )
    }
}

const ZEROS: [f32; 16] = [0.0; 16];

/// Turns sums into gradients, in place of the values, and returns the sum of rates.
#[inline(always)]
fn finish<I: Simd>(
    isa: I,
    chunk: &Chunk,
    sums: &ParticleScratch<I::Scalar>,
    by_elasticity: &mut [I::Scalar],
    by_effect: &mut [I::Scalar],
) -> f64 {
    let wide = isa.wide();
    let parts = I::LANES / <I::Wide as Simd>::LANES;
    let n = chunk.products.len();
    let mut total = wide.zero();
    for i in (0..chunk.padded()).step_by(I::LANES) {
        let rate = isa.widen(isa.load(&sums.rate[i..]));
        let residual = isa.widen(isa.load(&sums.rate_residual[i..]));
        let moment = isa.widen(isa.load(&sums.moment[i..]));
        let mut a = [wide.zero(); 2];
        let mut e = [wide.zero(); 2];
        for part in 0..parts {
            let at = i + part * <I::Wide as Simd>::LANES;
            // Beyond the last product: whatever the scratch holds counts for nothing.
            let here = n.saturating_sub(at).min(<I::Wide as Simd>::LANES);
            let lanes = ((1u64 << here) - 1) as u32;
            let exp_base = wide.keep(wide.load(&sums.exp_base[at..]), lanes);
            let rate = wide.mul(wide.add(rate[part], residual[part]), exp_base);
            let rate = wide.keep(rate, lanes);
            total = wide.add(total, rate);
            let by_effect = wide.sub(wide.load(&chunk.units[at..]), rate);
            let moment = wide.keep(wide.mul(moment[part], exp_base), lanes);
            let by_slope = wide.sub(wide.load(&chunk.units_deviation[at..]), moment);
            e[part] = by_effect;
            a[part] = wide.mul_add(wide.load(&chunk.mean_log_price[at..]), by_effect, by_slope);
        }
        isa.store(isa.narrow(a), &mut by_elasticity[i..]);
        isa.store(isa.narrow(e), &mut by_effect[i..]);
    }
    wide.sum(total)
}
