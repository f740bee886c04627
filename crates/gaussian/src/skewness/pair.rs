//! Marginals of (elasticity, effect) of the products.
//!
//! The group of rows is the product's own. With `F F' = Cov`, `F` lower, and `delta = F (u, s)` a row's log rate is
//!
//! ```text
//! d_t = (p_t, q_t) (u, s) + beta_t + e_t,    (p_t, q_t) = F' (x_t, 1)' + f_t,    f_t = F^-1 cov(delta, tau_t),
//! ```
//!
//! `e_t ~ Normal(0, v_t - p_t^2 - q_t^2)`. The tilt is by the shift less what the own rows have done to it,
//! `F^-1 s_others = F^-1 s + sum_t (p_t, q_t) lambda_t v_t / 2`; `beta_t = s_tau - f_t' F^-1 s` is the shift of the period's effect
//! given `delta = 0`.

use super::expansion::{Expansion, NEGLIGIBLE};
use super::period::{Few, PeriodRow};
use super::rows::{About, Group, Row};
use super::shape::{Shape, exponentials};
use super::shift::AtMode;
use crate::gauss_hermite::{NINE, axes};
use infermark_arrowhead::{FactorError, ProductMoments};
use infermark_model::site::Site;
use std::sync::LazyLock;

/// Marginals of a product.
pub(super) struct ProductMarginals {
    /// Of elasticity and effect at the centre.
    pub(super) variances: [f64; 2],
    /// Where they are not about normal.
    pub(super) shapes: Option<[Shape; 2]>,
}

/// The rule in two dimensions: nodes, logs of their weights.
static PAIR_NODES: LazyLock<([[f64; 2]; 81], [f64; 81])> = LazyLock::new(|| {
    let of = |node: usize| axes(node).map(|place| NINE[place]);
    (
        std::array::from_fn(|node| of(node).map(|(at, _)| at)),
        std::array::from_fn(|node| {
            let [(_, first), (_, second)] = of(node);
            (first * second).ln()
        }),
    )
});

/// Of every product; adds the rows in periods with few sales to those.
///
/// # Errors
/// When the device that has the rows fails.
pub(super) fn marginals(expansion: &Expansion<'_>, few: &Few) -> Result<Vec<ProductMarginals>, FactorError> {
    // Where all is known of a product whose marginals are about normal, and no period wants its rows, nothing is left to do.
    let categories = expansion.counts.panel().category_of();
    let is_asked = |i: usize| {
        let known = expansion.known.map(|known| &known[i]);
        known.is_none_or(|known| known.third >= NEGLIGIBLE || few.has_any(categories[i] as usize))
    };
    let home;
    let factor = if expansion.factor.is_elsewhere() {
        home = expansion.factor.at_home(is_asked)?;
        &home
    } else {
        expansion.factor
    };
    let visited = factor.for_products(is_asked, |i, moments| {
        let product = Product::new(expansion, i, moments);
        let rows: Vec<InPair> = product.rows().collect();
        if few.has_any(product.category) {
            few.add(&product.in_few(&rows, few));
        }
        ProductMarginals {
            variances: [moments.elasticity, moments.effect],
            shapes: product.shapes(&rows),
        }
    });
    let Some(known) = expansion.known else {
        return Ok(visited.into_iter().map(|(_, found)| found).collect());
    };
    let normal = |of: &AtMode| ProductMarginals {
        variances: of.variances,
        shapes: None,
    };
    let mut marginals: Vec<ProductMarginals> = known.iter().map(normal).collect();
    for (i, found) in visited {
        marginals[i] = found;
    }
    Ok(marginals)
}

/// A product, its coordinates, and where it is.
struct Product<'a> {
    expansion: &'a Expansion<'a>,
    product: usize,
    moments: ProductMoments<'a>,
    /// Of its pair.
    places: [usize; 2],
    category: usize,
    /// Place of the first period of its category.
    time: usize,
    /// `F`.
    faa: f64,
    fea: f64,
    fee: f64,
}

/// A row in the coordinates of its product.
struct InPair {
    period: usize,
    log_price: f64,
    /// `lambda_t`.
    rate: f64,
    by: [f64; 2],
    /// `f_t`.
    with_period: [f64; 2],
    /// Variance of the log rate given the pair.
    noise: f64,
}

impl InPair {
    /// Of the log rate.
    fn variance(&self) -> f64 {
        self.by[0] * self.by[0] + self.by[1] * self.by[1] + self.noise
    }
}

impl<'a> Product<'a> {
    fn new(expansion: &'a Expansion<'a>, product: usize, moments: ProductMoments<'a>) -> Self {
        let layout = expansion.counts.layout();
        let category = expansion.counts.panel().category_of()[product] as usize;
        let faa = moments.elasticity.sqrt();
        let fea = moments.covariance / faa;
        Product {
            expansion,
            product,
            moments,
            places: [Site::ProductA, Site::ProductEffect].map(|site| layout.start(site) + product),
            category,
            time: layout.time_index(category, 0),
            faa,
            fea,
            fee: (moments.effect - fea * fea).sqrt(),
        }
    }

    /// Its rows; none of a product that is left out at the upper bound.
    fn rows(&self) -> impl Iterator<Item = InPair> {
        let Expansion {
            counts, point, about, ..
        } = *self.expansion;
        let left_out = counts.leaves_out(self.product);
        let [a, e] = self.places;
        counts
            .panel()
            .product_rows(self.product)
            .filter(move |_| !left_out)
            .map(move |row| {
                let (t, x) = (row.period, row.log_price);
                let first = self.moments.elasticity_with_periods[t] / self.faa;
                let second = (self.moments.effect_with_periods[t] - self.fea * first) / self.fee;
                let mut row = InPair {
                    period: t,
                    log_price: x,
                    rate: 0.0,
                    by: [x * self.faa + self.fea + first, self.fee + second],
                    with_period: [first, second],
                    noise: (self.moments.periods[t] - first * first - second * second).max(0.0),
                };
                row.rate = match about {
                    About::Mode => self.moments.weights[t],
                    About::Mean => {
                        let at_centre = point[a] * x + point[e] + point[self.time + t];
                        (at_centre + about.below(row.variance())).exp()
                    }
                };
                row
            })
    }

    fn shapes(&self, rows: &[InPair]) -> Option<[Shape; 2]> {
        let third = |row: &InPair| row.rate * (row.by[0].abs().powi(3) + row.by[1].abs().powi(3));
        if rows.iter().map(third).sum::<f64>() < NEGLIGIBLE {
            return None;
        }
        let Expansion {
            about, point, shift, ..
        } = *self.expansion;
        let [a, e] = self.places;
        // F^-1 s.
        let first = shift[a] / self.faa;
        let whitened = [first, (shift[e] - self.fea * first) / self.fee];
        let mut tilt = whitened;
        for row in rows {
            let own = about.slope(row.rate, row.variance());
            tilt[0] += own * row.by[0];
            tilt[1] += own * row.by[1];
        }
        let of_row = |row: &InPair| Row {
            rate: row.rate,
            variance: row.variance(),
            by: row.by,
            shift: shift[self.time + row.period]
                - row.with_period[0] * whitened[0]
                - row.with_period[1] * whitened[1],
        };
        let group = Group::new(about, rows.iter().map(of_row));
        let (nodes, logs) = &*PAIR_NODES;
        let mut weights = *logs;
        group.add_to(&mut weights, tilt);
        exponentials(&mut weights);
        let elasticity = Shape::new(point[a], &weights, nodes.iter().map(|[u, _]| self.faa * u));
        let effect = nodes.iter().map(|[u, s]| self.fea * u + self.fee * s);
        Some([elasticity?, Shape::new(point[e], &weights, effect)?])
    }

    /// Its rows in periods with few sales, as those want them.
    fn in_few(&self, rows: &[InPair], few: &Few) -> Vec<PeriodRow> {
        let shift = self.expansion.shift;
        let [a, e] = self.places;
        let of_row = |row: &InPair| {
            let place = self.time + row.period;
            let slot = few.slot(place)?;
            let sd = self.moments.periods[row.period].sqrt();
            let with = self.moments.elasticity_with_periods[row.period] * row.log_price
                + self.moments.effect_with_periods[row.period];
            Some(PeriodRow {
                slot,
                rate: row.rate,
                by: with / sd + sd,
                variance: row.variance(),
                shift: shift[a] * row.log_price + shift[e] + shift[place],
            })
        };
        rows.iter().filter_map(of_row).collect()
    }
}
