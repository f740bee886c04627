//! The definition of a product's latents, in one place for this crate.
//!
//! All code works on arrays of a product's latents, in loops over [`LATENTS`]; the algebra of blocks, the
//! rule for their marginals and the settling of single products take their number as a parameter.

use infermark_model::Panel;
use infermark_model::panel::Row;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use std::array::from_fn;
use std::ops::Range;

/// Latents of a product: its coefficients, one for each regressor of the log rate, and its effect, last.
pub(crate) const LATENTS: usize = SITES.len();

/// Their sites.
pub(crate) const SITES: [Site; 2] = [Site::ProductA, Site::ProductEffect];

/// The sites of a coefficient: each has a mean in its category, and that one a global mean.
pub(crate) struct Coefficient {
    pub(crate) product: Site,
    pub(crate) category: Site,
    pub(crate) global: Site,
}

/// The coefficients, in the order of the latents.
pub(crate) const COEFFICIENTS: [Coefficient; LATENTS - 1] = [Coefficient {
    product: Site::ProductA,
    category: Site::CategoryA,
    global: Site::GlobalA,
}];

/// What multiplies a product's latents in the log rate of a row: the regressors and 1.
pub(crate) fn design(row: &Row) -> [f64; LATENTS] {
    [row.log_price, 1.0]
}

/// Sums of the counts of a product times [`design`]: their sufficient statistics for its latents.
pub(crate) fn units_along(panel: &Panel, product: usize) -> [f64; LATENTS] {
    let units = panel.sums().product[product] as f64;
    let units_log_price = panel.sums().product_deviation[product] + panel.mean_log_price()[product] * units;
    [units_log_price, units]
}

/// The positions of a product's latents.
pub(crate) fn places(layout: Layout, product: usize) -> [usize; LATENTS] {
    SITES.map(|site| layout.start(site) + product)
}

/// The contribution of a product's latents to the log rate of a row.
pub(crate) fn along<const D: usize>(latents: &[f64; D], design: &[f64; D]) -> f64 {
    latents
        .iter()
        .zip(design)
        .fold(0.0, |sum, (own, x)| sum + own * x)
}

/// The entries of a vector at some positions.
pub(crate) fn at<const D: usize>(of: &[f64], places: [usize; D]) -> [f64; D] {
    from_fn(|k| of[places[k]])
}

/// Means of a product's latents given the border of its category at a point.
pub(crate) fn prior_means(priors: &Priors, layout: Layout, point: &[f64], category: usize) -> [f64; LATENTS] {
    from_fn(|k| match COEFFICIENTS.get(k) {
        Some(sites) => point[layout.start(sites.category) + category],
        None => priors.product_effect_mean,
    })
}

/// Precisions of a product's latents about these.
pub(crate) fn prior_precisions(priors: &Priors) -> [f64; LATENTS] {
    SITES.map(|site| priors.sd(site).powi(-2))
}

/// The latents that do not belong to a product, site by site.
pub(crate) fn above_products(layout: Layout) -> Vec<Range<usize>> {
    let above = layout.sites().iter().filter(|site| !SITES.contains(site));
    above.map(|site| layout.range(*site)).collect()
}
