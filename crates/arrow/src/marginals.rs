//! Marginal covariances.

use crate::factor::ArrowFactor;
use crate::grid::Grid;
use crate::product::{inner, pair_covariance, write_coupling};
use crate::tasks;
use crate::tiles::{Packed, TimesSymmetric};
use crate::walk::{GATHERED, Part};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::site::Site;

/// Second moments of one product under `Normal(., Q^-1)`.
#[derive(Debug, Clone, Copy)]
pub struct ProductMoments<'a> {
    /// Variance of the elasticity.
    pub elasticity: f64,
    /// Variance of the effect.
    pub effect: f64,
    /// Their covariance.
    pub covariance: f64,
    /// Covariance of the elasticity with the effect of each period of its category; length T.
    pub elasticity_with_periods: &'a [f64],
    /// Covariance of the effect with the same.
    pub effect_with_periods: &'a [f64],
    /// Variance of the effect of each period of its category; length T.
    pub periods: &'a [f64],
}

impl<'a> ProductMoments<'a> {
    /// Where a pass was stopped.
    fn none(zeros: &'a [f64]) -> Self {
        ProductMoments {
            elasticity: 1.0,
            effect: 1.0,
            covariance: 0.0,
            elasticity_with_periods: zeros,
            effect_with_periods: zeros,
            periods: zeros,
        }
    }
}

/// Marginal variances of every parameter, and the covariance of each product's pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Marginals {
    /// In the order of [`infermark_model::Layout`].
    pub variance: Vec<f64>,
    /// Covariance of `product_a` and `product_effect`, one a product.
    pub product_covariance: Vec<f64>,
}

/// What is done with the moments of every product.
pub trait Visitor: Sync {
    /// What is found of a product.
    type Answer: Send;
    /// Room that a thread uses again for the next product.
    type Room: Default;
    /// Whether covariances with the periods are asked for.
    const PERIODS: bool = true;
    /// What is found of `product`. An `#[inline(always)]` here has loops over its rows in the vectors of `isa`.
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        room: &mut Self::Room,
        product: usize,
        moments: ProductMoments<'_>,
    ) -> Self::Answer;
}

struct Pair;

impl Visitor for Pair {
    type Answer = [f64; 3];
    type Room = ();
    const PERIODS: bool = false;
    fn visit<I: Simd<Scalar = f64>>(&self, _: I, (): &mut (), _: usize, m: ProductMoments<'_>) -> [f64; 3] {
        [m.elasticity, m.covariance, m.effect]
    }
}

struct Everything<F>(F);

impl<R: Send, F: Fn(usize, ProductMoments<'_>) -> R + Sync> Visitor for Everything<F> {
    type Answer = R;
    type Room = ();
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        _: I,
        (): &mut (),
        product: usize,
        moments: ProductMoments<'_>,
    ) -> R {
        (self.0)(product, moments)
    }
}

impl ArrowFactor {
    /// The marginals, in one pass over the panel and a matrix product a category.
    pub fn marginals(&self) -> Marginals {
        let covariances = self.border_covariances();
        let mut marginals = self.above_products(covariances);
        let layout = &self.walk.layout;
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        let pairs = self.visit(covariances, &Pair).into_iter().flatten();
        for (product, [elasticity, covariance, effect]) in self.walk.order.iter().zip(pairs) {
            let product = *product as usize;
            marginals.variance[a + product] = elasticity;
            marginals.variance[e + product] = effect;
            marginals.product_covariance[product] = covariance;
        }
        marginals
    }

    /// Marginal variances of the parameters above the products; those of the products are zero.
    pub fn variances_above_products(&self) -> Vec<f64> {
        self.above_products(self.border_covariances()).variance
    }

    /// Calls `f(product, moments)` for every product, on several threads, in no order, and returns its answers by product.
    pub fn for_each_product<R: Send>(&self, f: impl Fn(usize, ProductMoments<'_>) -> R + Sync) -> Vec<R> {
        self.visit_products(&Everything(f))
    }

    /// Has `visitor` visit every product, on several threads, in no order, and returns its answers by product.
    pub fn visit_products<V: Visitor>(&self, visitor: &V) -> Vec<V::Answer> {
        let covariances = self.border_covariances();
        let answers = self.visit(covariances, visitor).into_iter().flatten();
        let mut answers: Vec<(u32, V::Answer)> = self.walk.order.iter().copied().zip(answers).collect();
        answers.sort_by_key(|(product, _)| *product);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Covariance of every category's border, column-major: `S_c^-1` and what `global_a` adds.
    pub(crate) fn border_covariances(&self) -> &[Vec<f64>] {
        self.covariances.get_or_init(|| {
            // They are the first part of the pass that wants variances.
            self.walk.watch.begin(self.walk.operations_of_pass(true));
            let categories: Vec<usize> = (0..self.categories.len()).collect();
            tasks::run(
                self.threads,
                categories,
                || (),
                |(), category| {
                    // What moves with global_a: R^-T u, one column.
                    let mut moved = vec![0.0; self.walk.border()];
                    moved[self.walk.border() - 1] = self.top_coupling(category) / self.top;
                    self.categories[category].backward(&mut moved);
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

    fn above_products(&self, covariances: &[Vec<f64>]) -> Marginals {
        let layout = &self.walk.layout;
        let mut variance = vec![0.0; layout.latents()];
        variance[0] = self.top.powi(-2);
        let border = self.walk.border();
        for (category, covariance) in covariances.iter().enumerate() {
            for t in 0..layout.periods {
                variance[layout.time_index(category, t)] = covariance[t * border + t];
            }
            if self.walk.has_shape() {
                variance[layout.start(Site::LogShape) + category] =
                    covariance[layout.periods * border + layout.periods];
            }
            variance[layout.start(Site::CategoryA) + category] = covariance[border * border - 1];
        }
        Marginals {
            variance,
            product_covariance: vec![0.0; layout.products],
        }
    }

    fn visit<V: Visitor>(&self, covariances: &[Vec<f64>], visitor: &V) -> Vec<Vec<V::Answer>> {
        InstructionSet::best().run_f64(Visit {
            factor: self,
            covariances,
            visitor,
        })
    }
}

struct Visit<'a, V> {
    factor: &'a ArrowFactor,
    covariances: &'a [Vec<f64>],
    visitor: &'a V,
}

struct Scratch<R> {
    room: R,
    grid: Grid,
    v: Packed,
    moved: Packed,
    with_a: Vec<f64>,
    with_e: Vec<f64>,
    /// A category and the covariance of its border.
    packed: Option<(usize, Packed)>,
}

impl<V: Visitor> ForSimd for Visit<'_, V> {
    type Output = Vec<Vec<V::Answer>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (factor, isa) = (self.factor, isa.wide());
        let (border, periods) = (factor.walk.border(), factor.walk.layout.periods);
        let variances: Vec<Vec<f64>> = self
            .covariances
            .iter()
            .map(|covariance| (0..periods).map(|t| covariance[t * border + t]).collect())
            .collect();
        let tasks: Vec<&Part> = factor.walk.parts.iter().collect();
        let scratch = || Scratch {
            room: V::Room::default(),
            grid: Grid::new::<I::Wide>(&factor.walk.panel),
            v: Packed::new::<I::Wide>(border + 1, 2 * GATHERED),
            moved: Packed::new::<I::Wide>(border + 1, 2 * GATHERED),
            with_a: vec![0.0; periods],
            with_e: vec![0.0; periods],
            packed: None,
        };
        tasks::run(factor.threads, tasks, scratch, |scratch, part| {
            if scratch
                .packed
                .as_ref()
                .is_none_or(|(category, _)| *category != part.category)
            {
                scratch.packed = None;
                let packed = Packed::with_margin::<I::Wide>(&self.covariances[part.category], border);
                scratch.packed = Some((part.category, packed));
            }
            isa.vectorize(VisitPart {
                factor,
                visitor: self.visitor,
                part,
                variances: &variances[part.category],
                scratch,
            })
        })
    }
}

struct VisitPart<'a, 's, V: Visitor> {
    factor: &'a ArrowFactor,
    visitor: &'a V,
    part: &'a Part,
    variances: &'a [f64],
    scratch: &'s mut Scratch<V::Room>,
}

impl<I: Simd<Scalar = f64>, V: Visitor> Kernel<I> for VisitPart<'_, '_, V> {
    type Output = Vec<V::Answer>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<V::Answer> {
        let factor = self.factor;
        let walk = &*factor.walk;
        let periods = walk.layout.periods;
        let Scratch {
            room,
            grid,
            v,
            moved,
            with_a,
            with_e,
            packed,
        } = self.scratch;
        let (_, covariance) = packed.as_ref().expect("it was packed for the part");
        let mut answers = Vec::with_capacity(self.part.places.len());
        for start in self.part.places.clone().step_by(GATHERED) {
            let end = (start + GATHERED).min(self.part.places.end);
            if walk.watch.is_stopped() {
                // Nobody reads the answers, but there are as many as products.
                for place in start..self.part.places.end {
                    let none = ProductMoments::none(with_a);
                    answers.push(self.visitor.visit(isa, room, walk.order[place] as usize, none));
                }
                return answers;
            }
            for place in start..end {
                grid.load_place(isa, walk, place);
                grid.load_weights(&factor.weights[walk.row_start[place]..walk.row_start[place + 1]]);
                let into = (&mut *v, place - start, periods);
                let lower = &factor.products[place];
                let shape = factor.shapes.get(place).copied();
                write_coupling(isa, grid, lower, &factor.priors, shape, [0.0; 2], into);
            }
            isa.vectorize(TimesSymmetric {
                a: covariance,
                v,
                columns: 2 * (end - start),
                out: moved,
            });
            for place in start..end {
                let lower = &factor.products[place];
                let k = place - start;
                let [elasticity, covariance, effect] = pair_covariance(lower, inner(isa, v, moved, k));
                if V::PERIODS {
                    for t in 0..periods {
                        let pair = [-*moved.at(t, 2 * k), -*moved.at(t, 2 * k + 1)];
                        [with_a[t], with_e[t]] = lower.backward(pair);
                    }
                }
                let moments = ProductMoments {
                    elasticity,
                    effect,
                    covariance,
                    elasticity_with_periods: with_a,
                    effect_with_periods: with_e,
                    periods: self.variances,
                };
                answers.push(self.visitor.visit(isa, room, walk.order[place] as usize, moments));
            }
        }
        answers
    }
}
