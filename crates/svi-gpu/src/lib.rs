//! Stochastic variational inference on one GPU: the published algorithm in three launches per iteration.
//!
//! One kernel source serves CUDA, Vulkan and Metal (CubeCL). Guide, objective, optimizer, schedule and noise
//! are those of the model crate: a run draws the same noise from a seed as the CPU's does. `docs/gpu.md`
//! describes the layout.

// Without a runtime there are no devices, and the code for them is unreachable.
#![cfg_attr(
    not(any(feature = "cuda", feature = "wgpu")),
    allow(dead_code, unreachable_code, unused_imports, unused_variables)
)]

mod backend;
mod fused;
mod profile;
mod run;
mod shard;

pub use backend::{SviGpu, Variant};
pub use profile::{BatchTime, LaunchTime, Profile};

/// The backend's name.
pub const NAME: &str = "svi-gpu";
