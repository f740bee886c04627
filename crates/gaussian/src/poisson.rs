//! The Poisson rows as the arrow's pass wants them: rates are weights, residuals the gradient.
//!
//! The clip of the log rate is ignored here. It has a kink, in which the mode may lie, where no curvature is right; and a
//! Gaussian's mean over it has no short form. A row without sales below the lower bound of the published model is less likely
//! by 0.018 nats at most for it. Products with counts at the upper bound are left out.

use crate::counts::Bound;
use crate::negative_binomial::NINE;
use crate::pace::Pace;
use infermark_arrow::{ProductRows, Rates, Weighed};
use infermark_cpu_kernels::Simd;
use infermark_model::Panel;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use std::f64::consts::LOG2_E;

/// Entries of a table row are padded to a multiple of the widest vector.
const PAD: usize = 16;

/// What a rate is the mean over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spread<'a> {
    /// Nothing: the rate at the point.
    Point,
    /// The Gaussian whose factor the pass takes the place of: `exp(eta + v / 2)`. A weight changes by this part of what it
    /// should at most, and by a factor of [`MOST_CHANGE`] at most.
    Structured {
        /// In (0, 1].
        part: f64,
        /// The part of that for each product, where products differ in it.
        pace: Option<&'a Pace>,
    },
    /// Independent latents of these variances, in the order of [`Layout`].
    Independent(&'a [f64]),
}

impl Spread<'_> {
    /// The Gaussian whose factor the pass takes the place of, and weights that follow it at once.
    pub(crate) const STRUCTURED: Self = Spread::Structured {
        part: 1.0,
        pace: None,
    };
}

/// The factor by which a weight, or a variance, may change in a step: where a rate's variance is large, its mean is far from the
/// rate at the mean, and the first steps would overshoot.
pub(crate) const MOST_CHANGE: f64 = 8.0;

/// Poisson rows at a point.
#[derive(Debug)]
pub(crate) struct PoissonRates<'a> {
    panel: &'a Panel,
    priors: &'a Priors,
    bound: &'a Bound,
    layout: Layout,
    point: &'a [f64],
    spread: Spread<'a>,
    /// Period effects by category, padded.
    effects: Vec<f64>,
    /// Half of their variances, where latents are independent.
    half_variances: Vec<f64>,
    stride: usize,
}

impl<'a> PoissonRates<'a> {
    pub(crate) fn new(
        panel: &'a Panel,
        priors: &'a Priors,
        bound: &'a Bound,
        point: &'a [f64],
        spread: Spread<'a>,
    ) -> Self {
        let layout = panel.layout();
        let stride = layout.periods.next_multiple_of(PAD);
        let table = |of: &[f64], factor: f64| {
            let mut table = vec![0.0; layout.categories * stride];
            for (c, row) in table.chunks_exact_mut(stride).enumerate() {
                let from = &of[layout.time_index(c, 0)..][..layout.periods];
                row.iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to = factor * from);
                // A log rate that could be, for the entries that stand for no period.
                row[layout.periods..].fill(factor * from[0]);
            }
            table
        };
        PoissonRates {
            panel,
            priors,
            bound,
            layout,
            point,
            spread,
            effects: table(point, 1.0),
            half_variances: match spread {
                Spread::Independent(variances) => table(variances, 0.5),
                _ => Vec::new(),
            },
            stride,
        }
    }
}

impl PoissonRates<'_> {
    /// A product that is left out, of which the highest row stays as no more than "its count is at the bound":
    /// `ln s((eta - h) / scale)`, `s` the logistic function; what it adds to the value and to the derivatives by elasticity and effect.
    fn highest_row(
        &self,
        (period, log_price): (usize, f64),
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> [f64; 3] {
        let a = self.layout.start(Site::ProductA) + rows.product;
        let e = self.layout.start(Site::ProductEffect) + rows.product;
        let time = self.layout.time_index(rows.category, period);
        let eta = self.point[a] * log_price + self.point[e] + self.point[time];
        let half = match self.spread {
            Spread::Point => 0.0,
            Spread::Structured { .. } => rows.half_variance[period],
            Spread::Independent(v) => 0.5 * (log_price * log_price * v[a] + v[e] + v[time]),
        };
        let sd = (2.0 * half).max(0.0).sqrt();
        let scale = self.bound.scale;
        let [mut value, mut slope, mut curvature] = [0.0; 3];
        for (node, weight) in NINE {
            let z = (eta + node * sd - self.bound.log_least) / scale;
            let below = 1.0 / (1.0 + z.exp());
            value -= weight * ((-z.abs()).exp().ln_1p() + (-z).max(0.0));
            slope += weight * below / scale;
            curvature += weight * below * (1.0 - below) / (scale * scale);
        }
        let before = weights[period];
        weights.fill(0.0);
        weights[period] = match self.spread {
            Spread::Structured { part, .. } => {
                value += before * half;
                let bounded = curvature.clamp(before / MOST_CHANGE, before * MOST_CHANGE);
                before + part * (bounded - before)
            }
            _ => curvature,
        };
        by_period[period] += slope;
        [value, slope * log_price, slope]
    }

    /// A product in whole vectors of periods: what its rates add to the value and, negated, to the derivatives by elasticity and
    /// effect, and the sums of its counts, and of those times the log price.
    #[inline(always)]
    fn in_vectors<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> ([f64; 3], (f64, f64)) {
        let i = rows.product;
        let a = self.layout.start(Site::ProductA) + i;
        let e = self.layout.start(Site::ProductEffect) + i;
        let (elasticity, effect) = (self.point[a], self.point[e]);
        let effects = &self.effects[rows.category * self.stride..][..self.stride];
        let (slope, level) = (isa.splat(elasticity), isa.splat(effect));
        let log2_e = isa.splat(LOG2_E);
        let (least, most) = (isa.splat(-1000.0), isa.splat(1000.0));
        let mut sums = [isa.zero(); 3];
        let (half_a, half_e, half_periods) = match self.spread {
            Spread::Independent(variances) => (
                0.5 * variances[a],
                0.5 * variances[e],
                &self.half_variances[rows.category * self.stride..][..self.stride],
            ),
            _ => (0.0, 0.0, effects),
        };
        let (half_a, half_e) = (isa.splat(half_a), isa.splat(half_e));
        let part = isa.splat(match self.spread {
            Spread::Structured { part, .. } => part,
            _ => 1.0,
        });
        for t in (0..weights.len()).step_by(I::LANES) {
            let x = isa.load(&rows.log_price[t..]);
            let present = isa.load(&rows.present[t..]);
            let eta = isa.mul_add(slope, x, isa.add(level, isa.load(&effects[t..])));
            let raised = match self.spread {
                Spread::Point => eta,
                Spread::Structured { .. } => isa.add(eta, isa.load(&rows.half_variance[t..])),
                Spread::Independent(_) => {
                    let of_period = isa.add(half_e, isa.load(&half_periods[t..]));
                    isa.add(eta, isa.mul_add(isa.mul(half_a, x), x, of_period))
                }
            };
            let exponent = isa.min(isa.max(isa.mul(raised, log2_e), least), most);
            let mut rate = isa.mul(isa.exp2(exponent), present);
            if let Spread::Structured { .. } = self.spread {
                let before = isa.load(&weights[t..]);
                // tr(Q Sigma) less its priors' part.
                sums[2] = isa.mul_add(before, isa.load(&rows.half_variance[t..]), sums[2]);
                sums[2] = isa.sub(sums[2], rate);
                let grown = isa.mul(before, isa.splat(MOST_CHANGE));
                let shrunk = isa.mul(before, isa.splat(1.0 / MOST_CHANGE));
                let bounded = isa.min(isa.max(rate, shrunk), grown);
                rate = isa.mul_add(part, isa.sub(bounded, before), before);
            }
            isa.store(rate, &mut weights[t..]);
            sums[0] = isa.add(sums[0], rate);
            sums[1] = isa.mul_add(rate, x, sums[1]);
            isa.store(isa.sub(isa.load(&by_period[t..]), rate), &mut by_period[t..]);
        }
        let mut found = [-isa.sum(sums[0]), -isa.sum(sums[1]), -isa.sum(sums[0])];
        if let Spread::Structured { .. } = self.spread {
            found[0] = isa.sum(sums[2]);
        }
        let sums = self.panel.sums();
        let units = sums.product[i] as f64;
        let units_log_price = sums.product_deviation[i] + self.panel.mean_log_price()[i] * units;
        (found, (units, units_log_price))
    }
}

impl Rates for PoissonRates<'_> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        _cross: &mut [f64],
        by_period: &mut [f64],
    ) -> Weighed {
        let i = rows.product;
        let a = self.layout.start(Site::ProductA) + i;
        let e = self.layout.start(Site::ProductEffect) + i;
        let (elasticity, effect) = (self.point[a], self.point[e]);
        let (found, (units, units_log_price)) = if let Some(highest) = self.bound.highest(i) {
            (
                self.highest_row(highest, &rows, weights, by_period),
                Default::default(),
            )
        } else {
            self.in_vectors(isa, &rows, weights, by_period)
        };
        let category_a = self.point[self.layout.start(Site::CategoryA) + rows.category];
        let precision = |sd: f64| sd.powi(-2);
        Weighed {
            value: found[0] + elasticity * units_log_price + effect * units,
            gradient: [
                units_log_price + found[1] - (elasticity - category_a) * precision(self.priors.product_a_sd),
                units + found[2]
                    - (effect - self.priors.product_effect_mean) * precision(self.priors.product_effect_sd),
            ],
            shape: [0.0; 3],
        }
    }
}
