//! The block-arrowhead factorization of the posterior precision, and its uses: Newton steps, Gaussian
//! marginals, a log determinant and whitening, each in one pass over the panel.
//!
//! For weights `w_it` of the rows (the Poisson rate at the mode, or its mean under a Gaussian) the precision of the natural
//! parameters is
//!
//! ```text
//!         products            border of c             top
//!     [ H_i  (D x D)      B_i  (D x (T+D-1))                 ]
//! Q = [                   D_c  ((T+D-1) x (T+D-1))    -1/s^2 ]
//!     [                                                q     ]
//! ```
//!
//! A product has D latents: a coefficient for each regressor and its effect. Today D is 2, the price
//! elasticity and the effect, which is the default of every type here; only `sites` defines the sites of
//! other models. Each coefficient has a mean in its category, and that one a global mean. Given the border of
//! its category - its period effects and its D - 1 means - a product is independent of all others; given the
//! global means so are the categories. So `Q = L L'` costs `O(rows T)` and stores only the blocks: `L_i` of
//! each product, and the Cholesky factor `R_c` of each category's Schur complement
//! `S_c = D_c - sum_i B_i' H_i^-1 B_i`. The coupling to the border, `V_i = L_i^-1 B_i`, is recomputed from
//! the weights wherever it is needed: 8 bytes per row, or none where rows lie outside of memory and their weights
//! can be computed again.
//!
//! Everything is in double precision: a shift of all effects of a category against its period effects is held
//! only by the priors, so `S_c` is the small difference of sums of rates that are larger by the ratio of
//! counts to priors, 1e7 and more.
//!
//! Sources: the arrowhead structure is that of Rue, Martino and Chopin, "Approximate Bayesian inference for latent Gaussian
//! models", 2009, section 3, and of Ormerod and Wand, "Gaussian variational approximate inference for generalized linear
//! mixed models", 2012, section 3.

mod assemble;
mod batch;
mod block;
mod border;
mod coupling;
mod elsewhere;
mod error;
mod exchange;
mod factor;
mod from_weights;
mod given_border;
mod grid;
mod marginals;
mod moments;
mod partition;
mod ranks;
mod rates;
mod regressor;
mod row_variances;
mod sites;
mod tasks;
mod tiles;
mod triangular;
mod walked;
mod watch;
mod weights;
mod whitener;

pub use assemble::{Assembled, BlockMoments};
pub use batch::WithPeriods;
pub use block::{BlockFactor, BlockMatrix};
pub use elsewhere::{CategoryWalked, ProductThird, ProductWalked, RowsElsewhere, ThirdOrder, Walked};
pub use error::FactorError;
pub use factor::ArrowheadFactor;
pub use given_border::{AtOptimum, GivenBorder};
pub use marginals::Marginals;
pub use moments::{ProductMoments, Visitor};
pub use partition::Partition;
pub use ranks::Ranks;
pub use rates::{ProductRows, ProductTerms, Rates, Reweigh};
pub use regressor::{Column, Regressor};
pub use row_variances::{OfRowVariances, WithAnswers};
pub use sites::{BlockLayout, BlockPriors};
pub use triangular::operations_per_second;
pub use watch::{StopWhen, Watch};
pub use whitener::Whitener;
