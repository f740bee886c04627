//! Who walks the rows of the Laplace approximation, where the host does not.

use infermark_arrowhead::{AtOptimum, FactorError, Walked};
use infermark_model::design::PRODUCT_LATENTS;
use std::fmt::Debug;

/// Who walks the rows of Poisson counts, none of whose products is left out. Points are natural parameters, in the order of
/// [`infermark_model::Layout`]; pairs are the latents of a product, one a place of [`infermark_arrowhead::Walk`].
pub trait RowWalker: Debug + Send + Sync {
    /// Takes pairs that are to move.
    fn moving(&self, pairs: &[[f64; PRODUCT_LATENTS]]) -> Box<dyn MovingPairs>;

    /// Takes the rates at `point` for the rows' weights and makes of them what the precision is factored from.
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails, [`FactorError::Stopped`] on request.
    fn walked(&self, point: &[f64]) -> Result<Walked, FactorError>;
}

/// Pairs that a device moves, and has until they are asked for.
pub trait MovingPairs {
    /// Moves the pairs to their optimum given what `point` has above the products: where no step is left but rounding, since
    /// what is left of products' gradients adds up along a shift that the priors alone hold. What of a step is made at most, and when
    /// the last one was, say [`MOST_GROWTH`](crate::MOST_GROWTH), [`LAST_CHANGE`](crate::LAST_CHANGE) and [`STEPS`](crate::STEPS).
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails, [`FactorError::Stopped`] on request.
    fn at_optimum(&mut self, point: &[f64]) -> Result<AtOptimum, FactorError>;

    /// The pairs where they are now.
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails.
    fn pairs(&self) -> Result<Vec<[f64; PRODUCT_LATENTS]>, FactorError>;
}
