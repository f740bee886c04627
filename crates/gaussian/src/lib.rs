//! Gaussian posteriors whose precision is the model's own block-arrow matrix.
//!
//! [`newton`] finds the posterior mode; at it the precision of the Laplace approximation is exact. With the rate at
//! the mode replaced by its mean under the Gaussian, `exp(m + v / 2)`, the same steps find the Gaussian that maximizes the
//! evidence lower bound ([`structured`]), without Monte Carlo and without a learning rate.

mod backend;
pub mod newton;
mod rates;
pub mod structured;

pub use backend::{GaussianCpu, LAPLACE, MEANFIELD, STRUCTURED_VI};
pub use newton::{Mode, ModeError, ModeSettings, find_mode};
pub use structured::{StructuredFit, StructuredSettings, fit_structured};
