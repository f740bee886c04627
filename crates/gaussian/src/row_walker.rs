//! Walkers of the rows of the Laplace approximation, other than the host.

use infermark_arrowhead::{AtOptimum, FactorError, Walked};
use std::fmt::Debug;

/// Walks the rows of Poisson counts, with no product left out. Points are natural parameters, in the order of
/// [`infermark_model::Layout`]; pairs are (elasticity, effect), one per place of
/// [`infermark_arrowhead::Partition`].
pub trait RowWalker: Debug + Send + Sync {
    /// Takes the pairs that are to move.
    fn moving(&self, pairs: &[[f64; 2]]) -> Box<dyn MovingPairs>;

    /// Uses the rates at `point` as the rows' weights and computes the inputs of the precision's factor.
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails, [`FactorError::Stopped`] on request.
    fn walked(&self, point: &[f64]) -> Result<Walked, FactorError>;
}

/// Pairs that a device moves, and keeps until they are requested.
pub trait MovingPairs {
    /// Moves the pairs to their optimum given the parameters of `point` above the products, until only
    /// rounding is left, because remaining gradients of products add up along a shift that only the priors
    /// hold. The length of a step and the end of the iteration follow [`MOST_GROWTH`](crate::MOST_GROWTH),
    /// [`LAST_CHANGE`](crate::LAST_CHANGE) and [`STEPS`](crate::STEPS).
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails, [`FactorError::Stopped`] on request.
    fn at_optimum(&mut self, point: &[f64]) -> Result<AtOptimum, FactorError>;

    /// The pairs where they are now.
    ///
    /// # Errors
    /// [`FactorError::Device`] when the device fails.
    fn pairs(&self) -> Result<Vec<[f64; 2]>, FactorError>;
}
