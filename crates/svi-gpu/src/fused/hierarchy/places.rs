//! The places of a category's period effects in orthogonal coordinates: free numbers of the contrasts, then the level.

use super::super::axes::{Axes, period_latent};
use super::super::latent::Transform;
use super::super::math::ln;
use super::task::Sites;
use cubecl::prelude::*;

/// What is fixed of a category's places.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Places {
    /// Index of the first latent.
    pub(super) start: usize,
    /// The place of the level, `T - 1`.
    pub(super) last: usize,
    /// The isometry: see `infermark_model::ZeroSum`.
    pub(super) shared: f32,
    pub(super) of_last: f32,
    /// Transform of the free numbers, whose prior mean is zero.
    pub(super) free: Transform,
    pub(super) level: Transform,
    pub(super) level_mean: f32,
}

/// The places of category `c`, whose free numbers have the transform of the site.
#[cube]
pub(super) fn places_of(c: u32, free: Transform, sites: Sites, axes: Axes) -> Places {
    let periods = f32::cast_from(axes.periods);
    let root = periods.sqrt();
    Places {
        start: period_latent(axes, c) as usize,
        last: axes.periods as usize - 1,
        shared: 1.0f32 / (root * (root + 1.0f32)),
        of_last: 1.0f32 / root,
        free,
        // The mean of T period effects: its sd is theirs by sqrt T.
        level: Transform {
            centredness: free.centredness,
            ln_sd: free.ln_sd - 0.5f32 * ln(periods),
            stretch: free.stretch,
            precision: free.precision * periods,
        },
        level_mean: sites.time_mean,
    }
}

/// The transform of place t.
#[cube]
pub(super) fn transform_of(places: Places, t: usize) -> Transform {
    let is_level = t == places.last;
    Transform {
        centredness: places.free.centredness,
        ln_sd: select(is_level, places.level.ln_sd, places.free.ln_sd),
        stretch: places.free.stretch,
        precision: select(is_level, places.level.precision, places.free.precision),
    }
}

/// The prior mean of place t.
#[cube]
pub(super) fn mean_of(places: Places, t: usize) -> f32 {
    select(t == places.last, places.level_mean, 0.0f32)
}
