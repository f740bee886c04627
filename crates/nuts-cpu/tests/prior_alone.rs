//! A panel without information: the posterior is the prior, in closed form.

use infermark_backend::{Backend, Interrupt, Method, Metric, NutsSettings, Request};
use infermark_model::{Labels, Panel, PanelPart, Parameterization, Priors, Site};
use infermark_nuts_cpu::NutsCpu;
use std::sync::Arc;

#[test]
fn without_information_the_posterior_is_the_prior() {
    let mut part = PanelPart::new(2, 3);
    for category in [0, 1, 0] {
        part.push_product(category, None, &[2.0, 3.0, 2.5], &[0, 0, 0])
            .unwrap();
    }
    let panel = Panel::from_parts(
        Labels::numbered("p", 3),
        Labels::numbered("c", 2),
        Labels::numbered("t", 3),
        vec![part],
    )
    .unwrap();
    let panel = Arc::new(panel);
    // Every log rate is above the upper bound, where the likelihood is constant.
    let priors = Priors {
        clip_low: -80.0,
        clip_high: -79.0,
        product_effect_mean: 1.5,
        ..Priors::default()
    };
    // Means and variances add along the hierarchy.
    let of_published = [
        (-2.0, 1.0f64),
        (-2.0, 2.0f64.sqrt()),
        (-2.0, 6.0f64.sqrt()),
        (1.5, 3.0),
        (0.0, 3.0),
    ];
    for (parameterization, metric) in [
        (Parameterization::Centered, Metric::Structured),
        (Parameterization::Centered, Metric::Diagonal),
        (Parameterization::Learned, Metric::Diagonal),
        (Parameterization::Noncentered, Metric::Diagonal),
    ] {
        let mut request = Request::new(Method::Nuts(NutsSettings {
            warmup: 500,
            draws: 4000,
            metric,
            ..NutsSettings::default()
        }));
        request.priors = priors;
        request.parameterization = parameterization;
        let mut run = NutsCpu.start(panel.clone(), &request).unwrap();
        run.advance(u64::MAX, &Interrupt::new()).unwrap();
        let posterior = run.posterior().unwrap();
        let mcse = &posterior.diagnostics.as_ref().unwrap().mcse_mean;
        let layout = panel.layout();
        for (site, (mean, sd)) in Site::REPARAMETERIZED.into_iter().zip(of_published) {
            for j in layout.range(site) {
                // 15 latents in four runs: 4.5 errors are exceeded once in 2,000 times.
                assert!(
                    (posterior.mean[j] - mean).abs() < 4.5 * mcse[j],
                    "{parameterization:?} {metric:?} {site:?}: mean {} +- {}",
                    posterior.mean[j],
                    mcse[j]
                );
                // At least 2,000 effective draws: 1.6% standard error of an sd; a bit more than three of
                // those.
                assert!(
                    (posterior.sd[j] / sd - 1.0).abs() < 0.06,
                    "{site:?}: sd {}",
                    posterior.sd[j]
                );
                // The quantile of a normal; the standard error of a 2.5% quantile is 2.7 times that of the
                // mean.
                let q975 = mean + 1.959_964 * sd;
                assert!((posterior.q975[j] - q975).abs() < 0.2 * sd, "{site:?}");
                let q05 = mean - 1.644_854 * sd;
                assert!((posterior.q05[j] - q05).abs() < 0.2 * sd, "{site:?}");
            }
        }
    }
}
