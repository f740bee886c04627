//! Stochastic variational inference with Burn's tensors and automatic differentiation: the published algorithm as a user
//! of the library would write it, in the dense `[K, N, T]` form.
//!
//! It serves as a readable counterpart of the fused kernels of `svi-gpu`, for comparison and measurement: one
//! screen of tensor operations ([`LogWeights`]), without derivatives written by hand. Every operation reads
//! and writes whole tensors, and every intermediate of the forward pass is kept for the backward one, so that
//! it needs many times the memory and the time. Sums are in single precision.
//!
//! Its noise is the device's own generator, as in a user's program, so a seed does not give the run of the other
//! backends; fed with recorded noise it follows them step by step.

// Without a runtime there are no devices, and the code for them is unreachable.
#![cfg_attr(
    not(any(feature = "cuda", feature = "wgpu")),
    allow(dead_code, unreachable_code, unused_imports, unused_variables)
)]

mod backend;
mod descent;
mod log_weights;
mod run;

pub use backend::SviTensor;
pub use log_weights::LogWeights;

/// The backend's name.
pub const NAME: &str = "svi-tensor";
