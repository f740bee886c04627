//! Calibrated methods pass, others fail: the verdict itself is what is tested.

mod wrong_gaussians;

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, MeanfieldSettings, Method, NutsSettings, Request,
    StructuredViSettings,
};
use infermark_calibration::{
    Calibration, CalibrationError, Design, Latents, MethodUnderTest, MethodVerdict, PosteriorError, Power,
    Quantity, calibrate, verdicts,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Likelihood, Priors, Site};
use infermark_nuts_cpu::NutsCpu;

/// Probability that a calibrated method fails. The seeds are fixed: a test that passes once passes always.
const LEVEL: f64 = 0.01;

fn method_under_test(backend: &dyn Backend, method: Method, priors: Priors) -> MethodUnderTest<'_> {
    MethodUnderTest {
        name: method.name().to_owned(),
        backend,
        request: Request {
            priors,
            ..Request::new(method)
        },
    }
}

fn found(design: &Design, methods_under_test: &[MethodUnderTest<'_>], threads: usize) -> Calibration {
    calibrate(
        design,
        methods_under_test,
        threads,
        &Interrupt::new(),
        &mut |_| (),
    )
    .unwrap()
}

fn verdict(design: &Design, method_under_test: MethodUnderTest<'_>) -> MethodVerdict {
    let [verdict] = verdicts(&found(design, &[method_under_test], 2), LEVEL)
        .try_into()
        .unwrap();
    for quantity in &verdict.quantities {
        println!(
            "{} {}: p {:.2e}, mean off by {:+.3} ± {:.3} sd, sd by {:+.1} ± {:.1}%, 90% intervals cover {:.1}%",
            verdict.method,
            quantity.quantity.name(),
            quantity.p_value,
            quantity.mean_error.error,
            quantity.mean_error.standard_error,
            100.0 * quantity.sd_error.error,
            100.0 * quantity.sd_error.standard_error,
            100.0 * quantity.coverage[1].actual
        );
    }
    verdict
}

fn nuts() -> Method {
    Method::Nuts(NutsSettings {
        chains: 1,
        warmup: 500,
        draws: 1_000,
        ..NutsSettings::default()
    })
}

fn structured_vi() -> Method {
    Method::StructuredVi(StructuredViSettings::default())
}

#[test]
fn nuts_is_calibrated() {
    let design = Design {
        products: 6,
        periods: 6,
        replications: 100,
        ..Design::default()
    };
    let verdict = verdict(&design, method_under_test(&NutsCpu, nuts(), design.priors));
    assert!(verdict.passes);
    assert_eq!(verdict.quantities.len(), Quantity::all(Likelihood::Poisson).len());
    // Chains are long enough to rank among many draws.
    assert!(
        verdict
            .quantities
            .iter()
            .all(|q| q.mean_rank_draws.unwrap() > 80.0)
    );
}

#[test]
fn the_structured_gaussian_is_calibrated_on_moderate_counts() {
    let design = Design {
        replications: 400,
        ..Design::default()
    };
    let backend = GaussianCpu::structured_vi();
    let verdict = verdict(
        &design,
        method_under_test(&backend, structured_vi(), design.priors),
    );
    assert!(verdict.passes);
    assert_eq!(
        verdict.quantities.len(),
        Site::REPARAMETERIZED.len(),
        "no draws, no log joint"
    );
}

#[test]
fn a_diagonal_gaussian_fails() {
    let design = Design::default();
    let verdict = verdict(
        &design,
        method_under_test(
            &wrong_gaussians::diagonal(),
            Method::Laplace(LaplaceSettings::default()),
            design.priors,
        ),
    );
    assert!(!verdict.passes);
    let product_a = &verdict.quantities[Site::ProductA.index()];
    assert!(product_a.p_adjusted < 1e-6 && product_a.coverage[1].actual < 0.7);
}

#[test]
fn the_mean_field_optimum_fails() {
    let design = Design::default();
    let backend = GaussianCpu::meanfield();
    let method = Method::Meanfield(MeanfieldSettings::default());
    let verdict = verdict(&design, method_under_test(&backend, method, design.priors));
    assert!(!verdict.passes && verdict.failed_fits == 0);
}

#[test]
fn a_prior_that_the_data_were_not_drawn_from_fails() {
    let design = Design {
        replications: 100,
        ..Design::default()
    };
    let wrong = Priors {
        product_a_sd: design.priors.product_a_sd / 4.0,
        ..design.priors
    };
    let backend = GaussianCpu::structured_vi();
    let wrong = verdict(&design, method_under_test(&backend, structured_vi(), wrong));
    assert!(!wrong.passes);
    assert!(!wrong.quantities[Site::ProductA.index()].passes);
    // With the right one the same replications pass.
    assert!(
        verdict(
            &design,
            method_under_test(&backend, structured_vi(), design.priors)
        )
        .passes
    );
}

/// Rows of so many units that the Gaussian is the posterior to every digit that is tested.
fn of_large_counts(replications: usize) -> Design {
    let mut design = Design {
        replications,
        ..Design::default()
    };
    design.priors.product_effect_mean = 19.0;
    design
}

/// The statement is kept: with the number of replications that it gives for the worst case, standard deviations that are 5% too small are
/// found, and what is right passes.
#[test]
fn an_error_of_5_percent_is_found_with_the_stated_number_of_replications() {
    let single = Power {
        replications: 0,
        quantities: Site::REPARAMETERIZED.len(),
        level: LEVEL,
        rank_draws: None,
        latents: Latents::Single,
    };
    // Latents that all move as one, tested together.
    let dependent = Power {
        latents: Latents::Several(1.0),
        ..single
    };
    let five = PosteriorError::Sd(0.05);
    let replications = [single, dependent]
        .map(|power| power.replications_for(five, 0.9).unwrap())
        .into_iter()
        .max()
        .unwrap();
    let design = Design {
        products: 3,
        periods: 3,
        categories: 1,
        ..of_large_counts(replications)
    };
    let found = |scale: f64| {
        let backend = wrong_gaussians::scaled(0.0, scale);
        verdict(
            &design,
            method_under_test(&backend, structured_vi(), design.priors),
        )
    };
    assert!(found(1.0).passes);
    let narrow = found(0.95);
    assert!(!narrow.passes);
    for quantity in &narrow.quantities {
        // Three standard errors of the estimate, of the 5% that are there.
        let sd = quantity.sd_error;
        assert!((sd.error + 0.05).abs() < 3.0 * sd.standard_error, "{quantity:?}");
        // Each is found at least nine times in ten; with these seeds all are.
        let name = quantity.quantity.name();
        assert!(quantity.sensitivity().power_sd_5_percent >= 0.9, "{name}");
        assert!(!quantity.passes, "{name}");
    }
}

/// Standard deviations that are 5% too small show in the products of a few hundred replications, where a single latent does not
/// show them.
#[test]
fn pooled_latents_show_5_percent_to_few_replications() {
    let design = of_large_counts(700);
    let backend = wrong_gaussians::scaled(0.0, 0.95);
    let narrow = verdict(
        &design,
        method_under_test(&backend, structured_vi(), design.priors),
    );
    let product_a = &narrow.quantities[Site::ProductA.index()];
    assert!(product_a.sensitivity().power_sd_5_percent > 0.9 && !product_a.passes);
    let global = &narrow.quantities[Site::GlobalA.index()];
    assert!(global.sensitivity().power_sd_5_percent < 0.1);
    // So do means that are off by what is stated.
    let shift = product_a.sensitivity().mean_error_found.unwrap();
    let backend = wrong_gaussians::scaled(shift, 1.0);
    let shifted = verdict(
        &design,
        method_under_test(&backend, structured_vi(), design.priors),
    );
    let product_a = &shifted.quantities[Site::ProductA.index()];
    assert!(!product_a.passes);
    let found = product_a.mean_error;
    assert!(
        (found.error - shift).abs() < 3.0 * found.standard_error,
        "{found:?}"
    );
}

#[test]
fn chains_that_never_mix_are_failed_fits() {
    let design = Design {
        replications: 6,
        products: 4,
        periods: 4,
        ..Design::default()
    };
    // One leapfrog step per draw, and few draws of it, under the untuned diagonal metric.
    let method = Method::Nuts(NutsSettings {
        chains: 1,
        warmup: 5,
        draws: 8,
        max_depth: 1,
        ..NutsSettings::diagonal()
    });
    let calibration = found(&design, &[method_under_test(&NutsCpu, method, design.priors)], 2);
    assert_eq!(calibration.failures.len(), design.replications, "{calibration:?}");
    assert!(calibration.placed.is_empty());
    for failure in &calibration.failures {
        assert!(
            failure.reason.contains("not mixed") && failure.reason.contains("R-hat"),
            "{failure:?}"
        );
    }
    let [verdict] = &verdicts(&calibration, LEVEL)[..] else {
        panic!("one method")
    };
    assert!(!verdict.passes && verdict.failed_fits == design.replications && verdict.quantities.is_empty());
}

/// The likelihood reaches data, fit, latents and log joint.
#[test]
fn negative_binomial_fits_are_calibrated_on_negative_binomial_counts() {
    let design = Design {
        likelihood: Likelihood::NegativeBinomial,
        replications: 60,
        products: 6,
        periods: 12,
        categories: 1,
        ..Design::default()
    };
    let backend = GaussianCpu::structured_vi();
    let negative_binomial = |backend, method| {
        let mut method_under_test = method_under_test(backend, method, design.priors);
        method_under_test.request.likelihood = design.likelihood;
        method_under_test
    };
    for (backend, method, quantities) in [
        (&NutsCpu as &dyn Backend, nuts(), 7),
        (&backend, structured_vi(), 6),
    ] {
        let verdict = verdict(&design, negative_binomial(backend, method));
        assert!(verdict.passes, "{}", verdict.method);
        assert_eq!(verdict.quantities.len(), quantities);
    }
    // A Poisson fit of them has no shapes to be placed: it is refused, not placed by another likelihood.
    let poisson = method_under_test(&backend, structured_vi(), design.priors);
    let error = calibrate(&design, &[poisson], 1, &Interrupt::new(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CalibrationError::Likelihood { .. }), "{error}");
}

#[test]
fn results_do_not_depend_on_threads() {
    let design = Design {
        replications: 7,
        products: 3,
        periods: 2,
        ..Design::default()
    };
    let backend = GaussianCpu::structured_vi();
    let methods_under_test = || {
        let mut short = method_under_test(&NutsCpu, nuts(), design.priors);
        if let Method::Nuts(settings) = &mut short.request.method {
            (settings.warmup, settings.draws) = (100, 100);
        }
        [short, method_under_test(&backend, structured_vi(), design.priors)]
    };
    let one = found(&design, &methods_under_test(), 1);
    let three = found(&design, &methods_under_test(), 3);
    assert_eq!(one, three);
    assert_eq!(one.placed.len(), 7 * (6 + 5));
}

#[test]
fn one_product_and_one_period_are_calibrated_too() {
    let design = Design {
        replications: 100,
        products: 1,
        periods: 1,
        categories: 1,
        ..Design::default()
    };
    let backend = GaussianCpu::structured_vi();
    assert!(
        verdict(
            &design,
            method_under_test(&backend, structured_vi(), design.priors)
        )
        .passes
    );
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let design = Design {
        replications: 2,
        ..Design::default()
    };
    let calibrated = |design: &Design, methods_under_test: &[MethodUnderTest<'_>], interrupt: &Interrupt| {
        calibrate(design, methods_under_test, 2, interrupt, &mut |_| ()).unwrap_err()
    };
    // The backend does not serve the method: no failed fit, but an error that names it.
    let error = calibrated(
        &design,
        &[method_under_test(&NutsCpu, structured_vi(), design.priors)],
        &Interrupt::new(),
    );
    assert!(matches!(error, CalibrationError::Method { .. }), "{error}");
    assert!(error.to_string().contains("structured-vi"), "{error}");
    assert!(matches!(
        calibrated(&design, &[], &Interrupt::new()),
        CalibrationError::NoMethod
    ));
    let methods_under_test = [method_under_test(&NutsCpu, nuts(), design.priors)];
    for (bad, word) in [
        (
            Design {
                replications: 0,
                ..design.clone()
            },
            "replications",
        ),
        (
            Design {
                products: 0,
                ..design.clone()
            },
            "products",
        ),
    ] {
        let error = calibrated(&bad, &methods_under_test, &Interrupt::new());
        assert!(error.to_string().contains(word), "{error}");
    }
    let stopped = Interrupt::new();
    stopped.set();
    assert!(matches!(
        calibrated(&design, &methods_under_test, &stopped),
        CalibrationError::Stopped
    ));
}

#[test]
fn what_was_begun_before_the_interrupt_is_kept_whole() {
    let design = Design {
        replications: 1_000,
        products: 2,
        periods: 2,
        ..Design::default()
    };
    let backend = GaussianCpu::structured_vi();
    let interrupt = Interrupt::new();
    let methods_under_test = [method_under_test(&backend, structured_vi(), design.priors)];
    let found = calibrate(&design, &methods_under_test, 3, &interrupt, &mut |done| {
        if done == 5 {
            interrupt.set();
        }
    })
    .unwrap();
    assert!(
        !found.is_complete() && (5..1_000).contains(&found.done),
        "{}",
        found.done
    );
    assert_eq!(found.placed.len(), 5 * found.done);
}
