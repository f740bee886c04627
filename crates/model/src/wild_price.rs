//! Prices that cannot be prices: a wrong unit, a flipped bit. One of them makes a product impossible to
//! compute, and a failed factorization does not reveal the cause.

use crate::panel::Panel;
use crate::printable::printable;
use std::cmp::Ordering;
use std::f64::consts::LN_10;
use std::fmt;

/// Natural logarithm of the factor from the product's median at which a price is wild: a thousand times above
/// or below.
const WILD: f64 = 3.0 * LN_10;

/// A price far from all others of its product.
#[derive(Debug, Clone, PartialEq)]
pub struct WildPrice {
    /// Index of the product.
    pub product: usize,
    /// The product's label, safe to print.
    pub product_label: String,
    /// The period's label, safe to print.
    pub period_label: String,
    /// Logarithm of the ratio of the price to the product's median price.
    pub log_ratio: f64,
}

impl fmt::Display for WildPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the price of product '{}' in period '{}' is about 1e{:.0} times the product's median price; correct it, or leave the \
             row out",
            self.product_label,
            self.period_label,
            self.log_ratio / LN_10
        )
    }
}

/// The price farthest from its product's median price, among those at least a thousand times above or below
/// it. Every rank that holds the panel's rows takes part.
pub fn wildest_price(panel: &Panel) -> Option<WildPrice> {
    wildest_among(panel, panel.held_products())
}

/// As [`wildest_price`], for one product.
pub fn wild_price_of(panel: &Panel, product: usize) -> Option<WildPrice> {
    wildest_among(panel, Some(product).into_iter().filter(|of| panel.holds(*of)))
}

/// A product, a period and the logarithm of the ratio of its price to the product's median.
type Found = (usize, usize, f64);

/// The farther of two.
fn farther(a: &Found, b: &Found) -> Ordering {
    a.2.abs().total_cmp(&b.2.abs())
}

fn wildest_among(panel: &Panel, products: impl Iterator<Item = usize>) -> Option<WildPrice> {
    let found = products.filter_map(|product| {
        // Where no price is far from the mean, none is twice as far from the median.
        let deviations = &panel.deviation()[panel.row_range(product)];
        if !deviations.iter().any(|d| f64::from(d.abs()) > 0.5 * WILD) {
            return None;
        }
        let mut sorted: Vec<f64> = panel.product_rows(product).map(|row| row.log_price).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        panel
            .product_rows(product)
            .map(|row| (product, row.period, row.log_price - median))
            .filter(|(_, _, log_ratio)| log_ratio.abs() > WILD)
            .max_by(farther)
    });
    let (product, period, log_ratio) = farthest_of_ranks(panel, found.max_by(farther))?;
    let shown = |label: String| printable(&label).into_owned();
    Some(WildPrice {
        product,
        product_label: shown(panel.products().get(product).to_string()),
        period_label: shown(panel.periods().get(period).to_string()),
        log_ratio,
    })
}

/// The farthest of those that the ranks have found; of two that are as far, the one of the later product, as in one process.
fn farthest_of_ranks(panel: &Panel, own: Option<Found>) -> Option<Found> {
    let Some(ranks) = panel.ranks() else {
        return own;
    };
    let mut found = vec![[0.0; 4]; ranks.size()];
    if let Some((product, period, log_ratio)) = own {
        found[ranks.rank()] = [1.0, product as f64, period as f64, log_ratio];
    }
    panel.sum_over_ranks(found.as_flattened_mut());
    let there = found.into_iter().filter(|[is_there, ..]| *is_there > 0.0);
    there
        .map(|[_, product, period, log_ratio]| (product as usize, period as usize, log_ratio))
        .max_by(|a, b| farther(a, b).then(a.0.cmp(&b.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, PanelPart};

    /// Two products of eight periods; the second one's price in the fifth is `price`.
    fn panel(price: f64) -> Panel {
        let mut part = PanelPart::new(1, 8);
        let usual = [2.0, 2.5, 3.0, 2.2, 2.1, 2.9, 2.0, 2.4];
        let mut prices = usual;
        prices[4] = price;
        part.push_product(0, None, &usual, &[1; 8]).unwrap();
        part.push_product(0, None, &prices, &[1; 8]).unwrap();
        Panel::from_parts(
            Labels::Text(vec!["p".into(), "p\u{1b}3".into()]),
            Labels::numbered("c", 1),
            Labels::Integer((11..19).collect()),
            vec![part],
        )
        .unwrap()
    }

    #[test]
    fn a_wild_price_is_named_by_its_labels_in_either_model() {
        for (price, times) in [(1e-300, "1e-300"), (2.3e7, "1e7"), (1e308, "1e308")] {
            for panel in [panel(price), panel(price).with_relative_prices()] {
                let found = wildest_price(&panel).unwrap();
                assert_eq!(wild_price_of(&panel, 1), Some(found.clone()));
                assert_eq!(
                    found.to_string(),
                    format!(
                        "the price of product 'p\\u{{1b}}3' in period '15' is about {times} times the product's median price; \
                         correct it, or leave the row out"
                    )
                );
                assert_eq!(wild_price_of(&panel, 0), None);
            }
        }
        assert_eq!(wildest_price(&panel(200.0)), None);
    }
}
