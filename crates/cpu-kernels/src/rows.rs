//! The fused pass over the rows of a product: rates and their sums, with nothing stored per row.
//!
//! With a row's log price split into its product's mean and a deviation `x`, the log rate is
//! `eta = slope * x + effect[t] + base`, where `base = slope * mean + product_effect` is one number per product and
//! particle. Where no row of the product can leave the clip bounds ([`Inside`]) the pass computes
//! `exp2(slope2 * x + effect2[t])` and multiplies by `exp(base)` once, in double precision, at the end; counts are
//! not read. Elsewhere ([`Clipped`]) rows outside the bounds are found lane by lane and their counts are read.
//!
//! The single-precision pass keeps what rounding would lose: each rate is added to an accumulator that starts
//! at an *anchor*, a power of two so large that the accumulator never changes its exponent. The sum is then
//! exact but for the part of the rate below the anchor's last bit; that part is recovered exactly
//! (`rate - (new - old)`) and summed on its own. The anchor is set by the bound on the product's rates (slope
//! times the outermost deviations, and the largest period effect of its category): relative to that bound the
//! sum is good to 1e-12 for twenty periods and 1e-10 for three hundred. Rates far below the bound, for
//! instance next to one outlying period, go entirely into the second sum, as in plain single precision.

use crate::packed_rows::{PackedRows, dense_lanes, vectors_of};
use crate::simd::{Kernel, Scalar, Simd};
use std::ops::Range;

/// Binary orders between the bound on a product's rates and its anchor: the accumulator stays below twice the anchor, and the
/// sum over lanes, at most `LANES * vectors` rates, is exact.
pub fn anchor_headroom<I: Simd>(periods: usize) -> f64 {
    ((I::LANES * vectors_of::<I>(periods)) as f64).log2().ceil()
}

/// Vectors of rows whose rates are computed before they are added up, if registers are few
/// ([`Simd::FEW_REGISTERS`]).
///
/// A rate and its sums together take about twenty steps, with more constants and sums than sixteen registers
/// hold; two short loops keep theirs in registers, and the latency of one vector does not delay the next.
/// Thirty-two registers hold all of four particles, which then share a loop.
const SPAN: usize = 32;

/// Scratch of a pass over products inside the bounds, one per thread.
#[derive(Debug, Clone)]
pub struct InsideScratch<I: Simd> {
    /// The sums of a vector of products, to be added up together: for each particle `LANES` vectors of the
    /// sum's high part, then as many of the moment, then of the residual of the high part.
    tails: Vec<I::V>,
    rates: [I::V; SPAN],
}

impl<I: Simd> InsideScratch<I> {
    /// Scratch for this many particles.
    pub fn new(isa: I, particles: usize) -> Self {
        InsideScratch {
            tails: vec![isa.zero(); 3 * particles * I::LANES],
            rates: [isa.zero(); SPAN],
        }
    }

    /// Bytes of scratch for this many particles.
    pub const fn bytes(particles: usize) -> usize {
        (3 * particles * I::LANES + SPAN) * size_of::<I::V>()
    }
}

/// The inputs and outputs of the pass for each product of a chunk and one particle; padded columns.
#[derive(Debug, Clone, Default)]
pub struct ProductColumns<S> {
    /// `product_a * log2 e`.
    pub slope2: Vec<S>,
    /// `base * log2 e`. Read by [`Clipped`].
    pub base2: Vec<S>,
    /// `exp(base)`: brings relative rates to rates in the sums by period. Read by [`Inside`].
    pub scale: Vec<S>,
    /// The largest power of two not above `2^`[`anchor_headroom`] times the bound on the product's relative rates. Read
    /// by [`Inside`] in single precision.
    pub anchor: Vec<S>,
    /// Sum of the rates (of the counts, where the clip is active): high part. Rates of [`Inside`] are
    /// relative to `exp(base)`.
    pub rate: Vec<S>,
    /// The residual of the high part.
    pub rate_residual: Vec<S>,
    /// Sum of rate (count) times deviation.
    pub moment: Vec<S>,
}

impl<S: Scalar> ProductColumns<S> {
    /// Gives the columns the length `padded`.
    pub fn resize(&mut self, padded: usize) {
        for column in [
            &mut self.slope2,
            &mut self.base2,
            &mut self.scale,
            &mut self.anchor,
            &mut self.rate,
            &mut self.rate_residual,
            &mut self.moment,
        ] {
            column.resize(padded, S::default());
        }
    }
}

/// The pass over products whose rows all lie inside the clip bounds, for K particles.
#[derive(Debug)]
pub struct Inside<'a, I: Simd, const K: usize> {
    /// The chunk's rows.
    pub rows: &'a PackedRows<I>,
    /// The products, counted within the chunk.
    pub products: Range<usize>,
    /// One entry per particle.
    pub columns: &'a mut [ProductColumns<I::Scalar>; K],
    /// For each particle the vectors of its period effects times `log2 e`, [`Simd::NEGLIGIBLE_EXPONENT`] beyond T.
    pub effect2: &'a [I::V],
    /// Laid out as `effect2`: sums of rates by period, which are added to.
    pub by_period: &'a mut [I::V],
    /// Scratch for K particles.
    pub scratch: &'a mut InsideScratch<I>,
}

impl<I: Simd, const K: usize> Kernel<I> for Inside<'_, I, K> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        self.pass(isa, I::FEW_REGISTERS);
    }
}

impl<I: Simd, const K: usize> Inside<'_, I, K> {
    /// The pass: with `few_registers` a particle at a time, else all in one loop. The sums are the same to the bit.
    #[inline(always)]
    fn pass(mut self, isa: I, few_registers: bool) {
        let mut block = self.products.start / I::LANES * I::LANES;
        while block < self.products.end {
            let products = self.products.start.max(block)..self.products.end.min(block + I::LANES);
            let mut lanes = 0;
            for i in products {
                lanes |= 1 << (i - block);
                if few_registers {
                    for k in 0..K {
                        let sums = self.particle(isa, i, k);
                        self.set_tails(i - block, k, sums);
                    }
                } else {
                    for (k, sums) in self.particles(isa, i).into_iter().enumerate() {
                        self.set_tails(i - block, k, sums);
                    }
                }
            }
            for k in 0..K {
                let columns = &mut self.columns[k];
                let mut quantities = [&mut columns.rate, &mut columns.moment, &mut columns.rate_residual];
                let count = if I::ANCHORED { 3 } else { 2 };
                for (q, column) in quantities[..count].iter_mut().enumerate() {
                    let sums = isa.sums(&self.scratch.tails[(q * K + k) * I::LANES..][..I::LANES]);
                    // Other lanes belong to clipped products.
                    let others = isa.load(&column[block..]);
                    isa.store(isa.select(lanes, sums, others), &mut column[block..]);
                }
            }
            block += I::LANES;
        }
    }

    /// Stores the sums of the product in `lane`, to be added up with those of its neighbours.
    #[inline(always)]
    fn set_tails(&mut self, lane: usize, k: usize, sums: Sums<I>) {
        let tails = &mut self.scratch.tails;
        tails[k * I::LANES + lane] = sums.high;
        tails[(K + k) * I::LANES + lane] = sums.moment;
        if I::ANCHORED {
            tails[(2 * K + k) * I::LANES + lane] = sums.low;
        }
    }

    /// Slope, scale and anchor of product `i` for particle `k`.
    #[inline(always)]
    fn constants(&self, isa: I, i: usize, k: usize) -> [I::V; 3] {
        let columns = &self.columns[k];
        let anchor = if I::ANCHORED {
            isa.splat(columns.anchor[i])
        } else {
            isa.zero()
        };
        [isa.splat(columns.slope2[i]), isa.splat(columns.scale[i]), anchor]
    }

    /// The rows of product `i`, all particles in one loop.
    #[inline(always)]
    fn particles(&mut self, isa: I, i: usize) -> [Sums<I>; K] {
        let constants: [[I::V; 3]; K] = std::array::from_fn(|k| self.constants(isa, i, k));
        let mut sums = constants.map(|[_, _, anchor]| Sums::new(isa, anchor));
        let all = vectors_of::<I>(self.rows.periods());
        let mut effect2 = self.effect2.chunks_exact(all);
        let effect2: [_; K] = std::array::from_fn(|_| effect2.next().expect("effects of every particle"));
        let mut by_period = self.by_period.chunks_exact_mut(all);
        let by_period: [_; K] = std::array::from_fn(|_| by_period.next().expect("sums of every particle"));
        let (vectors, blocks) = self.rows.product(i);
        match blocks {
            None => {
                for (at, x) in vectors[..all].iter().enumerate() {
                    for k in 0..K {
                        let [slope2, scale, _] = constants[k];
                        let rate = isa.exp2(isa.mul_add(slope2, *x, effect2[k][at]));
                        sums[k].add(isa, *x, rate);
                        by_period[k][at] = isa.mul_add(rate, scale, by_period[k][at]);
                    }
                }
            }
            Some(blocks) => {
                for (x, block) in vectors.iter().zip(blocks) {
                    let at = block.vector as usize;
                    for k in 0..K {
                        let [slope2, scale, _] = constants[k];
                        let rate = isa.exp2(isa.mul_add(slope2, *x, effect2[k][at]));
                        let rate = isa.keep(rate, block.lanes);
                        sums[k].add(isa, *x, rate);
                        by_period[k][at] = isa.mul_add(rate, scale, by_period[k][at]);
                    }
                }
            }
        }
        for (sums, [_, _, anchor]) in sums.iter_mut().zip(constants) {
            sums.high = isa.sub(sums.high, anchor);
        }
        sums
    }

    /// The rows of product `i` for particle `k`: a span's rates in one loop, their sums in a second.
    #[inline(always)]
    fn particle(&mut self, isa: I, i: usize, k: usize) -> Sums<I> {
        let [slope2, scale, anchor] = self.constants(isa, i, k);
        let mut sums = Sums::new(isa, anchor);
        let all = vectors_of::<I>(self.rows.periods());
        let effect2 = &self.effect2[k * all..][..all];
        let by_period = &mut self.by_period[k * all..][..all];
        let (vectors, blocks) = self.rows.product(i);
        match blocks {
            None => {
                let spans = vectors
                    .chunks(SPAN)
                    .zip(effect2.chunks(SPAN))
                    .zip(by_period.chunks_mut(SPAN));
                for ((x, effect2), by_period) in spans {
                    let rates = &mut self.scratch.rates[..x.len()];
                    for ((rate, x), effect2) in rates.iter_mut().zip(x).zip(effect2) {
                        *rate = isa.exp2(isa.mul_add(slope2, *x, *effect2));
                    }
                    for ((rate, x), by_period) in rates.iter().zip(x).zip(by_period) {
                        sums.add(isa, *x, *rate);
                        *by_period = isa.mul_add(*rate, scale, *by_period);
                    }
                }
            }
            Some(blocks) => {
                for (x, blocks) in vectors.chunks(SPAN).zip(blocks.chunks(SPAN)) {
                    let rates = &mut self.scratch.rates[..x.len()];
                    for ((rate, x), block) in rates.iter_mut().zip(x).zip(blocks) {
                        let exponent = isa.mul_add(slope2, *x, effect2[block.vector as usize]);
                        *rate = isa.keep(isa.exp2(exponent), block.lanes);
                    }
                    for ((rate, x), block) in rates.iter().zip(x).zip(blocks) {
                        sums.add(isa, *x, *rate);
                        let by_period = &mut by_period[block.vector as usize];
                        *by_period = isa.mul_add(*rate, scale, *by_period);
                    }
                }
            }
        }
        sums.high = isa.sub(sums.high, anchor);
        sums
    }
}

/// Sums over a product's rows, lane by lane.
#[derive(Clone, Copy)]
struct Sums<I: Simd> {
    high: I::V,
    low: I::V,
    moment: I::V,
}

impl<I: Simd> Sums<I> {
    /// No rows yet, at the anchor.
    #[inline(always)]
    fn new(isa: I, anchor: I::V) -> Self {
        Sums {
            high: anchor,
            low: isa.zero(),
            moment: isa.zero(),
        }
    }

    /// Adds a vector of rows and their rates.
    #[inline(always)]
    fn add(&mut self, isa: I, x: I::V, rate: I::V) {
        let sum = isa.add(self.high, rate);
        if I::ANCHORED {
            self.low = isa.add(self.low, isa.sub(rate, isa.sub(sum, self.high)));
        }
        self.high = sum;
        self.moment = isa.mul_add(rate, x, self.moment);
    }
}

/// Bounds of the log rate, times `log2 e`.
#[derive(Debug, Clone, Copy)]
pub struct ClipBounds2<S> {
    /// Lower.
    pub low: S,
    /// Upper.
    pub high: S,
}

/// The pass over a product some of whose rows may lie outside the clip bounds, for K particles; rates are absolute.
///
/// Returns the correction to `linear - rate` for the rows that clip, one per particle.
#[derive(Debug)]
pub struct Clipped<'a, I: Simd, const K: usize> {
    /// The chunk's rows.
    pub rows: &'a PackedRows<I>,
    /// The product, counted within the chunk.
    pub product: usize,
    /// Its units, one per row.
    pub units: &'a [u32],
    /// The bounds.
    pub bounds: ClipBounds2<I::Scalar>,
    /// As in [`Inside`].
    pub columns: &'a mut [ProductColumns<I::Scalar>; K],
    /// As in [`Inside`].
    pub effect2: &'a [I::V],
    /// As in [`Inside`].
    pub by_period: &'a mut [I::V],
}

impl<I: Simd, const K: usize> Kernel<I> for Clipped<'_, I, K> {
    type Output = [f64; K];

    #[inline(always)]
    fn run(self, isa: I) -> [f64; K] {
        let wide = isa.wide();
        let i = self.product;
        let (low, high) = (isa.splat(self.bounds.low), isa.splat(self.bounds.high));
        let (mut slope2, mut base2) = ([isa.zero(); K], [isa.zero(); K]);
        for k in 0..K {
            slope2[k] = isa.splat(self.columns[k].slope2[i]);
            base2[k] = isa.splat(self.columns[k].base2[i]);
        }
        let mut rate = [[wide.zero(); 2]; K];
        let mut moment = [isa.zero(); K];
        let mut correction = [[wide.zero(); 2]; K];
        let (vectors, blocks) = self.rows.product(i);
        let all = vectors_of::<I>(self.rows.periods());
        let mut row = 0;
        for (v, x) in vectors.iter().enumerate() {
            let (vector, lanes) = match blocks {
                None => (v, dense_lanes::<I>(self.rows.periods(), v)),
                Some(blocks) => (blocks[v].vector as usize, blocks[v].lanes),
            };
            for k in 0..K {
                let at = k * all + vector;
                let eta2 = isa.add(isa.mul_add(slope2[k], *x, self.effect2[at]), base2[k]);
                let held = isa.min(isa.max(eta2, low), high);
                let outside = !isa.equal(eta2, held) & lanes;
                let row_rate = isa.keep(isa.exp2(held), lanes);
                let mut weight = row_rate;
                if outside != 0 {
                    let units = isa.expand_units(&self.units[row..], lanes);
                    weight = isa.select(outside, units, row_rate);
                    let shift = isa.widen(isa.keep(isa.sub(held, eta2), outside));
                    let count = isa.widen(isa.keep(units, outside));
                    let held_rate = isa.widen(isa.keep(row_rate, outside));
                    for part in 0..2 {
                        // y * (bound - eta) - (rate - y): the sum of weights counts y where the likelihood has the rate.
                        let shift = wide.mul(shift[part], wide.splat(std::f64::consts::LN_2));
                        let excess = wide.sub(count[part], held_rate[part]);
                        let term = wide.mul_add(count[part], shift, excess);
                        correction[k][part] = wide.add(correction[k][part], term);
                    }
                }
                let wide_weight = isa.widen(weight);
                for part in 0..2 {
                    rate[k][part] = wide.add(rate[k][part], wide_weight[part]);
                }
                moment[k] = isa.mul_add(weight, *x, moment[k]);
                self.by_period[at] = isa.add(self.by_period[at], weight);
            }
            row += lanes.count_ones() as usize;
        }
        let mut corrections = [0.0; K];
        for k in 0..K {
            let rate = wide.sum(wide.add(rate[k][0], rate[k][1]));
            let columns = &mut self.columns[k];
            columns.rate[i] = I::Scalar::from_f64(rate);
            columns.rate_residual[i] = I::Scalar::from_f64(rate - columns.rate[i].to_f64());
            columns.moment[i] = isa.sum(moment[k]);
            corrections[k] = wide.sum(wide.add(correction[k][0], correction[k][1]));
        }
        corrections
    }
}

#[cfg(test)]
mod tests;
