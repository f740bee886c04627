//! Products with the coupling of products and borders, `B`, in one pass over the rows: what whitening and back-substitution
//! are made of.

use crate::grid::Grid;
use crate::tasks;
use crate::walk::{Part, Walk};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::priors::Priors;

/// `B` of all products: the coupling of each to the border of its category.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coupling<'a> {
    pub(crate) walk: &'a Walk,
    pub(crate) priors: &'a Priors,
    /// One a row, in the order of the walk.
    pub(crate) weights: &'a [f64],
    /// Couplings to the log shapes, by place; empty where there are none.
    pub(crate) shapes: &'a [[f64; 2]],
    pub(crate) threads: usize,
}

impl Coupling<'_> {
    /// `B_i b` of every place, `b` being the border of its category.
    pub(crate) fn times(self, borders: &[Vec<f64>]) -> Vec<[f64; 2]> {
        let mut pairs = vec![[0.0; 2]; self.walk.order.len()];
        let mut rest = pairs.as_mut_slice();
        let mut tasks = Vec::with_capacity(self.walk.parts.len());
        for part in &self.walk.parts {
            let (own, others) = rest.split_at_mut(part.places.len());
            rest = others;
            tasks.push((part, own));
        }
        InstructionSet::best().run_f64(Times {
            coupling: self,
            borders,
            tasks,
        });
        pairs
    }

    /// `sum_i B_i' p_i` of every category, `p` being the pair of every place.
    pub(crate) fn transpose_times(self, pairs: &[[f64; 2]]) -> Vec<Vec<f64>> {
        let sums = InstructionSet::best().run_f64(TransposeTimes {
            coupling: self,
            pairs,
        });
        let mut all = vec![vec![0.0; self.walk.border()]; self.walk.layout.categories];
        for (part, own) in self.walk.parts.iter().zip(sums) {
            for (sum, own) in all[part.category].iter_mut().zip(own) {
                *sum += own;
            }
        }
        all
    }

    /// Adds the terms of `B_i b` that do not come from rows to the pairs of a part: `category_a` and the log shape.
    pub(crate) fn add_beyond_rows(self, part: &Part, border: &[f64], pairs: &mut [[f64; 2]]) {
        let periods = self.walk.layout.periods;
        let by_category = -self.priors.product_a_sd.powi(-2) * border[border.len() - 1];
        for pair in pairs.iter_mut() {
            pair[0] += by_category;
        }
        for (pair, [by_a, by_e]) in pairs.iter_mut().zip(self.shapes_of(part)) {
            pair[0] += by_a * border[periods];
            pair[1] += by_e * border[periods];
        }
    }

    /// The entries of `sum_i B_i' p_i` of a part after the periods, which do not come from rows.
    pub(crate) fn transposed_beyond_rows(self, part: &Part, pairs: &[[f64; 2]]) -> Vec<f64> {
        let mut sums = Vec::with_capacity(2);
        if self.walk.has_shape() {
            let shapes = pairs.iter().zip(self.shapes_of(part));
            sums.push(shapes.map(|([a, e], [by_a, by_e])| a * by_a + e * by_e).sum());
        }
        let elasticities: f64 = pairs.iter().map(|[a, _]| a).sum();
        sums.push(-self.priors.product_a_sd.powi(-2) * elasticities);
        sums
    }

    /// Couplings of a part's products to the log shape; empty where there is none.
    fn shapes_of(&self, part: &Part) -> &[[f64; 2]] {
        if self.shapes.is_empty() {
            return &[];
        }
        &self.shapes[part.places.clone()]
    }
}

struct Times<'a> {
    coupling: Coupling<'a>,
    borders: &'a [Vec<f64>],
    tasks: Vec<(&'a Part, &'a mut [[f64; 2]])>,
}

impl ForSimd for Times<'_> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        let (coupling, isa) = (self.coupling, isa.wide());
        let padded = coupling
            .walk
            .layout
            .periods
            .next_multiple_of(<I::Wide as Simd>::LANES);
        let scratch = || (Grid::new::<I::Wide>(&coupling.walk.panel), vec![0.0; padded]);
        tasks::run(
            coupling.threads,
            self.tasks,
            scratch,
            |(grid, border), (part, pairs)| {
                let of = &self.borders[part.category];
                let periods = coupling.walk.layout.periods;
                border[..periods].copy_from_slice(&of[..periods]);
                isa.vectorize(TimesPart {
                    walk: coupling.walk,
                    weights: coupling.weights,
                    part,
                    grid,
                    border,
                    pairs: &mut *pairs,
                });
                coupling.add_beyond_rows(part, of, pairs);
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
    coupling: Coupling<'a>,
    pairs: &'a [[f64; 2]],
}

impl ForSimd for TransposeTimes<'_> {
    type Output = Vec<Vec<f64>>;

    fn run<I: Simd>(self, isa: I) -> Vec<Vec<f64>> {
        let (coupling, isa) = (self.coupling, isa.wide());
        let tasks: Vec<&Part> = coupling.walk.parts.iter().collect();
        let scratch = || Grid::new::<I::Wide>(&coupling.walk.panel);
        tasks::run(coupling.threads, tasks, scratch, |grid, part| {
            let pairs = &self.pairs[part.places.clone()];
            let mut sums = isa.vectorize(TransposePart {
                walk: coupling.walk,
                weights: coupling.weights,
                part,
                grid,
                pairs,
            });
            sums.extend(coupling.transposed_beyond_rows(part, pairs));
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
