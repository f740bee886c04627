//! The categories' borders: the Schur complements that their products leave.

use crate::block::BlockMatrix;
use crate::error::FactorError;
use crate::partition::Partition;
use crate::sites::BlockPriors;
use crate::tiles::Packed;
use crate::triangular::{BorderFactor, Lower, Tail};
use infermark_cpu_kernels::Simd;
use std::sync::{Mutex, PoisonError};

/// Least curvature along a log shape, as a fraction of the rows' expected information. A smaller observed
/// curvature is not due to the shape but to means far from their optimum, and dividing by it would move
/// everything that is coupled to the shape too far.
const LEAST_OF_EXPECTED: f64 = 0.25;

/// The sums of one part of a category's products, or of several parts.
pub(crate) struct ChunkSums<const D: usize> {
    pub(crate) value: f64,
    pub(crate) by_period: Vec<f64>,
    /// `sum_i w_it` of every period.
    pub(crate) weights: Vec<f64>,
    /// Minus the rows' mixed second derivatives with respect to log rate and log shape, summed by period.
    pub(crate) cross: Vec<f64>,
    /// Derivative with respect to the log shape, minus the second derivative, and the rows' expected
    /// information on it.
    pub(crate) shape: [f64; 3],
    /// The products' information on the category's coefficients; zero in the row and the column of the
    /// effect.
    pub(crate) by_category: BlockMatrix<D>,
    /// Lower triangle of `-sum_i V_i' V_i`, column-major, with the right-hand side after the border.
    pub(crate) schur: Vec<f64>,
    /// The first product whose block is not positive definite.
    pub(crate) failed: Option<usize>,
}

impl<const D: usize> ChunkSums<D> {
    fn add(&mut self, other: &Self) {
        self.value += other.value;
        for (into, from) in [
            (&mut self.by_period, &other.by_period),
            (&mut self.weights, &other.weights),
            (&mut self.cross, &other.cross),
            (&mut self.schur, &other.schur),
        ] {
            into.iter_mut().zip(from).for_each(|(sum, own)| *sum += own);
        }
        for (sum, own) in self.shape.iter_mut().zip(other.shape) {
            *sum += own;
        }
        let by_category = self.by_category.iter_mut().flatten();
        for (sum, own) in by_category.zip(other.by_category.iter().flatten()) {
            *sum += own;
        }
        self.failed = self.failed.or(other.failed);
    }
}

/// The sums of a category's parts, added in the order of the walk whichever thread finishes first.
pub(crate) struct Gathering<const D: usize>(Mutex<Gathered<D>>);

struct Gathered<const D: usize> {
    next: usize,
    sum: Option<ChunkSums<D>>,
    /// Parts that finished before their turn.
    waiting: Vec<(usize, ChunkSums<D>)>,
}

impl<const D: usize> Gathering<D> {
    pub(crate) fn new() -> Self {
        Gathering(Mutex::new(Gathered {
            next: 0,
            sum: None,
            waiting: Vec::new(),
        }))
    }

    /// Takes the sums of the category's part with this number; returns the total once none of `parts` is
    /// missing.
    pub(crate) fn take(&self, number: usize, sums: ChunkSums<D>, parts: usize) -> Option<ChunkSums<D>> {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gathered = &mut *gathered;
        gathered.waiting.push((number, sums));
        while let Some(at) = gathered.waiting.iter().position(|(n, _)| *n == gathered.next) {
            let (_, own) = gathered.waiting.swap_remove(at);
            match &mut gathered.sum {
                Some(sum) => sum.add(&own),
                none => *none = Some(own),
            }
            gathered.next += 1;
        }
        if gathered.next == parts {
            gathered.sum.take()
        } else {
            None
        }
    }
}

/// A category's factored border, and the other sums of its parts.
pub(crate) struct Border {
    pub(crate) value: f64,
    /// Derivatives with respect to the period effects, and to the log shape: the rows' part.
    pub(crate) by_period: Vec<f64>,
    pub(crate) by_shape: f64,
    pub(crate) factor: BorderFactor,
    /// The diagonal of `D_c`.
    pub(crate) diagonal: Vec<f64>,
    /// `sum_i V_i' y_i`, with `y` the right-hand side.
    pub(crate) coupled: Vec<f64>,
}

impl Border {
    /// Factors the border from the sums of a category's parts; `shape_curvature` is the curvature along its
    /// log shape that they leave out.
    pub(crate) fn new<const D: usize>(
        partition: &Partition<D>,
        category: usize,
        sums: ChunkSums<D>,
        priors: &BlockPriors<D>,
        shape_curvature: f64,
    ) -> Result<Self, FactorError> {
        if let Some(product) = sums.failed {
            return Err(FactorError::Product(product));
        }
        let (border, tail, periods) = (partition.border(), partition.tail(), partition.layout.periods);
        let mut schur = sums.schur;
        let order = schur.len().isqrt();
        let mut coupled = vec![0.0; border];
        // The last row of the coupling is the right-hand side.
        for (j, coupled) in coupled.iter_mut().enumerate() {
            *coupled = -schur[j * order + border];
        }
        for column in 1..border {
            schur.copy_within(column * order..column * order + border, column * border);
        }
        schur.truncate(border * border);
        schur.shrink_to_fit();
        let mut diagonal = vec![0.0; border];
        for (d, w) in diagonal[..periods].iter_mut().zip(&sums.weights) {
            *d = w + priors.time;
        }
        if partition.has_shape() {
            diagonal[periods] = sums.shape[1] + shape_curvature + priors.log_shape;
            for (t, c) in sums.cross[..periods].iter().enumerate() {
                schur[t * border + periods] += c;
            }
        }
        for (j, d) in diagonal[..tail].iter().enumerate() {
            schur[j * border + j] += d;
        }
        // Not the difference of the priors' precisions and the products' part, which nearly cancel if the
        // prior is narrow.
        for j in 0..Partition::<D>::COEFFICIENTS {
            for k in 0..=j {
                schur[(tail + k) * border + tail + j] = sums.by_category[j][k];
            }
            diagonal[tail + j] = priors.category[j] + partition.sizes[category] as f64 * priors.product[j];
        }
        let end = Tail {
            has_shape: partition.has_shape(),
            shape: if partition.has_shape() {
                diagonal[periods]
            } else {
                0.0
            },
            least_shape: priors.log_shape + LEAST_OF_EXPECTED * sums.shape[2],
            category_priors: &priors.category[..Partition::<D>::COEFFICIENTS],
        };
        let factor =
            Lower::of_border(schur, border, end, &partition.watch).ok_or(FactorError::Category(category))?;
        Ok(Border {
            value: sums.value,
            by_period: sums.by_period,
            by_shape: sums.shape[0],
            factor,
            diagonal,
            coupled,
        })
    }
}

/// A category's border under the previous Gaussian.
pub(crate) struct BorderBefore {
    pub(crate) category: usize,
    pub(crate) covariance: Packed,
    /// Half of the variances of its period effects, in whole vectors.
    pub(crate) half_variances: Vec<f64>,
}

impl BorderBefore {
    pub(crate) fn new<const D: usize, I: Simd<Scalar = f64>>(
        category: usize,
        covariance: &[f64],
        partition: &Partition<D>,
    ) -> Self {
        let (border, periods) = (partition.border(), partition.layout.periods);
        let mut half_variances: Vec<f64> = (0..periods).map(|t| 0.5 * covariance[t * border + t]).collect();
        half_variances.resize(periods.next_multiple_of(I::LANES), 0.0);
        BorderBefore {
            category,
            // As many rows as the coupling and its right-hand side.
            covariance: Packed::with_margin::<I>(covariance, border),
            half_variances,
        }
    }
}

/// The borders; on failure, the error of a product before that of a category.
pub(crate) fn all_of(mut borders: Vec<Result<Border, FactorError>>) -> Result<Vec<Border>, FactorError> {
    if let Some(at) = borders
        .iter()
        .position(|b| matches!(b, Err(FactorError::Product(_))))
    {
        borders.swap(0, at);
    }
    borders.into_iter().collect()
}
