//! The frame: the data that the hierarchy's launch passes to the products' launch. One buffer of `f32`:
//!
//! weights (K), health (1 where the last loss was finite: then the step may be made), the five sites' transforms
//! (4 each), the categories' elasticities (C x K), the smallest and largest period effect of each category and
//! particle times `log2 e` (C x K x 2), and in orthogonal coordinates what the categories' levels and contrasts move the prior
//! mean of their products' effects by, `l + w` (C x K).

use super::latent::TRANSFORM_LEN;
use cubecl::prelude::*;

/// Numbers before the categories' values.
pub(super) const fn frame_head(particles: usize) -> usize {
    particles + 1 + 5 * TRANSFORM_LEN
}

/// Numbers in the frame.
pub(super) const fn frame_len(categories: usize, particles: usize, orthogonal: bool) -> usize {
    let of_category = if orthogonal { 4 } else { 3 };
    frame_head(particles) + of_category * categories * particles
}

/// Index of the first transform.
pub(super) const fn frame_transforms(particles: usize) -> usize {
    particles + 1
}

/// Index of the health.
#[cube]
pub(super) fn frame_health(#[comptime] particles: usize) -> usize {
    particles.runtime()
}

/// Index of a site's transform.
#[cube]
pub(super) fn frame_transform(#[comptime] site: usize, #[comptime] particles: usize) -> usize {
    comptime!(particles + 1 + TRANSFORM_LEN * site).runtime()
}

/// Index of a category's elasticity in particle k.
#[cube]
pub(super) fn frame_category(category: u32, #[comptime] k: usize, #[comptime] particles: usize) -> usize {
    category as usize * particles + comptime!(frame_head(particles) + k)
}

/// Index of the smallest effect of a category in particle k; the largest follows.
#[cube]
pub(super) fn frame_range(
    categories: u32,
    category: u32,
    #[comptime] k: usize,
    #[comptime] particles: usize,
) -> usize {
    let before = (categories + 2u32 * category) as usize * particles;
    before + comptime!(frame_head(particles) + 2 * k)
}

/// Index of a category's `l + w` in particle k.
#[cube]
pub(super) fn frame_shift(
    categories: u32,
    category: u32,
    #[comptime] k: usize,
    #[comptime] particles: usize,
) -> usize {
    let before = (3u32 * categories + category) as usize * particles;
    before + comptime!(frame_head(particles) + k)
}
