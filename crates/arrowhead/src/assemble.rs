//! The fused pass: weights of all rows at a point, the gradient, the factors of the products and the
//! remaining Schur complements of the borders, in one walk over the panel.

use crate::block::{
    BlockFactor, BlockMatrix, block, block_covariance, dot, half_variances, inner, shape_coupling,
    write_coupling,
};
use crate::border::{Border, BorderBefore, ChunkSums, Gathering, all_of};
use crate::error::FactorError;
use crate::exchange::sum_borders;
use crate::factor::{ArrowheadFactor, Blocks, FactorBuffers};
use crate::grid::Grid;
use crate::partition::{Chunk, GATHERED, Partition};
use crate::rates::{ProductRows, Rates};
use crate::sites::BlockPriors;
use crate::tasks;
use crate::tiles::{Packed, SubtractOuter, TimesSymmetric};
use crate::weights::{Again, Weights};
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::design::PRODUCT_LATENTS;
use infermark_processor::InstructionSet;
use std::sync::{Arc, Mutex, PoisonError};

/// A factor at a point, with the other results of the same pass.
#[derive(Debug)]
pub struct Assembled<const D: usize = PRODUCT_LATENTS> {
    /// The factor.
    pub factor: ArrowheadFactor<D>,
    /// Sum of the rows' values.
    pub value: f64,
    /// The gradient, in the order of [`Partition::sites`]: complete for the products that are walked, the rows' part for periods
    /// and log shapes, zero elsewhere.
    pub gradient: Vec<f64>,
    /// `L_i^-1` times the gradient of the product, for every place of the walk.
    pub(crate) forwarded: Vec<[f64; D]>,
    /// `sum_i V_i' L_i^-1 g_i` of every category.
    pub(crate) coupled: Vec<Vec<f64>>,
    /// The sum of the squares of [`Assembled::forwarded`], over the products of all ranks.
    pub(crate) squares: f64,
}

/// Second moments of the products under the previous Gaussian, in the order of the panel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockMoments<const D: usize = PRODUCT_LATENTS> {
    /// Covariance of its latents, one per product.
    pub covariance: Vec<BlockMatrix<D>>,
}

impl<const D: usize> Assembled<D> {
    /// Assembles the factor for the weights from `rates`.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    pub fn new(
        partition: &Arc<Partition<D>>,
        priors: &BlockPriors<D>,
        rates: &impl Rates<D>,
        threads: usize,
    ) -> Result<Self, FactorError> {
        let weights = match rates.again() {
            Some(again) => Weights::Again(Again(again)),
            None => Weights::zeros(&partition.panel, partition.rows()).map_err(FactorError::Storage)?,
        };
        let lower = vec![BlockFactor::UNKNOWN; partition.order.len()];
        let shapes = vec![
            [0.0; D];
            if partition.has_shape() {
                partition.order.len()
            } else {
                0
            }
        ];
        pass(partition, priors, rates, (weights, lower, shapes), None, threads)
            .map(|(assembled, _)| assembled)
    }

    /// As [`Assembled::new`], reusing the buffers of a factor that is no longer needed.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    pub fn refactor(before: ArrowheadFactor<D>, rates: &impl Rates<D>) -> Result<Self, FactorError> {
        let FactorBuffers {
            partition,
            priors,
            by_place,
            threads,
            ..
        } = before.into_buffers();
        pass(&partition, &priors, rates, by_place, None, threads).map(|(assembled, _)| assembled)
    }

    /// As [`Assembled::refactor`]; the rates receive the variances of the log rates under the Gaussian of the
    /// factor that they replace. Also returns the products' second moments under that.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    pub fn with_variances(
        before: ArrowheadFactor<D>,
        rates: &impl Rates<D>,
    ) -> Result<(Self, BlockMoments<D>), FactorError> {
        let partition = &before.partition;
        let factors = partition.operations_of_pass(true) - partition.operations_of_covariances();
        partition
            .watch
            .begin(factors + before.operations_of_covariances());
        before.border_covariances();
        before.partition.agreed(before.partition.unless_stopped())?;
        let FactorBuffers {
            partition,
            priors,
            by_place,
            covariances,
            threads,
        } = before.into_buffers();
        pass(&partition, &priors, rates, by_place, covariances, threads)
    }

    /// `Q^-1` times a gradient whose entries for products are those of [`Assembled::gradient`].
    ///
    /// # Errors
    /// When the device that has the rows fails.
    pub fn step(&self, gradient: &[f64]) -> Result<Vec<f64>, FactorError> {
        let factor = &self.factor;
        let mut step = gradient.to_vec();
        factor.partition.write_blocks(&mut step, &self.forwarded);
        factor.forward_borders(&mut step, &self.coupled);
        match &factor.elsewhere {
            None => factor.solve_upper(&mut step),
            Some(rows) => {
                let borders = factor.backward_borders(&mut step);
                let by_border = rows.times(&borders)?;
                factor.solve_upper_products(&mut step, by_border);
            }
        }
        Ok(step)
    }
}

impl<const D: usize> Assembled<D> {
    /// The Newton step of the parameters above the products, with `g` the completed [`Assembled::gradient`],
    /// and `g' Q^-1 g`: the cheap half of a step, without a walk over the panel. Entries of products have no
    /// meaning.
    pub fn step_above_products(&self, gradient: &[f64]) -> (Vec<f64>, f64) {
        let factor = &self.factor;
        let mut step = gradient.to_vec();
        factor.forward_borders(&mut step, &self.coupled);
        let slope = self.squares + factor.squares_above_products(&step);
        factor.backward_borders(&mut step);
        (step, slope)
    }
}

/// One part of the walk, with its share of the outputs that are stored by place.
struct ChunkTask<'a, const D: usize> {
    part: &'a Chunk,
    /// Empty where they are computed again.
    weights: &'a mut [f64],
    lower: &'a mut [BlockFactor<D>],
    forwarded: &'a mut [[f64; D]],
    gradient: &'a mut [[f64; D]],
    covariance: &'a mut [BlockMatrix<D>],
    /// Couplings to the log shape; empty if there is none.
    shapes: &'a mut [[f64; D]],
}

/// Buffers that a thread keeps from part to part.
struct Scratch<const D: usize> {
    grid: Grid<D>,
    v: Packed,
    moved: Packed,
    before: Option<BorderBefore>,
}

/// Covariances of the borders under the previous Gaussian, each freed as soon as its category is done.
type Covariances = Vec<Mutex<Option<Arc<Vec<f64>>>>>;

struct Pass<'a, R, F, const D: usize> {
    partition: &'a Partition<D>,
    priors: &'a BlockPriors<D>,
    rates: &'a R,
    tasks: Vec<ChunkTask<'a, D>>,
    before: Option<&'a Covariances>,
    /// The weights under the previous Gaussian, if they are not those that are replaced.
    weights_before: Option<&'a Again<D>>,
    threads: usize,
    /// What becomes of a category's sums.
    finish: F,
}

impl<R, F, T, const D: usize> ForSimd for Pass<'_, R, F, D>
where
    R: Rates<D>,
    F: Fn(usize, ChunkSums<D>) -> T + Sync,
    T: Send,
{
    /// The result of every category, stored with the last of its parts.
    type Output = Vec<Option<T>>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let (partition, isa) = (self.partition, isa.wide());
        let border = partition.border();
        let mut parts = vec![0; partition.layout.categories];
        let tasks: Vec<(usize, ChunkTask<'_, D>)> = self
            .tasks
            .into_iter()
            .map(|task| {
                let number = parts[task.part.category];
                parts[task.part.category] += 1;
                (number, task)
            })
            .collect();
        let gathering: Vec<Gathering<D>> = parts.iter().map(|_| Gathering::new()).collect();
        let scratch = || Scratch {
            grid: Grid::new::<I::Wide>(&partition.panel),
            v: Packed::new::<I::Wide>(border + 1, D * GATHERED),
            moved: Packed::new::<I::Wide>(border + 1, if self.before.is_some() { D * GATHERED } else { 0 }),
            before: None,
        };
        tasks::run(self.threads, tasks, scratch, |scratch, (number, task)| {
            if partition.watch.is_stopped() {
                return None;
            }
            let category = task.part.category;
            if let Some(before) = self.before
                && scratch.before.as_ref().is_none_or(|own| own.category != category)
            {
                scratch.before = None;
                let covariance = before[category]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                let covariance = covariance.expect("it is there until the category is done");
                scratch.before = Some(BorderBefore::new::<D, I::Wide>(category, &covariance, partition));
            }
            let sums = isa.vectorize(OnePart {
                partition,
                priors: self.priors,
                rates: self.rates,
                weights_before: self.weights_before,
                task,
                scratch,
            });
            let sums = gathering[category].take(number, sums, parts[category])?;
            if let Some(before) = self.before {
                before[category]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take();
            }
            Some((self.finish)(category, sums))
        })
    }
}

struct OnePart<'a, 's, R, const D: usize> {
    partition: &'a Partition<D>,
    priors: &'a BlockPriors<D>,
    rates: &'a R,
    weights_before: Option<&'a Again<D>>,
    task: ChunkTask<'a, D>,
    scratch: &'s mut Scratch<D>,
}

impl<I: Simd<Scalar = f64>, R: Rates<D>, const D: usize> Kernel<I> for OnePart<'_, '_, R, D> {
    type Output = ChunkSums<D>;

    #[inline(always)]
    fn run(self, isa: I) -> ChunkSums<D> {
        let (partition, task) = (self.partition, self.task);
        let periods = partition.layout.periods;
        let Scratch {
            grid,
            v,
            moved,
            before,
        } = self.scratch;
        let (before, weights_before) = (before.as_ref(), self.weights_before);
        let padded = grid.weights.len();
        let mut sums = ChunkSums {
            value: 0.0,
            by_period: vec![0.0; padded],
            weights: vec![0.0; padded],
            cross: vec![0.0; if partition.has_shape() { padded } else { 0 }],
            shape: [0.0; 3],
            by_category: [[0.0; D]; D],
            schur: vec![0.0; v.rows * v.rows],
            failed: None,
        };
        let first_place = task.part.places.start;
        let first_row = partition.row_start[first_place];
        for start in task.part.places.clone().step_by(GATHERED) {
            if partition.watch.is_stopped() {
                return sums;
            }
            let end = (start + GATHERED).min(task.part.places.end);
            partition
                .watch
                .add(partition.operations_of_products(end - start, before.is_some()) as u64);
            let rows = |place: usize| {
                partition.row_start[place] - first_row..partition.row_start[place + 1] - first_row
            };
            if let Some(before) = before {
                for place in start..end {
                    grid.load_place(isa, partition, place);
                    match weights_before {
                        None => grid.load_weights(&task.weights[rows(place)]),
                        Some(again) => again.load(isa, partition, place, grid),
                    }
                    let lower = &task.lower[place - first_place];
                    let into = (&mut *v, place - start, periods);
                    let shape = task.shapes.get(place - first_place).copied();
                    write_coupling(isa, grid, lower, self.priors, shape, [0.0; D], into);
                }
                isa.vectorize(TimesSymmetric {
                    a: &before.covariance,
                    v,
                    columns: D * (end - start),
                    out: moved,
                });
            }
            for place in start..end {
                let product = partition.order[place] as usize;
                let own = place - first_place;
                grid.load_place(isa, partition, place);
                if let Some(before) = before {
                    match weights_before {
                        None => grid.load_weights(&task.weights[rows(place)]),
                        Some(again) => again.load(isa, partition, place, grid),
                    }
                    let squares = inner(isa, v, moved, place - start);
                    task.covariance[own] = block_covariance(&task.lower[own], squares);
                    let of = (place - start, &*moved);
                    half_variances(isa, grid, &task.lower[own], squares, of, &before.half_variances);
                }
                let weighed = self.rates.weigh(
                    isa,
                    ProductRows {
                        product,
                        category: task.part.category,
                        design: grid.design.each_ref().map(Vec::as_slice),
                        half_variance: &grid.half_variance,
                    },
                    &mut grid.weights,
                    &mut grid.cross,
                    &mut sums.by_period,
                );
                if !task.weights.is_empty() {
                    grid.store_weights(&mut task.weights[rows(place)]);
                }
                // One, except for a sample.
                let stands_for = partition.stands_for(place);
                sums.value += stands_for * weighed.value;
                for (sum, w) in sums.weights.iter_mut().zip(&grid.weights) {
                    *sum += stands_for * w;
                }
                let shape = partition.has_shape().then(|| shape_coupling(grid));
                if let Some(coupling) = shape {
                    task.shapes[own] = coupling;
                    for (sum, c) in sums.cross.iter_mut().zip(&grid.cross) {
                        *sum += stands_for * c;
                    }
                    for (sum, own) in sums.shape.iter_mut().zip(weighed.shape) {
                        *sum += stands_for * own;
                    }
                }
                let Some((lower, informed)) = block(isa, grid, self.priors) else {
                    sums.failed = Some(product);
                    return sums;
                };
                for (sum, own) in sums
                    .by_category
                    .iter_mut()
                    .flatten()
                    .zip(informed.iter().flatten())
                {
                    *sum += stands_for * own;
                }
                task.lower[own] = lower;
                task.gradient[own] = weighed.gradient;
                task.forwarded[own] = lower.forward(weighed.gradient);
                let into = (&mut *v, place - start, periods);
                write_coupling(isa, grid, &lower, self.priors, shape, task.forwarded[own], into);
                if stands_for != 1.0 {
                    v.scale_columns(D * (place - start), D, stands_for.sqrt());
                }
            }
            isa.vectorize(SubtractOuter {
                v,
                columns: D * (end - start),
                into: &mut sums.schur,
            });
        }
        sums
    }
}

/// The pass. Weights, factors of the products and their couplings to the shapes are overwritten.
fn pass<const D: usize>(
    partition: &Arc<Partition<D>>,
    priors: &BlockPriors<D>,
    rates: &impl Rates<D>,
    (weights, mut lower, mut shapes): (Weights<D>, Vec<BlockFactor<D>>, Vec<[f64; D]>),
    before: Option<Vec<Vec<f64>>>,
    threads: usize,
) -> Result<(Assembled<D>, BlockMoments<D>), FactorError> {
    let layout = partition.layout;
    let (mut weights, weights_before) = match (rates.again(), weights) {
        (Some(again), _) => (Weights::Again(Again(again)), None),
        (None, Weights::Again(before)) => {
            let weights = Weights::zeros(&partition.panel, partition.rows());
            (weights.map_err(FactorError::Storage)?, Some(before))
        }
        (None, weights) => (weights, None),
    };
    let mut forwarded = vec![[0.0; D]; partition.order.len()];
    let mut gradients = vec![[0.0; D]; partition.order.len()];
    let mut covariance = vec![
        [[0.0; D]; D];
        if before.is_some() {
            partition.order.len()
        } else {
            0
        }
    ];
    let mut tasks = Vec::with_capacity(partition.parts.len());
    {
        let mut weights = weights.as_mut_slice();
        let mut lower = lower.as_mut_slice();
        let mut forwarded = forwarded.as_mut_slice();
        let mut gradients = gradients.as_mut_slice();
        let mut covariance = covariance.as_mut_slice();
        let mut shapes = shapes.as_mut_slice();
        for part in &partition.parts {
            let products = part.places.len();
            tasks.push(ChunkTask {
                part,
                weights: match weights.is_empty() {
                    true => &mut [],
                    false => take(&mut weights, partition.rows_of(part).len()),
                },
                lower: take(&mut lower, products),
                forwarded: take(&mut forwarded, products),
                gradient: take(&mut gradients, products),
                covariance: take(&mut covariance, if before.is_some() { products } else { 0 }),
                shapes: take(&mut shapes, if partition.has_shape() { products } else { 0 }),
            });
        }
    }
    let with_variances = before.is_some();
    if !with_variances {
        partition.watch.begin(partition.operations_of_pass(false));
    }
    let before: Option<Covariances> =
        before.map(|all| all.into_iter().map(|of| Mutex::new(Some(Arc::new(of)))).collect());
    let border = |category: usize, sums: ChunkSums<D>| {
        let curvature = rates.shape_curvature(category);
        Border::new(partition, category, sums, priors, curvature)
    };
    let (borders, squares) = if partition.ranks().is_some() {
        let own = InstructionSet::best().run_f64(Pass {
            partition,
            priors,
            rates,
            tasks,
            before: before.as_ref(),
            weights_before: weights_before.as_ref(),
            threads,
            finish: |category, sums| (category, sums),
        });
        let own = own.into_iter().flatten().collect();
        let (sums, squares) = sum_borders(partition, own, squares_of(&forwarded))?;
        partition.watch.begin(0.5 * partition.operations_of_covariances());
        let sums = sums.into_iter().enumerate().collect();
        let borders = tasks::run(
            threads,
            sums,
            || (),
            |(), (category, sums)| border(category, sums),
        );
        let borders = partition.unless_stopped().and_then(|()| all_of(borders));
        (partition.agreed(borders)?, squares)
    } else {
        let borders = InstructionSet::best().run_f64(Pass {
            partition,
            priors,
            rates,
            tasks,
            before: before.as_ref(),
            weights_before: weights_before.as_ref(),
            threads,
            finish: border,
        });
        partition.unless_stopped()?;
        let borders = all_of(borders.into_iter().flatten().collect())?;
        (borders, squares_of(&forwarded))
    };
    let mut moments = BlockMoments::default();
    if with_variances {
        moments.covariance = vec![[[0.0; D]; D]; layout.products];
        for (product, own) in partition.order.iter().zip(&covariance) {
            moments.covariance[*product as usize] = *own;
        }
    }
    let blocks = Blocks {
        weights,
        lower,
        shapes,
        elsewhere: None,
    };
    let assembled = Assembled::of_borders(
        partition,
        priors,
        borders,
        (blocks, gradients, forwarded, squares),
        threads,
    );
    Ok((assembled, moments))
}

/// The sum of the squares of the products' numbers.
pub(crate) fn squares_of<const D: usize>(forwarded: &[[f64; D]]) -> f64 {
    forwarded.iter().map(|own| dot(own, own)).sum()
}

impl<const D: usize> Assembled<D> {
    /// The result from the factored borders; by place, `gradients` are those of the products and `forwarded`
    /// the same times the inverse factors of their blocks; `squares` is [`squares_of`] these over all ranks.
    pub(crate) fn of_borders(
        partition: &Arc<Partition<D>>,
        priors: &BlockPriors<D>,
        borders: Vec<Border>,
        (blocks, gradients, forwarded, squares): (Blocks<D>, Vec<[f64; D]>, Vec<[f64; D]>, f64),
        threads: usize,
    ) -> Self {
        let layout = partition.layout;
        let mut gradient = vec![0.0; partition.sites.latents];
        partition.write_blocks(&mut gradient, &gradients);
        let mut value = 0.0;
        let (mut factors, mut diagonals, mut coupled) = (Vec::new(), Vec::new(), Vec::new());
        for (category, border) in borders.into_iter().enumerate() {
            value += border.value;
            gradient[partition.time_index(category, 0)..][..layout.periods]
                .copy_from_slice(&border.by_period[..layout.periods]);
            if partition.has_shape() {
                gradient[partition.sites.log_shape + category] = border.by_shape;
            }
            factors.push(border.factor);
            diagonals.push(border.diagonal);
            coupled.push(border.coupled);
        }
        Assembled {
            factor: ArrowheadFactor::of_parts(
                partition.clone(),
                *priors,
                blocks,
                factors,
                diagonals,
                threads,
            ),
            value,
            gradient,
            forwarded,
            coupled,
            squares,
        }
    }
}

/// Splits the first `count` entries off `rest`.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let (own, others) = std::mem::take(rest).split_at_mut(count);
    *rest = others;
    own
}
