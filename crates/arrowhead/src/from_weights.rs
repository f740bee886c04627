//! The factor for given weights.

use crate::assemble::Assembled;
use crate::error::FactorError;
use crate::factor::ArrowheadFactor;
use crate::partition::Partition;
use crate::rates::{ProductRows, ProductTerms, Rates};
use crate::sites::BlockPriors;
use infermark_cpu_kernels::Simd;
use infermark_model::{Likelihood, Panel, Priors};
use std::sync::Arc;

impl ArrowheadFactor {
    /// Factors the precision for `weights`, one per row in the panel's order.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    ///
    /// # Panics
    /// When the number of weights is not that of rows.
    pub fn new(
        panel: &Arc<Panel>,
        priors: Priors,
        weights: &[f64],
        threads: usize,
    ) -> Result<Self, FactorError> {
        let partition = Arc::new(Partition::new(panel, Likelihood::Poisson));
        Self::of_weights(&partition, &BlockPriors::from(&priors), weights, threads)
    }
}

impl<const D: usize> ArrowheadFactor<D> {
    /// The same for products of D latents.
    ///
    /// # Errors
    /// When the precision is not positive definite.
    ///
    /// # Panics
    /// When the number of weights is not that of rows, or the likelihood has a shape.
    pub fn of_weights(
        partition: &Arc<Partition<D>>,
        priors: &BlockPriors<D>,
        weights: &[f64],
        threads: usize,
    ) -> Result<Self, FactorError> {
        let panel = &*partition.panel;
        assert_eq!(weights.len(), panel.rows(), "one weight per row");
        assert!(!partition.has_shape(), "weights alone say nothing of a shape");
        let given = GivenWeights { panel, weights };
        Ok(Assembled::new(partition, priors, &given, threads)?.factor)
    }
}

/// Given weights, one per row in the panel's order.
struct GivenWeights<'a> {
    panel: &'a Panel,
    weights: &'a [f64],
}

impl<const D: usize> Rates<D> for GivenWeights<'_> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        _isa: I,
        rows: ProductRows<'_, D>,
        weights: &mut [f64],
        _cross: &mut [f64],
        _by_period: &mut [f64],
    ) -> ProductTerms<D> {
        weights.fill(0.0);
        let own = &self.weights[self.panel.row_range(rows.product)];
        for (row, w) in self.panel.product_rows(rows.product).zip(own) {
            weights[row.period] = *w;
        }
        ProductTerms {
            value: 0.0,
            gradient: [0.0; D],
            shape: [0.0; 3],
        }
    }
}
