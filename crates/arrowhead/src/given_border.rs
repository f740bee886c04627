//! The products at their optimum given the borders, in one cheap walk over the panel, which factors no block
//! and keeps no weights.

use crate::error::FactorError;
use crate::grid::Grid;
use crate::partition::{Chunk, Partition};
use crate::rates::ProductRows;
use crate::tasks;
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::design::PRODUCT_LATENTS;
use infermark_processor::InstructionSet;

/// Moves the products while the borders stay fixed.
pub trait GivenBorder<const D: usize = PRODUCT_LATENTS>: Sync {
    /// Moves a product's latents to their optimum given the border of its category, and adds the derivatives
    /// of its rows with respect to the period effects there to `by_period`. `rates` is scratch with one
    /// number per period. Returns the product's contribution to the value, and the size of its terms.
    ///
    /// Mark implementations `#[inline(always)]`, so that they are compiled for the instruction set.
    fn at_optimum<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, D>,
        block: &mut [f64; D],
        rates: &mut [f64],
        by_period: &mut [f64],
    ) -> [f64; 2];
}

/// Sums over the products at their optimum.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOptimum<const D: usize = PRODUCT_LATENTS> {
    /// Sum of the values.
    pub value: f64,
    /// Sum of the sizes of their terms.
    pub size: f64,
    /// Derivatives of the rows with respect to the period effects of every category.
    pub by_period: Vec<Vec<f64>>,
    /// Sums of the coefficients of every category; zero at the position of the effect.
    pub coefficients: Vec<[f64; D]>,
}

impl<const D: usize> Partition<D> {
    /// The latents of the products at a point, natural parameters, by place of the walk.
    pub fn blocks(&self, point: &[f64]) -> Vec<[f64; D]> {
        let of = |product: &u32| self.sites.product.map(|start| point[start + *product as usize]);
        self.order.iter().map(of).collect()
    }

    /// The inverse of [`Partition::blocks`].
    pub fn write_blocks(&self, point: &mut [f64], blocks: &[[f64; D]]) {
        for (product, block) in self.order.iter().zip(blocks) {
            for (start, entry) in self.sites.product.into_iter().zip(block) {
                point[start + *product as usize] = *entry;
            }
        }
    }

    /// Adds a number per category to the effects of its products, by place.
    pub fn shift_effects(&self, blocks: &mut [[f64; D]], by_category: &[f64]) {
        for part in &self.parts {
            for block in &mut blocks[part.places.clone()] {
                block[D - 1] += by_category[part.category];
            }
        }
    }

    /// The places of evenly spaced products of each category, about `least` of them; all places if there are
    /// fewer than twice as many.
    fn sampled(&self, part: &Chunk, least: usize) -> impl Iterator<Item = usize> + use<D> {
        let every = (self.sizes[part.category] / least.max(1)).max(1);
        // Those of the part of the whole panel, as far as they are walked here.
        let first = part.places.start + part.before.next_multiple_of(every) - part.before;
        (first.min(part.places.end)..part.places.end).step_by(every)
    }

    /// Sums of the counts by category and period of the products that [`Partition::given_border`] visits with the same `least`.
    ///
    /// # Errors
    /// [`FactorError::Communication`].
    pub fn units_of_sample(&self, least: usize) -> Result<Vec<u64>, FactorError> {
        let periods = self.layout.periods;
        let mut units = vec![0; self.layout.categories * periods];
        for part in &self.parts {
            let of_category = &mut units[part.category * periods..][..periods];
            for place in self.sampled(part, least) {
                for row in self.panel.product_rows(self.order[place] as usize) {
                    of_category[row.period] += u64::from(row.units);
                }
            }
        }
        if self.ranks().is_some() {
            // Whole numbers far below 2^53.
            let mut numbers: Vec<f64> = units.iter().map(|units| *units as f64).collect();
            self.sum(&mut numbers, Ok(()))?;
            units = numbers.into_iter().map(|units| units as u64).collect();
        }
        Ok(units)
    }

    /// Moves the latents of the products, by place, to their optimum given the borders: of all products or,
    /// with `least`, of about that many in each category.
    ///
    /// # Errors
    /// When it is stopped, or a rank has gone.
    pub fn given_border(
        &self,
        of: &impl GivenBorder<D>,
        blocks: &mut [[f64; D]],
        least: usize,
        threads: usize,
    ) -> Result<AtOptimum<D>, FactorError> {
        let mut rest = blocks;
        let mut tasks = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(part.places.len());
            rest = others;
            tasks.push((part, own));
        }
        let parts = InstructionSet::best().run_f64(Products {
            partition: self,
            of,
            tasks,
            least,
            threads,
        });
        let stopped = self.unless_stopped();
        if self.ranks().is_none() {
            stopped.clone()?;
        }
        let mut sums = AtOptimum {
            value: 0.0,
            size: 0.0,
            by_period: vec![vec![0.0; self.layout.periods]; self.layout.categories],
            coefficients: vec![[0.0; D]; self.layout.categories],
        };
        for (part, own) in self.parts.iter().zip(parts) {
            sums.value += own.value;
            sums.size += own.size;
            let coefficients = &mut sums.coefficients[part.category];
            coefficients
                .iter_mut()
                .zip(own.coefficients)
                .for_each(|(sum, own)| *sum += own);
            for (sum, own) in sums.by_period[part.category].iter_mut().zip(own.by_period) {
                *sum += own;
            }
        }
        if self.ranks().is_some() {
            self.sum_at_optimum(&mut sums, stopped)?;
        }
        Ok(sums)
    }

    /// Adds up the sums of all ranks.
    fn sum_at_optimum(
        &self,
        sums: &mut AtOptimum<D>,
        own: Result<(), FactorError>,
    ) -> Result<(), FactorError> {
        let mut numbers = vec![sums.value, sums.size];
        for (by_period, coefficients) in sums.by_period.iter().zip(&sums.coefficients) {
            numbers.extend_from_slice(by_period);
            numbers.extend_from_slice(&coefficients[..Self::COEFFICIENTS]);
        }
        self.sum(&mut numbers, own)?;
        let mut numbers = numbers.into_iter();
        let mut next = || numbers.next().expect("as many as were summed");
        (sums.value, sums.size) = (next(), next());
        for (by_period, coefficients) in sums.by_period.iter_mut().zip(&mut sums.coefficients) {
            by_period.fill_with(&mut next);
            coefficients[..Self::COEFFICIENTS].fill_with(&mut next);
        }
        Ok(())
    }
}

/// A part, and the latents of its products.
type ChunkTask<'a, const D: usize> = (&'a Chunk, &'a mut [[f64; D]]);

struct Products<'a, G, const D: usize> {
    partition: &'a Partition<D>,
    of: &'a G,
    tasks: Vec<ChunkTask<'a, D>>,
    least: usize,
    threads: usize,
}

/// Sums over a part.
struct ChunkResult<const D: usize> {
    value: f64,
    size: f64,
    coefficients: [f64; D],
    by_period: Vec<f64>,
}

impl<G: GivenBorder<D>, const D: usize> ForSimd for Products<'_, G, D> {
    type Output = Vec<ChunkResult<D>>;

    fn run<I: Simd>(self, isa: I) -> Vec<ChunkResult<D>> {
        let (partition, isa) = (self.partition, isa.wide());
        let scratch = || Grid::new::<I::Wide>(&partition.panel);
        tasks::run(self.threads, self.tasks, scratch, |grid, task| {
            isa.vectorize(OnePart {
                partition,
                of: self.of,
                least: self.least,
                task,
                grid,
            })
        })
    }
}

struct OnePart<'a, 's, G, const D: usize> {
    partition: &'a Partition<D>,
    of: &'a G,
    least: usize,
    task: ChunkTask<'a, D>,
    grid: &'s mut Grid<D>,
}

impl<I: Simd<Scalar = f64>, G: GivenBorder<D>, const D: usize> Kernel<I> for OnePart<'_, '_, G, D> {
    type Output = ChunkResult<D>;

    #[inline(always)]
    fn run(self, isa: I) -> ChunkResult<D> {
        let (partition, grid, (part, blocks)) = (self.partition, self.grid, self.task);
        let mut sums = ChunkResult {
            value: 0.0,
            size: 0.0,
            coefficients: [0.0; D],
            by_period: vec![0.0; grid.weights.len()],
        };
        for (number, place) in partition.sampled(part, self.least).enumerate() {
            let block = &mut blocks[place - part.places.start];
            if number % crate::partition::GATHERED == 0 && partition.watch.is_stopped() {
                return sums;
            }
            grid.load_place(isa, partition, place);
            let rows = ProductRows {
                product: partition.order[place] as usize,
                category: part.category,
                design: grid.design.each_ref().map(Vec::as_slice),
                half_variance: &grid.half_variance,
            };
            let [value, size] = self
                .of
                .at_optimum(isa, rows, block, &mut grid.weights, &mut sums.by_period);
            sums.value += value;
            sums.size += size;
            for k in 0..D - 1 {
                sums.coefficients[k] += block[k];
            }
        }
        sums
    }
}
