//! Reasons for having no factor.

use infermark_communicator::CommunicationError;

/// Reasons for having no factor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactorError {
    /// A product's block is not positive definite: a weight is negative or not finite.
    #[error(
        "the precision of product {0} is not positive definite: a weight of its rows is negative or not finite"
    )]
    Product(usize),
    /// A category's Schur complement is not positive definite.
    #[error(
        "the precision of category {0} is not positive definite: weights of its rows are too large for double precision"
    )]
    Category(usize),
    /// [`Watch::stop_when`](crate::Watch::stop_when) asked to stop.
    #[error("stopped on request")]
    Stopped,
    /// The device that has the rows failed.
    #[error("{0}")]
    Device(String),
    /// Weights of rows that lie outside of memory cannot be stored next to them.
    #[error("{0}")]
    Storage(String),
    /// Another rank of the walk has gone, or does not answer.
    #[error(transparent)]
    Communication(#[from] CommunicationError),
}
