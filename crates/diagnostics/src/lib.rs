//! Convergence diagnostics of Markov chains: R-hat, effective sample sizes and Monte Carlo standard errors.
//!
//! | module | holds |
//! |---|---|
//! | `diagnosis` | everything about one quantity whose draws are all at hand |
//! | `streaming` | moments, split R-hat and batch-means errors of many quantities whose draws are not kept |
//! | `quantile` | sample quantiles |
//! | `normal_quantile` | the standard normal's quantile function |
//!
//! The figures of [`diagnose`] equal those of ArviZ (`rhat(method="rank")`, `ess(method="bulk")`,
//! `ess(method="tail")`, `mcse(method="mean")`) to rounding.
//!
//! Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner, "Rank-normalization, folding, and localization: an
//! improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16(2), 2021.

mod autocovariance;
mod diagnosis;
mod ess;
mod fourier;
mod normal_quantile;
mod quantile;
mod ranks;
mod rhat;
mod streaming;
mod sums;

pub use diagnosis::{Diagnosis, Workspace, diagnose};
pub use normal_quantile::normal_quantile;
pub use quantile::quantile;
pub use streaming::{BATCHES, StreamingChain, StreamingSummary};
