//! Counts at the upper bound of the log rate: NUTS has the bound, the Gaussian methods leave such products out whole, and what they say
//! of all others is what NUTS says, but for the sales that they do without.

use infermark_backend::{Backend, Interrupt, LaplaceSettings, Method, NutsSettings, Request};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Labels, Panel, PanelPart, Priors, Site};
use infermark_nuts_cpu::NutsCpu;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

const PRODUCTS: usize = 12;
const PERIODS: usize = 10;

fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// Products that sell 400 to 6,000 a period, and three whose rate comes to the bound, 10,405, in some of them.
fn panel(seed: u64, high: f64) -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(seed);
    let effects: Vec<f64> = (0..PERIODS).map(|_| 0.1 * normal(&mut rng)).collect();
    let mut part = PanelPart::new(1, PERIODS);
    for i in 0..PRODUCTS {
        let level = if i < 3 { 9.15 } else { 6.0 + 0.3 * (i - 3) as f64 };
        let elasticity = -1.5 + 0.5 * normal(&mut rng);
        let (mut prices, mut units) = (Vec::new(), Vec::new());
        for effect in &effects {
            let x = 0.15 * normal(&mut rng);
            let rate = (level + elasticity * x + effect).min(high).exp();
            prices.push(x.exp());
            units.push((rate + rate.sqrt() * normal(&mut rng)).round().max(0.0) as u32);
        }
        part.push_product(0, None, &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    Arc::new(Panel::from_parts(numbered(PRODUCTS), numbered(1), numbered(PERIODS), vec![part]).unwrap())
}

#[test]
fn what_is_left_without_products_at_the_bound_is_nuts_with_the_clip() {
    let priors = Priors {
        clip_high: 9.25,
        ..Priors::default()
    };
    let (mut squares, mut count) = (0.0, 0.0);
    for seed in [1, 2] {
        let panel = panel(seed, priors.clip_high);
        let run = |backend: &dyn Backend, method| {
            let mut request = Request::new(method);
            request.priors = priors;
            let mut run = backend.start(panel.clone(), &request).unwrap();
            while !run
                .advance(u64::MAX, &Interrupt::new())
                .unwrap()
                .state
                .is_complete()
            {}
            (run.posterior().unwrap(), run.report().warnings)
        };
        let (laplace, warnings) = run(
            &GaussianCpu::laplace(),
            Method::Laplace(LaplaceSettings::default()),
        );
        assert!(
            warnings
                .iter()
                .any(|w| w.contains("3 of 12 products have counts at the upper bound")),
            "{warnings:?}"
        );
        let (nuts, _) = run(
            &NutsCpu,
            Method::Nuts(NutsSettings {
                chains: 2,
                draws: 1500,
                ..NutsSettings::diagonal()
            }),
        );
        let layout = panel.layout();
        let kept = [Site::ProductA, Site::ProductEffect]
            .into_iter()
            .flat_map(|site| layout.range(site).skip(3))
            .chain(layout.range(Site::TimeCatEffects));
        for j in kept {
            let error = nuts.diagnostics.as_ref().unwrap().mcse_mean[j];
            // Means given more and less of the data differ by what their variances do.
            let without = (laplace.sd[j].powi(2) - nuts.sd[j].powi(2)).max(0.0);
            let spread = (without + error * error + (0.05 * laplace.sd[j]).powi(2)).sqrt();
            let off = (laplace.mean[j] - nuts.mean[j]) / spread;
            assert!(off.abs() < 4.5, "seed {seed}: {j} off by {off:.1}");
            squares += off * off;
            count += 1.0;
            // 1,500 draws tell an sd to a few percent; less data, no narrower.
            assert!(
                laplace.sd[j] > 0.85 * nuts.sd[j],
                "{j}: {} {}",
                laplace.sd[j],
                nuts.sd[j]
            );
        }
    }
    let rms: f64 = f64::sqrt(squares / count);
    println!("root mean square {rms:.2}");
    assert!(rms < 1.6, "{rms}");
}
