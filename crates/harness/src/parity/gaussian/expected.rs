//! The rows' terms in a pass: means of their log likelihoods, and of the derivatives, over normal log rates.

use super::Reference;
use infermark_model::design::{along, at};
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::{LikelihoodVisitor, RowLikelihood, RowWeight};

/// Nodes of the Gauss-Hermite rule that the step's mean is defined by.
const NODES: usize = 9;

/// Scale of the logistic step that stands for the censored highest count of such a product, in standard deviations of the effect.
const SCALE_OF_STEP: f64 = 0.3;

/// Nodes and weights of the Gauss-Hermite rule for the standard normal density: the roots of Hermite's polynomial `He_n`, found between
/// those of the one before, and `n! / (n He_(n-1))^2` there.
fn gauss_hermite(n: usize) -> Vec<(f64, f64)> {
    // He_n and He_(n-1).
    let at = |n: usize, x: f64| (1..n).fold((x, 1.0), |(own, before), k| (x * own - k as f64 * before, own));
    let mut roots = vec![0.0];
    for order in 2..=n {
        let most = 2.0 * (order as f64).sqrt();
        let mut ends = vec![-most];
        ends.append(&mut roots);
        ends.push(most);
        for ends in ends.windows(2) {
            let (mut low, mut high) = (ends[0], ends[1]);
            for _ in 0..100 {
                let middle = 0.5 * (low + high);
                match (at(order, middle).0 > 0.0) == (at(order, high).0 > 0.0) {
                    true => high = middle,
                    false => low = middle,
                }
            }
            roots.push(0.5 * (low + high));
        }
    }
    let factorial: f64 = (1..=n).map(|k| k as f64).product();
    let weight = |x: f64| factorial / (n as f64 * at(n, x).1).powi(2);
    roots.into_iter().map(|x| (x, weight(x))).collect()
}

/// A row's part in a precision: minus the second derivatives, with respect to the log rate, and mixed with
/// the log shape.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    pub(super) by_eta: f64,
    pub(super) cross: f64,
}

/// The mean of a row's log likelihood, without `ln y!`, over a normal log rate, and of its derivatives.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ExpectedRow {
    pub(super) value: f64,
    pub(super) by_eta: f64,
    pub(super) weight: Weight,
    pub(super) by_log_shape: f64,
    /// Minus the second derivative with respect to the log shape.
    pub(super) curvature: f64,
    /// The expected information of a count on the log shape: half the squared derivative of its log variance.
    pub(super) told: f64,
}

impl ExpectedRow {
    /// A count of which it is only known that it is at the bound, `ln s((eta - h) / scale)` with the logistic
    /// function s.
    fn at_bound(log_least: f64, scale: f64, mean: f64, variance: f64) -> Self {
        let mut sum = ExpectedRow::default();
        for (node, weight) in gauss_hermite(NODES) {
            let z = (mean + node * variance.sqrt() - log_least) / scale;
            let above = 1.0 / (1.0 + (-z).exp());
            // Of two forms the one that does not overflow.
            sum.value += weight
                * if z > 0.0 {
                    -(-z).exp().ln_1p()
                } else {
                    z - z.exp().ln_1p()
                };
            sum.by_eta += weight / (1.0 + z.exp()) / scale;
            sum.weight.by_eta += weight * above / (1.0 + z.exp()) / (scale * scale);
        }
        sum
    }

    /// A count with a normal log rate, by the likelihood `L` with its own parameter.
    fn of<L: RowLikelihood>(units: u32, mean: f64, variance: f64, parameter: f64) -> Self {
        let law = L::new(parameter);
        if let Some((terms, weight)) = law.expected(units, mean, variance) {
            return ExpectedRow {
                value: terms.log_likelihood,
                by_eta: terms.by_eta,
                weight: Weight::from(weight),
                ..ExpectedRow::default()
            };
        }
        let at = |eta: f64| {
            let terms = law.terms(units, eta);
            let step = 1e-5;
            let slope = |s: f64| L::new(parameter + s).terms(units, eta).by_parameter;
            ExpectedRow {
                value: terms.log_likelihood,
                by_eta: terms.by_eta,
                weight: Weight::from(law.weight(units, eta)),
                by_log_shape: terms.by_parameter,
                curvature: -(slope(step) - slope(-step)) / (2.0 * step),
                told: 0.5 * law.log_variance_by_parameter(eta).powi(2),
            }
        };
        if variance == 0.0 {
            return at(mean);
        }
        // The trapezoid rule over nine standard deviations either way: for a function that is analytic within pi of the real
        // line its error is far below rounding.
        let (step, steps) = (0.25, 36);
        let mut sum = ExpectedRow::default();
        for k in -steps..=steps {
            let z = step * f64::from(k);
            let weight = step * (-0.5 * z * z - LN_SQRT_2PI).exp();
            let row = at(mean + z * variance.sqrt());
            sum.value += weight * row.value;
            sum.by_eta += weight * row.by_eta;
            sum.weight.by_eta += weight * row.weight.by_eta;
            sum.weight.cross += weight * row.weight.cross;
            sum.by_log_shape += weight * row.by_log_shape;
            sum.curvature += weight * row.curvature;
            sum.told += weight * row.told;
        }
        sum
    }
}

impl From<RowWeight> for Weight {
    fn from(weight: RowWeight) -> Self {
        Weight {
            by_eta: weight.by_eta,
            cross: weight.cross,
        }
    }
}

/// [`ExpectedRow::of`] whichever likelihood it is.
struct RowMean {
    units: u32,
    mean: f64,
    variance: f64,
    parameter: f64,
}

impl LikelihoodVisitor for RowMean {
    type Output = ExpectedRow;

    fn visit<L: RowLikelihood>(self) -> ExpectedRow {
        ExpectedRow::of::<L>(self.units, self.mean, self.variance, self.parameter)
    }
}

impl Reference<'_> {
    /// What is expected of every row at the means of the latents, with the variances of the rows' log rates, or none.
    pub(super) fn expected(&self, mean: &[f64], row_variance: Option<&[f64]>) -> Vec<ExpectedRow> {
        let mut all = vec![ExpectedRow::default(); self.panel.rows()];
        self.for_each_row(|product, index, row| {
            let (places, t, s) = self.places(product);
            let eta = along(&at(mean, places), &row.design()) + mean[t + row.period];
            let v = row_variance.map_or(0.0, |of| of[index]);
            all[index] = match self.layout.likelihood {
                _ if self.at_bound[product] == Some(index) => {
                    let scale = SCALE_OF_STEP * self.priors.product_effect_sd;
                    ExpectedRow::at_bound(self.log_least, scale, eta, v)
                }
                _ if self.at_bound[product].is_some() => ExpectedRow::default(),
                likelihood => likelihood.visit(RowMean {
                    units: row.units,
                    mean: eta,
                    variance: v,
                    parameter: if self.layout.likelihood.parameter().is_some() {
                        mean[s]
                    } else {
                        0.0
                    },
                }),
            };
        });
        all
    }
}
