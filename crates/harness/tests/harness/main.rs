//! The harness on small panels, with backends made of the reference code.

mod benchmark;
mod fake;
mod gaussian_passes;
mod parity;
mod registry;
mod scaling;
mod spread;
