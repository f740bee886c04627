//! The source of the rows' weights: the entry point of a likelihood.

use infermark_cpu_kernels::Simd;
use infermark_model::design::PRODUCT_LATENTS;
use std::sync::Arc;

/// The rows of one product, on the grid of periods: every slice has one entry per period, in whole vectors.
#[derive(Debug, Clone, Copy)]
pub struct ProductRows<'a, const D: usize = PRODUCT_LATENTS> {
    /// The product's index in the panel.
    pub product: usize,
    /// Its category.
    pub category: usize,
    /// The multipliers of the product's latents in the log rate: the regressors, which repeat the first row's
    /// value where there is no row, and then, for the effect, 1 where there is a row and 0 elsewhere.
    pub design: [&'a [f64]; D],
    /// Half of the variances of the log rates under the previous Gaussian; zero if there was none.
    pub half_variance: &'a [f64],
}

impl<'a, const D: usize> ProductRows<'a, D> {
    /// 1 where there is a row, 0 elsewhere.
    #[inline(always)]
    pub fn present(&self) -> &'a [f64] {
        self.design[D - 1]
    }
}

/// The contributions of a product's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProductTerms<const D: usize = PRODUCT_LATENTS> {
    /// Contribution to the value.
    pub value: f64,
    /// Derivatives with respect to its latents, priors included.
    pub gradient: [f64; D],
    /// Derivative of the rows with respect to the log shape of the category, minus the second derivative, and
    /// their expected information on it; zero if there is none.
    pub shape: [f64; 3],
}

/// Gives the rows their weights again, the same to the bit.
pub trait Reweigh<const D: usize = PRODUCT_LATENTS>: Send + Sync {
    /// Replaces `weights` by those that [`Rates::weigh`] gave; `cross` and `by_period` are changed, and mean nothing.
    fn weights(
        &self,
        rows: ProductRows<'_, D>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    );
}

/// Gives the rows their weights.
pub trait Rates<const D: usize = PRODUCT_LATENTS>: Sync {
    /// Replaces `weights` (those of the previous Gaussian, if any) by the rows' weights, zero where there is
    /// no row, and adds the rows' part of the gradient with respect to the period effects of the category to
    /// `by_period`. Where the likelihood has a shape, `cross` receives minus the rows' mixed second
    /// derivatives with respect to log rate and log shape.
    ///
    /// Mark implementations `#[inline(always)]`, so that they are compiled for the instruction set.
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, D>,
        weights: &mut [f64],
        cross: &mut [f64],
        by_period: &mut [f64],
    ) -> ProductTerms<D>;

    /// The same weights computed again, for rows outside of memory: `None` unless they depend on what this owns alone, and not on those of a
    /// previous Gaussian.
    fn again(&self) -> Option<Arc<dyn Reweigh<D>>> {
        None
    }

    /// Minus the second derivative with respect to the log shape of a category that its products' rows leave out.
    fn shape_curvature(&self, _category: usize) -> f64 {
        0.0
    }
}
