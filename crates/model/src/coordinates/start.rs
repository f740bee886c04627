//! Where a guide in these coordinates starts.

use super::{Orthogonal, expected_by_means};
use crate::guide::{Guide, softplus_inverse};
use crate::panel::Panel;
use crate::priors::Priors;
use crate::site::Site;
use infermark_threads::run_parts;

impl Orthogonal {
    /// The start of a guide: levels and elasticities that the sales suggest, and standard deviations from the
    /// information of sales and priors, as if every latent were the only one. Every rank that holds the panel's rows takes part.
    pub fn start(&self, panel: &Panel, priors: &Priors, threads: usize) -> Guide {
        let layout = &self.layout;
        let mut loc = layout.prior_means(priors);
        let mut information = layout.prior_precisions(priors, &self.category_of);
        let table = self.start_periods(panel, &mut loc);
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        let held: Vec<usize> = panel.held_products().collect();
        let part = held.len().div_ceil(threads.clamp(1, held.len()));
        let starts = run_parts(held.chunks(part).map(|products| {
            let table = &table;
            move || -> Vec<ProductStart> {
                products
                    .iter()
                    .map(|i| self.start_product(panel, priors, table, *i))
                    .collect()
            }
        }));
        let mut own = starts.into_iter().flatten();
        let starts = panel.of_all_products(|_| own.next().expect("one for each product held").numbers());
        let precision = |site| priors.sd(site).powi(-2);
        let of_effect = precision(Site::ProductEffect);
        // By category: products, their effects at level zero, their weights.
        let mut products = vec![0.0; layout.categories];
        let mut effects = vec![0.0; layout.categories];
        let mut weights = vec![0.0; layout.categories];
        for (i, start) in starts.into_iter().map(ProductStart::of_numbers).enumerate() {
            let c = self.category_of[i] as usize;
            loc[a + i] = start.elasticity;
            loc[e + i] = start.effect;
            information[a + i] += start.weighted_deviation2;
            information[e + i] += start.weight;
            products[c] += 1.0;
            weights[c] += start.weight;
            effects[c] += start.effect - start.elasticity * self.origin[i] - priors.product_effect_mean;
        }
        // A row's information on the log shape, roughly: half a unit of information where its rate is far
        // above the shape, nothing far below.
        let mut over_dispersed = vec![0.0; layout.categories];
        if layout.likelihood.has_shape() {
            panel.add_in_turn(&mut over_dispersed, |over_dispersed| {
                for i in panel.held_products() {
                    let c = self.category_of[i] as usize;
                    for units in &panel.units()[panel.row_range(i)] {
                        let ratio = f64::from(*units) * self.dispersion[c];
                        over_dispersed[c] += (ratio / (1.0 + ratio)).powi(2);
                    }
                }
            });
        }
        let of_periods = layout.periods as f64 * precision(Site::TimeCatEffects);
        for c in 0..layout.categories {
            let range = layout.time_range(c);
            let (of_level, of_free) = information[range.clone()].split_last_mut().expect("a period");
            for (of_free, share) in of_free.iter_mut().zip(self.shares_of(c)) {
                *of_free += share * weights[c];
            }
            *of_level = of_periods + products[c] * of_effect;
            // The level under the priors of effects and period effects; the effects' weighted mean is zero in
            // the table.
            let pull = effects[c] * of_effect + of_periods * priors.time_cat_effects_mean;
            let mean = self.mean_of_free(c, &loc[range.start..range.end - 1]);
            loc[range.end - 1] = (pull - mean * products[c] * of_effect) / *of_level;
        }
        for (c, latent) in layout.range(Site::LogShape).enumerate() {
            let dispersion = self.dispersion[c].clamp(LEAST_DISPERSION, LEAST_DISPERSION.recip());
            loc[latent] = -dispersion.ln();
            information[latent] += 0.5 * over_dispersed[c];
        }
        Guide {
            loc,
            unconstrained_scale: information
                .iter()
                .map(|i| softplus_inverse(i.sqrt().recip()))
                .collect(),
            unconstrained_centredness: None,
        }
    }

    /// The weighted mean of the contrasts of `free`.
    fn mean_of_free(&self, category: usize, free: &[f64]) -> f64 {
        let mut contrasts = vec![0.0; free.len() + 1];
        self.zero_sum.contrasts(free, &mut contrasts);
        self.weighted_mean(category, &contrasts)
    }

    /// Sets the contrasts of `loc` to the log ratios of a category's sales in a period to those expected from
    /// its products' means alone, and returns `s_ct - w_c`, length C * T.
    fn start_periods(&self, panel: &Panel, loc: &mut [f64]) -> Vec<f64> {
        let layout = &self.layout;
        let mut table = expected_by_means(panel);
        for (c, contrasts) in table.chunks_mut(layout.periods).enumerate() {
            let sold = &panel.sums().category_period[c * layout.periods..];
            for (s, y) in contrasts.iter_mut().zip(sold) {
                *s = ((*y as f64 + 0.5) / (*s + 0.5)).ln();
            }
            let mean = contrasts.iter().sum::<f64>() / layout.periods as f64;
            contrasts.iter_mut().for_each(|s| *s -= mean);
            let range = layout.time_range(c);
            self.zero_sum
                .transposed(contrasts, &mut loc[range.start..range.end - 1]);
            let weighted = self.weighted_mean(c, contrasts);
            contrasts.iter_mut().for_each(|s| *s -= weighted);
        }
        table
    }

    /// A product's start, given the table of `s_ct - w_c`: its elasticity by weighted least squares on the
    /// log units, shrunk to the prior, and the level at which its rates sum to its units.
    fn start_product(&self, panel: &Panel, priors: &Priors, table: &[f64], i: usize) -> ProductStart {
        let c = self.category_of[i] as usize;
        let table = &table[c * self.layout.periods..];
        // Weight, deviation, and log units relative to those of the period.
        let rows = panel.product_rows(i).filter(|row| row.units > 0).map(|row| {
            let y = f64::from(row.units);
            (
                self.weight(c, y),
                row.log_price - self.origin[i],
                y.ln() - table[row.period],
            )
        });
        let (mut total, mut sum_d, mut sum_r) = (0.0, 0.0, 0.0);
        for (w, d, r) in rows.clone() {
            total += w;
            sum_d += w * d;
            sum_r += w * r;
        }
        let (mean_d, mean_r) = match total > 0.0 {
            true => (sum_d / total, sum_r / total),
            false => (0.0, 0.0),
        };
        let (mut cross, mut square) = (0.0, 0.0);
        for (w, d, r) in rows {
            cross += w * (d - mean_d) * (r - mean_r);
            square += w * (d - mean_d).powi(2);
        }
        // Shrunk to the prior of a product whose category mean is unknown.
        let held = (priors.product_a_sd.powi(2) + priors.category_a_sd.powi(2)).recip();
        let elasticity = (cross + held * priors.global_a_mean) / (square + held);
        let rates: f64 = panel
            .product_rows(i)
            .map(|row| (elasticity * (row.log_price - self.origin[i]) + table[row.period]).exp())
            .sum();
        let effect = (panel.sums().product[i] as f64 + 0.5).ln() - rates.ln();
        ProductStart {
            elasticity,
            effect: effect.clamp(priors.clip_low, priors.clip_high),
            weight: total,
            weighted_deviation2: square + total * mean_d.powi(2),
        }
    }
}

/// The smallest dispersion that a guide starts at (below it counts are Poisson), and the inverse of the
/// largest.
const LEAST_DISPERSION: f64 = 1e-3;

/// Where a product's part of a guide starts.
struct ProductStart {
    elasticity: f64,
    /// `e''_i`.
    effect: f64,
    /// Sum of the rows' weights.
    weight: f64,
    /// Sum of the rows' weights times `(ln price - m_i)^2`.
    weighted_deviation2: f64,
}

impl ProductStart {
    fn numbers(self) -> [f64; 4] {
        [
            self.elasticity,
            self.effect,
            self.weight,
            self.weighted_deviation2,
        ]
    }

    /// The inverse of [`ProductStart::numbers`].
    fn of_numbers([elasticity, effect, weight, weighted_deviation2]: [f64; 4]) -> Self {
        ProductStart {
            elasticity,
            effect,
            weight,
            weighted_deviation2,
        }
    }
}
