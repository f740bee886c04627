//! The factor as coordinates to move in: one chain's thread goes back and forth with every gradient.

use crate::factor::ArrowheadFactor;
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};

/// Periods of a block: whole vectors of every instruction set.
const BLOCK: usize = 16;

/// A factor whose couplings of products and borders are laid out to be read fast: blocks of periods in the order of the walk, the
/// weights and deviations of the log prices in single precision, 8 bytes a row.
///
/// It is exact, but of a precision whose weights are rounded to `f32`: products and borders stay those of the factor, and forth and
/// back are each other's inverse and adjoint to double precision. Coordinates need no more.
#[derive(Debug, Clone)]
pub struct Whitener {
    /// Without its weights.
    factor: ArrowheadFactor,
    /// For each block [`BLOCK`] weights, zero where there is no row, and as many deviations from the product's mean log price.
    rows: Vec<f32>,
    /// The first block of every place, and their number.
    starts: Vec<usize>,
    /// The first period of every block.
    periods: Vec<u32>,
}

impl Whitener {
    /// The coordinates of a factor.
    pub fn new(mut factor: ArrowheadFactor) -> Self {
        let panel = factor.walk.panel.clone();
        let (mut rows, mut starts, mut periods) = (Vec::new(), Vec::new(), Vec::new());
        for (place, product) in factor.walk.order.iter().enumerate() {
            starts.push(periods.len());
            let product = *product as usize;
            let own = panel.row_range(product);
            let weights = &factor.weights[factor.walk.row_start[place]..];
            let columns = panel.deviation()[own].iter().zip(weights);
            let mut open = None;
            for (row, (deviation, weight)) in panel.product_rows(product).zip(columns) {
                let block = row.period / BLOCK;
                if open != Some(block) {
                    open = Some(block);
                    periods.push((block * BLOCK) as u32);
                    rows.resize(rows.len() + 2 * BLOCK, 0.0);
                }
                let at = rows.len() - 2 * BLOCK + row.period % BLOCK;
                rows[at] = *weight as f32;
                rows[at + BLOCK] = *deviation;
            }
        }
        starts.push(periods.len());
        factor.weights = Vec::new();
        Whitener {
            factor,
            rows,
            starts,
            periods,
        }
    }

    /// As [`ArrowheadFactor::solve_lower`].
    pub fn solve_lower(&self, b: &mut [f64]) {
        self.factor.solve_lower_by(b, |pairs| self.transpose_times(pairs));
    }

    /// As [`ArrowheadFactor::solve_upper`].
    pub fn solve_upper(&self, y: &mut [f64]) {
        self.factor.solve_upper_by(y, |borders| self.times(borders));
    }

    /// As [`ArrowheadFactor::times_upper`].
    pub fn times_upper(&self, x: &mut [f64]) {
        self.factor.times_upper_by(x, |borders| self.times(borders));
    }

    /// `B_i b` of every place, `b` being the border of its category.
    fn times(&self, borders: &[Vec<f64>]) -> Vec<[f64; 2]> {
        let layout = &self.factor.walk.layout;
        let mut pairs = vec![[0.0; 2]; self.factor.products.len()];
        let mut border = vec![0.0; layout.periods.next_multiple_of(BLOCK)];
        for part in &self.factor.walk.parts {
            let of = &borders[part.category];
            border[..layout.periods].copy_from_slice(&of[..layout.periods]);
            let own = &mut pairs[part.places.clone()];
            InstructionSet::best().run_f64(Times {
                whitener: self,
                first: part.places.start,
                border: &border,
                pairs: &mut *own,
            });
            self.factor.coupling().add_beyond_rows(part, of, own);
        }
        pairs
    }

    /// `sum_i B_i' p_i` of every category, `p` being the pair of every place.
    fn transpose_times(&self, pairs: &[[f64; 2]]) -> Vec<Vec<f64>> {
        let walk = &self.factor.walk;
        let periods = walk.layout.periods;
        let mut all = vec![vec![0.0; walk.border()]; walk.layout.categories];
        let mut sums = vec![0.0; periods.next_multiple_of(BLOCK)];
        for part in &walk.parts {
            let own = &pairs[part.places.clone()];
            sums.fill(0.0);
            InstructionSet::best().run_f64(TransposeTimes {
                whitener: self,
                first: part.places.start,
                pairs: own,
                sums: &mut sums,
            });
            let beyond = self.factor.coupling().transposed_beyond_rows(part, own);
            for (into, sum) in all[part.category]
                .iter_mut()
                .zip(sums[..periods].iter().chain(&beyond))
            {
                *into += sum;
            }
        }
        all
    }

    /// The mean log price of the product at a place, and its blocks: first periods, and rows.
    #[inline(always)]
    fn product(&self, place: usize) -> (f64, &[u32], &[f32]) {
        let walk = &self.factor.walk;
        let blocks = self.starts[place]..self.starts[place + 1];
        let mean = walk.panel.mean_log_price()[walk.order[place] as usize];
        let rows = &self.rows[2 * BLOCK * blocks.start..2 * BLOCK * blocks.end];
        (mean, &self.periods[blocks], rows)
    }
}

struct Times<'a> {
    whitener: &'a Whitener,
    /// The place of the first pair.
    first: usize,
    border: &'a [f64],
    pairs: &'a mut [[f64; 2]],
}

impl ForSimd for Times<'_> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

impl<I: Simd<Scalar = f64>> Kernel<I> for Times<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, pair) in (self.first..).zip(self.pairs) {
            let (mean, periods, rows) = self.whitener.product(place);
            // Two sums of each, so that one addition need not wait for the one before.
            let mut along = [isa.zero(); 2];
            let mut whole = [isa.zero(); 2];
            for (period, block) in periods.iter().zip(rows.chunks_exact(2 * BLOCK)) {
                let border = &self.border[*period as usize..][..BLOCK];
                let (weights, deviations) = block.split_at(BLOCK);
                for (k, at) in (0..BLOCK).step_by(I::LANES).enumerate() {
                    let weighted = isa.mul(isa.load_single(&weights[at..]), isa.load(&border[at..]));
                    along[k % 2] = isa.mul_add(weighted, isa.load_single(&deviations[at..]), along[k % 2]);
                    whole[k % 2] = isa.add(whole[k % 2], weighted);
                }
            }
            let along = isa.sum(isa.add(along[0], along[1]));
            let whole = isa.sum(isa.add(whole[0], whole[1]));
            *pair = [along + mean * whole, whole];
        }
    }
}

struct TransposeTimes<'a> {
    whitener: &'a Whitener,
    /// The place of the first pair.
    first: usize,
    pairs: &'a [[f64; 2]],
    /// By period, padded; added to.
    sums: &'a mut [f64],
}

impl ForSimd for TransposeTimes<'_> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

impl<I: Simd<Scalar = f64>> Kernel<I> for TransposeTimes<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, [a, e]) in (self.first..).zip(self.pairs) {
            let (mean, periods, rows) = self.whitener.product(place);
            let (slope, base) = (isa.splat(*a), isa.splat(e + a * mean));
            for (period, block) in periods.iter().zip(rows.chunks_exact(2 * BLOCK)) {
                let sums = &mut self.sums[*period as usize..][..BLOCK];
                let (weights, deviations) = block.split_at(BLOCK);
                for at in (0..BLOCK).step_by(I::LANES) {
                    let along = isa.mul_add(slope, isa.load_single(&deviations[at..]), base);
                    let sum = isa.mul_add(isa.load_single(&weights[at..]), along, isa.load(&sums[at..]));
                    isa.store(sum, &mut sums[at..]);
                }
            }
        }
    }
}
