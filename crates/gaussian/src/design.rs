//! A product's latents, from [`infermark_model::design`].
//!
//! All code works on arrays of a product's latents, in loops over [`LATENTS`]; the algebra of blocks, the
//! rule for their marginals and the settling of single products take their number as a parameter.

pub(crate) use infermark_model::design::{
    COEFFICIENTS, EFFECT, PRODUCT_LATENTS as LATENTS, PRODUCT_SITES, along, at, prior_means,
};
use infermark_model::{Layout, Priors};
use std::ops::Range;

/// A number for each of them.
pub(crate) type PerLatent = [f64; LATENTS];

/// Prior precisions of a product's latents about [`prior_means`].
pub(crate) fn prior_precisions(priors: &Priors) -> [f64; LATENTS] {
    PRODUCT_SITES.map(|site| priors.sd(site).powi(-2))
}

/// The latents that do not belong to a product, site by site.
pub(crate) fn above_products(layout: Layout) -> Vec<Range<usize>> {
    let above = layout.sites().iter().filter(|site| !PRODUCT_SITES.contains(site));
    above.map(|site| layout.range(*site)).collect()
}
