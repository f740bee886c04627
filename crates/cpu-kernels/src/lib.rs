//! Fused SIMD kernels over the panel, vector noise, and the thread team that runs them.
//!
//! | module | holds |
//! |---|---|
//! | `simd` | one vector of lanes on AVX-512, AVX2 and any processor; the only `unsafe` of this crate |
//! | `dispatch` | work run with the instruction set that is chosen at run time |
//! | [`packed_rows`] | the rows in the order and precision of the pass |
//! | [`rows`] | the fused pass over the rows of products |
//! | [`likelihood`] | the Poisson likelihood of a chunk of products and its gradient |
//! | [`negative_binomial`] | the same for negative-binomial counts |
//! | `distinct_counts` | the part of it that depends only on counts and shape |
//! | [`bare`] | the pass over the rows alone, timed: the limit of an iteration |
//! | [`chunk`] | the panel cut into units of work |
//! | `log_joint` | the double-precision log joint, threaded |
//! | [`noise`] | Philox normals, a vector at a time |
//! | [`team`] | a leader and helpers that work through an iteration's phases |

pub mod bare;
pub mod chunk;
mod dispatch;
mod distinct_counts;
pub mod likelihood;
mod log_joint;
pub mod negative_binomial;
pub mod noise;
pub mod packed_rows;
pub mod rows;
mod simd;
pub mod team;

pub use dispatch::{ForSimd, SimdDispatch};
pub use distinct_counts::{DistinctCounts, distinct_counts, distinct_counts_of_all};
pub use log_joint::FusedLogJoint;
pub use simd::{Kernel, NoiseSimd, Scalar, Simd, lanes_below};
