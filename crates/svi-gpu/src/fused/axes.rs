//! The panel's axes, as the host gives them to each launch.

use cubecl::prelude::*;

/// The lengths of the axes.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Axes {
    /// C.
    pub(super) categories: u32,
    /// T.
    pub(super) periods: u32,
    /// N.
    pub(super) products: u32,
    /// L.
    pub(super) latents: u32,
    /// Vectors of four periods in a product.
    pub(super) stride: u32,
}
