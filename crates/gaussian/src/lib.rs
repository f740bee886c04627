//! Gaussian posteriors whose precision is the model's own block-arrowhead matrix.
//!
//! | module | holds |
//! |---|---|
//! | `newton` | the posterior mode, with the exact precision there for the Laplace approximation |
//! | [`variational`] | the Gaussians that maximize the evidence lower bound: with the arrowhead's precision, and mean-field |
//! | `objective` | the objective: panel, priors and likelihood |
//! | `design` | the definition of a product's latents |
//! | `clip_bound` | products with counts at the upper clip bound |
//! | `averaging` | the distribution over which a rate is averaged |
//! | `hierarchy` | the coefficients above the products, given the products' coefficients |
//! | `over_ranks` | sums over all products and latents, of which a rank has a part |
//! | `profile` | the log joint maximized over the products, by light passes |
//! | `pace` | which fraction of its change each product's weights make in a step |
//! | `settle` | the best Gaussian of a product's latents, with all else fixed |
//! | `shape_shift` | how far a shape's joint mode is from its mean |
//! | `gauss_hermite` | rules for means over normals |
//! | `poisson`, `negative_binomial` | weights and residuals of the rows |
//! | `skewness` | means corrected for skewness, and marginals where counts are small |
//! | `row_walker`, `elsewhere` | the Laplace approximation with rows that another device walks |
//! | `cost` | what a fit costs, in words |
//! | `sharded` | runs over a panel cut by product, each by a rank of its own |
//! | `backend`, `run` | the three methods behind the backend trait |
//! | `fault` | deliberate faults, only in builds with the feature `faults` |

mod averaging;
mod backend;
mod clip_bound;
mod cost;
mod design;
mod elsewhere;
#[cfg(feature = "faults")]
mod fault;
mod gauss_hermite;
mod hierarchy;
mod negative_binomial;
mod newton;
mod objective;
mod over_ranks;
mod pace;
mod poisson;
mod profile;
mod row_walker;
mod run;
mod settle;
mod shape_shift;
mod sharded;
mod skewness;
pub mod variational;

use infermark_model::Likelihood;

pub use backend::{GaussianCpu, LAPLACE, MEANFIELD, STRUCTURED_VI};
pub use elsewhere::Elsewhere;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use newton::{Mode, ModeError, ModeSearch, ModeSettings, find_mode};
pub use objective::GaussianObjective;
pub use profile::{LAST_CHANGE, MOST_GROWTH, STEPS};
pub use row_walker::{MovingPairs, RowWalker};

/// Laws of the counts that the pass over the rows has; [`GaussianObjective::new`] takes no other.
pub const LIKELIHOODS: &[Likelihood] = &[Likelihood::Poisson, Likelihood::NegativeBinomial];
