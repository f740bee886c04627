//! Shards against the unsharded engine: iterations, traces and posteriors.

use infermark_backend::{
    Backend, BackendError, DeviceId, Interrupt, Method, Precision, Request, SviSettings,
};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::{Likelihood, Panel};
use infermark_svi::GuidedRun;
use infermark_svi::NoiseSource;
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::guides::{difference, flat, relative_distance};
use infermark_test_support::iterations::{AWKWARD_PANELS, FORMS, Form, PARTICLES, svi_request};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

const SHARDS: [usize; 4] = [2, 3, 4, 7];

const LIKELIHOODS: [Likelihood; 2] = [Likelihood::Poisson, Likelihood::NegativeBinomial];

fn sharded() -> SviSharded {
    SviSharded::over(SviCpu::new())
}

fn request(
    form: Form,
    likelihood: Likelihood,
    precision: Precision,
    (particles, objective): (usize, Objective),
) -> Request {
    let mut request = svi_request(DeviceId::CPU, form, particles, objective);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!("a request for SVI")
    };
    settings.precision = precision;
    settings.trace_every = 1;
    Request {
        likelihood,
        threads: Some(3),
        ..request
    }
}

fn in_shards(request: &Request, shards: usize) -> Request {
    Request {
        shards,
        ..request.clone()
    }
}

fn awkward_panels() -> impl Iterator<Item = Arc<Panel>> {
    let mut rng = StdRng::seed_from_u64(7);
    AWKWARD_PANELS
        .into_iter()
        .map(move |(n, c, t, gaps, largest)| random_panel(&mut rng, n, c, t, gaps, largest))
}

#[test]
fn an_iteration_is_that_of_the_whole_panel() {
    for panel in awkward_panels() {
        let products = panel.layout().products;
        for (form, likelihood, particles) in FORMS
            .into_iter()
            .flat_map(|form| LIKELIHOODS.map(|likelihood| (form, likelihood)))
            .zip(PARTICLES.into_iter().cycle())
            .map(|((form, likelihood), particles)| (form, likelihood, particles))
        {
            for (precision, weight_error, gradient_error) in
                [(Precision::F64, 1e-12, 1e-10), (Precision::F32, 1e-6, 1e-4)]
            {
                let request = request(form, likelihood, precision, particles);
                let guide = infermark_svi::Chart::of(&panel, &request).start(&panel, &request);
                let stream = Stream {
                    seed: 99,
                    iteration: 3,
                };
                let found = |backend: &dyn Backend, request: &Request| {
                    backend
                        .loss_and_gradient(&panel, request, &guide, stream)
                        .unwrap()
                        .unwrap()
                };
                let expected = found(&SviCpu::new(), &request);
                for shards in SHARDS.into_iter().filter(|shards| *shards <= products) {
                    let found = found(&sharded(), &in_shards(&request, shards));
                    let case = format!(
                        "{form:?} {likelihood:?} {precision:?} {particles:?} {products} products in {shards}"
                    );
                    for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
                        assert!((l - e).abs() <= weight_error * e.abs(), "{case}: {l} {e}");
                    }
                    let mut weights = found.weighted.weights.iter().zip(&expected.weighted.weights);
                    let same_weights = weights.all(|(a, b)| (a - b).abs() < 1e-4);
                    assert!(same_weights || precision == Precision::F32, "{case}");
                    if same_weights {
                        let off = relative_distance(&found.gradient, &expected.gradient);
                        assert!(off < gradient_error, "{case}: gradient off by {off}");
                    }
                }
            }
        }
    }
}

/// The losses of all iterations, and where the guide ends.
fn path(mut run: Box<dyn GuidedRun>) -> (Vec<f64>, Guide) {
    while !run
        .advance(u64::MAX, &Interrupt::new())
        .unwrap()
        .state
        .is_complete()
    {}
    let infermark_backend::Detail::Svi(report) = run.report().detail else {
        panic!("a report of SVI")
    };
    assert_eq!(report.trace.len() as u64, run.progress().total);
    (
        report.trace.iter().map(|point| point.loss).collect(),
        run.guide().unwrap(),
    )
}

/// In double precision the traces of 200 iterations are the same to 1e-9 of the loss, and the parameters to 1e-6: sums are in another
/// order, and nothing else differs.
#[test]
fn traces_are_those_of_the_whole_panel() {
    let panel = random_panel(&mut StdRng::seed_from_u64(21), 60, 5, 40, 0.2, 200);
    for form in FORMS {
        for likelihood in LIKELIHOODS {
            for particles in [PARTICLES[1], PARTICLES[2]] {
                let request = request(form, likelihood, Precision::F64, particles);
                let start = infermark_svi::Chart::of(&panel, &request).start(&panel, &request);
                let noise = || NoiseSource::Philox { seed: request.seed };
                let whole = path(
                    SviCpu::new()
                        .start_from(panel.clone(), &request, &start, noise())
                        .unwrap(),
                );
                for shards in SHARDS {
                    let request = in_shards(&request, shards);
                    let cut = path(
                        sharded()
                            .start_from(panel.clone(), &request, &start, noise())
                            .unwrap(),
                    );
                    let case = format!("{form:?} {likelihood:?} {particles:?} in {shards}");
                    for (i, (found, expected)) in cut.0.iter().zip(&whole.0).enumerate() {
                        assert!(
                            (found - expected).abs() < 1e-9 * expected.abs(),
                            "{case}: {i}: {found} {expected}"
                        );
                    }
                    let off = difference(&flat(&cut.1), &flat(&whole.1));
                    let worst = off.iter().map(|d| d.abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-6, "{case}: {worst}");
                }
            }
        }
    }
}

#[test]
fn a_cut_gives_the_same_bits_again() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 300, 2, 30, 0.1, 100);
    for shards in [2, 7] {
        let request = in_shards(
            &request(
                Form::ORTHOGONAL,
                Likelihood::Poisson,
                Precision::F32,
                PARTICLES[2],
            ),
            shards,
        );
        let run = |threads| {
            let request = Request {
                threads: Some(threads),
                ..request.clone()
            };
            let mut run = sharded().start(panel.clone(), &request).unwrap();
            run.advance(u64::MAX, &Interrupt::new()).unwrap();
            run.posterior().unwrap()
        };
        let first = run(1);
        for threads in [2, 5, 16] {
            let again = run(threads);
            assert_eq!(
                (&again.mean, &again.sd),
                (&first.mean, &first.sd),
                "{shards} shards, {threads} threads"
            );
        }
    }
}

#[test]
fn more_shards_than_products_are_refused() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 3, 2, 5, 0.0, 9);
    let request = request(FORMS[0], Likelihood::Poisson, Precision::F64, PARTICLES[0]);
    let refused = |shards| sharded().start(panel.clone(), &in_shards(&request, shards)).err();
    assert_eq!(refused(3), None);
    assert_eq!(
        refused(4).map(|error| error.to_string()).as_deref(),
        Some("3 products cannot be cut into 4 shards; ask for fewer shards")
    );
    assert!(matches!(refused(1), Some(BackendError::Unsupported { .. })));
    assert!(matches!(refused(0), Some(BackendError::Request(_))));
    assert!(matches!(
        SviCpu::new().start(panel.clone(), &in_shards(&request, 2)).err(),
        Some(BackendError::Unsupported { .. })
    ));
}

/// A loss that is not finite ends all shards before their step.
#[test]
fn a_run_that_diverges_ends_on_all_shards() {
    let panel = random_panel(&mut StdRng::seed_from_u64(6), 200, 3, 12, 0.2, 30);
    let settings = SviSettings {
        iterations: 1000,
        optimizer: infermark_model::optimizer::AdamW {
            learning_rate: 1e3,
            weight_decay: 1.0,
            ..Default::default()
        },
        ..SviSettings::default()
    };
    let request = Request {
        shards: 3,
        threads: Some(3),
        ..Request::new(Method::Svi(settings))
    };
    infermark_test_support::conformance::a_run_that_diverges_stays_readable(&sharded(), &panel, &request);
}
