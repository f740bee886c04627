//! One product in one period: the posterior has a closed form, except for one integral.

use infermark_backend::{Backend, Interrupt, Method, NutsSettings, Request};
use infermark_model::{Labels, Panel, PanelPart, Priors};
use infermark_nuts_cpu::NutsCpu;
use std::sync::Arc;

const PRICE: f64 = 3.0;

/// Prior means and sds of (global_a, category_a, product_a, product_effect, time effect), the covariance of each with the log rate,
/// and mean and variance of that.
struct Gaussian {
    mean: [f64; 5],
    variance: [f64; 5],
    with_eta: [f64; 5],
    eta: [f64; 2],
}

fn prior(priors: &Priors) -> Gaussian {
    let x = PRICE.ln();
    let global = priors.global_a_sd.powi(2);
    let category = global + priors.category_a_sd.powi(2);
    let product = category + priors.product_a_sd.powi(2);
    let (effect, time) = (
        priors.product_effect_sd.powi(2),
        priors.time_cat_effects_sd.powi(2),
    );
    let a = priors.global_a_mean;
    Gaussian {
        mean: [a, a, a, priors.product_effect_mean, priors.time_cat_effects_mean],
        variance: [global, category, product, effect, time],
        with_eta: [x * global, x * category, x * product, effect, time],
        eta: [
            a * x + priors.product_effect_mean + priors.time_cat_effects_mean,
            x * x * product + effect + time,
        ],
    }
}

/// Means and sds of the latents given a count: given the log rate they are linear in it.
fn exact(priors: &Priors, units: u32) -> [[f64; 2]; 5] {
    let Gaussian {
        mean,
        variance,
        with_eta,
        eta: [m, v],
    } = prior(priors);
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for k in 0..200_000 {
        let eta = m + v.sqrt() * 16.0 * ((f64::from(k) + 0.5) / 200_000.0 - 0.5);
        let clipped = eta.clamp(priors.clip_low, priors.clip_high);
        let log = f64::from(units) * clipped - clipped.exp() - 0.5 * (eta - m).powi(2) / v;
        total += log.exp();
        first += log.exp() * eta;
        second += log.exp() * eta * eta;
    }
    let posterior_mean = first / total;
    let posterior_variance = second / total - posterior_mean * posterior_mean;
    std::array::from_fn(|j| {
        let slope = with_eta[j] / v;
        let rest = variance[j] - slope * with_eta[j];
        [
            mean[j] + slope * (posterior_mean - m),
            (rest + slope * slope * posterior_variance).sqrt(),
        ]
    })
}

#[test]
fn moments_are_exact_at_any_target_acceptance() {
    for units in [0, 1, 40] {
        for target_accept in [0.6, 0.97] {
            let mut part = PanelPart::new(1, 1);
            part.push_product(0, None, &[PRICE], &[units]).unwrap();
            let numbered = |n| Labels::numbered("x", n);
            let panel = Panel::from_parts(numbered(1), numbered(1), numbered(1), vec![part]).unwrap();
            let settings = NutsSettings {
                draws: 25_000,
                target_accept,
                ..NutsSettings::default()
            };
            let mut request = Request::new(Method::Nuts(settings));
            request.seed = 11;
            let exact = exact(&request.priors, units);
            let mut run = NutsCpu.start(Arc::new(panel), &request).unwrap();
            run.advance(u64::MAX, &Interrupt::new()).unwrap();
            let posterior = run.posterior().unwrap();
            let diagnostics = posterior.diagnostics.as_ref().unwrap();
            for (j, [mean, sd]) in exact.into_iter().enumerate() {
                let error = (posterior.mean[j] - mean) / diagnostics.mcse_mean[j];
                assert!(
                    error.abs() < 4.5,
                    "{units} units, {target_accept}, {j}: mean off by {error:.1} errors"
                );
                // 100,000 draws, half of them effective for squares: 0.3%; four of those. The two-radian
                // trajectories of nuts-rs were off by 1 to 2%.
                let ratio = posterior.sd[j] / sd;
                assert!(
                    (ratio - 1.0).abs() < 0.013,
                    "{units} units, {target_accept}, {j}: sd ratio {ratio:.4}"
                );
            }
        }
    }
}
