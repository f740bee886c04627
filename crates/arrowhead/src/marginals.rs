//! Marginal covariances.

use crate::batch::Batch;
use crate::block::{BlockMatrix, block_covariance, identity, inner};
use crate::error::FactorError;
use crate::factor::ArrowheadFactor;
use crate::partition::{Chunk, GATHERED};
use crate::tasks;
use crate::tiles::{Packed, TimesLower};
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_processor::InstructionSet;

/// Marginal variances of every parameter, and the covariance of each product's latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Marginals<const D: usize = 2> {
    /// In the order of [`Partition::sites`](crate::Partition::sites).
    pub variance: Vec<f64>,
    /// Covariance of the coefficients and the effect, one per product.
    pub product_covariance: Vec<BlockMatrix<D>>,
}

/// A root of the covariance of a category's border, `C = W' W`: the inverse of the factor of its Schur
/// complement, and below it the rows that the global coefficients add. Column-major, with D - 1 more rows
/// than columns.
struct Root(Vec<f64>);

impl<const D: usize> ArrowheadFactor<D> {
    /// The marginals, in one pass over the panel and one product with a triangle per category, or with the
    /// covariances of the borders if those are known.
    ///
    /// # Panics
    /// When the rows lie on another device and that fails: [`ArrowheadFactor::marginals_there`] returns an
    /// error instead.
    pub fn marginals(&self) -> Marginals<D> {
        self.marginals_there().expect("no device failed")
    }

    /// The same, wherever the rows lie.
    ///
    /// # Errors
    /// When the device that has them fails.
    pub fn marginals_there(&self) -> Result<Marginals<D>, FactorError> {
        if self.elsewhere.is_none() && self.covariances.get().is_some() {
            let products = self.for_products(|_| true, |_, moments| moments.covariance);
            return Ok(self.marginals_of(self.variances_above_products(), products.into_iter()));
        }
        let border = self.partition.border();
        let roots = self.roots();
        let variances = roots.iter().map(|root| {
            let columns = root.0.chunks_exact(border + D - 1);
            columns.map(|column| column.iter().map(|r| r * r).sum()).collect()
        });
        let above = self.above_products(variances);
        let products = self.partition.order.iter().map(|product| *product as usize);
        if let Some(rows) = &self.elsewhere {
            let roots: Vec<Vec<f64>> = roots.into_iter().map(|root| root.0).collect();
            let squares = rows.squares(&roots)?.into_iter().zip(&self.products);
            let found = squares.map(|(squares, lower)| block_covariance(lower, squares));
            return Ok(self.marginals_of(above, products.zip(found)));
        }
        let found = InstructionSet::best().run_f64(Blocks {
            factor: self,
            roots: &roots,
        });
        Ok(self.marginals_of(above, products.zip(found.into_iter().flatten())))
    }

    /// The marginals from the variances above the products, and the covariance of each product.
    fn marginals_of(
        &self,
        above: Vec<f64>,
        products: impl Iterator<Item = (usize, BlockMatrix<D>)>,
    ) -> Marginals<D> {
        let mut marginals = Marginals {
            variance: above,
            product_covariance: vec![[[0.0; D]; D]; self.partition.layout.products],
        };
        for (product, covariance) in products {
            for (k, start) in self.partition.sites.product.into_iter().enumerate() {
                marginals.variance[start + product] = covariance[k][k];
            }
            marginals.product_covariance[product] = covariance;
        }
        marginals
    }

    /// Marginal variances of the parameters above the products; those of the products are zero.
    pub fn variances_above_products(&self) -> Vec<f64> {
        let border = self.partition.border();
        let covariances = self.border_covariances().iter();
        self.above_products(covariances.map(|c| c.iter().step_by(border + 1).copied().collect()))
    }

    /// The response of a category's border to each of the global coefficients: the columns of
    /// `R_c^-T U T^-T`, with U the coupling to the top and `T` its factor.
    fn moved_with_top(&self, category: usize) -> Vec<Vec<f64>> {
        let coupling = self.top_coupling(category).map(|row| self.top.forward(row));
        let moved = |k: usize| {
            let mut moved = vec![0.0; self.partition.border()];
            for i in 0..D - 1 {
                moved[self.partition.tail() + i] = coupling[i][k];
            }
            self.categories[category].backward(&mut moved);
            moved
        };
        (0..D - 1).map(moved).collect()
    }

    /// Variance of a global coefficient.
    fn variance_of_top(&self, k: usize) -> f64 {
        let mut unit = [0.0; D];
        unit[k] = 1.0;
        let column = self.top.forward(unit);
        let below = column[k + 1..D - 1].iter().map(|entry| entry * entry);
        below.fold(self.top.rows[k][k].powi(-2), |sum, square| sum + square)
    }

    fn roots(&self) -> Vec<Root> {
        // As many operations as a pass takes.
        self.partition
            .watch
            .begin(self.partition.operations_of_pass(false));
        let of_category = |category: usize| {
            let inverse = self.categories[category].inverse(&self.partition.watch);
            let border = self.partition.border();
            let moved = self.moved_with_top(category);
            let mut root = Vec::with_capacity(border * (border + D - 1));
            for (j, column) in inverse.columns().enumerate() {
                root.extend_from_slice(column);
                root.extend(moved.iter().map(|moved| moved[j]));
            }
            Root(root)
        };
        let categories: Vec<usize> = (0..self.categories.len()).collect();
        tasks::run(
            self.threads,
            categories,
            || (),
            |(), category| of_category(category),
        )
    }

    /// Computes the covariances of the borders, which passes with variances share, now instead of in the
    /// first of those.
    pub fn prepare_variances(&self) {
        self.partition.watch.begin(self.operations_of_covariances());
        self.border_covariances();
    }

    /// Frees the covariances that [`ArrowheadFactor::prepare_variances`] computed.
    pub fn forget_variances(&mut self) {
        self.covariances.take();
    }

    /// Floating-point operations that the covariances of the borders still cost.
    pub(crate) fn operations_of_covariances(&self) -> f64 {
        match self.covariances.get() {
            Some(_) => 0.0,
            None => 2.0 / 3.0 * self.categories.len() as f64 * (self.partition.border() as f64).powi(3),
        }
    }

    /// Covariance of every category's border, column-major: `S_c^-1` plus the contribution of `global_a`.
    pub(crate) fn border_covariances(&self) -> &[Vec<f64>] {
        self.covariances.get_or_init(|| {
            let categories: Vec<usize> = (0..self.categories.len()).collect();
            tasks::run(
                self.threads,
                categories,
                || (),
                |(), category| {
                    let moved = self.moved_with_top(category);
                    let mut covariance = self.categories[category]
                        .inverse(&self.partition.watch)
                        .gram(&self.partition.watch);
                    for moved in moved {
                        let columns = covariance.chunks_exact_mut(moved.len());
                        for (column, m) in columns.zip(&moved) {
                            column.iter_mut().zip(&moved).for_each(|(c, n)| *c += m * n);
                        }
                    }
                    covariance
                },
            )
        })
    }

    /// The vector of variances from those of every category's border; zero for products.
    fn above_products(&self, borders: impl Iterator<Item = Vec<f64>>) -> Vec<f64> {
        let mut variance = vec![0.0; self.partition.sites.latents];
        for k in 0..D - 1 {
            variance[self.partition.sites.global[k]] = self.variance_of_top(k);
        }
        for (category, border) in borders.enumerate() {
            self.write_border(&mut variance, category, &border);
        }
        variance
    }
}

/// Covariances of the products' latents, by part.
struct Blocks<'a, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    roots: &'a [Root],
}

impl<const D: usize> ForSimd for Blocks<'_, D> {
    type Output = Vec<Vec<BlockMatrix<D>>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (factor, isa) = (self.factor, isa.wide());
        let border = factor.partition.border();
        let tasks: Vec<&Chunk> = factor.partition.parts.iter().collect();
        let scratch = || (Batch::new::<I::Wide>(&factor.partition), None);
        tasks::run(factor.threads, tasks, scratch, |(batch, root), part| {
            if root
                .as_ref()
                .is_none_or(|(category, _)| *category != part.category)
            {
                *root = None;
                let packed = Packed::of_columns::<I::Wide>(&self.roots[part.category].0, border + D - 1);
                *root = Some((part.category, packed));
            }
            let (_, root) = root.as_ref().expect("it was packed for the part");
            isa.vectorize(BlocksOfPart {
                factor,
                part,
                root,
                batch,
            })
        })
    }
}

struct BlocksOfPart<'a, 's, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    part: &'a Chunk,
    root: &'s Packed,
    batch: &'s mut Batch<D>,
}

impl<const D: usize, I: Simd<Scalar = f64>> Kernel<I> for BlocksOfPart<'_, '_, D> {
    type Output = Vec<BlockMatrix<D>>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<BlockMatrix<D>> {
        let (factor, batch) = (self.factor, self.batch);
        let partition = &*factor.partition;
        let mut found = Vec::with_capacity(self.part.places.len());
        let places: Vec<usize> = self.part.places.clone().collect();
        for places in places.chunks(GATHERED) {
            if partition.watch.is_stopped() {
                // The answers are not used, but there must be one per product.
                found.resize(self.part.places.len(), identity());
                return found;
            }
            partition
                .watch
                .add(partition.operations_of_products(places.len(), false) as u64);
            batch.couple(isa, factor, places);
            isa.vectorize(TimesLower {
                a: self.root,
                v: &batch.v,
                columns: D * places.len(),
                out: &mut batch.moved,
            });
            for (k, place) in places.iter().enumerate() {
                let squares = inner(isa, &batch.moved, &batch.moved, k);
                found.push(block_covariance(&factor.products[*place], squares));
            }
        }
        found
    }
}
