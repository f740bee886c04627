//! The sites' centredness, where it is learned: derivative, step, and the transforms that follow from it.

use super::super::axes::Axes;
use super::super::fold::{OF_EFFECTS, OF_ELASTICITIES, category_sum};
use super::super::frame::frame_transform;
use super::super::latent::{Step, descend};
use super::super::math::{LOG2_E, exp2, softplus};
use super::sums::centredness_entry;
use super::task::{Sites, Task};
use cubecl::prelude::*;

/// Numbers a site's centredness takes: unconstrained value, two moments, derivative of the loss.
pub(in crate::fused) const CENTREDNESS_LEN: usize = 4;

/// Sets (for the first particle) or adds a particle's part of the derivative with respect to a site's
/// centredness.
#[cube]
pub(super) fn add_centredness(
    centredness: &mut Array<f32>,
    #[comptime] site: usize,
    #[comptime] k: usize,
    part: f32,
) {
    let at = comptime!(site * CENTREDNESS_LEN + 3);
    if comptime!(k == 0) {
        centredness[at] = part;
    } else {
        centredness[at] += part;
    }
}

/// Adds up the derivatives with respect to the centredness of the products' sites and the period effects; the
/// top's are known. Then all five are converted to the loss's, and make their step. One thread's work.
#[cube]
pub(super) fn learn_sites(
    folded: &Array<f32>,
    prior_sums: &Array<f32>,
    centredness: &mut Array<f32>,
    frame: &mut Array<f32>,
    weights: &Array<f32>,
    may_step: bool,
    axes: Axes,
    sites: Sites,
    step: Step,
    #[comptime] task: Task,
) {
    let count = comptime!(task.particles);
    #[unroll]
    for k in 0..count {
        let mut a = 0.0f32;
        let mut e = 0.0f32;
        let mut t = 0.0f32;
        for c in 0..axes.categories {
            let k = comptime!(k).runtime();
            a += folded[category_sum(OF_ELASTICITIES, c, k, axes, comptime!(task.sums()))];
            e += folded[category_sum(OF_EFFECTS, c, k, axes, comptime!(task.sums()))];
            t += prior_sums[centredness_entry(c, axes, count) + k];
        }
        add_centredness(centredness, 2usize, k, weights[k] * a);
        add_centredness(centredness, 3usize, k, weights[k] * e);
        add_centredness(centredness, 4usize, k, weights[k] * t);
    }
    #[unroll]
    for site in 0..5usize {
        turn_back_centredness(centredness, site);
    }
    if may_step {
        learn_centredness(centredness, frame, 0usize, sites.global_ln_sd, step, count);
        learn_centredness(centredness, frame, 1usize, sites.category_ln_sd, step, count);
        learn_centredness(centredness, frame, 2usize, sites.product_ln_sd, step, count);
        learn_centredness(centredness, frame, 3usize, sites.effect_ln_sd, step, count);
        learn_centredness(centredness, frame, 4usize, sites.time_ln_sd, step, count);
    }
}

/// Converts the derivative with respect to a site's centredness into that of the loss with respect to its
/// unconstrained value.
#[cube]
fn turn_back_centredness(centredness: &mut Array<f32>, #[comptime] site: usize) {
    let at = comptime!(site * CENTREDNESS_LEN);
    let (_, c) = softplus(centredness[at]);
    centredness[at + 3] = -centredness[at + 3] * c * (1.0 - c);
}

/// Makes the step of a site's centredness, and renews the transform.
#[cube]
fn learn_centredness(
    centredness: &mut Array<f32>,
    frame: &mut Array<f32>,
    #[comptime] site: usize,
    ln_sd: f32,
    step: Step,
    #[comptime] count: usize,
) {
    let at = comptime!(site * CENTREDNESS_LEN).runtime();
    let gradient = centredness[at + 3];
    descend(centredness, at, at + 1, at + 2, gradient, step);
    let (_, c) = softplus(centredness[at]);
    let to = frame_transform(site, count);
    frame[to] = c;
    frame[to + 1] = ln_sd;
    frame[to + 2] = exp2((1.0 - c) * ln_sd * LOG2_E);
    frame[to + 3] = exp2(-2.0 * c * ln_sd * LOG2_E);
}
