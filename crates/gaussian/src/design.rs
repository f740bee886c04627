//! What a product's latents are, as [`infermark_model::design`] says.
//!
//! Everything that is done with a product's latents is done with arrays of them, in loops over [`LATENTS`]; the algebra of blocks, the rule
//! for their marginals and the settling of single products take any number as a parameter.

pub(crate) use infermark_model::design::{
    COEFFICIENTS, PRODUCT_LATENTS as LATENTS, PRODUCT_SITES as SITES, along, at, prior_means,
};
use infermark_model::priors::Priors;
use infermark_model::site::Layout;
use std::ops::Range;

/// Where the effect is among them.
pub(crate) const EFFECT: usize = LATENTS - 1;

/// Prior precisions of a product's latents about [`prior_means`].
pub(crate) fn prior_precisions(priors: &Priors) -> [f64; LATENTS] {
    SITES.map(|site| priors.sd(site).powi(-2))
}

/// The latents that are not a product's own, site by site.
pub(crate) fn above_products(layout: Layout) -> Vec<Range<usize>> {
    let above = layout.sites().iter().filter(|site| !SITES.contains(site));
    above.map(|site| layout.range(*site)).collect()
}
