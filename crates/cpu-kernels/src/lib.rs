//! Fused SIMD kernels over the panel, vector noise, and the thread team that runs them.
//!
//! | module | holds |
//! |---|---|
//! | [`simd`] | one vector of lanes on AVX-512, AVX2 and any processor; the only `unsafe` of the project |
//! | [`instruction_set`] | detection at run time |
//! | [`packed_rows`] | the rows in the order and precision of the pass |
//! | [`rows`] | the fused pass over the rows of products |
//! | [`likelihood`] | the likelihood of a chunk of products and its gradient |
//! | [`bare`] | the pass over the rows alone, timed: the limit of an iteration |
//! | [`chunk`] | the panel cut into units of work |
//! | [`log_joint`] | the double-precision log joint, threaded |
//! | [`noise`] | Philox normals, a vector at a time |
//! | [`team`] | threads in lock step |

pub mod bare;
pub mod chunk;
pub mod instruction_set;
pub mod likelihood;
pub mod log_joint;
pub mod noise;
pub mod packed_rows;
pub mod rows;
pub mod simd;
pub mod team;
#[cfg(test)]
mod test_panels;

pub use instruction_set::{ForSimd, InstructionSet};
pub use log_joint::FusedLogJoint;
pub use simd::{Kernel, NoiseSimd, Scalar, Simd};

/// The processor in plain words, for instance `2-core Intel(R) Xeon(R) Processor, AVX-512`.
pub fn device_name() -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{cores}-core {model}, {}", InstructionSet::best())
}
