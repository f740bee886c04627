//! A gradient that depends on the variances of the rows' log rates, and the solution with it, in one pass.

use crate::batch::{Batch, WithPeriods};
use crate::block::{BlockMatrix, block_covariance, half_variances, inner};
use crate::border::BorderBefore;
use crate::error::FactorError;
use crate::factor::ArrowheadFactor;
use crate::partition::{Chunk, GATHERED};
use crate::rates::ProductRows;
use crate::tasks;
use crate::tiles::TimesSymmetric;
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::design::PRODUCT_LATENTS;
use infermark_processor::InstructionSet;

/// A gradient computed from the rows of every product and the variances of their log rates under
/// `Normal(., Q^-1)`.
pub trait OfRowVariances<const D: usize = PRODUCT_LATENTS>: Sync {
    /// The result for a product in addition to its gradient.
    type Answer: Send;

    /// The derivatives of a function with respect to the latents of a product, and the answer for it, from
    /// its rows with half their variances; the derivatives with respect to the period effects of its category
    /// are added to `by_period`. `weights` are those of the rows in the precision, `covariance` is that of
    /// the latents, and `with_periods` has their covariances with the period effects.
    ///
    /// Mark implementations `#[inline(always)]`, so that they are compiled for the instruction set.
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, D>,
        weights: &[f64],
        covariance: BlockMatrix<D>,
        with_periods: WithPeriods<'_, I::V, D>,
        by_period: &mut [f64],
    ) -> ([f64; D], Self::Answer);
}

/// A vector of latents, and an answer by product; `None` of the products of other ranks.
pub type WithAnswers<A> = (Vec<f64>, Vec<Option<A>>);

impl<const D: usize> ArrowheadFactor<D> {
    /// `Q^-1 g` for the visitor's gradient g, with its answers by product.
    ///
    /// # Errors
    /// When the pass is stopped, or a rank has gone.
    pub fn solved_of_row_variances<V: OfRowVariances<D>>(
        &self,
        visitor: &V,
    ) -> Result<WithAnswers<V::Answer>, FactorError> {
        let partition = &*self.partition;
        let products = partition.operations_of_moments(partition.order.len());
        partition.watch.begin(products + self.operations_of_covariances());
        let parts = InstructionSet::best().run_f64(Rows {
            factor: self,
            covariances: self.border_covariances(),
            visitor,
        });
        let stopped = partition.unless_stopped();
        if partition.ranks().is_none() {
            stopped.clone()?;
        }
        let layout = &partition.layout;
        let mut solved = vec![0.0; partition.sites.latents];
        let mut coupled = vec![vec![0.0; partition.border()]; layout.categories];
        let (mut forwarded, mut answers) = (Vec::new(), Vec::new());
        for (part, own) in partition.parts.iter().zip(parts) {
            let by_period = &mut solved[partition.time_index(part.category, 0)..][..layout.periods];
            by_period
                .iter_mut()
                .zip(own.by_period)
                .for_each(|(sum, own)| *sum += own);
            let coupled = &mut coupled[part.category];
            coupled
                .iter_mut()
                .zip(own.coupled)
                .for_each(|(sum, own)| *sum += own);
            forwarded.extend(own.forwarded);
            answers.extend(own.answers);
        }
        if partition.ranks().is_some() {
            let by_period = partition.sites.time..partition.sites.time + layout.categories * layout.periods;
            let mut numbers = solved[by_period.clone()].to_vec();
            numbers.extend(coupled.iter().flatten());
            partition.sum(&mut numbers, stopped)?;
            let (summed, rest) = numbers.split_at(by_period.len());
            solved[by_period].copy_from_slice(summed);
            for (coupled, summed) in coupled.iter_mut().zip(rest.chunks_exact(partition.border())) {
                coupled.copy_from_slice(summed);
            }
        }
        partition.write_blocks(&mut solved, &forwarded);
        self.forward_borders(&mut solved, &coupled);
        self.solve_upper(&mut solved);
        let mut by_product: Vec<Option<V::Answer>> = (0..layout.products).map(|_| None).collect();
        for (product, answer) in partition.order.iter().zip(answers) {
            by_product[*product as usize] = Some(answer);
        }
        Ok((solved, by_product))
    }
}

struct Rows<'a, V, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    covariances: &'a [Vec<f64>],
    visitor: &'a V,
}

struct ChunkResult<A, const D: usize> {
    by_period: Vec<f64>,
    /// `sum_i V_i' L_i^-1 g_i`, padded.
    coupled: Vec<f64>,
    /// `L_i^-1 g_i`.
    forwarded: Vec<[f64; D]>,
    answers: Vec<A>,
}

impl<V: OfRowVariances<D>, const D: usize> ForSimd for Rows<'_, V, D> {
    type Output = Vec<ChunkResult<V::Answer, D>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (factor, isa) = (self.factor, isa.wide());
        let tasks: Vec<&Chunk> = factor.partition.parts.iter().collect();
        let scratch = || (Batch::new::<I::Wide>(&factor.partition), None::<BorderBefore>);
        tasks::run(factor.threads, tasks, scratch, |(batch, known), part| {
            if known.as_ref().is_none_or(|known| known.category != part.category) {
                *known = None;
                let covariance = &self.covariances[part.category];
                *known = Some(BorderBefore::new::<D, I::Wide>(
                    part.category,
                    covariance,
                    &factor.partition,
                ));
            }
            isa.vectorize(RowsOfPart {
                factor,
                visitor: self.visitor,
                part,
                of_category: known.as_ref().expect("it was made for the part"),
                batch,
            })
        })
    }
}

struct RowsOfPart<'a, 's, V, const D: usize> {
    factor: &'a ArrowheadFactor<D>,
    visitor: &'a V,
    part: &'a Chunk,
    of_category: &'s BorderBefore,
    batch: &'s mut Batch<D>,
}

impl<I: Simd<Scalar = f64>, V: OfRowVariances<D>, const D: usize> Kernel<I> for RowsOfPart<'_, '_, V, D> {
    type Output = ChunkResult<V::Answer, D>;

    #[inline(always)]
    fn run(self, isa: I) -> ChunkResult<V::Answer, D> {
        let (factor, batch) = (self.factor, self.batch);
        let partition = &*factor.partition;
        let count = self.part.places.len();
        let mut found = ChunkResult {
            by_period: vec![0.0; batch.grid.weights.len()],
            coupled: vec![0.0; batch.v.rows],
            forwarded: Vec::with_capacity(count),
            answers: Vec::with_capacity(count),
        };
        let places: Vec<usize> = self.part.places.clone().collect();
        for places in places.chunks(GATHERED) {
            if partition.watch.is_stopped() {
                return found;
            }
            partition
                .watch
                .add(partition.operations_of_moments(places.len()) as u64);
            batch.couple(isa, factor, places);
            isa.vectorize(TimesSymmetric {
                a: &self.of_category.covariance,
                v: &batch.v,
                columns: D * places.len(),
                out: &mut batch.moved,
            });
            for (k, place) in places.iter().enumerate() {
                batch.load(isa, factor, *place);
                let Batch { grid, v, moved } = &mut *batch;
                let lower = &factor.products[*place];
                let squares = inner(isa, v, moved, k);
                half_variances(
                    isa,
                    grid,
                    lower,
                    squares,
                    (k, moved),
                    &self.of_category.half_variances,
                );
                let with_periods = WithPeriods::new(isa, moved, lower, k);
                let rows = ProductRows {
                    product: partition.order[*place] as usize,
                    category: self.part.category,
                    design: grid.design.each_ref().map(Vec::as_slice),
                    half_variance: &grid.half_variance,
                };
                let covariance = block_covariance(lower, squares);
                let (gradient, answer) = self.visitor.visit(
                    isa,
                    rows,
                    &grid.weights,
                    covariance,
                    with_periods,
                    &mut found.by_period,
                );
                found.answers.push(answer);
                let forwarded = lower.forward(gradient);
                found.forwarded.push(forwarded);
                v.add_columns(isa, D * k, forwarded, &mut found.coupled);
            }
        }
        found
    }
}
