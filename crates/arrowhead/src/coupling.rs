//! Multiplication by the coupling of products and borders, `B`, in one pass over the rows: the basis of
//! whitening and back-substitution.

use crate::block::dot;
use crate::grid::Grid;
use crate::partition::{Chunk, Partition};
use crate::sites::BlockPriors;
use crate::tasks;
use crate::weights::Weights;
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_processor::InstructionSet;

/// `B` of all products: the coupling of each to the border of its category.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coupling<'a, const D: usize> {
    pub(crate) partition: &'a Partition<D>,
    pub(crate) priors: &'a BlockPriors<D>,
    pub(crate) weights: &'a Weights<D>,
    /// Couplings to the log shapes, by place; empty if there are none.
    pub(crate) shapes: &'a [[f64; D]],
    pub(crate) threads: usize,
}

impl<const D: usize> Coupling<'_, D> {
    /// `B_i b` for every place, with `b` the border of its category.
    pub(crate) fn times(self, borders: &[Vec<f64>]) -> Vec<[f64; D]> {
        let mut products = vec![[0.0; D]; self.partition.order.len()];
        let mut rest = products.as_mut_slice();
        let mut tasks = Vec::with_capacity(self.partition.parts.len());
        for part in &self.partition.parts {
            let (own, others) = rest.split_at_mut(part.places.len());
            rest = others;
            tasks.push((part, own));
        }
        InstructionSet::best().run_f64(Times {
            coupling: self,
            borders,
            tasks,
        });
        products
    }

    /// `sum_i B_i' p_i` for every category, with `p` the latents of every place.
    pub(crate) fn transpose_times(self, products: &[[f64; D]]) -> Vec<Vec<f64>> {
        let sums = InstructionSet::best().run_f64(TransposeTimes {
            coupling: self,
            products,
        });
        let mut all = vec![vec![0.0; self.partition.border()]; self.partition.layout.categories];
        for (part, own) in self.partition.parts.iter().zip(sums) {
            for (sum, own) in all[part.category].iter_mut().zip(own) {
                *sum += own;
            }
        }
        all
    }

    /// Adds the terms of `B_i b` that do not come from rows to the products of a part: the category's coefficients and the log shape.
    pub(crate) fn add_beyond_rows(self, part: &Chunk, border: &[f64], products: &mut [[f64; D]]) {
        let (periods, tail) = (self.partition.layout.periods, self.partition.tail());
        for k in 0..Partition::<D>::COEFFICIENTS {
            let by_category = -self.priors.product[k] * border[tail + k];
            for product in products.iter_mut() {
                product[k] += by_category;
            }
        }
        for (product, by) in products.iter_mut().zip(self.shapes_of(part)) {
            for (entry, by) in product.iter_mut().zip(by) {
                *entry += by * border[periods];
            }
        }
    }

    /// The entries of `sum_i B_i' p_i` of a part after the periods, which do not come from rows.
    pub(crate) fn transposed_beyond_rows(self, part: &Chunk, products: &[[f64; D]]) -> Vec<f64> {
        let mut sums = Vec::with_capacity(D);
        if self.partition.has_shape() {
            let shapes = products.iter().zip(self.shapes_of(part));
            sums.push(shapes.map(|(own, by)| dot(own, by)).sum());
        }
        for k in 0..Partition::<D>::COEFFICIENTS {
            let coefficients: f64 = products.iter().map(|own| own[k]).sum();
            sums.push(-self.priors.product[k] * coefficients);
        }
        sums
    }

    /// Couplings of a part's products to the log shape; empty where there is none.
    fn shapes_of(&self, part: &Chunk) -> &[[f64; D]] {
        if self.shapes.is_empty() {
            return &[];
        }
        &self.shapes[part.places.clone()]
    }
}

struct Times<'a, const D: usize> {
    coupling: Coupling<'a, D>,
    borders: &'a [Vec<f64>],
    tasks: Vec<(&'a Chunk, &'a mut [[f64; D]])>,
}

impl<const D: usize> ForSimd for Times<'_, D> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        let (coupling, isa) = (self.coupling, isa.wide());
        let padded = coupling
            .partition
            .layout
            .periods
            .next_multiple_of(<I::Wide as Simd>::LANES);
        let scratch = || (Grid::new::<I::Wide>(&coupling.partition.panel), vec![0.0; padded]);
        tasks::run(
            coupling.threads,
            self.tasks,
            scratch,
            |(grid, border), (part, products)| {
                let of = &self.borders[part.category];
                let periods = coupling.partition.layout.periods;
                border[..periods].copy_from_slice(&of[..periods]);
                isa.vectorize(TimesPart {
                    partition: coupling.partition,
                    weights: coupling.weights,
                    part,
                    grid,
                    border,
                    products: &mut *products,
                });
                coupling.add_beyond_rows(part, of, products);
            },
        );
    }
}

struct TimesPart<'a, const D: usize> {
    partition: &'a Partition<D>,
    weights: &'a Weights<D>,
    part: &'a Chunk,
    grid: &'a mut Grid<D>,
    border: &'a [f64],
    products: &'a mut [[f64; D]],
}

impl<const D: usize, I: Simd<Scalar = f64>> Kernel<I> for TimesPart<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        for (place, product) in self.part.places.clone().zip(self.products) {
            self.grid.load_place(isa, self.partition, place);
            self.weights.load(isa, self.partition, place, self.grid);
            let mut sums = [isa.zero(); D];
            for t in (0..self.border.len()).step_by(I::LANES) {
                let wb = isa.mul(isa.load(&self.grid.weights[t..]), isa.load(&self.border[t..]));
                for k in 0..D - 1 {
                    sums[k] = isa.mul_add(wb, isa.load(&self.grid.design[k][t..]), sums[k]);
                }
                sums[D - 1] = isa.add(sums[D - 1], wb);
            }
            *product = sums.map(|sum| isa.sum(sum));
        }
    }
}

struct TransposeTimes<'a, const D: usize> {
    coupling: Coupling<'a, D>,
    products: &'a [[f64; D]],
}

impl<const D: usize> ForSimd for TransposeTimes<'_, D> {
    type Output = Vec<Vec<f64>>;

    fn run<I: Simd>(self, isa: I) -> Vec<Vec<f64>> {
        let (coupling, isa) = (self.coupling, isa.wide());
        let tasks: Vec<&Chunk> = coupling.partition.parts.iter().collect();
        let scratch = || Grid::new::<I::Wide>(&coupling.partition.panel);
        tasks::run(coupling.threads, tasks, scratch, |grid, part| {
            let products = &self.products[part.places.clone()];
            let mut sums = isa.vectorize(TransposePart {
                partition: coupling.partition,
                weights: coupling.weights,
                part,
                grid,
                products,
            });
            sums.extend(coupling.transposed_beyond_rows(part, products));
            sums
        })
    }
}

struct TransposePart<'a, const D: usize> {
    partition: &'a Partition<D>,
    weights: &'a Weights<D>,
    part: &'a Chunk,
    grid: &'a mut Grid<D>,
    products: &'a [[f64; D]],
}

impl<const D: usize, I: Simd<Scalar = f64>> Kernel<I> for TransposePart<'_, D> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<f64> {
        let mut sums = vec![0.0; self.grid.weights.len()];
        for (place, of) in self.part.places.clone().zip(self.products) {
            self.grid.load_place(isa, self.partition, place);
            self.weights.load(isa, self.partition, place, self.grid);
            let of = of.map(|entry| isa.splat(entry));
            for t in (0..sums.len()).step_by(I::LANES) {
                let mut along = of[D - 1];
                for k in 0..D - 1 {
                    along = isa.mul_add(of[k], isa.load(&self.grid.design[k][t..]), along);
                }
                let sum = isa.mul_add(isa.load(&self.grid.weights[t..]), along, isa.load(&sums[t..]));
                isa.store(sum, &mut sums[t..]);
            }
        }
        sums.truncate(self.partition.layout.periods);
        sums
    }
}
