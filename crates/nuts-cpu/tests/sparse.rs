//! Panels of few sales, many products without any, and gaps: both metrics have the same posterior.

use infermark_backend::{Backend, Detail, Interrupt, Method, NutsSettings, Posterior, Request};
use infermark_model::{Labels, Panel, PanelPart, Site};
use infermark_nuts_cpu::NutsCpu;
use std::sync::Arc;

/// 12 products, every third without a sale, the others with 0 to 3 units; 8 periods, of which products lack some.
fn sparse_panel() -> Arc<Panel> {
    let mut part = PanelPart::new(2, 8);
    for i in 0..12usize {
        let periods: Vec<u32> = (0..8)
            .filter(|t| !(*t as usize + 2 * i).is_multiple_of(5))
            .collect();
        let prices: Vec<f64> = periods
            .iter()
            .map(|t| 1.2 + 0.15 * ((*t as usize * 7 + i * 3) % 9) as f64)
            .collect();
        let units: Vec<u32> = periods
            .iter()
            .map(|t| {
                if i % 3 == 0 {
                    0
                } else {
                    (*t * 5 + i as u32 * 7) % 4
                }
            })
            .collect();
        part.push_product(i % 2, Some(&periods), &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    Arc::new(Panel::from_parts(numbered(12), numbered(2), numbered(8), vec![part]).unwrap())
}

fn sample(panel: &Arc<Panel>, settings: NutsSettings) -> (Posterior, u64) {
    let mut request = Request::new(Method::Nuts(settings));
    request.seed = 3;
    let mut run = NutsCpu.start(panel.clone(), &request).unwrap();
    run.advance(u64::MAX, &Interrupt::new()).unwrap();
    let Detail::Nuts(nuts) = run.report().detail else {
        panic!("not NUTS")
    };
    (run.posterior().unwrap(), nuts.divergences)
}

#[test]
fn the_metrics_agree_where_sales_are_few() {
    let panel = sparse_panel();
    let draws = 4000;
    let (structured, divergences) = sample(
        &panel,
        NutsSettings {
            draws,
            ..NutsSettings::default()
        },
    );
    let (diagonal, _) = sample(
        &panel,
        NutsSettings {
            draws,
            ..NutsSettings::diagonal()
        },
    );
    // The clip of the log rate bends the density of a product that never sold.
    assert!(divergences <= 16, "{divergences} of 16000 transitions diverged");
    let mcse = |posterior: &Posterior, j: usize| posterior.diagnostics.as_ref().unwrap().mcse_mean[j];
    let layout = panel.layout();
    for site in Site::REPARAMETERIZED {
        for j in layout.range(site) {
            let error = mcse(&structured, j).hypot(mcse(&diagonal, j));
            let distance = (structured.mean[j] - diagonal.mean[j]) / error;
            // 43 latents: 4.5 errors are exceeded once in 3,000 times.
            assert!(
                distance.abs() < 4.5,
                "{site:?} {j}: means differ by {distance:.1} errors"
            );
            // Sds from a thousand effective draws each, with skewed marginals: 4% standard error of the
            // ratio.
            let ratio = structured.sd[j] / diagonal.sd[j];
            assert!(
                (ratio - 1.0).abs() < 0.15,
                "{site:?} {j}: sds of ratio {ratio:.3}"
            );
        }
    }
}
