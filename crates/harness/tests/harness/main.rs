//! The harness on small panels, with backends made of the reference code.

mod benchmark;
mod fake;
mod fit_output;
mod gaussian_passes;
mod parity;
mod pictures;
mod registry;
mod synthetic;
mod tables;
