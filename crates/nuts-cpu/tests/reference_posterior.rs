//! The posterior of a small panel against a long run of another sampler, in all parameterizations.

use infermark_backend::{
    Backend, Detail, Interrupt, Method, NutsSettings, Posterior, Report, Request, RunState,
};
use infermark_data::{Columns, read_panel};
use infermark_model::{Panel, Parameterization, Site};
use infermark_nuts_cpu::NutsCpu;
use infermark_test_support::{data, posterior as reference};
use std::sync::Arc;

fn sample(
    panel: &Arc<Panel>,
    parameterization: Parameterization,
    settings: NutsSettings,
) -> (Posterior, Report) {
    let mut request = Request::new(Method::Nuts(settings));
    request.parameterization = parameterization;
    request.seed = 7;
    let mut run = NutsCpu.start(panel.clone(), &request).unwrap();
    let progress = run.advance(u64::MAX, &Interrupt::new()).unwrap();
    assert_eq!(progress.state, RunState::Finished);
    (run.posterior().unwrap(), run.report())
}

fn diagonal(draws: u64) -> NutsSettings {
    NutsSettings {
        draws,
        ..NutsSettings::diagonal()
    }
}

/// Every mean within `errors` combined standard errors, every sd within `sd_tolerance` of the reference's.
fn compare(panel: &Panel, posterior: &Posterior, errors: f64, sd_tolerance: f64) {
    let reference = reference();
    let layout = panel.layout();
    assert_eq!(reference.len(), layout.latents());
    let diagnostics = posterior.diagnostics.as_ref().unwrap();
    for site in Site::REPARAMETERIZED {
        for (k, j) in layout.range(site).enumerate() {
            let key = panel.axes().key(site, k).to_string();
            let [mean, sd, mcse] = reference[&(site.name().to_owned(), key.clone())];
            let error = mcse.hypot(diagnostics.mcse_mean[j]);
            let distance = (posterior.mean[j] - mean).abs() / error;
            assert!(
                distance < errors,
                "{} {key}: mean off by {distance:.1} errors",
                site.name()
            );
            let ratio = posterior.sd[j] / sd;
            assert!(
                (ratio - 1.0).abs() < sd_tolerance,
                "{} {key}: sd ratio {ratio:.3}",
                site.name()
            );
        }
    }
}

#[test]
fn means_and_sds_agree_and_chains_mix() {
    let panel = Arc::new(read_panel(&data("panel.csv"), &Columns::default()).unwrap());
    let (posterior, report) = sample(&panel, Parameterization::Centered, diagonal(4000));
    // The 137 means are correlated; 4 combined errors are exceeded by any of them at most once in 100 seeds.
    compare(&panel, &posterior, 4.0, 0.10);
    let rhat = &posterior.diagnostics.as_ref().unwrap().rhat;
    assert!(
        rhat.iter().all(|r| *r <= 1.01),
        "{:?}",
        rhat.iter().copied().fold(0.0, f64::max)
    );
    let Detail::Nuts(nuts) = &report.detail else {
        panic!("not NUTS")
    };
    assert_eq!(nuts.divergences, 0);
    assert_eq!(nuts.tree_depths.iter().sum::<u64>(), 16_000);
    assert!(nuts.max_rhat.unwrap() <= 1.01 && nuts.min_ess_bulk.unwrap() > 400.0);
    assert!(
        report.warnings.iter().all(|w| !w.to_string().contains("R-hat")),
        "{:?}",
        report.warnings
    );
    println!("{report:#?}");
}

#[test]
fn the_structured_metric_needs_far_fewer_gradients() {
    let panel = Arc::new(read_panel(&data("panel.csv"), &Columns::default()).unwrap());
    let settings = NutsSettings {
        draws: 2000,
        ..NutsSettings::default()
    };
    let (posterior, report) = sample(&panel, Parameterization::Centered, settings);
    compare(&panel, &posterior, 4.0, 0.10);
    let (structured, worst) = per_thousand_gradients(&report);
    let Detail::Nuts(nuts) = &report.detail else {
        panic!("not NUTS")
    };
    assert_eq!(nuts.divergences, 0);
    assert!(nuts.max_rhat.unwrap() <= 1.01, "{:?}", nuts.max_rhat);
    assert!(nuts.mode_search.unwrap().converged);
    // Measured per thousand gradients: 220 to 250 effective samples of the worst latent's bulk and 70 to 80
    // of its tail, against 1.1 and 2 with the diagonal metric, so factors of 200 and 35. From 300 draws the
    // latter figures are accurate to a third.
    let (_, report) = sample(&panel, Parameterization::Centered, diagonal(300));
    let (diagonal, diagonal_worst) = per_thousand_gradients(&report);
    assert!(
        structured > 60.0 * diagonal,
        "bulk {structured} against {diagonal}"
    );
    assert!(
        worst > 10.0 * diagonal_worst,
        "tail {worst} against {diagonal_worst}"
    );
}

/// Smallest effective sample sizes, bulk and tail, per thousand gradients after warm-up.
fn per_thousand_gradients(report: &Report) -> (f64, f64) {
    let Detail::Nuts(nuts) = &report.detail else {
        panic!("not NUTS")
    };
    let thousands = nuts.chains.iter().map(|c| c.gradients as f64).sum::<f64>() / 1000.0;
    (
        nuts.min_ess_bulk.unwrap() / thousands,
        nuts.min_ess_tail.unwrap() / thousands,
    )
}

#[test]
fn the_other_parameterizations_have_the_same_posterior() {
    let panel = Arc::new(read_panel(&data("panel.csv"), &Columns::default()).unwrap());
    for parameterization in [Parameterization::Learned, Parameterization::Noncentered] {
        let (posterior, report) = sample(&panel, parameterization, diagonal(1000));
        // Fewer draws: an sd from 300 effective draws has a standard error of 4%.
        compare(&panel, &posterior, 4.5, 0.2);
        let stays = report
            .warnings
            .iter()
            .any(|w| w.to_string().contains("centredness"));
        assert_eq!(stays, parameterization == Parameterization::Learned);
    }
}
