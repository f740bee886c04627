//! Fits of a panel cut by product against those of the whole panel: the same path, and the same posterior up to the order of sums.

mod panels;

use infermark_backend::{
    Backend, BackendError, Detail, GaussianPoint, GaussianReport, Interrupt, LaplaceSettings, Method,
    MethodKind, Posterior, Request, Run, StructuredViSettings,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::dispersion::{Dispersion, Pearson};
use infermark_model::{Likelihood, Panel, Priors};
use infermark_test_support::iterations::AWKWARD_PANELS;
use infermark_test_support::random_panel;
use panels::{Kind, OVER_DISPERSED, POISSON};
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

const SHARDS: [usize; 4] = [2, 3, 4, 7];

/// Largest distance of a mean, a standard deviation or a quantile, in standard deviations. Sums of the same numbers in another order
/// differ by their rounding, and a direction that only the priors hold multiplies it by the ratio of counts to priors.
const CLOSE: f64 = 1e-9;

/// Largest relative distance of the values of a path, and of what was left to be gained.
const PATH: [f64; 2] = [1e-11, 1e-5];

fn backend(method: &Method) -> GaussianCpu {
    match method.kind() {
        MethodKind::Laplace => GaussianCpu::laplace(),
        MethodKind::StructuredVi => GaussianCpu::structured_vi(),
        _ => GaussianCpu::meanfield(),
    }
}

/// Both methods, corrected and plain.
fn methods() -> [Method; 4] {
    let laplace = |skewness_correction| {
        Method::Laplace(LaplaceSettings {
            skewness_correction,
            ..LaplaceSettings::default()
        })
    };
    let structured = |skewness_correction| {
        Method::StructuredVi(StructuredViSettings {
            skewness_correction,
            ..StructuredViSettings::default()
        })
    };
    [laplace(true), laplace(false), structured(true), structured(false)]
}

struct Fitted {
    posterior: Posterior,
    report: GaussianReport,
    dispersion: Dispersion,
}

fn fitted(panel: &Arc<Panel>, request: &Request) -> Fitted {
    let mut run: Box<dyn Run> = backend(&request.method).start(panel.clone(), request).unwrap();
    while !run
        .advance(u64::MAX, &Interrupt::new())
        .unwrap()
        .state
        .is_complete()
    {}
    let Detail::Gaussian(report) = run.report().detail else {
        panic!("a report of a Gaussian")
    };
    Fitted {
        posterior: run.posterior().unwrap(),
        report,
        dispersion: run.dispersion().unwrap(),
    }
}

fn columns(posterior: &Posterior) -> [&Vec<f64>; 6] {
    [
        &posterior.mean,
        &posterior.sd,
        &posterior.q025,
        &posterior.q05,
        &posterior.q95,
        &posterior.q975,
    ]
}

fn assert_same(found: &Fitted, expected: &Fitted, case: &str) {
    let steps = |of: &Fitted| {
        (
            of.report.newton_steps,
            of.report.variational_steps,
            of.report.skewed_products,
            of.report.converged,
            of.report.trace.len(),
        )
    };
    assert_eq!(steps(found), steps(expected), "{case}");
    for (found, expected) in found.report.trace.iter().zip(&expected.report.trace) {
        let off = (found.value - expected.value).abs() / expected.value.abs();
        assert!(off < PATH[0], "{case}: step {}: value off by {off}", found.step);
        // A step before the first that says what remains has an infinite rest.
        if found.remaining == expected.remaining {
            continue;
        }
        // Below the rounding of the gradient nothing is left to compare.
        let off = (found.remaining - expected.remaining).abs() / expected.remaining.abs().max(1e-6);
        assert!(off < PATH[1], "{case}: step {}: rest off by {off}", found.step);
    }
    let (own, whole) = (columns(&found.posterior), columns(&expected.posterior));
    for (column, (own, whole)) in own.into_iter().zip(whole).enumerate() {
        for (j, (own, whole)) in own.iter().zip(whole).enumerate() {
            let off = (own - whole).abs() / expected.posterior.sd[j];
            assert!(off < CLOSE, "{case}: column {column}, latent {j} off by {off}");
        }
    }
    let figures = |of: &Pearson| {
        let excess = of
            .excess
            .map_or([0.0; 3], |e| [e.value, e.limit, e.products as f64]);
        [
            of.dispersion,
            of.degrees_of_freedom,
            excess[0],
            excess[1],
            excess[2],
        ]
    };
    let (own, whole) = (&found.dispersion, &expected.dispersion);
    let pairs = own.by_category.iter().zip(&whole.by_category);
    for (own, whole) in pairs.chain([(&own.overall, &whole.overall)]) {
        for (own, whole) in figures(own).into_iter().zip(figures(whole)) {
            assert!(
                (own - whole).abs() <= 1e-8 * whole.abs().max(1.0),
                "{case}: {own} {whole}"
            );
        }
    }
}

/// Fits of a panel by every method, in `shards`, against those of the whole.
fn check(panel: &Arc<Panel>, request: &Request, shards: &[usize], name: &str) {
    for method in methods() {
        let request = Request {
            method,
            threads: Some(3),
            ..request.clone()
        };
        let whole = fitted(panel, &request);
        for shards in shards.iter().filter(|shards| **shards <= panel.layout().products) {
            let cut = fitted(
                panel,
                &Request {
                    shards: *shards,
                    ..request.clone()
                },
            );
            let case = format!(
                "{name}, {:?}, {} in {shards}",
                request.method,
                request.likelihood.name()
            );
            assert_same(&cut, &whole, &case);
        }
    }
}

fn request(likelihood: Likelihood) -> Request {
    Request {
        likelihood,
        ..Request::new(MethodKind::Laplace.default_method())
    }
}

#[test]
fn awkward_panels_have_the_posterior_of_the_whole() {
    let mut rng = StdRng::seed_from_u64(7);
    for (n, c, t, gaps, largest) in AWKWARD_PANELS {
        let panel = random_panel(&mut rng, n, c, t, gaps, largest);
        check(
            &panel,
            &request(Likelihood::Poisson),
            &SHARDS,
            &format!("{n} x {t}"),
        );
    }
}

#[test]
fn few_sales_and_many_categories_have_the_posterior_of_the_whole() {
    let named = |name: &str| *POISSON.iter().find(|kind| kind.name.starts_with(name)).unwrap();
    for kind in [
        named("60 x 20 at 0.01"),
        named("categories of one product"),
        named("40 x 52 at 0.02"),
        Kind {
            products: 7,
            categories: 1,
            ..named("12 x 10 at 50")
        },
    ] {
        let request = Request {
            priors: kind.priors(),
            ..request(Likelihood::Poisson)
        };
        check(&kind.panel(3), &request, &SHARDS, kind.name);
    }
}

/// So many products that the first rounds and the first steps use a sample of them, and categories that a cut leaves in several parts.
#[test]
fn a_sample_of_the_products_is_that_of_the_whole_panel() {
    let kind = Kind {
        name: "5,000 x 6",
        products: 5000,
        periods: 6,
        categories: 2,
        log_rate: (2.0, 1.0),
        ..POISSON[0]
    };
    let request = Request {
        priors: kind.priors(),
        threads: Some(2),
        ..request(Likelihood::Poisson)
    };
    let panel = kind.panel(5);
    let whole = fitted(&panel, &request);
    for shards in [2, 3, 7] {
        let cut = fitted(
            &panel,
            &Request {
                shards,
                ..request.clone()
            },
        );
        assert_same(&cut, &whole, &format!("{shards} shards"));
    }
}

/// Narrow priors take joint steps, and start above the products' effects.
#[test]
fn narrow_priors_have_the_posterior_of_the_whole() {
    let panel = random_panel(&mut StdRng::seed_from_u64(5), 30, 3, 12, 0.2, 60);
    let request = Request {
        priors: Priors {
            product_a_sd: 1e-4,
            product_effect_sd: 1e-4,
            ..Priors::default()
        },
        ..request(Likelihood::Poisson)
    };
    check(&panel, &request, &[2, 7], "narrow priors");
}

#[test]
fn negative_binomial_counts_have_the_posterior_of_the_whole() {
    let panel = random_panel(&mut StdRng::seed_from_u64(9), 40, 3, 26, 0.2, 30);
    check(
        &panel,
        &request(Likelihood::NegativeBinomial),
        &[2, 3, 7],
        "random",
    );
    let kind = OVER_DISPERSED[0];
    let request = Request {
        priors: kind.priors(),
        ..request(Likelihood::NegativeBinomial)
    };
    check(&kind.panel(4), &request, &[2, 7], kind.name);
}

#[test]
fn a_pass_is_that_of_the_whole_panel() {
    let panel = random_panel(&mut StdRng::seed_from_u64(4), 25, 4, 17, 0.3, 40);
    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
        let layout = panel.layout_for(likelihood);
        let mean: Vec<f64> = (0..layout.latents())
            .map(|j| 0.3 * (j as f64 * 0.7).sin())
            .collect();
        let precision_at: Vec<f64> = mean.iter().map(|m| 0.9 * m).collect();
        for method in [MethodKind::Laplace, MethodKind::StructuredVi] {
            let request = Request {
                method: method.default_method(),
                ..request(likelihood)
            };
            let backend = backend(&request.method);
            let at = GaussianPoint {
                mean: &mean,
                precision_at: &precision_at,
            };
            let whole = backend.gaussian_pass(&panel, &request, at).unwrap().unwrap();
            let joint = backend.log_joint(&panel, &request, &mean).unwrap();
            for shards in SHARDS {
                let request = Request {
                    shards,
                    ..request.clone()
                };
                let cut = backend.gaussian_pass(&panel, &request, at).unwrap().unwrap();
                let in_shards = backend.log_joint(&panel, &request, &mean).unwrap();
                for (own, whole, what) in [
                    (&vec![cut.value], &vec![whole.value], "value"),
                    (&cut.gradient, &whole.gradient, "gradient"),
                    (&cut.step, &whole.step, "step"),
                    (&cut.variance, &whole.variance, "variance"),
                    (&vec![in_shards.0], &vec![joint.0], "log joint"),
                    (&in_shards.1, &joint.1, "its gradient"),
                ] {
                    let largest = whole.iter().fold(0.0, |most: f64, of| most.max(of.abs()));
                    for (j, (own, whole)) in own.iter().zip(whole).enumerate() {
                        assert!(
                            (own - whole).abs() < 1e-10 * largest,
                            "{what} {j} in {shards}: {own} {whole}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 3, 2, 5, 0.0, 9);
    let refused = |method: MethodKind, shards| {
        let request = Request {
            method: method.default_method(),
            shards,
            ..request(Likelihood::Poisson)
        };
        backend(&request.method).start(panel.clone(), &request).err()
    };
    for method in [MethodKind::Laplace, MethodKind::StructuredVi] {
        assert_eq!(refused(method, 3), None);
        assert_eq!(
            refused(method, 4).map(|error| error.to_string()).as_deref(),
            Some("3 products cannot be cut into 4 shards; ask for fewer shards")
        );
    }
    let meanfield = refused(MethodKind::Meanfield, 2).unwrap();
    assert!(matches!(meanfield, BackendError::Unsupported { .. }));
    assert_eq!(
        meanfield.to_string(),
        "backend meanfield-cpu cannot serve 2 shards in one run; give 1"
    );
}
