//! The products at their optimum given the borders, in one light walk over the panel: no block is factored and no weight kept.

use crate::error::FactorError;
use crate::grid::Grid;
use crate::rates::ProductRows;
use crate::tasks;
use crate::walk::{Part, Walk};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::site::Site;

/// What moves the products where the borders stay.
pub trait GivenBorder: Sync {
    /// Moves a product's (elasticity, effect) to its optimum given the border of its category, and adds the derivatives of its rows by
    /// the period effects there to `by_period`. `rates` is room for a number a period. Returns what the product adds to the value,
    /// and the size of what it is summed of.
    ///
    /// Mark implementations `#[inline(always)]`, so that they are compiled for the instruction set.
    fn at_optimum<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        pair: &mut [f64; 2],
        rates: &mut [f64],
        by_period: &mut [f64],
    ) -> [f64; 2];
}

/// Sums over the products at their optimum.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOptimum {
    /// Of the values.
    pub value: f64,
    /// Of the sizes of what they are summed of.
    pub size: f64,
    /// Derivatives of the rows by the period effects of every category.
    pub by_period: Vec<Vec<f64>>,
    /// Sums of the elasticities of every category.
    pub elasticities: Vec<f64>,
}

impl Walk {
    /// (elasticity, effect) of a point, natural parameters, at every place of the walk.
    pub fn pairs(&self, point: &[f64]) -> Vec<[f64; 2]> {
        let [a, e] = [Site::ProductA, Site::ProductEffect].map(|site| self.layout.start(site));
        let pair = |product: &u32| [point[a + *product as usize], point[e + *product as usize]];
        self.order.iter().map(pair).collect()
    }

    /// The inverse of [`Walk::pairs`].
    pub fn write_pairs(&self, point: &mut [f64], pairs: &[[f64; 2]]) {
        let [a, e] = [Site::ProductA, Site::ProductEffect].map(|site| self.layout.start(site));
        for (product, pair) in self.order.iter().zip(pairs) {
            [point[a + *product as usize], point[e + *product as usize]] = *pair;
        }
    }

    /// Adds a number a category to the effects of its products, by place.
    pub fn shift_effects(&self, pairs: &mut [[f64; 2]], by_category: &[f64]) {
        for part in &self.parts {
            for [_, effect] in &mut pairs[part.places.clone()] {
                *effect += by_category[part.category];
            }
        }
    }

    /// The places of every so many products of each category, about `least` of them;
    /// all where there are fewer than twice as many.
    fn sampled(&self, part: &Part, least: usize) -> impl Iterator<Item = usize> + use<> {
        let every = (self.sizes[part.category] / least.max(1)).max(1);
        part.places.clone().step_by(every)
    }

    /// Sums of the counts by category and period of the products that [`Walk::given_border`] visits with the same `least`.
    pub fn units_of_sample(&self, least: usize) -> Vec<u64> {
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
        units
    }

    /// Moves the pairs of the products, by place, to their optimum given the borders: of all, or with `least` of a part of them, about so many
    /// in each category.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn given_border(
        &self,
        of: &impl GivenBorder,
        pairs: &mut [[f64; 2]],
        least: usize,
        threads: usize,
    ) -> Result<AtOptimum, FactorError> {
        let mut rest = pairs;
        let mut tasks = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(part.places.len());
            rest = others;
            tasks.push((part, own));
        }
        let parts = InstructionSet::best().run_f64(Products {
            walk: self,
            of,
            tasks,
            least,
            threads,
        });
        if self.watch.is_stopped() {
            return Err(FactorError::Stopped);
        }
        let mut sums = AtOptimum {
            value: 0.0,
            size: 0.0,
            by_period: vec![vec![0.0; self.layout.periods]; self.layout.categories],
            elasticities: vec![0.0; self.layout.categories],
        };
        for (part, own) in self.parts.iter().zip(parts) {
            sums.value += own.value;
            sums.size += own.size;
            sums.elasticities[part.category] += own.elasticities;
            for (sum, own) in sums.by_period[part.category].iter_mut().zip(own.by_period) {
                *sum += own;
            }
        }
        Ok(sums)
    }
}

/// A part, and the pairs of its products.
type PartTask<'a> = (&'a Part, &'a mut [[f64; 2]]);

struct Products<'a, G> {
    walk: &'a Walk,
    of: &'a G,
    tasks: Vec<PartTask<'a>>,
    least: usize,
    threads: usize,
}

/// Sums over a part.
struct OfPart {
    value: f64,
    size: f64,
    elasticities: f64,
    by_period: Vec<f64>,
}

impl<G: GivenBorder> ForSimd for Products<'_, G> {
    type Output = Vec<OfPart>;

    fn run<I: Simd>(self, isa: I) -> Vec<OfPart> {
        let (walk, isa) = (self.walk, isa.wide());
        let scratch = || Grid::new::<I::Wide>(&walk.panel);
        tasks::run(self.threads, self.tasks, scratch, |grid, task| {
            isa.vectorize(OnePart {
                walk,
                of: self.of,
                least: self.least,
                task,
                grid,
            })
        })
    }
}

struct OnePart<'a, 's, G> {
    walk: &'a Walk,
    of: &'a G,
    least: usize,
    task: PartTask<'a>,
    grid: &'s mut Grid,
}

impl<I: Simd<Scalar = f64>, G: GivenBorder> Kernel<I> for OnePart<'_, '_, G> {
    type Output = OfPart;

    #[inline(always)]
    fn run(self, isa: I) -> OfPart {
        let (walk, grid, (part, pairs)) = (self.walk, self.grid, self.task);
        let mut sums = OfPart {
            value: 0.0,
            size: 0.0,
            elasticities: 0.0,
            by_period: vec![0.0; grid.weights.len()],
        };
        for (number, place) in walk.sampled(part, self.least).enumerate() {
            let pair = &mut pairs[place - part.places.start];
            if number % crate::walk::GATHERED == 0 && walk.watch.is_stopped() {
                return sums;
            }
            grid.load_place(isa, walk, place);
            let rows = ProductRows {
                product: walk.order[place] as usize,
                category: part.category,
                log_price: &grid.log_price,
                present: &grid.present,
                half_variance: &grid.half_variance,
            };
            let [value, size] = self
                .of
                .at_optimum(isa, rows, pair, &mut grid.weights, &mut sums.by_period);
            sums.value += value;
            sums.size += size;
            sums.elasticities += pair[0];
        }
        sums
    }
}
