//! Products with the coupling of products and borders, `B`, in one pass over the rows: what whitening and back-substitution
//! are made of.

use crate::factor::ArrowheadFactor;
use crate::grid::Grid;
use crate::tasks;
use crate::walk::{Part, Walk};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};

/// `B_i b` of every place, `b` being the border of its category.
pub(crate) fn times(factor: &ArrowheadFactor, borders: &[Vec<f64>]) -> Vec<[f64; 2]> {
    let mut pairs = vec![[0.0; 2]; factor.products.len()];
    let mut rest = pairs.as_mut_slice();
    let mut tasks = Vec::with_capacity(factor.walk.parts.len());
    for part in &factor.walk.parts {
        let (own, others) = rest.split_at_mut(part.places.len());
        rest = others;
        tasks.push((part, own));
    }
    InstructionSet::best().run_f64(Times {
        factor,
        borders,
        tasks,
    });
    pairs
}

/// `sum_i B_i' p_i` of every category, `p` being the pair of every place.
pub(crate) fn transpose_times(factor: &ArrowheadFactor, pairs: &[[f64; 2]]) -> Vec<Vec<f64>> {
    let sums = InstructionSet::best().run_f64(TransposeTimes { factor, pairs });
    let mut all = vec![vec![0.0; factor.walk.border()]; factor.categories.len()];
    for (part, own) in factor.walk.parts.iter().zip(sums) {
        for (sum, own) in all[part.category].iter_mut().zip(own) {
            *sum += own;
        }
    }
    all
}

/// Adds what of `B_i b` no row has to the pairs of a part: the coupling to `category_a`, and that to the log shape.
pub(crate) fn add_beyond_rows(factor: &ArrowheadFactor, part: &Part, border: &[f64], pairs: &mut [[f64; 2]]) {
    let periods = factor.walk.layout.periods;
    let by_category = -factor.priors.product_a_sd.powi(-2) * border[border.len() - 1];
    for pair in pairs.iter_mut() {
        pair[0] += by_category;
    }
    for (pair, [by_a, by_e]) in pairs.iter_mut().zip(factor.shapes_of(part)) {
        pair[0] += by_a * border[periods];
        pair[1] += by_e * border[periods];
    }
}

/// What of `sum_i B_i' p_i` of a part no row has: its entries behind the periods.
pub(crate) fn transposed_beyond_rows(factor: &ArrowheadFactor, part: &Part, pairs: &[[f64; 2]]) -> Vec<f64> {
    let mut sums = Vec::with_capacity(2);
    if factor.walk.has_shape() {
        let shapes = pairs.iter().zip(factor.shapes_of(part));
        sums.push(shapes.map(|([a, e], [by_a, by_e])| a * by_a + e * by_e).sum());
    }
    let elasticities: f64 = pairs.iter().map(|[a, _]| a).sum();
    sums.push(-factor.priors.product_a_sd.powi(-2) * elasticities);
    sums
}

struct Times<'a> {
    factor: &'a ArrowheadFactor,
    borders: &'a [Vec<f64>],
    tasks: Vec<(&'a Part, &'a mut [[f64; 2]])>,
}

impl ForSimd for Times<'_> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        let (factor, isa) = (self.factor, isa.wide());
        let padded = factor
            .walk
            .layout
            .periods
            .next_multiple_of(<I::Wide as Simd>::LANES);
        let scratch = || (Grid::new::<I::Wide>(&factor.walk.panel), vec![0.0; padded]);
        tasks::run(
            factor.threads,
            self.tasks,
            scratch,
            |(grid, border), (part, pairs)| {
                let of = &self.borders[part.category];
                let periods = factor.walk.layout.periods;
                border[..periods].copy_from_slice(&of[..periods]);
                isa.vectorize(TimesPart {
                    walk: &factor.walk,
                    weights: &factor.weights,
                    part,
                    grid,
                    border,
                    pairs: &mut *pairs,
                });
                add_beyond_rows(factor, part, of, pairs);
            },
        );
    }
}

struct TimesPart<'a> {
    walk: &'a Walk,
    weights: &'a [f64],
    part: &'a Part,
    grid: &'a mut Grid,
    border: &'a [f64],
    pairs: &'a mut [[f64; 2]],
}

impl<I: Simd<Scalar = f64>> Kernel<I> for TimesPart<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, pair) in self.part.places.clone().zip(self.pairs) {
            let rows = self.walk.row_start[place]..self.walk.row_start[place + 1];
            self.grid.load_place(isa, self.walk, place);
            self.grid.load_weights(&self.weights[rows]);
            let mut sums = [isa.zero(); 2];
            let lanes = I::LANES;
            let columns = self
                .grid
                .weights
                .chunks_exact(lanes)
                .zip(self.grid.log_price.chunks_exact(lanes))
                .zip(self.border.chunks_exact(lanes));
            for ((w, x), b) in columns {
                let wb = isa.mul(isa.load(w), isa.load(b));
                sums[0] = isa.mul_add(wb, isa.load(x), sums[0]);
                sums[1] = isa.add(sums[1], wb);
            }
            *pair = [isa.sum(sums[0]), isa.sum(sums[1])];
        }
    }
}

struct TransposeTimes<'a> {
    factor: &'a ArrowheadFactor,
    pairs: &'a [[f64; 2]],
}

impl ForSimd for TransposeTimes<'_> {
    type Output = Vec<Vec<f64>>;

    fn run<I: Simd>(self, isa: I) -> Vec<Vec<f64>> {
        let (factor, isa) = (self.factor, isa.wide());
        let tasks: Vec<&Part> = factor.walk.parts.iter().collect();
        let scratch = || Grid::new::<I::Wide>(&factor.walk.panel);
        tasks::run(factor.threads, tasks, scratch, |grid, part| {
            let pairs = &self.pairs[part.places.clone()];
            let mut sums = isa.vectorize(TransposePart {
                walk: &factor.walk,
                weights: &factor.weights,
                part,
                grid,
                pairs,
            });
            sums.extend(transposed_beyond_rows(factor, part, pairs));
            sums
        })
    }
}

struct TransposePart<'a> {
    walk: &'a Walk,
    weights: &'a [f64],
    part: &'a Part,
    grid: &'a mut Grid,
    pairs: &'a [[f64; 2]],
}

impl<I: Simd<Scalar = f64>> Kernel<I> for TransposePart<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<f64> {
        let mut sums = vec![0.0; self.grid.weights.len()];
        for (place, [a, e]) in self.part.places.clone().zip(self.pairs) {
            let rows = self.walk.row_start[place]..self.walk.row_start[place + 1];
            self.grid.load_place(isa, self.walk, place);
            self.grid.load_weights(&self.weights[rows]);
            let (a, e) = (isa.splat(*a), isa.splat(*e));
            let lanes = I::LANES;
            let columns = self
                .grid
                .weights
                .chunks_exact(lanes)
                .zip(self.grid.log_price.chunks_exact(lanes))
                .zip(sums.chunks_exact_mut(lanes));
            for ((w, x), sum) in columns {
                let along = isa.mul_add(a, isa.load(x), e);
                isa.store(isa.mul_add(isa.load(w), along, isa.load(sum)), sum);
            }
        }
        sums.truncate(self.walk.layout.periods);
        sums
    }
}
