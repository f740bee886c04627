//! Second moments of the products under `Normal(., Q^-1)`, passed to a visitor.

use crate::batch::{Batch, WithPeriods};
use crate::block::{BlockMatrix, block_covariance, identity, inner};
use crate::factor::ArrowheadFactor;
use crate::partition::{Chunk, GATHERED};
use crate::tasks;
use crate::tiles::{Packed, TimesSymmetric};
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_processor::InstructionSet;

/// Second moments of one product under `Normal(., Q^-1)`.
#[derive(Debug, Clone, Copy)]
pub struct ProductMoments<'a, const D: usize = 2> {
    /// Covariance of its latents: the coefficients, then the effect.
    pub covariance: BlockMatrix<D>,
    /// Covariance of each of them with the effect of each period of its category; at least T entries, those
    /// after T have no meaning.
    pub with_periods: [&'a [f64]; D],
    /// Variance of the effect of each period of its category; length T.
    pub periods: &'a [f64],
    /// The weights of its rows in the precision, by period; zero where there is no row. At least T entries.
    pub weights: &'a [f64],
}

impl<'a, const D: usize> ProductMoments<'a, D> {
    /// Placeholder when a pass was stopped.
    fn none(zeros: &'a [f64]) -> Self {
        ProductMoments {
            covariance: identity(),
            with_periods: [zeros; D],
            periods: zeros,
            weights: zeros,
        }
    }
}

/// An operation on the moments of every product.
pub trait Visitor<const D: usize = 2>: Sync {
    /// The result for a product.
    type Answer: Send;
    /// Scratch that a thread reuses for the next product.
    type Room: Default;
    /// The result for `product`. With `#[inline(always)]`, loops over its rows use the vectors of `isa`.
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        room: &mut Self::Room,
        product: usize,
        moments: ProductMoments<'_, D>,
    ) -> Self::Answer;
}

struct Calls<F>(F);

impl<R: Send, F: Fn(usize, ProductMoments<'_, D>) -> R + Sync, const D: usize> Visitor<D> for Calls<F> {
    type Answer = R;
    type Room = ();
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        _: I,
        (): &mut (),
        product: usize,
        moments: ProductMoments<'_, D>,
    ) -> R {
        (self.0)(product, moments)
    }
}

impl<const D: usize> ArrowheadFactor<D> {
    /// Calls `f(product, moments)` for every product that is `asked` for, on several threads, in no
    /// particular order, and returns the products with their answers, in the order of the products.
    pub fn for_products<R: Send>(
        &self,
        asked: impl Fn(usize) -> bool + Sync,
        f: impl Fn(usize, ProductMoments<'_, D>) -> R + Sync,
    ) -> Vec<(usize, R)> {
        self.visit(&asked, &Calls(f))
    }

    /// Lets `visitor` visit every product, on several threads, in no particular order, and returns its
    /// answers by product.
    pub fn visit_products<V: Visitor<D>>(&self, visitor: &V) -> Vec<V::Answer> {
        let answers = self.visit(&|_| true, visitor).into_iter();
        answers.map(|(_, answer)| answer).collect()
    }

    fn visit<V: Visitor<D>>(
        &self,
        asked: &(dyn Fn(usize) -> bool + Sync),
        visitor: &V,
    ) -> Vec<(usize, V::Answer)> {
        let products = self.partition.operations_of_moments(self.partition.order.len());
        self.partition
            .watch
            .begin(products + self.operations_of_covariances());
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

struct Visit<'a, V, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    asked: &'a (dyn Fn(usize) -> bool + Sync),
    covariances: &'a [Vec<f64>],
    visitor: &'a V,
}

struct Scratch<R, const D: usize> {
    room: R,
    batch: Batch<D>,
    with_periods: [Vec<f64>; D],
    /// A category and the covariance of its border.
    packed: Option<(usize, Packed)>,
}

impl<V: Visitor<D>, const D: usize> ForSimd for Visit<'_, V, D> {
    type Output = Vec<Vec<(usize, V::Answer)>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (factor, isa) = (self.factor, isa.wide());
        let (border, periods) = (factor.partition.border(), factor.partition.layout.periods);
        let variances: Vec<Vec<f64>> = self
            .covariances
            .iter()
            .map(|covariance| (0..periods).map(|t| covariance[t * border + t]).collect())
            .collect();
        let tasks: Vec<&Chunk> = factor.partition.parts.iter().collect();
        let scratch = || Scratch {
            room: V::Room::default(),
            batch: Batch::new::<I::Wide>(&factor.partition),
            with_periods: std::array::from_fn(|_| vec![0.0; periods.next_multiple_of(I::Wide::LANES)]),
            packed: None,
        };
        tasks::run(factor.threads, tasks, scratch, |scratch, part| {
            let is_asked = |place: &usize| (self.asked)(factor.partition.order[*place] as usize);
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

struct VisitPlaces<'a, 's, V: Visitor<D>, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    visitor: &'a V,
    places: &'s [usize],
    variances: &'s [f64],
    scratch: &'s mut Scratch<V::Room, D>,
}

impl<I: Simd<Scalar = f64>, V: Visitor<D>, const D: usize> Kernel<I> for VisitPlaces<'_, '_, V, D> {
    type Output = Vec<(usize, V::Answer)>;

    #[inline(always)]
    fn run(self, isa: I) -> Vec<(usize, V::Answer)> {
        let factor = self.factor;
        let partition = &*factor.partition;
        let Scratch {
            room,
            batch,
            with_periods,
            packed,
        } = self.scratch;
        let (_, covariance) = packed.as_ref().expect("it was packed for the part");
        let mut answers = Vec::with_capacity(self.places.len());
        for places in self.places.chunks(GATHERED) {
            if partition.watch.is_stopped() {
                // The answers are not used, but there must be one for every product asked for.
                with_periods[0].fill(0.0);
                for place in &self.places[answers.len()..] {
                    let product = partition.order[*place] as usize;
                    let none = ProductMoments::none(&with_periods[0]);
                    answers.push((product, self.visitor.visit(isa, room, product, none)));
                }
                return answers;
            }
            partition
                .watch
                .add(partition.operations_of_moments(places.len()) as u64);
            batch.couple(isa, factor, places);
            isa.vectorize(TimesSymmetric {
                a: covariance,
                v: &batch.v,
                columns: D * places.len(),
                out: &mut batch.moved,
            });
            for (k, place) in places.iter().enumerate() {
                batch.load(isa, factor, *place);
                let lower = &factor.products[*place];
                let covariance = block_covariance(lower, inner(isa, &batch.v, &batch.moved, k));
                let with = WithPeriods::new(isa, &batch.moved, lower, k);
                for t in (0..with_periods[0].len()).step_by(I::LANES) {
                    for (column, entry) in with_periods.iter_mut().zip(with.at(isa, t)) {
                        isa.store(entry, &mut column[t..]);
                    }
                }
                let moments = ProductMoments {
                    covariance,
                    with_periods: with_periods.each_ref().map(Vec::as_slice),
                    periods: self.variances,
                    weights: &batch.grid.weights,
                };
                let product = partition.order[*place] as usize;
                answers.push((product, self.visitor.visit(isa, room, product, moments)));
            }
        }
        answers
    }
}
