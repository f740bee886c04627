//! Runs on densities whose moments are known, or that fail.

use crate::density::Density;
use crate::record::Retention;
use crate::run::{NutsRun, RunSetup};
use infermark_backend::{BackendError, Detail, Interrupt, Method, NutsSettings, Request, Run, RunState};
use infermark_communicator::Local;
use infermark_model::Layout;
use infermark_test_support::conformance::stays_failed;
use std::sync::Arc;
use std::time::Instant;

/// Five latents: the sizes of the smallest panel.
const LAYOUT: Layout = Layout::new(1, 1, 1);

fn start<D: Density + Send + 'static>(settings: &NutsSettings, density: impl Fn() -> D) -> NutsRun {
    let mut request = Request::new(Method::Nuts(settings.clone()));
    request.threads = Some(2);
    request.seed = 5;
    NutsRun::with_densities(
        RunSetup {
            layout: LAYOUT,
            request: &request,
            settings,
            retention: Retention::Every,
            communicator: Box::new(Local::default()),
            saved: None,
            started: Instant::now(),
        },
        Arc::new(|z: &[f64]| z.to_vec()),
        |_| density(),
    )
    .unwrap()
}

/// A normal whose standardized entries are a stationary autoregression of order one.
struct Normal {
    mean: [f64; 5],
    sd: [f64; 5],
    correlation: f64,
}

impl Density for Normal {
    fn dimension(&self) -> usize {
        5
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        let u: Vec<f64> = (0..5).map(|i| (z[i] - self.mean[i]) / self.sd[i]).collect();
        let precision = 1.0 / (1.0 - self.correlation.powi(2));
        let mut by_u = [0.0; 5];
        by_u[0] -= u[0];
        let mut value = -0.5 * u[0] * u[0];
        for i in 1..5 {
            let innovation = u[i] - self.correlation * u[i - 1];
            value -= 0.5 * innovation * innovation * precision;
            by_u[i] -= innovation * precision;
            by_u[i - 1] += self.correlation * innovation * precision;
        }
        for i in 0..5 {
            gradient[i] = by_u[i] / self.sd[i];
        }
        value
    }
}

#[test]
fn a_correlated_normal_of_mixed_scales() {
    let settings = NutsSettings {
        warmup: 600,
        draws: 3000,
        ..NutsSettings::diagonal()
    };
    let normal = || Normal {
        mean: [1.0, -30.0, 0.0, 1000.0, 0.002],
        sd: [1.0, 10.0, 0.1, 50.0, 0.001],
        correlation: 0.8,
    };
    let mut run = start(&settings, normal);
    run.advance(u64::MAX, &Interrupt::new()).unwrap();
    let posterior = run.posterior().unwrap();
    let diagnostics = posterior.diagnostics.as_ref().unwrap();
    let truth = normal();
    for j in 0..5 {
        let error = (posterior.mean[j] - truth.mean[j]) / diagnostics.mcse_mean[j];
        assert!(error.abs() < 4.5, "mean of {j} off by {error} errors");
        // Over 2,000 effective draws: 1.6% standard error of an sd; a bit more than three of those.
        assert!(
            (posterior.sd[j] / truth.sd[j] - 1.0).abs() < 0.06,
            "{j}: {}",
            posterior.sd[j]
        );
        assert!(diagnostics.rhat[j] < 1.01);
    }
    let draws = run.draws().unwrap();
    let category = |k: usize| draws.sites[1].values[k] - posterior.mean[1];
    let product = |k: usize| draws.sites[2].values[k] - posterior.mean[2];
    let covariance = (0..12_000).map(|k| category(k) * product(k)).sum::<f64>() / 12_000.0;
    let correlation = covariance / posterior.sd[1] / posterior.sd[2];
    // (1 - 0.8^2) / sqrt(1,000) is 0.011.
    assert!((correlation - 0.8).abs() < 0.045, "{correlation}");
    // At the draws the exported log joint is the density's own.
    let z: Vec<f64> = draws.sites.iter().map(|s| s.values[17]).collect();
    let value = normal().value_and_gradient(&z, &mut [0.0; 5]);
    assert!((draws.statistics[17].log_joint - value).abs() < 1e-12 * value.abs().max(1.0));
    assert!(draws.statistics[17].energy > -value);
}

/// A standard normal with no density below -1 in its first entry.
struct Truncated;

impl Density for Truncated {
    fn dimension(&self) -> usize {
        5
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        for (g, z) in gradient.iter_mut().zip(z) {
            *g = -z;
        }
        if z[0] < -1.0 {
            f64::NAN
        } else {
            -0.5 * z.iter().map(|z| z * z).sum::<f64>()
        }
    }
}

#[test]
fn a_value_that_is_not_finite_is_a_divergence() {
    for settings in [NutsSettings::diagonal(), NutsSettings::default()] {
        diverges(&NutsSettings {
            chains: 3,
            warmup: 200,
            draws: 200,
            ..settings
        });
    }
}

fn diverges(settings: &NutsSettings) {
    let mut run = start(settings, || Truncated);
    assert_eq!(
        run.advance(u64::MAX, &Interrupt::new()).unwrap().state,
        RunState::Finished
    );
    let report = run.report();
    let Detail::Nuts(nuts) = &report.detail else {
        panic!("not NUTS")
    };
    assert!(nuts.divergences > 0);
    let counted = run
        .draws()
        .unwrap()
        .statistics
        .iter()
        .filter(|s| s.diverging)
        .count();
    assert_eq!(nuts.divergences, counted as u64);
    assert!(
        report.warnings.iter().any(|w| w.to_string().contains("diverged")),
        "{:?}",
        report.warnings
    );
    assert!(run.draws().unwrap().sites[0].values.iter().all(|x| *x >= -1.0));
}

/// No value anywhere, or a panic.
struct Broken {
    panics: bool,
}

impl Density for Broken {
    fn dimension(&self) -> usize {
        5
    }

    fn value_and_gradient(&mut self, _: &[f64], gradient: &mut [f64]) -> f64 {
        assert!(!self.panics, "on purpose");
        gradient.fill(0.0);
        f64::NEG_INFINITY
    }
}

#[test]
fn a_chain_that_cannot_start_ends_the_run_with_its_reason() {
    let metrics = [NutsSettings::diagonal(), NutsSettings::default()];
    for ((panics, word), settings) in [(false, "finite"), (true, "panicked")]
        .into_iter()
        .flat_map(|case| metrics.iter().map(move |settings| (case, settings)))
    {
        let mut run = start(settings, || Broken { panics });
        let error = run.advance(10, &Interrupt::new()).unwrap_err();
        assert!(matches!(&error, BackendError::Diverged { .. }));
        assert!(error.to_string().contains(word), "{error}");
        stays_failed(&mut run, &error);
        assert!(
            run.report()
                .warnings
                .iter()
                .any(|w| w.to_string().contains("failed"))
        );
        assert!(run.posterior().is_err());
    }
}

/// A standard normal, the target of the structured metric's coordinates.
struct Standard;

impl Density for Standard {
    fn dimension(&self) -> usize {
        5
    }

    fn value_and_gradient(&mut self, z: &[f64], gradient: &mut [f64]) -> f64 {
        for (g, z) in gradient.iter_mut().zip(z) {
            *g = -z;
        }
        -0.5 * z.iter().map(|z| z * z).sum::<f64>()
    }
}

#[test]
fn the_structured_sampler_draws_a_standard_normal_independently() {
    let settings = NutsSettings {
        warmup: 100,
        draws: 5000,
        ..NutsSettings::default()
    };
    let mut run = start(&settings, || Standard);
    run.advance(u64::MAX, &Interrupt::new()).unwrap();
    let posterior = run.posterior().unwrap();
    let diagnostics = posterior.diagnostics.as_ref().unwrap();
    for j in 0..5 {
        // 20,000 draws: five standard errors.
        assert!(posterior.mean[j].abs() < 5.0 / 20_000f64.sqrt(), "{j}");
        assert!((posterior.sd[j] - 1.0).abs() < 5.0 / 40_000f64.sqrt(), "{j}");
        assert!(diagnostics.ess_bulk[j] > 14_000.0 && diagnostics.ess_tail[j] > 14_000.0);
    }
    let Detail::Nuts(nuts) = run.report().detail else {
        panic!("not NUTS")
    };
    for chain in &nuts.chains {
        // Every trajectory is accepted, and the step is the longest there is.
        assert!(chain.acceptance.unwrap() > 1.0 - 1e-9);
        assert!((chain.step_size - std::f64::consts::FRAC_PI_2).abs() < 1e-6);
    }
    assert_eq!((nuts.divergences, nuts.saturated_trees), (0, 0));
}
