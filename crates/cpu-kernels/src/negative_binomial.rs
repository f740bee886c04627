//! The negative-binomial likelihood of a chunk and its gradient with respect to elasticities, effects and the
//! shape's logarithm, for one particle.
//!
//! With `t = eta - ln r`, `p = 1 / (1 + exp(-t))` and the row's `q = (y + r) p`:
//!
//! ```text
//! ln p(y) + ln y! = y eta - (y + r) ln(1 + exp t) + rise(y, r)
//! by eta:           y - q
//! by ln r:          q - r ln(1 + exp t) + d rise / d ln r
//! ```
//!
//! In the gradient, `q` has the role of the rate under the Poisson likelihood, and `y eta` enters through the
//! sums that never change. Counts are read with every row, the rise from [`DistinctCounts`]. One pass serves
//! all rows: outside the clip bounds `eta` is held, and the count replaces `q`, which makes the derivative
//! with respect to `eta` zero.
//!
//! Double precision throughout, whatever the precision of the latents: where the shape is large, `q` and
//! `r ln(1 + exp t)` are both as large as the rate and cancel.

use crate::chunk::{Chunk, PAD};
use crate::distinct_counts::DistinctCounts;
use crate::packed_rows::{PackedRoom, PackedRows, dense_lanes};
use crate::simd::{Kernel, Scalar, Simd};
use infermark_model::negative_binomial::Shape;
use infermark_model::{Panel, Priors};
use std::f64::consts::LOG2_E;
use std::sync::Arc;

/// Coefficients of `atanh(s) / s` in `s^2` on [0, 1/9], lowest degree first: Taylor's, whose rest is below 2e-17.
const ATANH: [f64; 16] = {
    let mut coefficients = [0.0; 16];
    let mut k = 0;
    while k < 16 {
        coefficients[k] = 1.0 / (2 * k + 1) as f64;
        k += 1;
    }
    coefficients
};

/// Length of vectors over T periods that the pass reads and adds to.
pub const fn padded_periods(periods: usize) -> usize {
    periods.next_multiple_of(PAD)
}

/// The rows of a chunk and its share of the category's distinct counts. Clones share both.
#[derive(Debug, Clone)]
pub struct CountRows<W: Simd<Scalar = f64>> {
    rows: Arc<PackedRows<W>>,
    counts: Arc<DistinctCounts>,
}

/// What the pass returns for a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkTerms {
    /// The log likelihood without `sum_t effect * counts` and `ln y!`.
    pub log_likelihood: f64,
    /// Its derivative with respect to the category's `log_shape`.
    pub by_log_shape: f64,
}

/// The pass over a chunk's rows for one particle.
#[derive(Debug)]
pub struct CountPass<'a, S> {
    /// The panel, whose counts are read.
    pub panel: &'a Panel,
    /// Its clip bounds count.
    pub priors: &'a Priors,
    /// The chunk.
    pub chunk: &'a Chunk,
    /// The category's shape.
    pub shape: Shape,
    /// The category's period effects, of length [`padded_periods`].
    pub effects: &'a [f64],
    /// Elasticities, padded; replaced by the gradient.
    pub elasticity: &'a mut [S],
    /// Product effects, padded; replaced by the gradient.
    pub effect: &'a mut [S],
    /// Sums by period of `q` (of counts, where the clip bites), of length [`padded_periods`]: added to.
    pub by_period: &'a mut [f64],
}

impl<W: Simd<Scalar = f64>> CountRows<W> {
    /// Packs the rows of `chunk`.
    pub fn new(isa: W, panel: &Panel, chunk: &Chunk, counts: DistinctCounts) -> Self {
        CountRows {
            rows: Arc::new(PackedRows::new(isa, panel, chunk)),
            counts: Arc::new(counts),
        }
    }

    /// The rows of `chunk` without the rows themselves, see [`PackedRows::outline`].
    pub fn outline(panel: &Panel, chunk: &Chunk, counts: DistinctCounts) -> Self {
        CountRows {
            rows: Arc::new(PackedRows::outline(panel, chunk)),
            counts: Arc::new(counts),
        }
    }

    /// Packs the rows into `room`, see [`PackedRows::load`].
    ///
    /// # Panics
    /// When clones share them.
    #[inline(always)]
    pub fn load(&mut self, isa: W, panel: &Panel, chunk: &Chunk, room: &mut PackedRoom<W>) {
        let rows = Arc::get_mut(&mut self.rows).expect("rows of one owner");
        rows.load(isa, panel, chunk, room);
    }

    /// Gives back the room.
    ///
    /// # Panics
    /// When clones share the rows.
    pub fn unload(&mut self, room: &mut PackedRoom<W>) {
        Arc::get_mut(&mut self.rows)
            .expect("rows of one owner")
            .unload(room);
    }

    /// Makes the pass.
    pub fn pass<S: Scalar>(&self, isa: W, pass: CountPass<'_, S>) -> ChunkTerms {
        let shape = pass.shape;
        let terms = isa.vectorize(PassOver {
            rows: &self.rows,
            pass,
        });
        let (rise, rise_slope) = self.counts.rise(shape.value);
        ChunkTerms {
            log_likelihood: terms.log_likelihood + rise,
            by_log_shape: if shape.is_free {
                terms.by_log_shape + rise_slope
            } else {
                0.0
            },
        }
    }
}

struct PassOver<'a, W: Simd, S> {
    rows: &'a PackedRows<W>,
    pass: CountPass<'a, S>,
}

impl<W: Simd<Scalar = f64>, S: Scalar> Kernel<W> for PassOver<'_, W, S> {
    type Output = ChunkTerms;

    #[inline(always)]
    fn run(self, isa: W) -> ChunkTerms {
        let PassOver { rows: packed, pass } = self;
        let (low, high) = (isa.splat(pass.priors.clip_low), isa.splat(pass.priors.clip_high));
        let count = RowCount::new(isa, &pass.shape);
        let (mut value, mut by_log_shape) = (isa.zero(), isa.zero());
        let mut linear = 0.0;
        for (i, product) in pass.chunk.products.iter().enumerate() {
            let units = &pass.panel.units()[pass.panel.row_range(*product as usize)];
            let (mean, sum) = (pass.chunk.mean_log_price[i], pass.chunk.units[i]);
            let slope = pass.elasticity[i].to_f64();
            let base = slope * mean + pass.effect[i].to_f64();
            linear += base * sum + slope * pass.chunk.units_deviation[i];
            let (slope, base) = (isa.splat(slope), isa.splat(base));
            let (mut rate, mut moment) = (isa.zero(), isa.zero());
            let (vectors, blocks) = packed.product(i);
            let mut row = 0;
            for (v, x) in vectors.iter().enumerate() {
                let (vector, lanes) = match blocks {
                    None => (v, dense_lanes::<W>(packed.periods(), v)),
                    Some(blocks) => (blocks[v].vector as usize, blocks[v].lanes),
                };
                let at = vector * W::LANES;
                let y = isa.expand_units(&units[row..], lanes);
                row += lanes.count_ones() as usize;
                let eta = isa.mul_add(slope, *x, isa.add(isa.load(&pass.effects[at..]), base));
                let held = isa.min(isa.max(eta, low), high);
                let terms = count.at(isa, y, held);
                value = isa.add(value, isa.keep(terms.value, lanes));
                by_log_shape = isa.add(by_log_shape, isa.keep(terms.by_log_shape, lanes));
                let mut weight = isa.keep(terms.q, lanes);
                // Also if eta is NaN, which then reaches the value.
                let outside = !isa.equal(eta, held) & lanes;
                if outside != 0 {
                    weight = isa.select(outside, y, weight);
                    let shift = isa.mul(y, isa.sub(held, eta));
                    value = isa.add(value, isa.keep(shift, outside));
                }
                rate = isa.add(rate, weight);
                moment = isa.mul_add(weight, *x, moment);
                let by_period = &mut pass.by_period[at..];
                isa.store(isa.add(isa.load(by_period), weight), by_period);
            }
            let by_effect = sum - isa.sum(rate);
            let by_slope = pass.chunk.units_deviation[i] - isa.sum(moment);
            pass.elasticity[i] = S::from_f64(mean * by_effect + by_slope);
            pass.effect[i] = S::from_f64(by_effect);
        }
        let products = pass.chunk.products.len();
        pass.elasticity[products..].fill(S::default());
        pass.effect[products..].fill(S::default());
        ChunkTerms {
            log_likelihood: linear + isa.sum(value),
            by_log_shape: isa.sum(by_log_shape),
        }
    }
}

/// The values of the shape that a row's terms need, in all lanes.
struct RowCount<W: Simd> {
    r: W::V,
    minus_r: W::V,
    ln_r: W::V,
    one: W::V,
    two: W::V,
    minus_log2_e: W::V,
}

/// Terms of a vector of rows.
struct RowTerms<W: Simd> {
    /// `-(y + r) ln(1 + exp t)`.
    value: W::V,
    /// `q`.
    q: W::V,
    /// `q - r ln(1 + exp t)`.
    by_log_shape: W::V,
}

impl<W: Simd<Scalar = f64>> RowCount<W> {
    #[inline(always)]
    fn new(isa: W, shape: &Shape) -> Self {
        RowCount {
            r: isa.splat(shape.value),
            minus_r: isa.splat(-shape.value),
            ln_r: isa.splat(shape.ln),
            one: isa.splat(1.0),
            two: isa.splat(2.0),
            minus_log2_e: isa.splat(-LOG2_E),
        }
    }

    #[inline(always)]
    fn at(&self, isa: W, y: W::V, eta: W::V) -> RowTerms<W> {
        let t = isa.sub(eta, self.ln_r);
        // e = exp(-|t|) with |t| at most 120: bounds within 80, the shape's logarithm within 40.
        let e = isa.exp2(isa.mul(isa.max(t, isa.sub(isa.zero(), t)), self.minus_log2_e));
        let (one_e, two_e) = (isa.add(self.one, e), isa.add(self.two, e));
        // One division for 1 / (1 + e) and e / (2 + e).
        let inverse = isa.div(self.one, isa.mul(one_e, two_e));
        let s = isa.mul(e, isa.mul(inverse, one_e));
        let s2 = isa.mul(s, s);
        let mut series = isa.splat(ATANH[15]);
        for coefficient in ATANH[..15].iter().rev() {
            series = isa.mul_add(series, s2, isa.splat(*coefficient));
        }
        // ln(1 + exp t) = max(t, 0) + ln(1 + e), and ln(1 + e) = 2 atanh(e / (2 + e)).
        let positive = isa.max(t, isa.zero());
        let softplus = isa.mul_add(isa.add(s, s), series, positive);
        let numerator = isa.select(isa.equal(positive, t), self.one, e);
        let p = isa.mul(numerator, isa.mul(inverse, two_e));
        let weight = isa.add(y, self.r);
        let q = isa.mul(weight, p);
        RowTerms {
            value: isa.mul(isa.sub(isa.zero(), weight), softplus),
            q,
            by_log_shape: isa.mul_add(self.minus_r, softplus, q),
        }
    }
}
