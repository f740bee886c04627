//! The log joint density and its gradient: the reference in plain `f64`.
//!
//! Per row, `eta = product_a * ln price + time_cat_effects + product_effect`, with a term for each regressor
//! ([`design`](crate::design)), and `y ~ Poisson(exp(clip(eta)))`, or
//! `y ~ NegativeBinomial(exp(clip(eta)), exp(log_shape))` with the shape of the product's category
//! ([`negative_binomial`](crate::negative_binomial)). All constants are included: normal constants and
//! `ln y!`. Outside the clip bounds the gradient with respect to `eta` is zero; that with respect to
//! `log_shape` remains.

use crate::design::{EFFECT, along_regressors, at};
use crate::likelihood::{Likelihood, LikelihoodVisitor, RowLikelihood};
use crate::panel::Panel;
use crate::parameterization::{Centredness, LocScale};
use crate::priors::Priors;
use crate::site::{Layout, PerSite, Site};

/// `ln sqrt(2 pi)`, from the normal densities.
pub const LN_SQRT_2PI: f64 = 0.918_938_533_204_672_8;

/// The log joint of a panel, in `z` for given centredness.
#[derive(Debug, Clone)]
pub struct LogJoint<'p> {
    panel: &'p Panel,
    priors: Priors,
    likelihood: Likelihood,
}

/// Gradient of the log joint.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Gradient with respect to `z`, in the order of [`Layout`].
    pub z: Vec<f64>,
    /// Gradient with respect to the centredness of each site; 0 for the sites without a choice of form.
    pub centredness: PerSite<f64>,
}

impl<'p> LogJoint<'p> {
    /// The log joint of `panel` under `priors`, for Poisson counts.
    pub fn new(panel: &'p Panel, priors: Priors) -> Self {
        LogJoint {
            panel,
            priors,
            likelihood: Likelihood::Poisson,
        }
    }

    /// The same with another likelihood.
    pub fn with_likelihood(self, likelihood: Likelihood) -> Self {
        LogJoint { likelihood, ..self }
    }

    /// Log joint and gradient at natural parameters, length [`Layout::latents`].
    pub fn natural(&self, point: &[f64]) -> (f64, Vec<f64>) {
        let (value, gradient) = self.at(point, &Centredness::all(1.0));
        (value, gradient.z)
    }

    /// Log joint of `z` (with the density of `z`, not of the value) and its gradient.
    ///
    /// # Panics
    /// When `z` is not of length [`Layout::latents`].
    pub fn at(&self, z: &[f64], centredness: &Centredness) -> (f64, Gradient) {
        let layout = self.panel.layout_for(self.likelihood);
        assert_eq!(z.len(), layout.latents(), "length of the point");
        let value = centredness.to_natural(z, self.panel.category_of(), &layout, &self.priors);
        let mut by_value = vec![0.0; z.len()];
        let log_likelihood = self.likelihood.visit(Rows {
            panel: self.panel,
            priors: &self.priors,
            layout: &layout,
            value: &value,
            gradient: &mut by_value,
        });
        let (log_prior, gradient) = self.back_through_priors(z, &value, by_value, centredness, &layout);
        (log_likelihood + log_prior, gradient)
    }

    /// Adds the priors, children before parents, and converts the gradient with respect to the values into
    /// one with respect to `z`.
    fn back_through_priors(
        &self,
        z: &[f64],
        value: &[f64],
        mut by_value: Vec<f64>,
        centredness: &Centredness,
        layout: &Layout,
    ) -> (f64, Gradient) {
        let transforms = centredness.transforms(&self.priors);
        let category_of = self.panel.category_of();
        let mut by_z = vec![0.0; z.len()];
        let mut by_c = PerSite::all(0.0);
        let mut log_prior = 0.0;
        let (chosen, fixed): (Vec<Site>, Vec<Site>) =
            layout.sites().iter().partition(|site| site.is_reparameterized());
        for site in chosen.into_iter().rev().chain(fixed) {
            let constant = self.priors.constant_mean(site);
            for (k, j) in layout.range(site).enumerate() {
                let parent = layout.parent(site, k, category_of);
                let mean = parent.map_or(constant, |parent| value[parent]);
                let term = prior_term(&transforms[site], z[j], mean, by_value[j]);
                log_prior += term.log_density;
                by_z[j] = term.by_z;
                if site.is_reparameterized() {
                    by_c[site] += term.by_centredness;
                }
                if let Some(parent) = parent {
                    by_value[parent] += term.by_mean;
                }
            }
        }
        (
            log_prior,
            Gradient {
                z: by_z,
                centredness: by_c,
            },
        )
    }
}

/// The rows at natural parameters: their log likelihood, and its gradient, which is added to `gradient`.
struct Rows<'a> {
    panel: &'a Panel,
    priors: &'a Priors,
    layout: &'a Layout,
    value: &'a [f64],
    gradient: &'a mut [f64],
}

impl LikelihoodVisitor for Rows<'_> {
    type Output = f64;

    fn visit<L: RowLikelihood>(self) -> f64 {
        let Rows {
            panel,
            priors,
            layout,
            value,
            gradient,
        } = self;
        let mut total = 0.0;
        for (i, c) in panel.category_of().iter().enumerate() {
            let places = layout.product_places(i);
            let latents = at(value, places);
            let parameter = layout.parameter_index(*c as usize);
            let law = L::new(layout.parameter_of(*c as usize, value));
            for row in panel.product_rows(i) {
                let t = layout.time_index(*c as usize, row.period);
                let design = row.design();
                let eta = along_regressors(&latents, &design) + value[t] + latents[EFFECT];
                let clipped = eta.clamp(priors.clip_low, priors.clip_high);
                let terms = law.terms(row.units, clipped);
                total += terms.log_likelihood;
                if eta == clipped {
                    for (j, x) in places.into_iter().zip(design) {
                        gradient[j] += terms.by_eta * x;
                    }
                    gradient[t] += terms.by_eta;
                }
                if let Some(s) = parameter {
                    gradient[s] += terms.by_parameter;
                }
            }
        }
        total - panel.sums().ln_factorials
    }
}

struct PriorTerm {
    log_density: f64,
    by_z: f64,
    by_mean: f64,
    by_centredness: f64,
}

/// One latent's prior `z ~ Normal(c m, s^c)` and the chain rule through `value = m + s^(1-c) (z - c m)`,
/// given the derivative of everything downstream with respect to the value.
fn prior_term(t: &LocScale, z: f64, mean: f64, by_value: f64) -> PriorTerm {
    let (c, ln_s) = (t.centredness, t.ln_sd);
    let r = z - c * mean;
    let pull = r * t.precision;
    PriorTerm {
        log_density: -0.5 * r * pull - c * ln_s - LN_SQRT_2PI,
        by_z: by_value * t.stretch - pull,
        by_mean: by_value * t.mean_coefficient() + c * pull,
        by_centredness: -by_value * t.stretch * (ln_s * r + mean) + pull * (mean + ln_s * r) - ln_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;
    use crate::negative_binomial::{CountTerm, Shape};
    use crate::panel::PanelPart;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// A random panel with gaps; `scale` stretches the point so that rows fall outside the clip bounds.
    fn random_panel(rng: &mut StdRng, n: usize, c: usize, t: usize, zeros: bool) -> Panel {
        let mut part = PanelPart::new(c, t);
        for i in 0..n {
            let mut periods: Vec<u32> = (0..t as u32).filter(|_| rng.random_bool(0.7)).collect();
            if periods.is_empty() {
                periods.push(0);
            }
            let prices: Vec<f64> = periods.iter().map(|_| rng.random_range(0.5..20.0)).collect();
            let units: Vec<u32> = periods
                .iter()
                .map(|_| if zeros { 0 } else { rng.random_range(0..50) })
                .collect();
            part.push_product(
                if i < c { i } else { rng.random_range(0..c) },
                Some(&periods),
                &prices,
                &units,
            )
            .unwrap();
        }
        Panel::from_parts(
            Labels::numbered("p", n),
            Labels::numbered("c", c),
            Labels::numbered("t", t),
            vec![part],
        )
        .unwrap()
    }

    #[test]
    fn gradient_equals_finite_differences() {
        for likelihood in Likelihood::ALL {
            check_gradient(likelihood);
        }
    }

    fn check_gradient(likelihood: Likelihood) {
        let mut rng = StdRng::seed_from_u64(11);
        for (n, c, t, zeros, scale) in [
            (1, 1, 1, false, 1.0),
            (1, 1, 9, true, 1.0),
            (5, 1, 1, false, 1.0),
            (9, 3, 7, false, 1.0),
            (12, 2, 8, false, 6.0),
        ] {
            let panel = random_panel(&mut rng, n, c, t, zeros);
            let log_joint = LogJoint::new(&panel, Priors::default()).with_likelihood(likelihood);
            let z: Vec<f64> = (0..panel.layout_for(likelihood).latents())
                .map(|_| scale * rng.random_range(-1.0..1.0))
                .collect();
            for c in [[1.0; 5], [0.0; 5], [0.5, 0.3, 0.8, 0.1, 0.9]] {
                let (value, gradient) = log_joint.at(&z, &Centredness::new(c));
                let close = |analytic: f64, low: f64, high: f64, h: f64, what: &str| {
                    let numeric = (high - low) / (2.0 * h);
                    // Central differences: O(h^2) truncation, and cancellation of a few ulp of the value over h.
                    let tolerance = 1e-5 * analytic.abs().max(1.0) + 1e-15 * value.abs() / h;
                    assert!(
                        (analytic - numeric).abs() < tolerance,
                        "{what}: {analytic} {numeric}"
                    );
                };
                let h = 1e-6;
                for j in 0..z.len() {
                    let at = |d: f64| {
                        let mut z = z.clone();
                        z[j] += d;
                        log_joint.at(&z, &Centredness::new(c)).0
                    };
                    close(gradient.z[j], at(-h), at(h), h, "z");
                }
                for (s, site) in Site::REPARAMETERIZED.into_iter().enumerate() {
                    let at = |d: f64| {
                        let mut c = c;
                        c[s] += d;
                        log_joint.at(&z, &Centredness::new(c)).0
                    };
                    close(gradient.centredness[site], at(-h), at(h), h, "centredness");
                }
            }
        }
    }

    #[test]
    fn both_clip_bounds_stop_the_gradient() {
        let mut part = PanelPart::new(1, 3);
        part.push_product(0, None, &[1.0, 1.0, 1.0], &[3, 4, 5]).unwrap();
        let panel = Panel::from_parts(
            Labels::numbered("p", 1),
            Labels::numbered("c", 1),
            Labels::numbered("t", 3),
            vec![part],
        )
        .unwrap();
        // ln 1 = 0, so eta is the period's effect alone: below, inside and above the bounds.
        let mut point = vec![0.0; panel.layout().latents()];
        point[4] = -5.0;
        point[5] = 1.0;
        point[6] = 21.0;
        let (value, gradient) = LogJoint::new(&panel, Priors::default()).natural(&point);
        let prior = |x: f64, m: f64, s: f64| -0.5 * ((x - m) / s).powi(2) - s.ln() - LN_SQRT_2PI;
        let likelihood = 3.0 * -4.0 - (-4f64).exp() + 4.0 - 1f64.exp() + 5.0 * 20.0
            - 20f64.exp()
            - (6f64.ln() + 24f64.ln() + 120f64.ln());
        let priors = prior(0.0, -2.0, 1.0)
            + prior(0.0, 0.0, 1.0)
            + prior(0.0, 0.0, 2.0)
            + prior(0.0, 0.0, 3.0)
            + point[4..].iter().map(|x| prior(*x, 0.0, 3.0)).sum::<f64>();
        // The value is 4.9e8, of which `f64` resolves 6e-8.
        assert!((value - likelihood - priors).abs() < 1e-6);
        assert!((gradient[4] - 5.0 / 9.0).abs() < 1e-12);
        assert!((gradient[5] - (4.0 - 1f64.exp() - 1.0 / 9.0)).abs() < 1e-12);
        assert!((gradient[6] + 21.0 / 9.0).abs() < 1e-12);

        // The shape's derivative stays, of the rows at the bounds as of the one between them.
        let negative_binomial =
            LogJoint::new(&panel, Priors::default()).with_likelihood(Likelihood::NegativeBinomial);
        point.push(1.5);
        let (_, gradient) = negative_binomial.natural(&point);
        assert!((gradient[4] - 5.0 / 9.0).abs() < 1e-12);
        assert!((gradient[6] + 21.0 / 9.0).abs() < 1e-12);
        let shape = Shape::new(1.5);
        let by_shape: f64 = [(3, -4.0), (4, 1.0), (5, 20.0)]
            .map(|(y, eta)| CountTerm::new(y, eta, &shape).by_log_shape)
            .iter()
            .sum();
        assert!((gradient[7] - (by_shape - (1.5 - 3.0) / 9.0)).abs() < 1e-12);
    }

    #[test]
    fn a_large_shape_has_the_poisson_log_joint() {
        let mut rng = StdRng::seed_from_u64(3);
        let panel = random_panel(&mut rng, 9, 3, 7, false);
        let poisson = LogJoint::new(&panel, Priors::default());
        let mut point: Vec<f64> = (0..panel.layout().latents())
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        let (expected, gradient) = poisson.natural(&point);
        point.extend([20.0; 3]);
        let (value, by_natural) = poisson
            .with_likelihood(Likelihood::NegativeBinomial)
            .natural(&point);
        let prior = 3.0 * (-0.5 * (17.0f64 / 3.0).powi(2) - 3f64.ln() - LN_SQRT_2PI);
        // Rates and counts below 100 and about 44 rows: squares over 2 r, 5e8, leave 1e-4 at most.
        assert!((value - prior - expected).abs() < 1e-4, "{value} {expected}");
        for (found, poisson) in by_natural.iter().zip(&gradient) {
            assert!((found - poisson).abs() < 1e-4 * poisson.abs().max(1.0));
        }
        assert_ne!(value - prior, expected);
    }
}
