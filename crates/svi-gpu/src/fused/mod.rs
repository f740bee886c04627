//! The fused kernels and the code that drives them.

mod axes;
pub(crate) mod crossing;
pub(crate) mod engine;
mod fold;
mod frame;
mod hierarchy;
mod latent;
pub(crate) mod layout;
pub(crate) mod limits;
mod math;
mod part;
mod products;
#[cfg(test)]
mod tests;
mod two_float;
