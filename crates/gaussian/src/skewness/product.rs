//! Marginals of the products' latents: their coefficients and effects.
//!
//! The group of rows is the product's own. With `F F' = Cov`, `F` lower, and `delta = F u` a row's log rate is
//!
//! ```text
//! d_t = p_t' u + beta_t + e_t,    p_t = F' z_t + f_t,    f_t = F^-1 cov(delta, tau_t),
//! ```
//!
//! `z_t` the regressors and 1, `e_t ~ Normal(0, v_t - p_t' p_t)`. The tilt is the shift minus the
//! contribution of the product's own rows, `F^-1 s_others = F^-1 s + sum_t p_t lambda_t v_t / 2`;
//! `beta_t = s_tau - f_t' F^-1 s` is the shift of the period's effect given `delta = 0`.

use super::expansion::{Expansion, NEGLIGIBLE};
use super::period::{Few, PeriodRow};
use super::rows::{About, Group, Row};
use super::shape::{Shape, exponentials};
use super::shift::AtMode;
use crate::design::{LATENTS, along, at};
use crate::gauss_hermite::Rule;
use infermark_arrowhead::{BlockFactor, FactorError, ProductMoments};
use std::array::from_fn;

/// Marginals of a product.
pub(super) struct ProductMarginals {
    /// Variances of its latents at the centre.
    pub(super) variances: [f64; LATENTS],
    /// Shapes, if they are not nearly normal.
    pub(super) shapes: Option<[Shape; LATENTS]>,
}

/// The marginals of every product, `None` of those of other ranks; also adds the rows in periods with few sales to those periods.
///
/// # Errors
/// When the device that has the rows fails.
pub(super) fn marginals(
    expansion: &Expansion<'_>,
    few: &Few,
) -> Result<Vec<Option<ProductMarginals>>, FactorError> {
    // If everything is known of a product with nearly normal marginals, and no period needs its rows, nothing
    // is left to do.
    let categories = expansion.counts.panel().category_of();
    let is_asked = |i: usize| {
        let known = expansion.known.and_then(|known| known[i].as_ref());
        known.is_none_or(|known| known.third >= NEGLIGIBLE || few.has_any(categories[i] as usize))
    };
    let home;
    let factor = if expansion.factor.is_elsewhere() {
        home = expansion.factor.at_home(is_asked)?;
        &home
    } else {
        expansion.factor
    };
    let rule = Rule::new();
    let visited = factor.for_products(is_asked, |i, moments| {
        let product = Product::new(expansion, &rule, i, moments);
        let rows: Vec<InBlock> = product.rows().collect();
        if few.has_any(product.category) {
            few.add(&product.in_few(&rows, few));
        }
        ProductMarginals {
            variances: from_fn(|k| moments.covariance[k][k]),
            shapes: product.shapes(&rows),
        }
    });
    let normal = |of: &AtMode| ProductMarginals {
        variances: of.variances,
        shapes: None,
    };
    let mut marginals: Vec<Option<ProductMarginals>> = match expansion.known {
        Some(known) => known.iter().map(|of| of.as_ref().map(normal)).collect(),
        None => categories.iter().map(|_| None).collect(),
    };
    for (i, found) in visited {
        marginals[i] = Some(found);
    }
    Ok(marginals)
}

/// A product, its coordinates and its position.
struct Product<'a> {
    expansion: &'a Expansion<'a>,
    rule: &'a Rule<LATENTS>,
    product: usize,
    moments: ProductMoments<'a, LATENTS>,
    /// Positions of its latents.
    places: [usize; LATENTS],
    category: usize,
    /// Position of the first period of its category.
    time: usize,
    /// `F`.
    root: BlockFactor<LATENTS>,
}

/// A row in the coordinates of its product.
struct InBlock {
    period: usize,
    /// The regressors and 1.
    design: [f64; LATENTS],
    /// `lambda_t`.
    rate: f64,
    by: [f64; LATENTS],
    /// `f_t`.
    with_period: [f64; LATENTS],
    /// Variance of the log rate given the product's latents.
    noise: f64,
}

impl InBlock {
    /// Variance of the log rate.
    fn variance(&self) -> f64 {
        let of_block: f64 = self.by.iter().map(|by| by * by).sum();
        of_block + self.noise
    }
}

impl<'a> Product<'a> {
    fn new(
        expansion: &'a Expansion<'a>,
        rule: &'a Rule<LATENTS>,
        product: usize,
        moments: ProductMoments<'a, LATENTS>,
    ) -> Self {
        let layout = expansion.counts.layout();
        let category = expansion.counts.panel().category_of()[product] as usize;
        Product {
            expansion,
            rule,
            product,
            moments,
            places: layout.product_places(product),
            category,
            time: layout.time_index(category, 0),
            root: BlockFactor::unchecked(&moments.covariance),
        }
    }

    /// Its rows; none for a product that is left out at the upper bound.
    fn rows(&self) -> impl Iterator<Item = InBlock> {
        let Expansion {
            counts, point, about, ..
        } = *self.expansion;
        let left_out = counts.leaves_out(self.product);
        let latents = at(point, self.places);
        counts
            .panel()
            .product_rows(self.product)
            .filter(move |_| !left_out)
            .map(move |row| {
                let (t, design) = (row.period, row.design());
                let with_period = self.root.forward(from_fn(|k| self.moments.with_periods[k][t]));
                let mut by = self.root.transpose_times(design);
                by.iter_mut().zip(with_period).for_each(|(by, with)| *by += with);
                let own = |left: f64, with: &f64| left - with * with;
                let noise = with_period.iter().fold(self.moments.periods[t], own);
                let mut row = InBlock {
                    period: t,
                    design,
                    rate: 0.0,
                    by,
                    with_period,
                    noise: noise.max(0.0),
                };
                row.rate = match about {
                    About::Mode => self.moments.weights[t],
                    About::Mean => {
                        let at_centre = along(&latents, &design) + point[self.time + t];
                        (at_centre + about.below(row.variance())).exp()
                    }
                };
                row
            })
    }

    fn shapes(&self, rows: &[InBlock]) -> Option<[Shape; LATENTS]> {
        let cubes = |row: &InBlock| row.by.iter().map(|by| by.abs().powi(3)).sum::<f64>();
        let third = |row: &InBlock| row.rate * cubes(row);
        if rows.iter().map(third).sum::<f64>() < NEGLIGIBLE {
            return None;
        }
        let Expansion {
            about, point, shift, ..
        } = *self.expansion;
        let whitened = self.root.forward(at(shift, self.places));
        let mut tilt = whitened;
        for row in rows {
            let own = about.slope(row.rate, row.variance());
            tilt.iter_mut()
                .zip(row.by)
                .for_each(|(tilt, by)| *tilt += own * by);
        }
        let of_row = |row: &InBlock| Row {
            rate: row.rate,
            variance: row.variance(),
            by: row.by,
            shift: (row.with_period.iter().zip(whitened))
                .fold(shift[self.time + row.period], |left, (with, own)| {
                    left - with * own
                }),
        };
        let group = Group::new(about, rows.iter().map(of_row));
        let mut weights = self.rule.logs.clone();
        group.add_to(&mut weights, tilt);
        exponentials(&mut weights);
        let shape = |k: usize| {
            let row = &self.root.rows()[k];
            let values = self.rule.nodes.iter().map(|node| along(row, node));
            Shape::new(point[self.places[k]], &weights, values)
        };
        let shapes: [Option<Shape>; LATENTS] = from_fn(shape);
        if shapes.iter().any(Option::is_none) {
            return None;
        }
        Some(shapes.map(|shape| shape.expect("each was found")))
    }

    /// Its rows in periods with few sales, in the form that those need.
    fn in_few(&self, rows: &[InBlock], few: &Few) -> Vec<PeriodRow> {
        let shift = self.expansion.shift;
        let of_latents = at(shift, self.places);
        let of_row = |row: &InBlock| {
            let place = self.time + row.period;
            let slot = few.slot(place)?;
            let sd = self.moments.periods[row.period].sqrt();
            let with_periods = from_fn(|k| self.moments.with_periods[k][row.period]);
            let with = along(&with_periods, &row.design);
            Some(PeriodRow {
                slot,
                rate: row.rate,
                by: with / sd + sd,
                variance: row.variance(),
                shift: along(&of_latents, &row.design) + shift[place],
            })
        };
        rows.iter().filter_map(of_row).collect()
    }
}
