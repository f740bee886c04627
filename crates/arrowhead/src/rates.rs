//! What gives the rows their weights: where a likelihood enters.

use infermark_cpu_kernels::Simd;

/// The rows of one product, on the grid of periods: every slice has one entry a period, in whole vectors.
#[derive(Debug, Clone, Copy)]
pub struct ProductRows<'a> {
    /// The product's index in the panel.
    pub product: usize,
    /// Its category.
    pub category: usize,
    /// `ln price`; where there is no row, that of the first row.
    pub log_price: &'a [f64],
    /// 1 where there is a row, 0 elsewhere.
    pub present: &'a [f64],
    /// Half of the variances of the log rates under the Gaussian that is left; zero where there was none.
    pub half_variance: &'a [f64],
}

/// What a product's rows add.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// To the value.
    pub value: f64,
    /// Derivatives by its elasticity and its effect, priors included.
    pub gradient: [f64; 2],
    /// Derivative of the rows by the log shape of the category, minus the second one, and what they are expected to tell of it;
    /// zero where there is none.
    pub shape: [f64; 3],
}

/// What gives the rows their weights.
pub trait Rates: Sync {
    /// Replaces `weights` (those of the Gaussian that is left, if any) by the rows' weights, zero where there is no row,
    /// and adds the rows' part of the gradient by the period effects of the category to `by_period`. Where the likelihood has
    /// a shape, `cross` takes minus the rows' second derivatives by log rate and log shape.
    ///
    /// Mark implementations `#[inline(always)]`, so that they are compiled for the instruction set.
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    ) -> Weighed;

    /// Minus the second derivative by the log shape of a category that its products' rows leave out.
    fn shape_curvature(&self, _category: usize) -> f64 {
        0.0
    }
}
