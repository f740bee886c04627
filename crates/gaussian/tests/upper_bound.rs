//! Panels drawn from the model with rates at the upper bound: when whole products are left out, the posterior
//! of the others stays calibrated.

use infermark_gaussian::{GaussianObjective, ModeSettings, find_mode};
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors, Site};
use infermark_test_support::normal;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

const PRODUCTS: usize = 16;
const PERIODS: usize = 8;

/// Mean over the latents of (truth - mean) / sd, one per panel: its mean and its error over the panels.
fn mean_error(site: Site) -> (f64, f64, usize) {
    let priors = Priors {
        global_a_mean: -1.0,
        global_a_sd: 0.3,
        category_a_sd: 0.3,
        product_a_sd: 0.3,
        product_effect_mean: 8.6,
        product_effect_sd: 0.7,
        time_cat_effects_sd: 0.2,
        clip_high: 9.25,
        ..Priors::default()
    };
    let mut means = Vec::new();
    let mut at_bound = 0;
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let category = priors.global_a_mean
            + priors.global_a_sd * normal(&mut rng)
            + priors.category_a_sd * normal(&mut rng);
        let of_period: Vec<f64> = (0..PERIODS)
            .map(|_| priors.time_cat_effects_sd * normal(&mut rng))
            .collect();
        let mut part = PanelPart::new(1, PERIODS);
        let mut truth = Vec::new();
        for _ in 0..PRODUCTS {
            let a = category + priors.product_a_sd * normal(&mut rng);
            let e = priors.product_effect_mean + priors.product_effect_sd * normal(&mut rng);
            let (mut periods, mut prices, mut units) = (Vec::new(), Vec::new(), Vec::new());
            for (t, effect) in of_period.iter().enumerate() {
                let x = 0.2 * normal(&mut rng);
                let rate = (e + a * x + effect).min(priors.clip_high).exp();
                let count = (rate + rate.sqrt() * normal(&mut rng)).round().max(0.0);
                periods.push(t as u32);
                prices.push(x.exp());
                units.push(count as u32);
            }
            if !periods.is_empty() {
                part.push_product(0, Some(&periods), &prices, &units).unwrap();
                truth.push((a, e));
            }
        }
        let numbered = |n| Labels::numbered("x", n);
        let panel: Panel =
            Panel::from_parts(numbered(truth.len()), numbered(1), numbered(PERIODS), vec![part]).unwrap();
        let counts = GaussianObjective::new(&Arc::new(panel), &priors, Likelihood::Poisson);
        let left_out = counts.left_out();
        at_bound += left_out.len();
        let mode = find_mode(&counts, &ModeSettings::default()).unwrap();
        let variance = mode.factor.marginals().variance;
        let layout = counts.layout();
        let of: Vec<f64> = layout
            .range(site)
            .enumerate()
            .filter(|(i, _)| site == Site::TimeCatEffects || !left_out.contains(i))
            .map(|(i, j)| {
                let truth = match site {
                    Site::ProductA => truth[i].0,
                    Site::ProductEffect => truth[i].1,
                    _ => of_period[i],
                };
                (truth - mode.point[j]) / variance[j].sqrt()
            })
            .collect();
        if !of.is_empty() {
            means.push(of.iter().sum::<f64>() / of.len() as f64);
        }
    }
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt(), at_bound)
}

#[test]
fn products_left_out_whole_bias_no_other() {
    for site in [Site::ProductA, Site::ProductEffect, Site::TimeCatEffects] {
        let (whole, error, at_bound) = mean_error(site);
        println!("{site:?}: {whole:.3} +- {error:.3} ({at_bound} left out)");
        assert!(at_bound > 300);
        assert!(whole.abs() < 3.5 * error, "{site:?}: {whole} +- {error}");
    }
}
