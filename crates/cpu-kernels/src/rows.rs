//! The fused pass over the rows of a product: rates and their sums, with nothing stored a row.
//!
//! With a row's log price split into its product's mean and a deviation `x`, the log rate is
//! `eta = slope * x + effect[t] + base`, where `base = slope * mean + product_effect` is one number a product and
//! particle. Where no row of the product can leave the clip bounds ([`Inside`]) the pass computes
//! `exp2(slope2 * x + effect2[t])` and multiplies by `exp(base)` once, in double precision, at the end; counts are
//! not read. Elsewhere ([`Clipped`]) rows outside the bounds are found lane by lane and their counts are read.
//!
//! The single-precision pass keeps what rounding would lose: each rate is added to an accumulator that starts at an
//! *anchor*, a power of two so large that the accumulator never changes its exponent. The sum is then exact but for
//! the part of the rate below the anchor's last bit; that part is recovered exactly (`rate - (new - old)`) and
//! summed on its own. Relative to the largest rate of the product the sum is good to 1e-11.

use crate::packed_rows::{PackedRows, dense_lanes};
use crate::simd::{Kernel, Scalar, Simd};
use std::ops::Range;

/// Vectors that an anchored accumulator may take before it must be emptied.
const ANCHOR_VECTORS: usize = 16;

/// Binary orders between the largest rate and the anchor: four for the vectors of a lane and four for its lanes, so
/// that the accumulator stays below twice the anchor and the sum over lanes is exact.
pub const ANCHOR_HEADROOM: f64 = 8.0;

/// What the pass reads and writes of each product of a chunk, for one particle; padded columns.
#[derive(Debug, Clone, Default)]
pub struct ProductColumns<S> {
    /// `product_a * log2 e`.
    pub slope2: Vec<S>,
    /// `base * log2 e`. Read by [`Clipped`].
    pub base2: Vec<S>,
    /// `exp(base)`: brings relative rates to rates in the sums by period. Read by [`Inside`].
    pub scale: Vec<S>,
    /// The largest power of two not above `2^`[`ANCHOR_HEADROOM`] times the largest relative rate. Read by [`Inside`] in
    /// single precision.
    pub anchor: Vec<S>,
    /// Sum of the rates (of the counts, where the clip bites): high part. Rates of [`Inside`] are relative to
    /// `exp(base)`.
    pub rate: Vec<S>,
    /// What the high part leaves.
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
    /// One entry a particle.
    pub columns: &'a mut [ProductColumns<I::Scalar>; K],
    /// For each vector of periods K vectors: effects times `log2 e`, and [`Simd::NEGLIGIBLE_EXPONENT`] beyond T.
    pub effect2: &'a [I::V],
    /// Laid out as `effect2`: sums of rates by period, which are added to.
    pub by_period: &'a mut [I::V],
}

impl<I: Simd, const K: usize> Kernel<I> for Inside<'_, I, K> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for i in self.products {
            let zero = [isa.zero(); K];
            let mut pass = InsideProduct::<I, K> {
                slope2: zero,
                scale: zero,
                high: zero,
                low: zero,
                moment: zero,
            };
            let mut start = zero;
            for k in 0..K {
                pass.slope2[k] = isa.splat(self.columns[k].slope2[i]);
                pass.scale[k] = isa.splat(self.columns[k].scale[i]);
                if I::ANCHORED {
                    start[k] = isa.splat(self.columns[k].anchor[i]);
                }
            }
            pass.high = start;
            // An anchored accumulator is emptied before it can leave its anchor's exponent; what the sum of the
            // segments rounds away joins the low part. Panels of up to 256 periods are one segment.
            let (vectors, blocks) = self.rows.product(i);
            let segment = if I::ANCHORED {
                ANCHOR_VECTORS
            } else {
                vectors.len()
            };
            let mut rate = [I::Scalar::default(); K];
            let mut first = 0;
            loop {
                let end = vectors.len().min(first + segment);
                match blocks {
                    None => {
                        let x = vectors[first..end].iter();
                        let effect2 = self.effect2[first * K..end * K].chunks_exact(K);
                        let by_period = self.by_period[first * K..end * K].chunks_exact_mut(K);
                        for ((x, effect2), by_period) in x.zip(effect2).zip(by_period) {
                            pass.visit(isa, *x, None, effect2, by_period);
                        }
                    }
                    Some(blocks) => {
                        for (x, block) in vectors[first..end].iter().zip(&blocks[first..end]) {
                            let at = block.vector as usize * K;
                            let effect2 = &self.effect2[at..at + K];
                            let by_period = &mut self.by_period[at..at + K];
                            pass.visit(isa, *x, Some(block.lanes), effect2, by_period);
                        }
                    }
                }
                for k in 0..K {
                    pass.high[k] = isa.sub(pass.high[k], start[k]);
                }
                first = end;
                if first == vectors.len() {
                    break;
                }
                for k in 0..K {
                    pass.add_segment(isa, k, &mut rate[k], isa.sum(pass.high[k]));
                }
                pass.high = start;
            }
            let (high, moment) = sum_pairs(isa, &pass.high, &pass.moment);
            for k in 0..K {
                if vectors.len() > segment {
                    pass.add_segment(isa, k, &mut rate[k], high[k]);
                } else {
                    rate[k] = high[k];
                }
                self.columns[k].rate[i] = rate[k];
                self.columns[k].moment[i] = moment[k];
            }
            if I::ANCHORED {
                let low = sum_each(isa, &pass.low);
                for k in 0..K {
                    self.columns[k].rate_residual[i] = low[k];
                }
            }
        }
    }
}

struct InsideProduct<I: Simd, const K: usize> {
    slope2: [I::V; K],
    scale: [I::V; K],
    high: [I::V; K],
    low: [I::V; K],
    moment: [I::V; K],
}

impl<I: Simd, const K: usize> InsideProduct<I, K> {
    /// Adds a vector of rows; without `lanes` all lanes count, those beyond T nothing by their effect.
    #[inline(always)]
    fn visit(&mut self, isa: I, x: I::V, lanes: Option<u32>, effect2: &[I::V], by_period: &mut [I::V]) {
        for k in 0..K {
            let rate = isa.exp2(isa.mul_add(self.slope2[k], x, effect2[k]));
            let rate = match lanes {
                None => rate,
                Some(lanes) => isa.keep(rate, lanes),
            };
            let sum = isa.add(self.high[k], rate);
            if I::ANCHORED {
                self.low[k] = isa.add(self.low[k], isa.sub(rate, isa.sub(sum, self.high[k])));
            }
            self.high[k] = sum;
            self.moment[k] = isa.mul_add(rate, x, self.moment[k]);
            by_period[k] = isa.mul_add(rate, self.scale[k], by_period[k]);
        }
    }

    /// Adds a segment's sum to `rate`, what is rounded away to the low part.
    #[inline(always)]
    fn add_segment(&mut self, isa: I, k: usize, rate: &mut I::Scalar, segment: I::Scalar) {
        let (sum, lost) = two_sum(*rate, segment);
        *rate = sum;
        self.low[k] = isa.add(self.low[k], isa.keep(isa.splat(lost), 1));
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
/// Returns what is to be added to `linear - rate` for the rows that clip, one a particle.
#[derive(Debug)]
pub struct Clipped<'a, I: Simd, const K: usize> {
    /// The chunk's rows.
    pub rows: &'a PackedRows<I>,
    /// The product, counted within the chunk.
    pub product: usize,
    /// Its units, one a row.
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
        let mut row = 0;
        for (v, x) in vectors.iter().enumerate() {
            let (vector, lanes) = match blocks {
                None => (v, dense_lanes::<I>(self.rows.periods(), v)),
                Some(blocks) => (blocks[v].vector as usize, blocks[v].lanes),
            };
            let effect2 = &self.effect2[vector * K..][..K];
            let by_period = &mut self.by_period[vector * K..][..K];
            for k in 0..K {
                let eta2 = isa.add(isa.mul_add(slope2[k], *x, effect2[k]), base2[k]);
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
                by_period[k] = isa.add(by_period[k], weight);
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

/// The rounded sum of two numbers that are not negative, and what rounding lost.
#[inline(always)]
fn two_sum<S: Scalar>(a: S, b: S) -> (S, S) {
    let sum = a + b;
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    (sum, small - (sum - large))
}

/// Lane sums of two vectors a particle.
#[inline(always)]
fn sum_pairs<I: Simd, const K: usize>(
    isa: I,
    a: &[I::V; K],
    b: &[I::V; K],
) -> ([I::Scalar; K], [I::Scalar; K]) {
    const { assert!(K <= 4) };
    if K == 1 {
        return ([isa.sum(a[0]); K], [isa.sum(b[0]); K]);
    }
    let mut both = [isa.zero(); 8];
    both[..K].copy_from_slice(a);
    both[4..4 + K].copy_from_slice(b);
    let sums = isa.sum8(both);
    let mut out = ([I::Scalar::default(); K], [I::Scalar::default(); K]);
    out.0.copy_from_slice(&sums[..K]);
    out.1.copy_from_slice(&sums[4..4 + K]);
    out
}

/// Lane sums of one vector a particle.
#[inline(always)]
fn sum_each<I: Simd, const K: usize>(isa: I, a: &[I::V; K]) -> [I::Scalar; K] {
    if K == 1 {
        return [isa.sum(a[0]); K];
    }
    let mut four = [isa.zero(); 4];
    four[..K].copy_from_slice(a);
    let mut out = [I::Scalar::default(); K];
    out.copy_from_slice(&isa.sum4(four)[..K]);
    out
}
