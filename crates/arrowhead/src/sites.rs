//! Positions and priors of the latents of a model whose products have D latents.
//!
//! Everything in this crate that depends on the model's sites and priors uses this module.

use infermark_model::Likelihood;
use infermark_model::design::{COEFFICIENTS, Coefficient, PRODUCT_LATENTS, PRODUCT_SITES};
use infermark_model::{Layout, Priors, Site};
use std::array::from_fn;

/// Positions of the sites in one flat vector of natural parameters. A product's latents are its D - 1
/// coefficients and its effect, last; each coefficient has a mean in its category and that one a global mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLayout<const D: usize> {
    /// The global means of the coefficients; the last entry has no meaning.
    pub global: [usize; D],
    /// The first of the C category means of each coefficient; the last entry has no meaning.
    pub category: [usize; D],
    /// The first of the N products' latents of each kind.
    pub product: [usize; D],
    /// The first of the C x T period effects, category-major.
    pub time: usize,
    /// The first of the C log shapes, if the likelihood has them.
    pub log_shape: usize,
    /// Number of latents.
    pub latents: usize,
}

impl<const D: usize> BlockLayout<D> {
    /// Global means, means of the categories, coefficients and effects of the products, period effects, log shapes, in this order.
    pub fn new(sizes: Layout) -> Self {
        const { assert!(D > 0, "a product has an effect") };
        let (n, c, coefficients) = (sizes.products, sizes.categories, D - 1);
        let categories = coefficients;
        let products = categories + coefficients * c;
        let time = products + D * n;
        let log_shape = time + c * sizes.periods;
        BlockLayout {
            global: from_fn(|k| k),
            category: from_fn(|k| categories + k * c),
            product: from_fn(|k| products + k * n),
            time,
            log_shape,
            latents: log_shape
                + match sizes.likelihood {
                    Likelihood::Poisson => 0,
                    Likelihood::NegativeBinomial => c,
                },
        }
    }
}

/// `of` for each coefficient, and `none` for the effect.
fn of_coefficients<T>(of: impl Fn(&Coefficient) -> T, none: T) -> [T; PRODUCT_LATENTS]
where
    T: Copy,
{
    from_fn(|k| COEFFICIENTS.get(k).map_or(none, &of))
}

impl BlockLayout<PRODUCT_LATENTS> {
    /// The layout of the model, whose coefficients are [`COEFFICIENTS`].
    pub fn of_model(layout: Layout) -> Self {
        BlockLayout {
            global: of_coefficients(|sites| layout.start(sites.global), usize::MAX),
            category: of_coefficients(|sites| layout.start(sites.category), usize::MAX),
            product: layout.product_places(0),
            time: layout.start(Site::TimeCatEffects),
            log_shape: layout.start(Site::LogShape),
            latents: layout.latents(),
        }
    }
}

/// Precisions of the priors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockPriors<const D: usize> {
    /// Precisions of the global means of the coefficients; the last entry has no meaning.
    pub global: [f64; D],
    /// Precisions of the categories' means about the global ones; the last entry has no meaning.
    pub category: [f64; D],
    /// Precisions of the products' coefficients about those of their category, then of the effects.
    pub product: [f64; D],
    /// Precision of the period effects.
    pub time: f64,
    /// Precision of the log shapes.
    pub log_shape: f64,
}

impl From<&Priors> for BlockPriors<PRODUCT_LATENTS> {
    fn from(priors: &Priors) -> Self {
        let precision = |sd: f64| sd.powi(-2);
        BlockPriors {
            global: of_coefficients(|sites| precision(priors.sd(sites.global)), 0.0),
            category: of_coefficients(|sites| precision(priors.sd(sites.category)), 0.0),
            product: PRODUCT_SITES.map(|site| precision(priors.sd(site))),
            time: precision(priors.time_cat_effects_sd),
            log_shape: precision(priors.log_shape_sd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_s_layout_is_the_general_one_of_two_latents() {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let layout = Layout::new(7, 3, 5).with_likelihood(likelihood);
            let (model, general) = (BlockLayout::of_model(layout), BlockLayout::<2>::new(layout));
            assert_eq!(
                (model.global[0], model.category[0], model.product),
                (general.global[0], general.category[0], general.product)
            );
            assert_eq!(
                (model.time, model.log_shape, model.latents),
                (general.time, general.log_shape, general.latents)
            );
        }
    }
}
