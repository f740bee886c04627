//! Calibrated methods pass, others fail: the verdict itself is what is tested.

mod diagonal_gaussian;

use diagonal_gaussian::DiagonalGaussian;
use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, NutsSettings, Request, VariationalSettings,
};
use infermark_calibration::{
    Calibration, CalibrationError, Contender, Design, MethodVerdict, Quantity, calibrate, verdicts,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Priors, Site};
use infermark_nuts_cpu::NutsCpu;

/// Probability that a calibrated method fails. The seeds are fixed: a test that passes once passes always.
const LEVEL: f64 = 0.01;

fn contender(backend: &dyn Backend, method: Method, priors: Priors) -> Contender<'_> {
    Contender {
        name: method.name().to_owned(),
        backend,
        request: Request {
            priors,
            ..Request::new(method)
        },
    }
}

fn found(design: &Design, contenders: &[Contender<'_>], threads: usize) -> Calibration {
    calibrate(design, contenders, threads, &Interrupt::new(), &mut |_| ()).unwrap()
}

fn verdict(design: &Design, contender: Contender<'_>) -> MethodVerdict {
    let [verdict] = verdicts(&found(design, &[contender], 2), LEVEL)
        .try_into()
        .unwrap();
    for quantity in &verdict.quantities {
        println!(
            "{} {}: p {:.2e}, 90% intervals cover {:.1}%",
            verdict.method,
            quantity.quantity.name(),
            quantity.p_value,
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
    Method::StructuredVi(VariationalSettings::default())
}

#[test]
fn nuts_is_calibrated() {
    let design = Design {
        products: 6,
        periods: 6,
        replications: 100,
        ..Design::default()
    };
    let verdict = verdict(&design, contender(&NutsCpu, nuts(), design.priors));
    assert!(verdict.passes);
    assert_eq!(verdict.quantities.len(), Quantity::ALL.len());
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
    let verdict = verdict(&design, contender(&backend, structured_vi(), design.priors));
    assert!(verdict.passes);
    assert_eq!(
        verdict.quantities.len(),
        Site::ALL.len(),
        "no draws, no log joint"
    );
}

#[test]
fn a_diagonal_gaussian_fails() {
    let design = Design::default();
    let verdict = verdict(
        &design,
        contender(
            &DiagonalGaussian,
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
    let method = Method::Meanfield(VariationalSettings::default());
    let verdict = verdict(&design, contender(&backend, method, design.priors));
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
    let wrong = verdict(&design, contender(&backend, structured_vi(), wrong));
    assert!(!wrong.passes);
    assert!(!wrong.quantities[Site::ProductA.index()].passes);
    // With the right one the same replications pass.
    assert!(verdict(&design, contender(&backend, structured_vi(), design.priors)).passes);
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
    let contenders = || {
        let mut short = contender(&NutsCpu, nuts(), design.priors);
        if let Method::Nuts(settings) = &mut short.request.method {
            (settings.warmup, settings.draws) = (100, 100);
        }
        [short, contender(&backend, structured_vi(), design.priors)]
    };
    let one = found(&design, &contenders(), 1);
    let three = found(&design, &contenders(), 3);
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
    assert!(verdict(&design, contender(&backend, structured_vi(), design.priors)).passes);
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let design = Design {
        replications: 2,
        ..Design::default()
    };
    let calibrated = |design: &Design, contenders: &[Contender<'_>], interrupt: &Interrupt| {
        calibrate(design, contenders, 2, interrupt, &mut |_| ()).unwrap_err()
    };
    // The backend does not serve the method: no failed fit, but an error that names it.
    let error = calibrated(
        &design,
        &[contender(&NutsCpu, structured_vi(), design.priors)],
        &Interrupt::new(),
    );
    assert!(matches!(error, CalibrationError::Method { .. }), "{error}");
    assert!(error.to_string().contains("structured-vi"), "{error}");
    assert!(matches!(
        calibrated(&design, &[], &Interrupt::new()),
        CalibrationError::NoMethod
    ));
    let contenders = [contender(&NutsCpu, nuts(), design.priors)];
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
        let error = calibrated(&bad, &contenders, &Interrupt::new());
        assert!(error.to_string().contains(word), "{error}");
    }
    let stopped = Interrupt::new();
    stopped.set();
    assert!(matches!(
        calibrated(&design, &contenders, &stopped),
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
    let contenders = [contender(&backend, structured_vi(), design.priors)];
    let found = calibrate(&design, &contenders, 3, &interrupt, &mut |done| {
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
