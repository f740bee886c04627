//! The Poisson likelihood of a chunk and its gradient with respect to elasticities and effects, for up to
//! four particles at once.

use crate::chunk::Chunk;
use crate::packed_rows::{PackedRows, dense_lanes, vectors_of};
use crate::rows::{ClipBounds2, Clipped, Inside, InsideScratch, ProductColumns, anchor_headroom};
use crate::simd::{Kernel, Scalar, Simd, lanes_below};
use infermark_model::{Panel, Priors};
use std::f64::consts::LOG2_E;

/// Most particles that one pass over the rows serves.
pub const GROUP: usize = 4;

/// Largest binary order of a rate relative to `exp(base)`, up and down, that the fast pass takes.
const EXPONENT_LIMIT: f64 = 40.0;

/// Largest size of `base * log2 e` that the fast pass takes in single precision: beyond 126 `exp(base)` is
/// not a normal `f32`, though every rate may be one.
const BASE_LIMIT: f64 = 120.0;

/// How many products in advance the counts of a clipped product are prefetched.
const PRODUCTS_AHEAD: usize = 2;

/// A category's period effects for a group of particles, laid out for the pass.
#[derive(Debug, Clone)]
pub struct PeriodTable<I: Simd> {
    /// For each particle the vectors of its effects times `log2 e`; a negligible exponent beyond T.
    effect2: Vec<I::V>,
    /// Smallest and largest entry of each particle.
    range2: [[f64; 2]; GROUP],
}

impl<I: Simd> PeriodTable<I> {
    /// A table for T periods and up to [`GROUP`] particles.
    pub fn new(isa: I, periods: usize, particles: usize) -> Self {
        PeriodTable {
            effect2: vec![isa.zero(); vectors_of::<I>(periods) * particles],
            range2: [[0.0; 2]; GROUP],
        }
    }

    /// Sets a particle's effects, length T.
    pub fn set(&mut self, isa: I, particle: usize, effects: &[I::Scalar]) {
        isa.vectorize(SetTable {
            table: self,
            particle,
            effects,
        });
    }
}

struct SetTable<'a, I: Simd> {
    table: &'a mut PeriodTable<I>,
    particle: usize,
    effects: &'a [I::Scalar],
}

impl<I: Simd> Kernel<I> for SetTable<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let SetTable {
            table,
            particle,
            effects,
        } = self;
        let log2_e = isa.splat(I::Scalar::from_f64(LOG2_E));
        let negligible = isa.splat(I::Scalar::from_f64(I::NEGLIGIBLE_EXPONENT));
        let first = isa.mul(isa.splat(effects[0]), log2_e);
        let (mut low, mut high) = (first, first);
        // NaN must reach the loss: min and max would skip it, `equal` does not.
        let mut numbers = true;
        let vectors = vectors_of::<I>(effects.len());
        for (j, block) in effects.chunks(I::LANES).enumerate() {
            let lanes = dense_lanes::<I>(effects.len(), j);
            let effect2 = isa.mul(isa.load_up_to(block), log2_e);
            numbers &= isa.equal(effect2, effect2) & lanes == lanes;
            low = isa.min(low, isa.select(lanes, effect2, first));
            high = isa.max(high, isa.select(lanes, effect2, first));
            table.effect2[particle * vectors + j] = isa.select(lanes, effect2, negligible);
        }
        let (mut lows, mut highs) = ([I::Scalar::default(); 16], [I::Scalar::default(); 16]);
        isa.store(low, &mut lows);
        isa.store(high, &mut highs);
        let mut range = [f64::INFINITY, f64::NEG_INFINITY];
        for lane in 0..I::LANES {
            range = [
                range[0].min(lows[lane].to_f64()),
                range[1].max(highs[lane].to_f64()),
            ];
        }
        table.range2[particle] = if numbers { range } else { [f64::NAN; 2] };
    }
}

/// Sums of rates (counts, where the clip is active) by period, for a group of particles.
#[derive(Debug, Clone)]
pub struct PeriodSums<I: Simd> {
    /// For each particle the vectors of its sums.
    vectors: Vec<I::V>,
}

impl<I: Simd> PeriodSums<I> {
    /// Zero sums for T periods.
    pub fn new(isa: I, periods: usize, particles: usize) -> Self {
        PeriodSums {
            vectors: vec![isa.zero(); vectors_of::<I>(periods) * particles],
        }
    }

    /// Sets all sums to zero.
    pub fn clear(&mut self, isa: I) {
        self.vectors.fill(isa.zero());
    }

    /// Adds a particle's sums to `totals`, length T.
    pub fn add_to(&self, isa: I, particle: usize, totals: &mut [f64]) {
        isa.vectorize(AddPeriods {
            sums: self,
            particle,
            totals,
        });
    }
}

struct AddPeriods<'a, I: Simd> {
    sums: &'a PeriodSums<I>,
    particle: usize,
    totals: &'a mut [f64],
}

impl<I: Simd> Kernel<I> for AddPeriods<'_, I> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let AddPeriods {
            sums: from,
            particle,
            totals,
        } = self;
        let wide = isa.wide();
        let width = <I::Wide as Simd>::LANES;
        let mut lanes = [0.0; 16];
        let vectors = vectors_of::<I>(totals.len());
        for (j, block) in totals.chunks_mut(I::LANES).enumerate() {
            let sums = isa.widen(from.vectors[particle * vectors + j]);
            if block.len() == I::LANES {
                for (block, sums) in block.chunks_exact_mut(width).zip(sums) {
                    wide.store(wide.add(wide.load(block), sums), block);
                }
            } else {
                for (lanes, sums) in lanes.chunks_mut(width).zip(sums) {
                    wide.store(sums, lanes);
                }
                for (total, lane) in block.iter_mut().zip(&lanes) {
                    *total += lane;
                }
            }
        }
    }
}

/// Scratch of a pass, one per thread: everything that a product and particle need between the loops.
#[derive(Debug, Clone)]
pub struct Scratch<I: Simd> {
    columns: [ProductColumns<I::Scalar>; GROUP],
    pass: InsideScratch<I>,
    /// `exp(base)`; 1 where the clip is active and rates are absolute.
    exp_base: [Vec<f64>; GROUP],
    /// For each vector of products the lanes whose rows all lie inside the bounds.
    inside: Vec<u32>,
}

impl<I: Simd> Scratch<I> {
    /// Scratch for up to `particles` at once, which grows to what the chunks need.
    pub fn new(isa: I, particles: usize) -> Self {
        Scratch {
            columns: Default::default(),
            pass: InsideScratch::new(isa, particles.min(GROUP)),
            exp_base: Default::default(),
            inside: Vec::new(),
        }
    }

    /// Bytes of scratch for `particles` at once and chunks of `padded` products.
    pub fn bytes(padded: usize, particles: usize) -> u64 {
        let columns = particles * padded * (7 * size_of::<I::Scalar>() + size_of::<f64>());
        (columns + InsideScratch::<I>::bytes(particles)) as u64
    }

    fn resize<const K: usize>(&mut self, padded: usize, lanes: usize) {
        self.inside.clear();
        self.inside.resize(padded / lanes, u32::MAX);
        for k in 0..K {
            self.columns[k].resize(padded);
            self.exp_base[k].resize(padded, 0.0);
        }
    }
}

/// What a pass reads and does not change.
#[derive(Debug, Clone, Copy)]
pub struct PoissonLikelihood<'p> {
    panel: &'p Panel,
    low: f64,
    high: f64,
}

impl<'p> PoissonLikelihood<'p> {
    /// The likelihood of `panel` with the clip bounds of `priors`.
    pub fn new(panel: &'p Panel, priors: &Priors) -> Self {
        PoissonLikelihood {
            panel,
            low: priors.clip_low,
            high: priors.clip_high,
        }
    }

    /// Log likelihood of a chunk without `sum_t effect * counts` and `ln y!`, one per particle.
    ///
    /// `elasticity[k]` and `effect[k]` hold the particles' values, padded; they are replaced by the gradient. Sums of
    /// rates by period are added to `by_period`.
    #[allow(clippy::too_many_arguments)] // In-place columns and scratch belong to the caller's thread.
    #[inline(always)]
    pub fn chunk<I: Simd, const K: usize>(
        &self,
        isa: I,
        chunk: &Chunk,
        packed: &PackedRows<I>,
        table: &PeriodTable<I>,
        elasticity: &mut [Vec<I::Scalar>],
        effect: &mut [Vec<I::Scalar>],
        by_period: &mut PeriodSums<I>,
        scratch: &mut Scratch<I>,
    ) -> [f64; K] {
        scratch.resize::<K>(chunk.padded(), I::LANES);
        let mut log_likelihood = [0.0; K];
        for k in 0..K {
            let (a, e) = (&elasticity[k], &effect[k]);
            log_likelihood[k] = self.prepare(isa, chunk, packed, table, k, a, e, scratch);
        }
        let correction = self.rows::<I, K>(isa, chunk, packed, table, by_period, scratch);
        for k in 0..K {
            log_likelihood[k] += correction[k];
            let (columns, exp_base) = (&scratch.columns[k], &scratch.exp_base[k]);
            log_likelihood[k] -= finish(isa, chunk, columns, exp_base, &mut elasticity[k], &mut effect[k]);
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
        packed: &PackedRows<I>,
        table: &PeriodTable<I>,
        k: usize,
        elasticity: &[I::Scalar],
        effect: &[I::Scalar],
        scratch: &mut Scratch<I>,
    ) -> f64 {
        let wide = isa.wide();
        let parts = I::LANES / <I::Wide as Simd>::LANES;
        let scalar = I::Scalar::from_f64;
        let (out, exp_base) = (&mut scratch.columns[k], &mut scratch.exp_base[k]);
        let log2_e = isa.splat(scalar(LOG2_E));
        let table_low = isa.splat(scalar(table.range2[k][0]));
        let table_high = isa.splat(scalar(table.range2[k][1]));
        // The bounds are narrowed by more than the rounding of the estimate.
        let margin = if I::ANCHORED { 1e-3 } else { 1e-9 };
        let bound_low = isa.splat(scalar(self.low * LOG2_E + margin));
        let bound_high = isa.splat(scalar(self.high * LOG2_E - margin));
        let exponent_limit = isa.splat(scalar(EXPONENT_LIMIT));
        let base_limit = isa.splat(scalar(BASE_LIMIT));
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
                wide.store(exp_base_wide[part], &mut exp_base[at..]);
            }
            let base2 = isa.narrow(base2_wide);
            let slope2 = isa.mul(a, log2_e);
            let at_low = isa.mul(slope2, isa.load(&packed.low[i..]));
            let at_high = isa.mul(slope2, isa.load(&packed.high[i..]));
            let t_low = isa.add(isa.min(at_low, at_high), table_low);
            let t_high = isa.add(isa.max(at_low, at_high), table_high);
            let (eta_low, eta_high) = (isa.add(t_low, base2), isa.add(t_high, base2));
            // Comparisons by `equal` are false for NaN: such products take the exact path.
            let mut lanes = isa.equal(isa.max(eta_low, bound_low), eta_low)
                & isa.equal(isa.min(eta_high, bound_high), eta_high)
                & isa.equal(isa.min(t_high, exponent_limit), t_high)
                & isa.equal(isa.max(t_low, isa.sub(isa.zero(), exponent_limit)), t_low);
            if I::ANCHORED {
                let size = isa.max(base2, isa.sub(isa.zero(), base2));
                lanes &= isa.equal(isa.min(size, base_limit), size);
            }
            scratch.inside[i / I::LANES] &= lanes;
            isa.store(slope2, &mut out.slope2[i..]);
            isa.store(base2, &mut out.base2[i..]);
            isa.store(isa.narrow(exp_base_wide), &mut out.scale[i..]);
            if I::ANCHORED {
                let top = isa.min(t_high, exponent_limit);
                let headroom = isa.splat(scalar(anchor_headroom::<I>(packed.periods())));
                isa.store(
                    isa.floor_power_of_two(isa.add(top, headroom)),
                    &mut out.anchor[i..],
                );
            }
        }
        wide.sum(linear)
    }

    /// The pass over the rows. Returns the corrections of the clipped rows.
    ///
    /// Each run of products of one kind is a separate call: inlined, the passes would make one function too
    /// large to compile well.
    #[inline(always)]
    fn rows<I: Simd, const K: usize>(
        &self,
        isa: I,
        chunk: &Chunk,
        packed: &PackedRows<I>,
        table: &PeriodTable<I>,
        by_period: &mut PeriodSums<I>,
        scratch: &mut Scratch<I>,
    ) -> [f64; K] {
        let bounds = ClipBounds2 {
            low: I::Scalar::from_f64(self.low * LOG2_E),
            high: I::Scalar::from_f64(self.high * LOG2_E),
        };
        let Scratch {
            columns,
            pass,
            exp_base,
            inside,
        } = scratch;
        let columns = columns.first_chunk_mut::<K>().expect("K is at most GROUP");
        let (effect2, by_period) = (&table.effect2[..], &mut by_period.vectors[..]);
        let units = |i: usize| &self.panel.units()[self.panel.row_range(chunk.products[i] as usize)];
        let is_inside = |i: usize| inside[i / I::LANES] >> (i % I::LANES) & 1 == 1;
        let products = chunk.products.len();
        let mut correction = [0.0; K];
        let mut i = 0;
        while i < products {
            let mut end = i;
            while end < products && is_inside(end) {
                end += 1;
            }
            if end > i {
                isa.vectorize(Inside::<I, K> {
                    rows: packed,
                    products: i..end,
                    columns,
                    effect2,
                    by_period,
                    scratch: pass,
                });
                i = end;
                continue;
            }
            let ahead = i + PRODUCTS_AHEAD;
            if ahead < products && !is_inside(ahead) {
                isa.prefetch(units(ahead));
            }
            let terms = isa.vectorize(Clipped::<I, K> {
                rows: packed,
                product: i,
                units: units(i),
                bounds,
                columns,
                effect2,
                by_period,
            });
            for k in 0..K {
                exp_base[k][i] = 1.0;
                correction[k] += terms[k];
            }
            i += 1;
        }
        correction
    }
}

/// Converts sums into gradients, which replace the values, and returns the sum of rates.
#[inline(always)]
fn finish<I: Simd>(
    isa: I,
    chunk: &Chunk,
    sums: &ProductColumns<I::Scalar>,
    exp_base: &[f64],
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
            // Beyond the last product the contents of the scratch are ignored.
            let lanes = lanes_below::<I::Wide>(n.saturating_sub(at));
            let exp_base = wide.keep(wide.load(&exp_base[at..]), lanes);
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

#[cfg(test)]
mod tests;
