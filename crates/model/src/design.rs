//! The design of a row: the multipliers of its product's latents in the log rate. The one list of regressors.
//!
//! A product has D latents: a coefficient for each regressor, in the order of [`COEFFICIENTS`], and last its
//! effect, which is multiplied by 1. Another regressor takes a column of the panel, an entry of
//! [`COEFFICIENTS`], its value in [`design_of`], and its mean and its sum over the
//! counts in [`Panel::mean_design`] and [`Panel::units_along`].

use crate::panel::{Panel, Row};
use crate::priors::Priors;
use crate::site::{Layout, Site};
use std::array::from_fn;

/// A regressor of the log rate, and the sites of its coefficient: each product has one, with a mean in its
/// category, which has a global mean.
#[derive(Debug, Clone, Copy)]
pub struct Coefficient {
    /// The regressor's identifier in diagrams.
    pub name: &'static str,
    /// The regressor in the node of a diagram.
    pub label: &'static str,
    /// The regressor in a formula.
    pub symbols: &'static str,
    /// The coefficients of the products.
    pub product: Site,
    /// Their means in the categories.
    pub category: Site,
    /// The mean of these.
    pub global: Site,
}

/// The coefficients of a product, in the order of its latents.
pub const COEFFICIENTS: [Coefficient; 1] = [Coefficient {
    name: "price",
    label: "ln price",
    symbols: "ln price[i,t]",
    product: Site::ProductA,
    category: Site::CategoryA,
    global: Site::GlobalA,
}];

/// D: latents of a product.
pub const PRODUCT_LATENTS: usize = COEFFICIENTS.len() + 1;

/// The index of the effect among them: the last, behind the coefficients.
pub const EFFECT: usize = COEFFICIENTS.len();

/// Their sites.
pub const PRODUCT_SITES: [Site; PRODUCT_LATENTS] = {
    let mut sites = [Site::ProductEffect; PRODUCT_LATENTS];
    let mut k = 0;
    while k < COEFFICIENTS.len() {
        sites[k] = COEFFICIENTS[k].product;
        k += 1;
    }
    sites
};

/// The multipliers of a product's latents in a row: its regressors and 1.
#[inline(always)]
pub const fn design_of(log_price: f64) -> [f64; PRODUCT_LATENTS] {
    [log_price, 1.0]
}

impl Row {
    /// The multipliers of the product's latents, see [`design_of`].
    #[inline(always)]
    pub const fn design(&self) -> [f64; PRODUCT_LATENTS] {
        design_of(self.log_price)
    }
}

impl Panel {
    /// [`Row::design`] of a product's rows, by period.
    #[inline(always)]
    pub fn designs(
        &self,
        product: usize,
    ) -> impl ExactSizeIterator<Item = [f64; PRODUCT_LATENTS]> + Clone + '_ {
        self.log_prices(product).map(design_of)
    }

    /// The mean of [`Row::design`] over a product's rows.
    #[inline(always)]
    pub fn mean_design(&self, product: usize) -> [f64; PRODUCT_LATENTS] {
        [self.mean_log_price()[product], 1.0]
    }

    /// Sums over a product's rows of its counts times [`Row::design`]: their sufficient statistics for its
    /// latents.
    #[inline(always)]
    pub fn units_along(&self, product: usize) -> [f64; PRODUCT_LATENTS] {
        let units = self.sums().product[product] as f64;
        let units_log_price = self.sums().product_deviation[product] + self.mean_log_price()[product] * units;
        [units_log_price, units]
    }
}

impl Layout {
    /// The positions of a product's latents.
    #[inline(always)]
    pub fn product_places(&self, product: usize) -> [usize; PRODUCT_LATENTS] {
        PRODUCT_SITES.map(|site| self.start(site) + product)
    }
}

impl Priors {
    /// The means of a product's latents with nothing else known: the prior means of the global means, and that
    /// of the effect.
    pub fn mean_of_product(&self) -> [f64; PRODUCT_LATENTS] {
        from_fn(|k| match COEFFICIENTS.get(k) {
            Some(sites) => self.constant_mean(sites.global),
            None => self.product_effect_mean,
        })
    }
}

/// Prior means of a product's latents given the border of its category at `point`, which has natural
/// parameters in the order of `layout`.
pub fn prior_means(
    priors: &Priors,
    layout: Layout,
    point: &[f64],
    category: usize,
) -> [f64; PRODUCT_LATENTS] {
    from_fn(|k| match COEFFICIENTS.get(k) {
        Some(sites) => point[layout.start(sites.category) + category],
        None => priors.product_effect_mean,
    })
}

/// The regressors of a product's rows, a column of each.
pub type Regressors = [Vec<f64>; COEFFICIENTS.len()];

/// [`Row::design`] of row `r`, from columns of the regressors.
///
/// # Panics
/// When a column has no entry `r`.
#[inline(always)]
pub fn design_at(regressors: [&[f64]; COEFFICIENTS.len()], r: usize) -> [f64; PRODUCT_LATENTS] {
    let mut design = [1.0; PRODUCT_LATENTS];
    for (x, column) in design.iter_mut().zip(regressors) {
        *x = column[r];
    }
    design
}

/// The contribution of a product's latents to the log rate of a row.
#[inline(always)]
pub fn along<const D: usize>(latents: &[f64; D], design: &[f64; D]) -> f64 {
    latents
        .iter()
        .zip(design)
        .fold(0.0, |sum, (own, x)| sum + own * x)
}

/// The contribution of its coefficients alone, without the effect.
#[inline(always)]
pub fn along_regressors<const D: usize>(latents: &[f64; D], design: &[f64; D]) -> f64 {
    (0..D - 1).fold(0.0, |sum, k| sum + latents[k] * design[k])
}

/// The entries of a vector at some positions.
#[inline(always)]
pub fn at<const D: usize>(of: &[f64], places: [usize; D]) -> [f64; D] {
    from_fn(|k| of[places[k]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, PanelPart};

    #[test]
    fn designs_of_a_product_are_those_of_its_rows() {
        let mut part = PanelPart::new(1, 3);
        part.push_product(0, Some(&[0, 2]), &[2.0, 5.0], &[3, 4]).unwrap();
        let numbered = |n| Labels::numbered("x", n);
        let panel = Panel::from_parts(numbered(1), numbered(1), numbered(3), vec![part]).unwrap();
        let rows: Vec<Row> = panel.product_rows(0).collect();
        let designs: Vec<_> = rows.iter().map(Row::design).collect();
        assert_eq!(panel.designs(0).collect::<Vec<_>>(), designs);
        for k in 0..PRODUCT_LATENTS {
            let mean = designs.iter().map(|design| design[k]).sum::<f64>() / 2.0;
            let counts = rows.iter().zip(&designs);
            let sum: f64 = counts.map(|(row, design)| f64::from(row.units) * design[k]).sum();
            assert!((panel.mean_design(0)[k] - mean).abs() < 1e-14);
            assert!((panel.units_along(0)[k] - sum).abs() < 1e-6);
        }
        let latents = [-2.0, 0.5];
        assert_eq!(along(&latents, &designs[0]), -2.0 * rows[0].log_price + 0.5);
        assert_eq!(along_regressors(&latents, &designs[0]), -2.0 * rows[0].log_price);
    }

    #[test]
    fn coefficients_are_a_chain_of_sites() {
        for sites in COEFFICIENTS {
            assert_eq!(sites.product.parent(), Some(sites.category));
            assert_eq!(sites.category.parent(), Some(sites.global));
            assert_eq!(sites.global.parent(), None);
        }
    }
}
