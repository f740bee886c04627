//! A row's weight beside what the row tells of its own period.

/// Steps at most.
const STEPS: usize = 60;

/// Variance with the border below which a row's own part in it changes nothing.
const LEAST_REST: f64 = 1e-3;

/// Means of a row's log likelihood, its slope by the log rate and minus its curvature, over a normal log rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Means {
    pub(crate) value: f64,
    pub(crate) slope: f64,
    pub(crate) weight: f64,
    /// Minus the derivative of the slope by the log rate, all that follows it taken along.
    pub(crate) response: f64,
}

/// A Poisson row's weight, the mean of its rate, beside what it tells of its own period.
///
/// Given the pair, the row's log rate varies by `rest` with the border, of which the row itself has a part: with another weight `w` in
/// the place of `before` it is `rho = rest / (1 + rest (w - before))`. So the weight is the solution of
/// `ln w = log_rate + rho / 2`, `log_rate` having half of the pair's variance in it. The row's part of the bound is the largest over
/// `rho` of `-w + ln(rho) / 2 - rho (1 / rest - before) / 2`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnWeight {
    pub(crate) weight: f64,
    rho: f64,
    /// `1 / rest - before`; none where the row has no part in its own variance.
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
        // It rises from a line to another far below: Newton's steps are kept between bounds, which close in on the solution.
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

    /// Means of a row of so many units whose mean log rate is `eta`.
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

/// `exp` within the finite numbers.
pub(crate) fn finite_exp(x: f64) -> f64 {
    x.clamp(-690.0, 690.0).exp()
}
