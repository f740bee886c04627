//! Coordinates in which the latents of the posterior are nearly independent: those in which a mean-field guide is right.
//!
//! In the published coordinates a product's elasticity and effect are correlated at -0.998, since ln price is
//! far from 0, and a shift of all effects of a category can be offset by its period effects. Write, with the
//! units `y` of the panel as weights,
//!
//! - `m_i = sum_t y x / (sum_t y + 1 / s_e^2)` for the weighted mean ln price of product i, where the prior
//!   of its effect, of standard deviation `s_e`, adds a fraction of a unit at ln price 0,
//! - `tau_ct = l_c + s_ct`, a level `l_c` and contrasts `s_c` that sum to zero over the periods,
//! - `w_c` for the weighted mean of `s_c` over the periods.
//!
//! Then the log rate is
//!
//! ```text
//! eta_it = a_i (x_it - m_i) + e''_i + s_ct - w_c,      effect_i = e''_i - a_i m_i - l_c - w_c,
//! ```
//!
//! and with the rates as weights, which are close to the units wherever these carry information, neighbouring
//! terms have covariances of nearly zero: `a_i` with `e''_i`, and the `e''_i` of a category with its `s_c`.
//! Only the prior depends on the level. Without sales `m_i` is 0 and the effect is its own coordinate, as in
//! the prior. The map is linear with a constant Jacobian, so the posterior is the same; only the prior of the
//! effects couples its parts.
//!
//! Contrasts are the zero-sum vectors `s = A y` of `T - 1` free numbers `y`, `A` an isometry ([`ZeroSum`]).
//! So independent `Normal(m, s)` period effects correspond to independent `Normal(0, s)` free numbers and a
//! level that is `Normal(m, s / sqrt T)`.

mod start;

use crate::design::PRODUCT_LATENTS;
use crate::likelihood::Likelihood;
use crate::panel::Panel;
use crate::priors::Priors;
use crate::site::{Layout, Site};
use serde::{Deserialize, Serialize};

/// The coordinates in which the normals of a mean-field guide are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Coordinates {
    /// The natural parameters, in one of the forms of [`Parameterization`](crate::Parameterization): the published ones.
    #[default]
    Published,
    /// Those of [`Orthogonal`]; every site is centred.
    Orthogonal,
}

impl Coordinates {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Coordinates::Published => "published",
            Coordinates::Orthogonal => "orthogonal",
        }
    }
}

/// What determines the variances of the log rates where latents are independent, in natural parameters or in
/// orthogonal coordinates: the variance of row (i, t) is `(x_it - m_i)^2 v[a_i] + v[e_i] + v[tau_ct]`.
#[derive(Debug, Clone, Copy)]
pub struct IndependentRates<'a> {
    /// `v`, in the order of [`Layout`]: the latents' own variances, or those of [`Orthogonal::rate_variances`].
    pub variances: &'a [f64],
    /// `m`, the origin of each product's log prices, length N; `None` means 0, as in natural parameters.
    pub origin: Option<&'a [f64]>,
}

impl<'a> IndependentRates<'a> {
    /// Rates under independent natural parameters with these variances.
    pub fn natural(variances: &'a [f64]) -> Self {
        IndependentRates {
            variances,
            origin: None,
        }
    }

    /// Rates under the coordinates of `orthogonal`, with the variances that [`Orthogonal::rate_variances`]
    /// returned.
    pub fn orthogonal(variances: &'a [f64], orthogonal: &'a Orthogonal) -> Self {
        IndependentRates {
            variances,
            origin: Some(&orthogonal.origin),
        }
    }

    /// The origin of a product's log prices.
    pub fn origin(&self, product: usize) -> f64 {
        self.origin.map_or(0.0, |origin| origin[product])
    }

    /// The multipliers of the variances of a product's latents in that of a row's log rate: squares of the
    /// design, with the log price from its origin.
    #[inline(always)]
    pub fn squares(&self, product: usize, mut design: [f64; PRODUCT_LATENTS]) -> [f64; PRODUCT_LATENTS] {
        design[0] -= self.origin(product);
        design.map(|x| x * x)
    }
}

/// The isometry between `T - 1` free numbers and the vectors of length T that sum to zero.
///
/// With `k = 1 / (T + sqrt T)`, `s_t = y_t - k sum y` for `t < T`, and `s_T = -sum y / sqrt T`: a reflection
/// that maps one unit vector to the direction of all ones. Every period but the last then nearly has a free
/// number of its own. Source: the zero-sum transform of PyMC and NumPyro (`ZeroSumNormal`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ZeroSum {
    /// `1 / (T + sqrt T)`.
    pub shared: f64,
    /// `1 / sqrt T`.
    pub last: f64,
}

impl ZeroSum {
    /// The isometry for T periods, of which there is at least one.
    pub fn new(periods: usize) -> Self {
        let root = (periods as f64).sqrt();
        ZeroSum {
            shared: 1.0 / (root * (root + 1.0)),
            last: 1.0 / root,
        }
    }

    /// The contrasts `s` (length T) of `free` (length T - 1).
    pub fn contrasts(&self, free: &[f64], contrasts: &mut [f64]) {
        let sum: f64 = free.iter().sum();
        for (s, y) in contrasts.iter_mut().zip(free) {
            *s = y - self.shared * sum;
        }
        contrasts[free.len()] = -self.last * sum;
    }

    /// The transposed map, from length T to T - 1: from contrasts to free numbers, or from a gradient with
    /// respect to the contrasts to one with respect to the free numbers.
    pub fn transposed(&self, by_contrasts: &[f64], by_free: &mut [f64]) {
        let (last, others) = by_contrasts.split_last().expect("a period");
        let common = self.shared * others.iter().sum::<f64>() + self.last * last;
        for (y, s) in by_free.iter_mut().zip(others) {
            *y = s - common;
        }
    }
}

/// The coordinates of a panel. In a vector of latents, elasticities and shapes keep their positions, `e''_i`
/// has the position of the product's effect, and the T positions of a category's period effects hold its
/// `T - 1` free numbers and then its level.
#[derive(Debug, Clone, PartialEq)]
pub struct Orthogonal {
    layout: Layout,
    category_of: Vec<u32>,
    /// `m_i`, length N.
    pub origin: Vec<f64>,
    /// The weights by which `w_c` is the mean over the periods, each category's sum to one; length C * T.
    pub period_share: Vec<f64>,
    /// The isometry of the contrasts.
    pub zero_sum: ZeroSum,
    /// Rough dispersions `1 / r` of the categories, length C; 0 under the Poisson likelihood.
    dispersion: Vec<f64>,
}

impl Orthogonal {
    /// The coordinates of `panel` under `likelihood` and `priors`.
    ///
    /// Weights are the information of a row on its log rate, with its units instead of its rate: the units
    /// themselves under the Poisson likelihood, `y / (1 + y / r)` under the negative binomial, with a rough
    /// shape `r` of the category. A category without sales has equal weights.
    ///
    /// Every rank that holds the panel's rows takes part.
    pub fn new(panel: &Panel, likelihood: Likelihood, priors: &Priors) -> Self {
        let layout = panel.layout_for(likelihood);
        let prior = priors.product_effect_sd.powi(-2);
        let sums = panel.sums();
        let mut origin = panel.mean_log_price().to_vec();
        let (mut period_share, dispersion) = match likelihood.has_shape() {
            // The weights are the units, whose sums are in the panel.
            false => {
                for ((m, units), deviation) in
                    origin.iter_mut().zip(&sums.product).zip(&sums.product_deviation)
                {
                    let units = *units as f64;
                    *m = (deviation + *m * units) / (units + prior);
                }
                let shares = sums.category_period.iter().map(|units| *units as f64);
                (shares.collect(), vec![0.0; layout.categories])
            }
            true => {
                let dispersion = rough_dispersions(panel);
                let mut weights = vec![0.0; layout.categories * layout.periods];
                let mut own = Vec::new();
                panel.add_in_turn(&mut weights, |weights| {
                    for i in panel.held_products() {
                        let c = panel.category_of()[i] as usize;
                        let weights = &mut weights[c * layout.periods..][..layout.periods];
                        let (mut total, mut moment) = (0.0, 0.0);
                        let mean = origin[i];
                        for row in panel.product_rows(i) {
                            let weight = weight_of(f64::from(row.units), dispersion[c]);
                            total += weight;
                            moment += weight * (row.log_price - mean);
                            weights[row.period] += weight;
                        }
                        own.push((moment + mean * total) / (total + prior));
                    }
                });
                let mut own = own.into_iter();
                let all = panel.of_all_products(|_| [own.next().expect("one for each product held")]);
                origin = all.into_iter().map(|[origin]| origin).collect();
                (weights, dispersion)
            }
        };
        for shares in period_share.chunks_mut(layout.periods) {
            let total: f64 = shares.iter().sum();
            if total > 0.0 {
                shares.iter_mut().for_each(|share| *share /= total);
            } else {
                shares.fill(1.0 / layout.periods as f64);
            }
        }
        Orthogonal {
            category_of: panel.category_of().to_vec(),
            origin,
            period_share,
            zero_sum: ZeroSum::new(layout.periods),
            dispersion,
            layout,
        }
    }

    /// The weight of a row of category `c` that sold `units`.
    fn weight(&self, c: usize, units: f64) -> f64 {
        weight_of(units, self.dispersion[c])
    }

    /// The weights of a category's periods, length T.
    pub fn shares_of(&self, category: usize) -> &[f64] {
        &self.period_share[category * self.layout.periods..][..self.layout.periods]
    }

    /// Log of the constant Jacobian determinant of the natural parameters with respect to these coordinates,
    /// `C / 2 ln T`: the log density of the coordinates minus that of the natural parameters.
    pub fn ln_jacobian(&self) -> f64 {
        0.5 * self.layout.categories as f64 * (self.layout.periods as f64).ln()
    }

    /// The weighted mean `w_c` of a category's contrasts.
    fn weighted_mean(&self, category: usize, contrasts: &[f64]) -> f64 {
        let shares = self.shares_of(category);
        shares.iter().zip(contrasts).map(|(p, s)| p * s).sum()
    }

    /// Natural parameters of the coordinates `z`; both have length [`Layout::latents`].
    pub fn to_natural(&self, z: &[f64]) -> Vec<f64> {
        let mut natural = z.to_vec();
        let mut shift = vec![0.0; self.layout.categories];
        for (c, shift) in shift.iter_mut().enumerate() {
            let range = self.layout.time_range(c);
            let (level, free) = z[range.clone()].split_last().expect("a period");
            let effects = &mut natural[range];
            self.zero_sum.contrasts(free, effects);
            *shift = level + self.weighted_mean(c, effects);
            effects.iter_mut().for_each(|effect| *effect += level);
        }
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        for (i, c) in self.category_of.iter().enumerate() {
            natural[e + i] = z[e + i] - z[a + i] * self.origin[i] - shift[*c as usize];
        }
        natural
    }

    /// The coordinates of natural parameters: the inverse of [`Orthogonal::to_natural`].
    pub fn from_natural(&self, natural: &[f64]) -> Vec<f64> {
        let mut z = natural.to_vec();
        let mut shift = vec![0.0; self.layout.categories];
        let mut contrasts = vec![0.0; self.layout.periods];
        for (c, shift) in shift.iter_mut().enumerate() {
            let range = self.layout.time_range(c);
            let effects = &natural[range.clone()];
            let level = effects.iter().sum::<f64>() / effects.len() as f64;
            for (s, effect) in contrasts.iter_mut().zip(effects) {
                *s = effect - level;
            }
            *shift = level + self.weighted_mean(c, &contrasts);
            let (last, free) = z[range].split_last_mut().expect("a period");
            self.zero_sum.transposed(&contrasts, free);
            *last = level;
        }
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        for (i, c) in self.category_of.iter().enumerate() {
            z[e + i] = natural[e + i] + natural[a + i] * self.origin[i] + shift[*c as usize];
        }
        z
    }

    /// The gradient with respect to the coordinates, from that with respect to the natural parameters; both
    /// have length [`Layout::latents`].
    pub fn gradient(&self, mut by_natural: Vec<f64>) -> Vec<f64> {
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        let mut by_shift = vec![0.0; self.layout.categories];
        for (i, c) in self.category_of.iter().enumerate() {
            by_natural[a + i] -= by_natural[e + i] * self.origin[i];
            by_shift[*c as usize] -= by_natural[e + i];
        }
        let mut by_contrasts = vec![0.0; self.layout.periods];
        for (c, by_shift) in by_shift.iter().enumerate() {
            let by_effects = &mut by_natural[self.layout.time_range(c)];
            let by_level = by_effects.iter().sum::<f64>() + by_shift;
            for ((by, share), by_effect) in by_contrasts.iter_mut().zip(self.shares_of(c)).zip(&*by_effects) {
                *by = by_effect + share * by_shift;
            }
            let (last, free) = by_effects.split_last_mut().expect("a period");
            self.zero_sum.transposed(&by_contrasts, free);
            *last = by_level;
        }
        by_natural
    }

    /// Variances of the natural parameters where the coordinates are independent and have the variances `own`; both have length
    /// [`Layout::latents`].
    pub fn natural_variances(&self, own: &[f64]) -> Vec<f64> {
        let ZeroSum { shared, last } = self.zero_sum;
        let mut natural = own.to_vec();
        let mut of_shift = vec![0.0; self.layout.categories];
        for (c, of_shift) in of_shift.iter_mut().enumerate() {
            let range = self.layout.time_range(c);
            let (level, free) = own[range.clone()].split_last().expect("a period");
            let total: f64 = free.iter().sum();
            // The derivative of the weighted mean with respect to the free number of period t: its share,
            // minus the part that all have in common.
            let (last_share, shares) = self.shares_of(c).split_last().expect("a period");
            let common = shared * shares.iter().sum::<f64>() + last * last_share;
            let of_mean = shares.iter().zip(free).map(|(p, v)| (p - common).powi(2) * v);
            *of_shift = level + of_mean.sum::<f64>();
            let (last_effect, effects) = natural[range].split_last_mut().expect("a period");
            for (effect, v) in effects.iter_mut().zip(free) {
                *effect = level + v - 2.0 * shared * v + shared * shared * total;
            }
            *last_effect = level + last * last * total;
        }
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        for (i, c) in self.category_of.iter().enumerate() {
            natural[e + i] = own[e + i] + own[a + i] * self.origin[i].powi(2) + of_shift[*c as usize];
        }
        natural
    }

    /// The terms of the variances of the log rates where the coordinates are independent with variances
    /// `own`: the variance of row (i, t) is `(x_it - m_i)^2 v[a_i] + v[e_i] + v[tau_ct]` with the returned
    /// `v`. At the positions of the period effects it has the variances of `s_ct - w_c`. Both have length
    /// [`Layout::latents`].
    pub fn rate_variances(&self, own: &[f64]) -> Vec<f64> {
        let ZeroSum { shared, last } = self.zero_sum;
        let mut variances = own.to_vec();
        for c in 0..self.layout.categories {
            let range = self.layout.time_range(c);
            let free = &own[range.start..range.end - 1];
            let by_free = self.mean_by_free(c);
            let (of_last, of_others) = variances[range].split_last_mut().expect("a period");
            let total: f64 = by_free
                .iter()
                .zip(free)
                .map(|(w, v)| (shared + w).powi(2) * v)
                .sum();
            for ((variance, w), v) in of_others.iter_mut().zip(&by_free).zip(free) {
                *variance = total + v * (1.0 - 2.0 * (shared + w));
            }
            *of_last = by_free
                .iter()
                .zip(free)
                .map(|(w, v)| (last + w).powi(2) * v)
                .sum();
        }
        variances
    }

    /// Derivatives of `w_c` with respect to the free numbers of the category.
    fn mean_by_free(&self, category: usize) -> Vec<f64> {
        let mut by_free = vec![0.0; self.layout.periods - 1];
        self.zero_sum.transposed(self.shares_of(category), &mut by_free);
        by_free
    }

    /// The diagonal of the precision of the coordinates, from that of the natural parameters: its diagonal `q`, length [`Layout::latents`], and
    /// `coupled`, the entries between each product's elasticity and effect, length N.
    pub fn precision_diagonal(&self, q: &[f64], coupled: &[f64], priors: &Priors) -> Vec<f64> {
        let ZeroSum { shared, last } = self.zero_sum;
        let layout = &self.layout;
        let mut diagonal = q.to_vec();
        let mut products = vec![0.0; layout.categories];
        let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
        for (i, c) in self.category_of.iter().enumerate() {
            let m = self.origin[i];
            diagonal[a + i] += m * (m * q[e + i] - 2.0 * coupled[i]);
            products[*c as usize] += 1.0;
        }
        let of_effect = priors.product_effect_sd.powi(-2);
        let of_period = priors.time_cat_effects_sd.powi(-2);
        for (c, products) in products.iter().enumerate() {
            let range = layout.time_range(c);
            // The rows' information on each `s_t - w`.
            let (known_last, known) = q[range.clone()].split_last().expect("a period");
            let sum: f64 = known.iter().map(|q| q - of_period).sum();
            let by_free = self.mean_by_free(c);
            let (level, free) = diagonal[range].split_last_mut().expect("a period");
            for ((free, w), known) in free.iter_mut().zip(&by_free).zip(known) {
                // A free number moves its own period by 1 minus the amount by which it moves all periods but
                // the last, and the last by another amount.
                let all = shared + w;
                *free = (known - of_period) * (1.0 - 2.0 * all)
                    + all * all * sum
                    + (known_last - of_period) * (last + w).powi(2)
                    + of_period
                    + products * of_effect * w * w;
            }
            *level = layout.periods as f64 * of_period + products * of_effect;
        }
        diagonal
    }
}

/// A row's information on its log rate if that were the log of its units.
fn weight_of(units: f64, dispersion: f64) -> f64 {
    units / (1.0 + units * dispersion)
}

/// Units of a product in its mean row.
fn mean_units(panel: &Panel, product: usize) -> f64 {
    panel.sums().product[product] as f64 / panel.rows_of(product) as f64
}

/// Units of each category and period if every row had the mean units of its product, length C * T.
fn expected_by_means(panel: &Panel) -> Vec<f64> {
    let layout = panel.layout();
    let mut expected = vec![0.0; layout.categories * layout.periods];
    for (i, category) in panel.category_of().iter().enumerate() {
        let mean = mean_units(panel, i);
        let expected = &mut expected[*category as usize * layout.periods..][..layout.periods];
        match panel.presence() {
            // The same in every period: once is enough.
            None => expected[0] += mean,
            Some(presence) => presence.periods(i).for_each(|period| expected[period] += mean),
        }
    }
    if panel.is_dense() {
        for expected in expected.chunks_mut(layout.periods) {
            let first = expected[0];
            expected.fill(first);
        }
    }
    expected
}

/// Rough dispersions `1 / r` of the categories' counts: their variation in excess of Poisson counts about the
/// values expected from the product's sales and the category's sales in the period.
///
/// Prices are ignored, so it is on the high side. It is only used to weight rows.
fn rough_dispersions(panel: &Panel) -> Vec<f64> {
    let layout = panel.layout();
    let expected = expected_by_means(panel);
    let entry = |i: usize, period: usize| panel.category_of()[i] as usize * layout.periods + period;
    let mut sums = vec![[0.0; 2]; layout.categories];
    panel.add_in_turn(sums.as_flattened_mut(), |sums| {
        let (sums, _) = sums.as_chunks_mut();
        for i in panel.held_products() {
            let mean = mean_units(panel, i);
            let [excess, squares] = &mut sums[panel.category_of()[i] as usize];
            for row in panel.product_rows(i) {
                let at = entry(i, row.period);
                if expected[at] > 0.0 {
                    let rate = mean * panel.sums().category_period[at] as f64 / expected[at];
                    *excess += (f64::from(row.units) - rate).powi(2) - rate;
                    *squares += rate * rate;
                }
            }
        }
    });
    let ratio = |[excess, squares]: [f64; 2]| {
        if squares > 0.0 {
            (excess / squares).max(0.0)
        } else {
            0.0
        }
    };
    sums.into_iter().map(ratio).collect()
}

#[cfg(test)]
mod tests;
