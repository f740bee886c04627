//! The fused pass over the rows of one product: rates and their sums, with nothing stored a row.
//!
//! With a row's log price split into its product's mean and a deviation `x`, the log rate is
//! `eta = slope * x + effect[t] + base`, where `base = slope * mean + product_effect` is one number a product and
//! particle. Where no row of the product can leave the clip bounds ([`inside`]) the pass computes
//! `exp2(slope2 * x + effect2[t])` and multiplies by `exp(base)` once, in double precision, at the end; counts are
//! not read. Elsewhere ([`clipped`]) rows outside the bounds are found lane by lane and their counts are read.
//!
//! The single-precision pass keeps what rounding would lose: each rate is added to an accumulator that starts at an
//! *anchor*, a power of two so large that the accumulator never changes its exponent. The sum is then exact but for
//! the part of the rate below the anchor's last bit; that part is recovered exactly (`rate - (new - old)`) and
//! summed on its own. Relative to the largest rate of the product the sum is good to 1e-11.

use crate::simd::{Scalar, Simd};

/// Vectors that an anchored accumulator may take before it must be emptied.
const ANCHOR_VECTORS: usize = 16;

/// Binary orders between the largest rate and the anchor: at least four for the vectors of a lane and three for its
/// lanes, so that the accumulator stays below twice the anchor and the sum over lanes is exact.
pub const ANCHOR_HEADROOM: f64 = 8.0;

/// The rows of a product.
#[derive(Debug, Clone, Copy)]
pub struct ProductRows<'a> {
    /// Deviations of log price, one a row.
    pub deviation: &'a [f32],
    /// Their residuals, one a row; read in double precision only.
    pub residual: &'a [f32],
    /// Units, one a row; read where the clip bites only.
    pub units: &'a [u32],
    /// Periods that are there, one bit each; `None` when all are.
    pub present: Option<&'a [u64]>,
    /// T.
    pub periods: usize,
}

/// What is constant over a product's rows, one entry a particle.
#[derive(Debug, Clone, Copy)]
pub struct Particles<S, const K: usize> {
    /// `product_a * log2 e`.
    pub slope2: [S; K],
    /// `exp(base)`: brings relative rates to rates in the sums by period. Used by [`inside`].
    pub scale: [S; K],
    /// The largest power of two not above `2^`[`ANCHOR_HEADROOM`] times the largest relative rate. Used by [`inside`] in
    /// single precision.
    pub anchor: [S; K],
    /// `base * log2 e`. Used by [`clipped`].
    pub base2: [S; K],
}

/// Sums over a product's rows, one entry a particle. Rates of [`inside`] are relative to `exp(base)`.
#[derive(Debug, Clone, Copy)]
pub struct RowSums<S, const K: usize> {
    /// Sum of the rates (of the counts, where the clip bites): high part.
    pub rate: [S; K],
    /// What the high part leaves.
    pub rate_residual: [S; K],
    /// Sum of rate (count) times deviation.
    pub moment: [S; K],
    /// Log likelihood to add to `linear - rate`, from rows that clip; zero from [`inside`].
    pub clip_correction: [f64; K],
}

/// Bounds of the log rate, times `log2 e`.
#[derive(Debug, Clone, Copy)]
pub struct ClipBounds2<S> {
    /// Lower.
    pub low: S,
    /// Upper.
    pub high: S,
}

/// Number of vectors that T periods take.
pub fn vectors_of<I: Simd>(periods: usize) -> usize {
    periods.div_ceil(I::LANES)
}

/// What is done with each vector of periods; an object and not a closure, see [`crate::simd::Kernel`].
trait PerVector<I: Simd> {
    /// `x` holds the deviations of `lanes`, zero elsewhere; `row` is the first lane's row.
    fn visit(&mut self, isa: I, j: usize, x: I::V, lanes: u32, row: usize);
}

/// Visits the vectors of periods that have rows; `next_row` carries the row from call to call.
///
/// The loop has one body for full vectors, the tail and gaps: masking is free where it matters (AVX-512), and a
/// body a case would multiply the code of every kernel.
#[inline(always)]
fn for_each_vector<I: Simd>(
    isa: I,
    rows: &ProductRows<'_>,
    vectors: std::ops::Range<usize>,
    next_row: &mut usize,
    visitor: &mut impl PerVector<I>,
) {
    let all = ((1u64 << I::LANES) - 1) as u32;
    for j in vectors {
        let period = j * I::LANES;
        let lanes = match rows.present {
            None if rows.periods - period >= I::LANES => all,
            None => (1u32 << (rows.periods - period)) - 1,
            Some(words) => (words[period / 64] >> (period % 64)) as u32 & all,
        };
        if lanes == 0 {
            continue;
        }
        let row = *next_row;
        let (deviation, residual) = (&rows.deviation[row..], &rows.residual[row..]);
        let x = if lanes == all {
            *next_row += I::LANES;
            isa.load_deviation(deviation, residual)
        } else {
            *next_row += lanes.count_ones() as usize;
            isa.expand_deviation(deviation, residual, lanes)
        };
        visitor.visit(isa, j, x, lanes, row);
    }
}

struct Inside<'a, I: Simd, const K: usize> {
    slope2: [I::V; K],
    scale: [I::V; K],
    effect2: &'a [I::V],
    by_period: &'a mut [I::V],
    high: [I::V; K],
    low: [I::V; K],
    moment: [I::V; K],
}

impl<I: Simd, const K: usize> PerVector<I> for Inside<'_, I, K> {
    #[inline(always)]
    fn visit(&mut self, isa: I, j: usize, x: I::V, lanes: u32, _row: usize) {
        let effect2 = &self.effect2[j * K..][..K];
        let by_period = &mut self.by_period[j * K..][..K];
        for k in 0..K {
            let rate = isa.keep(isa.exp2(isa.mul_add(self.slope2[k], x, effect2[k])), lanes);
            let sum = isa.add(self.high[k], rate);
            if I::ANCHORED {
                self.low[k] = isa.add(self.low[k], isa.sub(rate, isa.sub(sum, self.high[k])));
            }
            self.high[k] = sum;
            self.moment[k] = isa.mul_add(rate, x, self.moment[k]);
            by_period[k] = isa.mul_add(rate, self.scale[k], by_period[k]);
        }
    }
}

/// Sums of a product whose rows all lie inside the clip bounds.
///
/// `effect2` and `by_period` hold K vectors for each vector of periods: the effects times `log2 e`, and the sums of
/// rates by period, which are added to.
#[inline(always)]
pub fn inside<I: Simd, const K: usize>(
    isa: I,
    rows: &ProductRows<'_>,
    particles: &Particles<I::Scalar, K>,
    effect2: &[I::V],
    by_period: &mut [I::V],
) -> RowSums<I::Scalar, K> {
    let zero = I::Scalar::default();
    let start = if I::ANCHORED {
        splat(isa, particles.anchor)
    } else {
        [isa.zero(); K]
    };
    let vectors = vectors_of::<I>(rows.periods);
    let mut pass = Inside {
        slope2: splat(isa, particles.slope2),
        scale: splat(isa, particles.scale),
        effect2: &effect2[..vectors * K],
        by_period: &mut by_period[..vectors * K],
        high: start,
        low: [isa.zero(); K],
        moment: [isa.zero(); K],
    };
    // An anchored accumulator is emptied before it can leave its anchor's exponent; what the sum of the segments rounds
    // away joins the low part. Panels of up to 256 periods are one segment.
    let segment = if I::ANCHORED { ANCHOR_VECTORS } else { vectors };
    let mut rate = [zero; K];
    let (mut first, mut next_row) = (0, 0);
    loop {
        let end = vectors.min(first + segment);
        for_each_vector(isa, rows, first..end, &mut next_row, &mut pass);
        for k in 0..K {
            pass.high[k] = isa.sub(pass.high[k], start[k]);
        }
        first = end;
        if first == vectors {
            break;
        }
        for k in 0..K {
            let (sum, lost) = two_sum(rate[k], isa.sum(pass.high[k]));
            rate[k] = sum;
            pass.low[k] = isa.add(pass.low[k], isa.keep(isa.splat(lost), 1));
        }
        pass.high = start;
    }
    let (high, moment) = sum_pairs(isa, pass.high, pass.moment);
    for k in 0..K {
        let (sum, lost) = two_sum(rate[k], high[k]);
        rate[k] = sum;
        pass.low[k] = isa.add(pass.low[k], isa.keep(isa.splat(lost), 1));
    }
    let rate_residual = if I::ANCHORED {
        sum_pairs(isa, pass.low, [isa.zero(); K]).0
    } else {
        [zero; K]
    };
    RowSums {
        rate,
        rate_residual,
        moment,
        clip_correction: [0.0; K],
    }
}

struct Clipped<'a, I: Simd, const K: usize> {
    slope2: [I::V; K],
    base2: [I::V; K],
    low: I::V,
    high: I::V,
    units: &'a [u32],
    effect2: &'a [I::V],
    by_period: &'a mut [I::V],
    rate: [[<I::Wide as Simd>::V; 2]; K],
    moment: [I::V; K],
    correction: [[<I::Wide as Simd>::V; 2]; K],
}

impl<I: Simd, const K: usize> PerVector<I> for Clipped<'_, I, K> {
    #[inline(always)]
    fn visit(&mut self, isa: I, j: usize, x: I::V, lanes: u32, row: usize) {
        let wide = isa.wide();
        for k in 0..K {
            let eta2 = isa.add(
                isa.mul_add(self.slope2[k], x, self.effect2[j * K + k]),
                self.base2[k],
            );
            let held = isa.min(isa.max(eta2, self.low), self.high);
            let outside = !isa.equal(eta2, held) & lanes;
            let rate = isa.keep(isa.exp2(held), lanes);
            let mut weight = rate;
            if outside != 0 {
                let units = isa.expand_units(&self.units[row..], lanes);
                weight = isa.select(outside, units, rate);
                let shift = isa.widen(isa.keep(isa.sub(held, eta2), outside));
                let count = isa.widen(isa.keep(units, outside));
                let rate = isa.widen(isa.keep(rate, outside));
                for part in 0..2 {
                    // y * (bound - eta) - (rate - y): the sum of weights counts y where the likelihood has the rate.
                    let shift = wide.mul(shift[part], wide.splat(std::f64::consts::LN_2));
                    let term = wide.mul_add(count[part], shift, wide.sub(count[part], rate[part]));
                    self.correction[k][part] = wide.add(self.correction[k][part], term);
                }
            }
            let wide_weight = isa.widen(weight);
            for part in 0..2 {
                self.rate[k][part] = wide.add(self.rate[k][part], wide_weight[part]);
            }
            self.moment[k] = isa.mul_add(weight, x, self.moment[k]);
            self.by_period[j * K + k] = isa.add(self.by_period[j * K + k], weight);
        }
    }
}

/// Sums of a product some of whose rows may lie outside the clip bounds; rates are absolute.
#[inline(always)]
pub fn clipped<I: Simd, const K: usize>(
    isa: I,
    rows: &ProductRows<'_>,
    particles: &Particles<I::Scalar, K>,
    bounds: ClipBounds2<I::Scalar>,
    effect2: &[I::V],
    by_period: &mut [I::V],
) -> RowSums<I::Scalar, K> {
    let wide = isa.wide();
    let vectors = vectors_of::<I>(rows.periods);
    let mut pass = Clipped {
        slope2: splat(isa, particles.slope2),
        base2: splat(isa, particles.base2),
        low: isa.splat(bounds.low),
        high: isa.splat(bounds.high),
        units: rows.units,
        effect2: &effect2[..vectors * K],
        by_period: &mut by_period[..vectors * K],
        rate: [[wide.zero(); 2]; K],
        moment: [isa.zero(); K],
        correction: [[wide.zero(); 2]; K],
    };
    for_each_vector(isa, rows, 0..vectors, &mut 0, &mut pass);
    let mut sums = RowSums {
        rate: [I::Scalar::default(); K],
        rate_residual: [I::Scalar::default(); K],
        moment: [I::Scalar::default(); K],
        clip_correction: [0.0; K],
    };
    for k in 0..K {
        let rate = wide.sum(wide.add(pass.rate[k][0], pass.rate[k][1]));
        sums.rate[k] = I::Scalar::from_f64(rate);
        sums.rate_residual[k] = I::Scalar::from_f64(rate - sums.rate[k].to_f64());
        sums.moment[k] = isa.sum(pass.moment[k]);
        sums.clip_correction[k] = wide.sum(wide.add(pass.correction[k][0], pass.correction[k][1]));
    }
    sums
}

/// The rounded sum of two numbers that are not negative, and what rounding lost.
#[inline(always)]
fn two_sum<S: Scalar>(a: S, b: S) -> (S, S) {
    let sum = a + b;
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    (sum, small - (sum - large))
}

#[inline(always)]
fn splat<I: Simd, const K: usize>(isa: I, x: [I::Scalar; K]) -> [I::V; K] {
    let mut v = [isa.zero(); K];
    for k in 0..K {
        v[k] = isa.splat(x[k]);
    }
    v
}

/// Lane sums of two vectors a particle.
#[inline(always)]
fn sum_pairs<I: Simd, const K: usize>(
    isa: I,
    a: [I::V; K],
    b: [I::V; K],
) -> ([I::Scalar; K], [I::Scalar; K]) {
    const { assert!(K <= 4) };
    if K == 1 {
        return ([isa.sum(a[0]); K], [isa.sum(b[0]); K]);
    }
    let mut both = [isa.zero(); 8];
    both[..K].copy_from_slice(&a);
    both[4..4 + K].copy_from_slice(&b);
    let sums = isa.sum8(both);
    let mut out = ([I::Scalar::default(); K], [I::Scalar::default(); K]);
    out.0.copy_from_slice(&sums[..K]);
    out.1.copy_from_slice(&sums[4..4 + K]);
    out
}
