//! The starting point of the corrections.

use super::rows::About;
use super::shift::AtMode;
use crate::objective::GaussianObjective;
use infermark_arrowhead::ArrowheadFactor;

/// Third-order part of the log density, at one standard deviation, below which a marginal is taken as normal.
pub(super) const NEGLIGIBLE: f64 = 0.05;

/// The starting point of the corrections.
pub(super) struct Expansion<'a> {
    pub(super) counts: &'a GaussianObjective,
    pub(super) about: About,
    /// The mode, or the mean.
    pub(super) point: &'a [f64],
    /// The distance of the mean from it, to first order.
    pub(super) shift: &'a [f64],
    /// What is already known of every product, about the mode; `None` of the products of other ranks.
    pub(super) known: Option<&'a [Option<AtMode>]>,
    /// The precision there.
    pub(super) factor: &'a ArrowheadFactor,
}
