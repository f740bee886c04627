//! The coefficients above the products, given the products' coefficients.

use crate::design::{COEFFICIENTS, LATENTS};
use crate::objective::GaussianObjective;

/// Moves the categories' and the global coefficients of a point to their optimum given the sums of the
/// products' coefficients of every category. The optimum is their conditional mean: given these sums they
/// depend on nothing else, and their joint density is normal.
pub(crate) fn above_products(counts: &GaussianObjective, point: &mut [f64], sums: &[[f64; LATENTS]]) {
    let (layout, priors) = (counts.layout(), counts.priors());
    for (k, sites) in COEFFICIENTS.iter().enumerate() {
        let [top, above, own] =
            [sites.global, sites.category, sites.product].map(|site| priors.sd(site).powi(-2));
        let global = layout.start(sites.global);
        // The global coefficient, with the categories eliminated.
        let (mut precision, mut pull) = (top, top * priors.constant_mean(sites.global));
        for (c, sums) in sums.iter().enumerate() {
            let n = counts.partition().products_of(c) as f64;
            let part = above / (above + own * n);
            precision += part * own * n;
            pull += part * own * sums[k];
        }
        point[global] = pull / precision;
        for ((c, j), sums) in layout.range(sites.category).enumerate().zip(sums) {
            let n = counts.partition().products_of(c) as f64;
            point[j] = (above * point[global] + own * sums[k]) / (above + own * n);
        }
    }
}
