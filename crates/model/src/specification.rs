//! Which model is fitted: the published specification, or the one for your own sales.
//!
//! Both have the same sites and the same likelihoods; they differ in the reference of a price, the clip
//! bounds and the prior mean of `product_effect`. [`Specification::panel`] and [`Specification::priors`] turn
//! a choice into a panel and priors, which is all that a backend sees.
//!
//! **Published**: `x_it = ln price_it`. The logarithm is not centred, so `product_effect[i]` is the log rate at a price of 1,
//! outside the prices of nearly every product, and its prior pulls on the slope: the same sales in cents and in dollars have
//! different elasticities.
//!
//! **Sales**: `x_it = ln(price_it / usual_i)`, with `usual_i` the geometric mean of the product's prices over
//! its rows. `product_effect[i]` is then the log of the product's units per period at its usual price, apart
//! from the period's effect. The unit of the prices cancels. A product that never changed its price has
//! `x_it = 0` in every row: its sales carry no information on its elasticity, which keeps the distribution
//! given by its category.

use crate::design::{COEFFICIENTS, Coefficient};
use crate::panel::Panel;
use crate::priors::Priors;
use serde::{Deserialize, Serialize};

/// Lower and upper bound of the log rate under [`Specification::Sales`], `exp` of which is 1e-13 and 1e13 units per row.
///
/// They only keep numbers finite. The upper one is 8.5 above the log of 2^31 - 1, the largest count of a row,
/// and the square of its rate, which optimizers take, is far below the largest `f32` (1e26 against 3e38). The
/// lower one is 25 below one unit sold in a hundred rows: no row with information in a panel comes near
/// either.
pub const SALES_CLIP: (f64, f64) = (-30.0, 30.0);

/// A model of the family that this program fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Specification {
    /// The published specification. The default, because results written before this field existed used it.
    #[default]
    Published,
    /// Prices relative to each product's usual price, and clip bounds that only keep numbers finite.
    Sales,
}

impl Specification {
    /// The name in the command and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Specification::Published => "published",
            Specification::Sales => "sales",
        }
    }

    /// The panel as this model reads it.
    ///
    /// # Errors
    /// Those of [`Panel::into_relative_prices`], where the rows lie outside of memory.
    pub fn panel(self, panel: Panel) -> std::io::Result<Panel> {
        match self {
            Specification::Published => Ok(panel),
            Specification::Sales => panel.into_relative_prices(),
        }
    }

    /// The model's coefficients, with the regressors as this model has them.
    pub fn coefficients(self) -> [Coefficient; COEFFICIENTS.len()] {
        COEFFICIENTS.map(|of| match (self, of.name) {
            (Specification::Sales, "price") => Coefficient {
                label: "ln relative price",
                symbols: "ln(price[i,t] / usual_price[i])",
                ..of
            },
            _ => of,
        })
    }

    /// The default priors, as far as they do not depend on the data; [`Specification::priors`] completes them.
    pub fn constant_priors(self) -> Priors {
        match self {
            Specification::Published => Priors::default(),
            Specification::Sales => Priors {
                clip_low: SALES_CLIP.0,
                clip_high: SALES_CLIP.1,
                ..Priors::default()
            },
        }
    }

    /// The default priors for `panel`.
    ///
    /// Under [`Specification::Sales`] the mean of `product_effect` is the log of the units per row of the panel's median
    /// product, see [`median_log_units`]: with the standard deviation of 3 that the published model has, products from 400
    /// times less to 400 times more than that are within two standard deviations, for instance 1 to 100,000 units per period.
    pub fn priors(self, panel: &Panel) -> Priors {
        let constant = self.constant_priors();
        match self {
            Specification::Published => constant,
            Specification::Sales => Priors {
                product_effect_mean: median_log_units(panel),
                ..constant
            },
        }
    }
}

/// Median over products of `ln((units + 1/2) / rows)`, to three decimals: the half keeps products without sales finite.
pub fn median_log_units(panel: &Panel) -> f64 {
    let products = panel.sums().product.iter().enumerate();
    let mut logs: Vec<f64> = products
        .map(|(i, units)| ((*units as f64 + 0.5) / panel.rows_of(i) as f64).ln())
        .collect();
    logs.sort_by(f64::total_cmp);
    let (low, high) = (logs[(logs.len() - 1) / 2], logs[logs.len() / 2]);
    (1e3 * 0.5 * (low + high)).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, PanelPart};

    /// Three products: 0, 20 and 4,000,000 units in two rows.
    fn panel() -> Panel {
        let mut part = PanelPart::new(1, 2);
        for units in [[0, 0], [20, 0], [2_000_000, 2_000_000]] {
            part.push_product(0, None, &[2.0, 3.0], &units).unwrap();
        }
        Panel::from_parts(
            Labels::numbered("p", 3),
            Labels::numbered("c", 1),
            Labels::numbered("t", 2),
            vec![part],
        )
        .unwrap()
    }

    #[test]
    fn the_published_model_is_what_it_was() {
        let panel = panel();
        assert_eq!(Specification::Published.priors(&panel), Priors::default());
        assert_eq!(Specification::Published.panel(panel.clone()).unwrap(), panel);
        assert_eq!(Specification::default(), Specification::Published);
    }

    #[test]
    fn effects_of_the_sales_model_are_centred_where_the_median_product_sells() {
        let priors = Specification::Sales.priors(&panel());
        assert_eq!(priors.product_effect_mean, (1e3 * 10.25f64.ln()).round() / 1e3);
        assert_eq!((priors.clip_low, priors.clip_high), SALES_CLIP);
        assert!(priors.validate().is_ok());
        // A count of the largest size stays away from the bound by any standard.
        assert!(f64::from(i32::MAX).ln() + 8.0 < priors.clip_high);
    }

    #[test]
    fn names_in_files_are_the_commands() {
        for model in [Specification::Published, Specification::Sales] {
            let name: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
                serde::de::IntoDeserializer::into_deserializer(model.name());
            assert_eq!(Specification::deserialize(name), Ok(model));
        }
    }
}
