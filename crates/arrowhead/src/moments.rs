//! Second moments of the products under `Normal(., Q^-1)`, handed to a visitor.

use crate::batch::Batch;
use crate::factor::ArrowheadFactor;
use crate::product::{inner, pair_covariance};
use crate::tasks;
use crate::tiles::{Packed, TimesSymmetric};
use crate::walk::{GATHERED, Part};
use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};

/// Second moments of one product under `Normal(., Q^-1)`.
#[derive(Debug, Clone, Copy)]
pub struct ProductMoments<'a> {
    /// Variance of the elasticity.
    pub elasticity: f64,
    /// Variance of the effect.
    pub effect: f64,
    /// Their covariance.
    pub covariance: f64,
    /// Covariance of the elasticity with the effect of each period of its category; at least T, what is behind has no meaning.
    pub elasticity_with_periods: &'a [f64],
    /// Covariance of the effect with the same.
    pub effect_with_periods: &'a [f64],
    /// Variance of the effect of each period of its category; length T.
    pub periods: &'a [f64],
    /// The weights of its rows in the precision, by period; zero where there is no row. At least T.
    pub weights: &'a [f64],
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
            weights: zeros,
        }
    }
}

/// What is done with the moments of every product.
pub trait Visitor: Sync {
    /// What is found of a product.
    type Answer: Send;
    /// Room that a thread uses again for the next product.
    type Room: Default;
    /// What is found of `product`. An `#[inline(always)]` here has loops over its rows in the vectors of `isa`.
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        room: &mut Self::Room,
        product: usize,
        moments: ProductMoments<'_>,
    ) -> Self::Answer;
}

struct Calls<F>(F);

impl<R: Send, F: Fn(usize, ProductMoments<'_>) -> R + Sync> Visitor for Calls<F> {
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

impl ArrowheadFactor {
    /// Calls `f(product, moments)` for every product that is `asked` for, on several threads, in no order, and returns its answers beside the
    /// products, in their order.
    pub fn for_products<R: Send>(
        &self,
        asked: impl Fn(usize) -> bool + Sync,
        f: impl Fn(usize, ProductMoments<'_>) -> R + Sync,
    ) -> Vec<(usize, R)> {
        self.visit(&asked, &Calls(f))
    }

    /// Has `visitor` visit every product, on several threads, in no order, and returns its answers by product.
    pub fn visit_products<V: Visitor>(&self, visitor: &V) -> Vec<V::Answer> {
        let answers = self.visit(&|_| true, visitor).into_iter();
        answers.map(|(_, answer)| answer).collect()
    }

    fn visit<V: Visitor>(
        &self,
        asked: &(dyn Fn(usize) -> bool + Sync),
        visitor: &V,
    ) -> Vec<(usize, V::Answer)> {
        let products = self.walk.operations_of_moments(self.walk.order.len());
        self.walk.watch.begin(products + self.operations_of_covariances());
        let answers = InstructionSet::best().run_f64(Visit {
            factor: self,
            asked,
            covariances: self.border_covariances(),
            visitor,
        });
        let mut answers: Vec<(usize, V::Answer)> = answers.into_iter().flatten().collect();
        answers.sort_by_key(|(product, _)| *product);
        answers
    }
}

struct Visit<'a, V> {
    factor: &'a ArrowheadFactor,
    asked: &'a (dyn Fn(usize) -> bool + Sync),
    covariances: &'a [Vec<f64>],
    visitor: &'a V,
}

struct Scratch<R> {
    room: R,
    batch: Batch,
    with_a: Vec<f64>,
    with_e: Vec<f64>,
    /// A category and the covariance of its border.
    packed: Option<(usize, Packed)>,
}

impl<V: Visitor> ForSimd for Visit<'_, V> {
    type Output = Vec<Vec<(usize, V::Answer)>>;

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
            batch: Batch::new::<I::Wide>(&factor.walk),
            with_a: vec![0.0; periods.next_multiple_of(I::Wide::LANES)],
            with_e: vec![0.0; periods.next_multiple_of(I::Wide::LANES)],
            packed: None,
        };
        tasks::run(factor.threads, tasks, scratch, |scratch, part| {
            let is_asked = |place: &usize| (self.asked)(factor.walk.order[*place] as usize);
            let places: Vec<usize> = part.places.clone().filter(is_asked).collect();
            if places.is_empty() {
                return Vec::new();
            }
            if scratch
                .packed
                .as_ref()
                .is_none_or(|(category, _)| *category != part.category)
            {
                scratch.packed = None;
                let packed = Packed::with_margin::<I::Wide>(&self.covariances[part.category], border);
                scratch.packed = Some((part.category, packed));
            }
            isa.vectorize(VisitPlaces {
                factor,
                visitor: self.visitor,
                places: &places,
                variances: &variances[part.category],
                scratch,
            })
        })
    }
}

struct VisitPlaces<'a, 's, V: Visitor> {
    factor: &'a ArrowheadFactor,
    visitor: &'a V,
    places: &'s [usize],
    variances: &'s [f64],
    scratch: &'s mut Scratch<V::Room>,
}

impl<I: Simd<Scalar = f64>, V: Visitor> Kernel<I> for VisitPlaces<'_, '_, V> {
    type Output = Vec<(usize, V::Answer)>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<(usize, V::Answer)> {
        let factor = self.factor;
        let walk = &*factor.walk;
        let Scratch {
            room,
            batch,
            with_a,
            with_e,
            packed,
        } = self.scratch;
        let (_, covariance) = packed.as_ref().expect("it was packed for the part");
        let mut answers = Vec::with_capacity(self.places.len());
        for places in self.places.chunks(GATHERED) {
            if walk.watch.is_stopped() {
                // Nobody reads the answers, but there are as many as are asked for.
                with_a.fill(0.0);
                for place in &self.places[answers.len()..] {
                    let product = walk.order[*place] as usize;
                    let none = ProductMoments::none(with_a);
                    answers.push((product, self.visitor.visit(isa, room, product, none)));
                }
                return answers;
            }
            walk.watch.add(walk.operations_of_moments(places.len()) as u64);
            batch.couple(isa, factor, places);
            isa.vectorize(TimesSymmetric {
                a: covariance,
                v: &batch.v,
                columns: 2 * places.len(),
                out: &mut batch.moved,
            });
            for (k, place) in places.iter().enumerate() {
                batch.load(isa, factor, *place);
                let lower = &factor.products[*place];
                let [elasticity, covariance, effect] =
                    pair_covariance(lower, inner(isa, &batch.v, &batch.moved, k));
                let with_periods = Batch::with_periods(&batch.moved, isa, lower, k);
                for t in (0..with_a.len()).step_by(I::LANES) {
                    let [a, e] = with_periods(t);
                    isa.store(a, &mut with_a[t..]);
                    isa.store(e, &mut with_e[t..]);
                }
                let moments = ProductMoments {
                    elasticity,
                    effect,
                    covariance,
                    elasticity_with_periods: with_a,
                    effect_with_periods: with_e,
                    periods: self.variances,
                    weights: &batch.grid.weights,
                };
                let product = walk.order[*place] as usize;
                answers.push((product, self.visitor.visit(isa, room, product, moments)));
            }
        }
        answers
    }
}
