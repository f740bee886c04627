//! A row's weight, corrected for the row's own information on its period.

/// Largest number of steps.
const STEPS: usize = 60;

/// Variance due to the border below which a row's own part in it is negligible.
const LEAST_REST: f64 = 1e-3;

/// Means over a normal log rate of a row's log likelihood, of its slope with respect to the log rate, and of
/// minus its curvature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    pub(crate) value: f64,
    pub(crate) slope: f64,
    pub(crate) weight: f64,
    /// Minus the total derivative of the slope with respect to the log rate.
    pub(crate) response: f64,
}

/// A Poisson row's weight, the mean of its rate, corrected for the row's own information on its period.
///
/// Given the pair, the row's log rate has the variance `rest` due to the border, which depends on the row
/// itself: with another weight `w` instead of `before` it is `rho = rest / (1 + rest (w - before))`. So the
/// weight is the solution of `ln w = log_rate + rho / 2`, where `log_rate` includes half of the pair's
/// variance. The row's part of the bound is the maximum over `rho` of
/// `-w + ln(rho) / 2 - rho (1 / rest - before) / 2`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnWeight {
    pub(crate) weight: f64,
    rho: f64,
    /// `1 / rest - before`; none if the row does not affect its own variance.
    precision: Option<f64>,
}

impl OwnWeight {
    pub(crate) fn new(log_rate: f64, rest: f64, before: f64) -> Self {
        if rest < LEAST_REST {
            return OwnWeight {
                weight: finite_exp(log_rate + 0.5 * rest),
                rho: rest,
                precision: None,
            };
        }
        let precision = (rest.recip() - before).max(0.0);
        // The function bends from one line to another far below it: Newton's steps are kept between bounds
        // that enclose the solution.
        let rho = |weight: f64| 1.0 / (precision + weight);
        let mut bounds = [log_rate, log_rate + 0.5 * rho(finite_exp(log_rate))];
        let mut u = (log_rate + 0.5 * rest).clamp(bounds[0], bounds[1]);
        for _ in 0..STEPS {
            let weight = finite_exp(u);
            let rho = rho(weight);
            let off = u - log_rate - 0.5 * rho;
            bounds[usize::from(off > 0.0)] = u;
            let step = off / (1.0 + 0.5 * weight * rho * rho);
            u -= step;
            if u < bounds[0] || u > bounds[1] {
                u = 0.5 * (bounds[0] + bounds[1]);
            } else if step.abs() < 1e-12 {
                break;
            }
        }
        let weight = finite_exp(u);
        OwnWeight {
            weight,
            rho: rho(weight),
            precision: Some(precision),
        }
    }

    /// Means of a row with `units` whose mean log rate is `eta`.
    pub(crate) fn means(&self, units: f64, eta: f64) -> Means {
        let OwnWeight { weight, rho, .. } = *self;
        let (of_border, response) = match self.precision {
            Some(precision) => (
                0.5 * (rho.ln() - precision * rho),
                weight / (1.0 + 0.5 * weight * rho * rho),
            ),
            None => (0.0, weight),
        };
        Means {
            value: units * eta - weight + of_border,
            slope: units - weight,
            weight,
            response,
        }
    }
}

/// `exp`, limited to finite numbers.
pub(crate) fn finite_exp(x: f64) -> f64 {
    x.clamp(-690.0, 690.0).exp()
}
