//! The panel's axes, as the host gives them to each launch, and where the latents of a product and of a category lie.

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

/// Index of the elasticity of product `p`; its effect lies N later.
#[cube]
pub(super) fn product_latent(axes: Axes, p: u32) -> u32 {
    axes.categories + 1u32 + p
}

/// Index of the first period effect of a category.
#[cube]
pub(super) fn period_latent(axes: Axes, category: u32) -> u32 {
    1u32 + axes.categories + 2u32 * axes.products + category * axes.periods
}
