//! The exact Laplace approximation with its walks over the rows on one GPU, in double precision.
//!
//! The cost of a Newton step is the walk: rates, blocks of the products, and Schur complements of the
//! borders. Here the device does it, from one kernel source for CUDA and Vulkan (CubeCL), and the same bits
//! on every run of a device. The search itself, the borders' factors and everything above them are those of
//! `infermark-gaussian`, on the host. `docs/exact.md`, "On a GPU", has the cost estimate.

// Without a runtime there are no devices, and the code for them is unreachable.
#![cfg_attr(
    not(any(feature = "cuda", feature = "wgpu")),
    allow(dead_code, unreachable_code, unused_imports, unused_variables)
)]

mod backend;
mod engine;
mod kernels;
mod plan;

pub use backend::LaplaceGpu;

/// The backend's name.
pub const NAME: &str = "laplace-gpu";
