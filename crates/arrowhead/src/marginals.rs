//! Marginal covariances.

use crate::batch::Batch;
use crate::error::FactorError;
use crate::factor::ArrowheadFactor;
use crate::product::{inner, pair_covariance};
use crate::tasks;
use crate::tiles::{Packed, TimesLower};
use crate::walk::{GATHERED, Part};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::site::Site;

/// Marginal variances of every parameter, and the covariance of each product's pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Marginals {
    /// In the order of [`infermark_model::Layout`].
    pub variance: Vec<f64>,
    /// Covariance of `product_a` and `product_effect`, one a product.
    pub product_covariance: Vec<f64>,
}

/// A root of the covariance of a category's border, `C = W' W`: the inverse of the factor of its Schur complement, and below that the row
/// that `global_a` adds. Column-major, of one row more than columns.
struct Root(Vec<f64>);

impl ArrowheadFactor {
    /// The marginals, in one pass over the panel and a product with a triangle a category, or with the covariances of the borders where they are
    /// there.
    ///
    /// # Panics
    /// Where the rows lie elsewhere and their device fails: [`ArrowheadFactor::marginals_there`] says so.
    pub fn marginals(&self) -> Marginals {
        self.marginals_there().expect("no device failed")
    }

    /// The same, wherever the rows lie.
    ///
    /// # Errors
    /// When the device that has them fails.
    pub fn marginals_there(&self) -> Result<Marginals, FactorError> {
        if self.elsewhere.is_none() && self.covariances.get().is_some() {
            let pairs = self.for_products(|_| true, |_, m| [m.elasticity, m.covariance, m.effect]);
            let pairs = pairs.into_iter();
            return Ok(self.marginals_of(self.variances_above_products(), pairs));
        }
        let border = self.walk.border();
        let roots = self.roots();
        let variances = roots.iter().map(|root| {
            let columns = root.0.chunks_exact(border + 1);
            columns.map(|column| column.iter().map(|r| r * r).sum()).collect()
        });
        let above = self.above_products(variances);
        let products = self.walk.order.iter().map(|product| *product as usize);
        if let Some(rows) = &self.elsewhere {
            let roots: Vec<Vec<f64>> = roots.into_iter().map(|root| root.0).collect();
            let squares = rows.squares(&roots)?.into_iter().zip(&self.products);
            let pairs = squares.map(|(squares, lower)| pair_covariance(lower, squares));
            return Ok(self.marginals_of(above, products.zip(pairs)));
        }
        let pairs = InstructionSet::best().run_f64(Pairs {
            factor: self,
            roots: &roots,
        });
        Ok(self.marginals_of(above, products.zip(pairs.into_iter().flatten())))
    }

    /// Of the variances above the products, and what is known of each of these: elasticity, covariance, effect.
    fn marginals_of(&self, above: Vec<f64>, pairs: impl Iterator<Item = (usize, [f64; 3])>) -> Marginals {
        let layout = &self.walk.layout;
        let mut marginals = Marginals {
            variance: above,
            product_covariance: vec![0.0; layout.products],
        };
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        for (product, [elasticity, covariance, effect]) in pairs {
            marginals.variance[a + product] = elasticity;
            marginals.variance[e + product] = effect;
            marginals.product_covariance[product] = covariance;
        }
        marginals
    }

    /// Marginal variances of the parameters above the products; those of the products are zero.
    pub fn variances_above_products(&self) -> Vec<f64> {
        let border = self.walk.border();
        let covariances = self.border_covariances().iter();
        self.above_products(covariances.map(|c| c.iter().step_by(border + 1).copied().collect()))
    }

    /// What moves with `global_a` of a category's border: `R_c^-T u`, one column.
    fn moved_with_top(&self, category: usize) -> Vec<f64> {
        let mut moved = vec![0.0; self.walk.border()];
        moved[self.walk.border() - 1] = self.top_coupling(category) / self.top;
        self.categories[category].backward(&mut moved);
        moved
    }

    fn roots(&self) -> Vec<Root> {
        // As many as a pass takes.
        self.walk.watch.begin(self.walk.operations_of_pass(false));
        let of_category = |category: usize| {
            let inverse = self.categories[category].inverse(&self.walk.watch);
            let border = self.walk.border();
            let mut root = Vec::with_capacity(border * (border + 1));
            for (column, moved) in inverse.columns().zip(self.moved_with_top(category)) {
                root.extend_from_slice(column);
                root.push(moved);
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

    /// Makes the covariances of the borders, which passes that want variances share, now and not in the first of these.
    pub fn prepare_variances(&self) {
        self.walk.watch.begin(self.operations_of_covariances());
        self.border_covariances();
    }

    /// Frees what [`ArrowheadFactor::prepare_variances`] made.
    pub fn forget_variances(&mut self) {
        self.covariances.take();
    }

    /// Floating-point operations that the covariances of the borders still cost.
    pub(crate) fn operations_of_covariances(&self) -> f64 {
        match self.covariances.get() {
            Some(_) => 0.0,
            None => 2.0 / 3.0 * self.categories.len() as f64 * (self.walk.border() as f64).powi(3),
        }
    }

    /// Covariance of every category's border, column-major: `S_c^-1` and what `global_a` adds.
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
                        .inverse(&self.walk.watch)
                        .gram(&self.walk.watch);
                    let columns = covariance.chunks_exact_mut(moved.len());
                    for (column, m) in columns.zip(&moved) {
                        column.iter_mut().zip(&moved).for_each(|(c, n)| *c += m * n);
                    }
                    covariance
                },
            )
        })
    }

    /// Of the variances of every category's border; zero for products.
    fn above_products(&self, borders: impl Iterator<Item = Vec<f64>>) -> Vec<f64> {
        let layout = &self.walk.layout;
        let mut variance = vec![0.0; layout.latents()];
        variance[0] = self.top.powi(-2);
        for (category, border) in borders.enumerate() {
            self.write_border(&mut variance, category, &border);
        }
        variance
    }
}

/// Covariances of the pairs, by part.
struct Pairs<'a> {
    factor: &'a ArrowheadFactor,
    roots: &'a [Root],
}

impl ForSimd for Pairs<'_> {
    type Output = Vec<Vec<[f64; 3]>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (factor, isa) = (self.factor, isa.wide());
        let border = factor.walk.border();
        let tasks: Vec<&Part> = factor.walk.parts.iter().collect();
        let scratch = || (Batch::new::<I::Wide>(&factor.walk), None);
        tasks::run(factor.threads, tasks, scratch, |(batch, root), part| {
            if root
                .as_ref()
                .is_none_or(|(category, _)| *category != part.category)
            {
                *root = None;
                let packed = Packed::of_columns::<I::Wide>(&self.roots[part.category].0, border + 1);
                *root = Some((part.category, packed));
            }
            let (_, root) = root.as_ref().expect("it was packed for the part");
            isa.vectorize(PairsOfPart {
                factor,
                part,
                root,
                batch,
            })
        })
    }
}

struct PairsOfPart<'a, 's> {
    factor: &'a ArrowheadFactor,
    part: &'a Part,
    root: &'s Packed,
    batch: &'s mut Batch,
}

impl<I: Simd<Scalar = f64>> Kernel<I> for PairsOfPart<'_, '_> {
    type Output = Vec<[f64; 3]>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<[f64; 3]> {
        let (factor, batch) = (self.factor, self.batch);
        let walk = &*factor.walk;
        let mut pairs = Vec::with_capacity(self.part.places.len());
        let places: Vec<usize> = self.part.places.clone().collect();
        for places in places.chunks(GATHERED) {
            if walk.watch.is_stopped() {
                // Nobody reads the answers, but there are as many as products.
                pairs.resize(self.part.places.len(), [1.0, 0.0, 1.0]);
                return pairs;
            }
            walk.watch
                .add(walk.operations_of_products(places.len(), false) as u64);
            batch.couple(isa, factor, places);
            isa.vectorize(TimesLower {
                a: self.root,
                v: &batch.v,
                columns: 2 * places.len(),
                out: &mut batch.moved,
            });
            for (k, place) in places.iter().enumerate() {
                let squares = inner(isa, &batch.moved, &batch.moved, k);
                pairs.push(pair_covariance(&factor.products[*place], squares));
            }
        }
        pairs
    }
}
