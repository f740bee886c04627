//! Poisson rows for the arrowhead's pass: rates are weights, residuals the gradient.
//!
//! The clip of the log rate is ignored here. It has a kink, at which the mode may lie and no curvature is
//! right, and a Gaussian's mean over it has no simple form. For a row without sales below the lower bound of
//! the published model this changes the log likelihood by at most 0.018 nats. Products with counts at the
//! upper bound are left out.

use crate::averaging::{Averaging, MOST_CHANGE};
use crate::clip_bound::Bound;
use crate::design::{EFFECT, LATENTS, PerLatent, along, at, prior_means, prior_precisions};
use crate::gauss_hermite::NINE;
use crate::settle::{self, OwnWeight, Place, finite_exp};
use infermark_arrowhead::{ProductRows, ProductTerms, Rates, Reweigh};
use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::{IndependentRates, Layout, Panel, Priors};
use infermark_processor::InstructionSet;
use std::borrow::Cow;
use std::f64::consts::LOG2_E;
use std::sync::Arc;

/// Entries of a table row are padded to a multiple of the widest vector.
const PAD: usize = 16;

/// Variance of a log rate due to the product's own pair from which on the product is settled.
const UNSETTLED: f64 = 0.2;

/// Poisson rows at a point.
#[derive(Debug)]
pub(crate) struct PoissonRates<'a> {
    panel: &'a Arc<Panel>,
    priors: &'a Priors,
    bound: &'a Bound,
    layout: Layout,
    point: &'a [f64],
    averaging: Averaging<'a>,
    /// Period effects by category, padded.
    effects: Cow<'a, [f64]>,
    /// Half of their variances, where latents are independent.
    half_variances: Vec<f64>,
    stride: usize,
}

impl<'a> PoissonRates<'a> {
    pub(crate) fn new(
        panel: &'a Arc<Panel>,
        priors: &'a Priors,
        bound: &'a Bound,
        point: &'a [f64],
        averaging: Averaging<'a>,
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
                // A plausible log rate, for the entries without a period.
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
            averaging,
            effects: table(point, 1.0).into(),
            half_variances: match averaging {
                Averaging::Independent(IndependentRates { variances, .. }) => table(variances, 0.5),
                _ => Vec::new(),
            },
            stride,
        }
    }
}

impl PoissonRates<'_> {
    /// A product that is left out, of which only the fact remains that the count of its highest row is at the
    /// bound: `ln s((eta - h) / scale)`, `s` the logistic function. Returns its contribution to the value and
    /// to the derivatives with respect to the product's latents.
    fn highest_row(
        &self,
        (period, design): (usize, PerLatent),
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> (f64, PerLatent) {
        let places = self.layout.product_places(rows.product);
        let time = self.layout.time_index(rows.category, period);
        let eta = along(&at(self.point, places), &design) + self.point[time];
        let half = match self.averaging {
            Averaging::Point => 0.0,
            Averaging::Structured { .. } => rows.half_variance[period],
            Averaging::Independent(independent) => {
                let (v, squares) = (independent.variances, independent.squares(rows.product, design));
                0.5 * (along(&at(v, places), &squares) + v[time])
            }
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
        weights[period] = match self.averaging {
            Averaging::Structured { part, .. } => {
                value += before * half;
                let bounded = curvature.clamp(before / MOST_CHANGE, before * MOST_CHANGE);
                before + part * (bounded - before)
            }
            _ => curvature,
        };
        by_period[period] += slope;
        (value, design.map(|x| slope * x))
    }

    /// A product that is settled: the means of its latents, and the contribution of its rates to the value and
    /// the derivatives.
    #[inline(never)]
    fn settled(
        &self,
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> Option<(PerLatent, (f64, PerLatent))> {
        // In a block, because the weights are replaced after it.
        let [from, to] = {
            let place = Place {
                panel: self.panel,
                priors: self.priors,
                point: self.point,
                rows,
                weights,
            };
            place.settle(UNSETTLED, settle::STEPS, |row, eta, [own, rest]| {
                OwnWeight::new(eta + 0.5 * own, rest, row.weight).means(row.units, eta)
            })?
        };
        let first = self.layout.time_index(rows.category, 0);
        let mut found = (0.0, [0.0; LATENTS]);
        for row in self.panel.product_rows(rows.product) {
            let (t, design) = (row.period, row.design());
            let eta = along(&to.mean, &design) + self.point[first + t];
            let half = rows.half_variance[t];
            let [own, rest] = settle::variances(2.0 * half, &design, &to, &from);
            let rate = OwnWeight::new(eta + 0.5 * own, rest, weights[t]).weight;
            found.0 += weights[t] * half - finite_exp(eta + half);
            for (by, x) in found.1.iter_mut().zip(design) {
                *by -= rate * x;
            }
            by_period[t] -= rate;
            weights[t] = self.changed(weights[t], rate);
        }
        Some((to.mean, found))
    }

    /// A product whose log rates have a large variance that is not due to its own latents: each row with a
    /// correction for its own information.
    #[inline(never)]
    fn own_weights(
        &self,
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> (f64, PerLatent) {
        let i = rows.product;
        let latents = at(self.point, self.layout.product_places(i));
        let first = self.layout.time_index(rows.category, 0);
        let mut found = (0.0, [0.0; LATENTS]);
        for row in self.panel.product_rows(i) {
            let (t, design) = (row.period, row.design());
            let eta = along(&latents, &design) + self.point[first + t];
            let half = rows.half_variance[t];
            let rate = OwnWeight::new(eta, 2.0 * half, weights[t])
                .weight
                .clamp(weights[t] / MOST_CHANGE, weights[t] * MOST_CHANGE);
            found.0 += weights[t] * half - finite_exp(eta + half);
            for (by, x) in found.1.iter_mut().zip(design) {
                *by -= rate * x;
            }
            by_period[t] -= rate;
            weights[t] = self.changed(weights[t], rate);
        }
        found
    }

    /// The next weight, after a fraction of the change.
    fn changed(&self, before: f64, weight: f64) -> f64 {
        match self.averaging {
            Averaging::Structured { part, .. } if part < 1.0 && before > 0.0 => {
                before * (weight / before).powf(part)
            }
            _ => weight,
        }
    }

    /// A product in whole vectors of periods: the contribution of its rates to the value and, negated, to the
    /// derivatives with respect to its latents.
    #[inline(always)]
    fn in_vectors<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: &ProductRows<'_>,
        weights: &mut [f64],
        by_period: &mut [f64],
    ) -> (f64, PerLatent) {
        let i = rows.product;
        let places = self.layout.product_places(i);
        let effects = &self.effects[rows.category * self.stride..][..self.stride];
        let log2_e = isa.splat(LOG2_E);
        let (least, most) = (isa.splat(-1000.0), isa.splat(1000.0));
        let (mut rates, mut structured) = (isa.zero(), isa.zero());
        let mut by_latent = [isa.zero(); LATENTS];
        let (variances, half_periods, origin) = match self.averaging {
            Averaging::Independent(independent) => (
                at(independent.variances, places),
                &self.half_variances[rows.category * self.stride..][..self.stride],
                independent.origin(i),
            ),
            _ => ([0.0; LATENTS], effects, 0.0),
        };
        // Loops, not closures, which are not compiled for the instruction set.
        let (mut latents, mut halves) = ([isa.zero(); LATENTS], [isa.zero(); LATENTS]);
        let mut origins = [isa.zero(); LATENTS];
        origins[0] = isa.splat(origin);
        for k in 0..LATENTS {
            latents[k] = isa.splat(self.point[places[k]]);
            halves[k] = isa.splat(0.5 * variances[k]);
        }
        let part = isa.splat(match self.averaging {
            Averaging::Structured { part, .. } => part,
            _ => 1.0,
        });
        for t in (0..weights.len()).step_by(I::LANES) {
            let present = isa.load(&rows.present()[t..]);
            let mut regressors = [present; LATENTS];
            let mut eta = isa.add(latents[EFFECT], isa.load(&effects[t..]));
            for k in 0..EFFECT {
                regressors[k] = isa.load(&rows.design[k][t..]);
                eta = isa.mul_add(latents[k], regressors[k], eta);
            }
            let raised = match self.averaging {
                Averaging::Point => eta,
                Averaging::Structured { .. } => isa.add(eta, isa.load(&rows.half_variance[t..])),
                Averaging::Independent(_) => {
                    let mut half = isa.add(halves[EFFECT], isa.load(&half_periods[t..]));
                    for k in 0..EFFECT {
                        let d = isa.sub(regressors[k], origins[k]);
                        half = isa.mul_add(isa.mul(halves[k], d), d, half);
                    }
                    isa.add(eta, half)
                }
            };
            let exponent = isa.min(isa.max(isa.mul(raised, log2_e), least), most);
            let mut rate = isa.mul(isa.exp2(exponent), present);
            if let Averaging::Structured { .. } = self.averaging {
                let before = isa.load(&weights[t..]);
                // tr(Q Sigma) without the priors' part.
                structured = isa.mul_add(before, isa.load(&rows.half_variance[t..]), structured);
                structured = isa.sub(structured, rate);
                let grown = isa.mul(before, isa.splat(MOST_CHANGE));
                let shrunk = isa.mul(before, isa.splat(1.0 / MOST_CHANGE));
                let bounded = isa.min(isa.max(rate, shrunk), grown);
                rate = isa.mul_add(part, isa.sub(bounded, before), before);
            }
            isa.store(rate, &mut weights[t..]);
            rates = isa.add(rates, rate);
            for k in 0..EFFECT {
                by_latent[k] = isa.mul_add(rate, regressors[k], by_latent[k]);
            }
            isa.store(isa.sub(isa.load(&by_period[t..]), rate), &mut by_period[t..]);
        }
        let mut by = [-isa.sum(rates); LATENTS];
        for k in 0..EFFECT {
            by[k] = -isa.sum(by_latent[k]);
        }
        let value = match self.averaging {
            Averaging::Structured { .. } => isa.sum(structured),
            _ => by[EFFECT],
        };
        (value, by)
    }
}

impl Rates for PoissonRates<'_> {
    fn again(&self) -> Option<Arc<dyn Reweigh>> {
        let is_own = self.panel.stored().is_some() && matches!(self.averaging, Averaging::Point);
        is_own.then(|| -> Arc<dyn Reweigh> {
            Arc::new(RatesAtPoint {
                set: InstructionSet::best(),
                panel: self.panel.clone(),
                priors: *self.priors,
                bound: self.bound.clone(),
                point: self.point.to_vec(),
                effects: self.effects.to_vec(),
                stride: self.stride,
            })
        })
    }

    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        _cross: &mut [f64],
        by_period: &mut [f64],
    ) -> ProductTerms {
        let i = rows.product;
        let mut latents = at(self.point, self.layout.product_places(i));
        let mut units = [0.0; LATENTS];
        let (rates, by_rates) = if let Some(highest) = self.bound.highest(i) {
            self.highest_row(highest, &rows, weights, by_period)
        } else {
            units = self.panel.units_along(i);
            let settles = self.averaging.settles(&rows, UNSETTLED);
            match settles.and_then(|_| self.settled(&rows, weights, by_period)) {
                Some((mean, found)) => {
                    settles.expect("it was settled").put(i, mean);
                    latents = mean;
                    found
                }
                None if settles.is_some() => self.own_weights(&rows, weights, by_period),
                None => self.in_vectors(isa, &rows, weights, by_period),
            }
        };
        let means = prior_means(self.priors, self.layout, self.point, rows.category);
        let precisions = prior_precisions(self.priors);
        let (mut value, mut gradient) = (rates, [0.0; LATENTS]);
        for k in 0..LATENTS {
            value += latents[k] * units[k];
            gradient[k] = units[k] + by_rates[k] - (latents[k] - means[k]) * precisions[k];
        }
        ProductTerms {
            value,
            gradient,
            shape: [0.0; 3],
        }
    }
}

/// Poisson rows at a point, with all that their rates depend on.
struct RatesAtPoint {
    set: InstructionSet,
    panel: Arc<Panel>,
    priors: Priors,
    bound: Bound,
    point: Vec<f64>,
    effects: Vec<f64>,
    stride: usize,
}

impl Reweigh for RatesAtPoint {
    fn weights(&self, rows: ProductRows<'_>, weights: &mut [f64], cross: &mut [f64], by_period: &mut [f64]) {
        self.set.run_f64(WeighProduct {
            rates: PoissonRates {
                panel: &self.panel,
                priors: &self.priors,
                bound: &self.bound,
                layout: self.panel.layout(),
                point: &self.point,
                averaging: Averaging::Point,
                effects: Cow::Borrowed(&self.effects),
                half_variances: Vec::new(),
                stride: self.stride,
            },
            rows,
            weights,
            cross,
            by_period,
        });
    }
}

/// The weights of one product.
struct WeighProduct<'a> {
    rates: PoissonRates<'a>,
    rows: ProductRows<'a>,
    weights: &'a mut [f64],
    cross: &'a mut [f64],
    by_period: &'a mut [f64],
}

impl ForSimd for WeighProduct<'_> {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        isa.wide().vectorize(self);
    }
}

impl<I: Simd<Scalar = f64>> Kernel<I> for WeighProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        self.rates
            .weigh(isa, self.rows, self.weights, self.cross, self.by_period);
    }
}
