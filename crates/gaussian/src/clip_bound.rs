//! Products with counts at the upper clip bound.

use crate::design::{LATENTS, PerLatent};
use infermark_model::ln_factorial::ln_factorial;
use infermark_model::{Likelihood, Panel, Priors};
use std::sync::Arc;

/// A count is taken to be at the bound if it is above the rate at the upper clip bound minus this many
/// standard deviations. A lower count has a likelihood at the bound of `exp(-32)` of its largest, so that the
/// bound may be ignored.
const AT_BOUND: f64 = 8.0;

/// The scale of the smooth step that replaces a censored count, in sds of the effect.
const SCALE_OF_STEP: f64 = 0.3;

/// Products with counts at the upper clip bound, left out as a whole.
///
/// A count at the bound only says that its log rate is above it: the likelihood is flat there, which no
/// Gaussian is. Leaving out such *rows* would bias the rest. The rows of a product with the largest errors
/// would go, and the others would represent `p(y | y < least)`, whose factor `P(y < least)^-1` depends on the
/// product's own log rates as strongly as its counts do.
///
/// So all rows of such a product are left out. A product that is kept is complete: that none of its counts is
/// at the bound is a function of the counts conditioned on, and adds nothing. For a product that is left out,
/// one factor remains, `P(a count of product i is at the bound | border)`. The product's own effect is
/// integrated out of it, so it carries little information, of the order of the priors. But only the priors
/// hold the level of a category's effects against that of its periods, and without the factor the level is
/// biased towards the products that are kept, which are the low ones (by half a standard deviation if four
/// products of ten are left out, `tests/upper_bound.rs`). It is the likelihood of the highest row of the
/// product with its count censored, `P(y >= least | eta)`, nearly a step at `eta = ln least`. The step is
/// approximated by the logistic function, which is log-concave, with a scale that is a fraction of the
/// effect's own sd, which it widens by a seventh.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// Period and design of the highest row of each product that is left out; empty if none is.
    pub(crate) products: Arc<Vec<Option<(usize, PerLatent)>>>,
    /// Log of the least count at the bound, and the scale of the step there, in log rate.
    pub(crate) log_least: f64,
    pub(crate) scale: f64,
    /// Sums of the counts of the others by category and period.
    pub(crate) category_period: Arc<Vec<u64>>,
    /// Their sum of `ln y!`.
    pub(crate) ln_factorials: f64,
}

impl Bound {
    /// For Poisson counts only: negative-binomial counts are too dispersed to detect the bound. Every rank that holds the panel's rows
    /// takes part.
    pub(crate) fn of(panel: &Panel, priors: &Priors, likelihood: Likelihood) -> Self {
        let rate = priors.clip_high.exp();
        let least = if likelihood.is_equidispersed() {
            rate - AT_BOUND * rate.sqrt()
        } else {
            f64::INFINITY
        };
        let is_at = |units: &u32| f64::from(*units) >= least;
        let layout = panel.layout();
        let mut category_period = panel.sums().category_period.clone();
        let mut ln_factorials = panel.sums().ln_factorials;
        let mut products = Vec::new();
        let is_left_out = |i: usize| panel.units()[panel.row_range(i)].iter().any(is_at);
        let mut left_out = [f64::from(u8::from(panel.held_products().any(is_left_out)))];
        panel.sum_over_ranks(&mut left_out);
        if left_out[0] > 0.0 {
            let highest = |i: usize| {
                let row = panel.product_rows(i).max_by_key(|row| row.units);
                let row = row.filter(|row| is_at(&row.units));
                // The place of the period, from 1.
                row.map_or([0.0; 1 + LATENTS], |row| {
                    let mut numbers = [row.period as f64 + 1.0; 1 + LATENTS];
                    numbers[1..].copy_from_slice(&row.design());
                    numbers
                })
            };
            let highest = panel.of_all_products(highest);
            products.extend(
                highest
                    .into_iter()
                    .map(|[period, design @ ..]| (period > 0.0).then(|| (period as usize - 1, design))),
            );
            let mut removed = vec![0; category_period.len()];
            let factorials = panel.of_all_products(|i| {
                let first = panel.category_of()[i] as usize * layout.periods;
                let mut sum = 0.0;
                for row in panel.product_rows(i) {
                    if products[i].is_some() {
                        removed[first + row.period] += u64::from(row.units);
                    } else {
                        sum += ln_factorial(row.units);
                    }
                }
                [sum]
            });
            ln_factorials = factorials.iter().fold(0.0, |sum, [of]| sum + of);
            panel.sum_integers_over_ranks(&mut removed);
            for (sum, removed) in category_period.iter_mut().zip(removed) {
                *sum -= removed;
            }
        }
        Bound {
            products: Arc::new(products),
            // If the bound is so low that every count is at it, nothing is known.
            log_least: least.max(f64::MIN_POSITIVE).ln(),
            scale: SCALE_OF_STEP * priors.product_effect_sd,
            category_period: Arc::new(category_period),
            ln_factorials,
        }
    }

    /// Whether a product is left out.
    #[inline]
    pub(crate) fn leaves_out(&self, product: usize) -> bool {
        self.highest(product).is_some()
    }

    /// Period and design of the highest row of a product that is left out.
    #[inline]
    pub(crate) fn highest(&self, product: usize) -> Option<(usize, PerLatent)> {
        self.products.get(product).copied().flatten()
    }
}
