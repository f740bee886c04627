//! The factor as coordinates for a sampler: one chain's thread transforms back and forth with every gradient.

use crate::factor::ArrowheadFactor;
use crate::weights::Weights;
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::design::PRODUCT_LATENTS;
use infermark_processor::InstructionSet;

/// Periods of a block: whole vectors of every instruction set.
const BLOCK: usize = 16;

/// A factor whose couplings of products and borders are laid out for fast reading: blocks of periods in the
/// order of the walk, with weights and deviations of the regressors in single precision, 4 D bytes per row.
///
/// It is exact for a precision whose weights are rounded to `f32`: products and borders stay those of the
/// factor, and the two transforms are inverse and adjoint to each other in double precision, which suffices
/// for coordinates.
#[derive(Debug, Clone)]
pub struct Whitener<const D: usize = PRODUCT_LATENTS> {
    /// The factor, without its weights.
    factor: ArrowheadFactor<D>,
    /// For each block [`BLOCK`] weights, zero where there is no row, and as many deviations of each regressor from its mean over the product.
    rows: Vec<f32>,
    /// The first block of every place, and their number.
    starts: Vec<usize>,
    /// The first period of every block.
    periods: Vec<u32>,
}

impl<const D: usize> Whitener<D> {
    /// The coordinates of a factor.
    pub fn new(mut factor: ArrowheadFactor<D>) -> Self {
        let panel = factor.partition.panel.clone();
        let (mut rows, mut starts, mut periods) = (Vec::new(), Vec::new(), Vec::new());
        for (place, product) in factor.partition.order.iter().enumerate() {
            starts.push(periods.len());
            let product = *product as usize;
            let own = panel.row_range(product);
            let weights = &factor.weights.held()[factor.partition.row_start[place]..];
            let regressors = &factor.partition.regressors;
            let mut open = None;
            for ((row, index), weight) in panel.product_rows(product).zip(own).zip(weights) {
                let block = row.period / BLOCK;
                if open != Some(block) {
                    open = Some(block);
                    periods.push((block * BLOCK) as u32);
                    rows.resize(rows.len() + D * BLOCK, 0.0);
                }
                let at = rows.len() - D * BLOCK + row.period % BLOCK;
                rows[at] = *weight as f32;
                for (k, regressor) in regressors.iter().enumerate() {
                    rows[at + (k + 1) * BLOCK] = regressor.deviation(&panel, product, index);
                }
            }
        }
        starts.push(periods.len());
        factor.weights = Weights::Held(Vec::new());
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

    /// `B_i b` for every place, with `b` the border of its category.
    fn times(&self, borders: &[Vec<f64>]) -> Vec<[f64; D]> {
        let layout = &self.factor.partition.layout;
        let mut products = vec![[0.0; D]; self.factor.products.len()];
        let mut border = vec![0.0; layout.periods.next_multiple_of(BLOCK)];
        for part in &self.factor.partition.parts {
            let of = &borders[part.category];
            border[..layout.periods].copy_from_slice(&of[..layout.periods]);
            let own = &mut products[part.places.clone()];
            InstructionSet::best().run_f64(Times {
                whitener: self,
                first: part.places.start,
                border: &border,
                products: &mut *own,
            });
            self.factor.coupling().add_beyond_rows(part, of, own);
        }
        products
    }

    /// `sum_i B_i' p_i` for every category, with `p` the latents of every place.
    fn transpose_times(&self, products: &[[f64; D]]) -> Vec<Vec<f64>> {
        let partition = &self.factor.partition;
        let periods = partition.layout.periods;
        let mut all = vec![vec![0.0; partition.border()]; partition.layout.categories];
        let mut sums = vec![0.0; periods.next_multiple_of(BLOCK)];
        for part in &partition.parts {
            let own = &products[part.places.clone()];
            sums.fill(0.0);
            InstructionSet::best().run_f64(TransposeTimes {
                whitener: self,
                first: part.places.start,
                products: own,
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

    /// The mean regressors of the product at a place (1 for the effect), and its blocks: first periods and
    /// rows.
    #[inline(always)]
    fn product(&self, place: usize) -> ([f64; D], &[u32], &[f32]) {
        let partition = &self.factor.partition;
        let blocks = self.starts[place]..self.starts[place + 1];
        let mut mean = [1.0; D];
        for (mean, regressor) in mean.iter_mut().zip(&partition.regressors) {
            *mean = regressor.mean(&partition.panel, partition.order[place] as usize);
        }
        let rows = &self.rows[D * BLOCK * blocks.start..D * BLOCK * blocks.end];
        (mean, &self.periods[blocks], rows)
    }
}

struct Times<'a, const D: usize> {
    whitener: &'a Whitener<D>,
    /// The place of the first product.
    first: usize,
    border: &'a [f64],
    products: &'a mut [[f64; D]],
}

impl<const D: usize> ForSimd for Times<'_, D> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

impl<const D: usize, I: Simd<Scalar = f64>> Kernel<I> for Times<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, product) in (self.first..).zip(self.products) {
            let (mean, periods, rows) = self.whitener.product(place);
            // Two sums each, so that additions need not wait for each other; the last is that of the effect.
            let mut sums = [[isa.zero(); 2]; D];
            for (period, block) in periods.iter().zip(rows.chunks_exact(D * BLOCK)) {
                let border = &self.border[*period as usize..][..BLOCK];
                let (weights, deviations) = block.split_at(BLOCK);
                for (half, at) in (0..BLOCK).step_by(I::LANES).enumerate() {
                    let weighted = isa.mul(isa.load_single(&weights[at..]), isa.load(&border[at..]));
                    for k in 0..D - 1 {
                        let deviation = isa.load_single(&deviations[k * BLOCK + at..]);
                        sums[k][half % 2] = isa.mul_add(weighted, deviation, sums[k][half % 2]);
                    }
                    sums[D - 1][half % 2] = isa.add(sums[D - 1][half % 2], weighted);
                }
            }
            *product = sums.map(|[one, other]| isa.sum(isa.add(one, other)));
            for k in 0..D - 1 {
                product[k] += mean[k] * product[D - 1];
            }
        }
    }
}

struct TransposeTimes<'a, const D: usize> {
    whitener: &'a Whitener<D>,
    /// The place of the first product.
    first: usize,
    products: &'a [[f64; D]],
    /// Sums by period, padded, which are added to.
    sums: &'a mut [f64],
}

impl<const D: usize> ForSimd for TransposeTimes<'_, D> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

impl<const D: usize, I: Simd<Scalar = f64>> Kernel<I> for TransposeTimes<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, product) in (self.first..).zip(self.products) {
            let (mean, periods, rows) = self.whitener.product(place);
            let mut level = product[D - 1];
            for k in 0..D - 1 {
                level += product[k] * mean[k];
            }
            let base = isa.splat(level);
            let slopes = product.map(|slope| isa.splat(slope));
            for (period, block) in periods.iter().zip(rows.chunks_exact(D * BLOCK)) {
                let sums = &mut self.sums[*period as usize..][..BLOCK];
                let (weights, deviations) = block.split_at(BLOCK);
                for at in (0..BLOCK).step_by(I::LANES) {
                    let mut along = base;
                    for k in 0..D - 1 {
                        let deviation = isa.load_single(&deviations[k * BLOCK + at..]);
                        along = isa.mul_add(slopes[k], deviation, along);
                    }
                    let sum = isa.mul_add(isa.load_single(&weights[at..]), along, isa.load(&sums[at..]));
                    isa.store(sum, &mut sums[at..]);
                }
            }
        }
    }
}
