//! Gaussian posteriors whose precision is the model's own block-arrowhead matrix.
//!
//! | module | holds |
//! |---|---|
//! | [`newton`] | the posterior mode, at which the precision of the Laplace approximation is exact |
//! | [`variational`] | the Gaussians that maximize the evidence lower bound: with the arrowhead's precision, and mean-field |
//! | `counts` | what is fitted: panel, priors and likelihood |
//! | `design` | what a product's latents are |
//! | `clip_bound` | products with counts at the upper clip bound |
//! | `spread` | what a rate is the mean over |
//! | `hierarchy` | what is above the products of the coefficients, given these |
//! | `profile` | the log joint maximized over the products, by light passes |
//! | `pace` | by which part of its change the weights of each product go |
//! | `settle` | the best Gaussian of a product's latents, with all else as it is |
//! | `shape_shift` | how far a shape's joint mode is from its mean |
//! | `gauss_hermite` | rules for means over normals |
//! | `poisson`, `negative_binomial` | weights and residuals of the rows |
//! | `skewness` | means corrected for skewness, and marginals where counts are small |
//! | `row_walker`, `elsewhere` | the Laplace approximation with rows that another device walks |
//! | `cost` | what a fit costs, in words |
//! | `backend`, `run` | the three methods behind the backend trait |
//! | `fault` | faults on purpose, in builds with the feature `faults` alone |

mod backend;
mod clip_bound;
mod cost;
mod counts;
mod design;
mod elsewhere;
#[cfg(feature = "faults")]
mod fault;
mod gauss_hermite;
mod hierarchy;
mod negative_binomial;
pub mod newton;
mod pace;
mod poisson;
mod profile;
mod row_walker;
mod run;
mod settle;
mod shape_shift;
mod skewness;
mod spread;
pub mod variational;

use infermark_model::Likelihood;

pub use backend::{GaussianCpu, LAPLACE, MEANFIELD, STRUCTURED_VI};
pub use counts::Counts;
pub use elsewhere::Elsewhere;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use newton::{Mode, ModeError, ModeSearch, ModeSettings, find_mode};
pub use profile::{LAST_CHANGE, MOST_GROWTH, STEPS};
pub use row_walker::{MovingPairs, RowWalker};

/// Laws of the counts that the pass over the rows has; [`Counts::new`] takes no other.
pub const LIKELIHOODS: &[Likelihood] = &[Likelihood::Poisson, Likelihood::NegativeBinomial];
