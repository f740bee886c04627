//! Deliberate faults in the pass over the rows, for tests that the parity gate detects them. Only in builds
//! with the feature `faults`, which the command does not have.

use infermark_arrowhead::{ProductRows, ProductTerms, Rates};
use infermark_cpu_kernels::Simd;

/// The fault in the rows of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Their value is off by a hundredth of a nat for each product.
    Value,
    /// Their derivative with respect to the products' elasticities is off by a hundredth.
    Gradient,
    /// Their derivatives with respect to the period effects are off by a thousandth.
    PeriodGradient,
    /// Their weights in the precision are off by a hundredth.
    Weights,
    /// The variances of the log rates that they are given are off by a tenth.
    Variances,
    /// Their derivative with respect to the log shape is off by a hundredth.
    ShapeGradient,
    /// Their couplings of log rate and log shape have the wrong sign.
    ShapeCoupling,
    /// Their curvature along the log shape is off by a half.
    ShapeCurvature,
}

/// Rows with a fault.
pub(crate) struct Faulty<'a, R> {
    pub(crate) rates: &'a R,
    pub(crate) fault: Fault,
}

impl<R: Rates> Rates for Faulty<'_, R> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    ) -> ProductTerms {
        let mut half_variance = rows.half_variance.to_vec();
        if self.fault == Fault::Variances {
            half_variance.iter_mut().for_each(|v| *v *= 1.1);
        }
        let mut added = vec![0.0; by_period.len()];
        let rows = ProductRows {
            half_variance: &half_variance,
            ..rows
        };
        let mut found = self.rates.weigh(isa, rows, weights, cross, &mut added);
        match self.fault {
            Fault::Value => found.value += 0.01,
            Fault::Gradient => found.gradient[0] *= 1.01,
            Fault::PeriodGradient => added.iter_mut().for_each(|g| *g *= 1.001),
            Fault::Weights => weights.iter_mut().for_each(|w| *w *= 1.01),
            Fault::Variances => {}
            Fault::ShapeGradient => found.shape[0] *= 1.01,
            Fault::ShapeCoupling => cross.iter_mut().for_each(|c| *c = -*c),
            Fault::ShapeCurvature => found.shape[1] *= 1.5,
        }
        by_period.iter_mut().zip(added).for_each(|(sum, own)| *sum += own);
        found
    }

    fn shape_curvature(&self, category: usize) -> f64 {
        self.rates.shape_curvature(category)
    }
}
