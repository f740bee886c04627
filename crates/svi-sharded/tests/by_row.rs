//! Shards that are cut by row, with all parameters on every rank, against the unsharded engine; and what crosses in either cut.

use infermark_backend::{
    Backend, BackendError, CommunicationReport, Detail, DeviceId, Interrupt, Method, Precision, Request,
};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::{Cut, Likelihood, Panel};
use infermark_svi::{Chart, GuidedRun, NoiseSource, ReplicaLink, Sums};
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
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

fn by_row(request: &Request, shards: usize) -> Request {
    Request {
        shards,
        cut: Cut::Row,
        ..request.clone()
    }
}

#[test]
fn an_iteration_is_that_of_the_whole_panel() {
    let mut rng = StdRng::seed_from_u64(7);
    for (n, c, t, gaps, largest) in AWKWARD_PANELS {
        let panel = random_panel(&mut rng, n, c, t, gaps, largest);
        for ((form, likelihood), particles) in FORMS
            .into_iter()
            .flat_map(|form| LIKELIHOODS.map(|likelihood| (form, likelihood)))
            .zip(PARTICLES.into_iter().cycle())
        {
            for (precision, weight_error, gradient_error) in
                [(Precision::F64, 1e-12, 1e-10), (Precision::F32, 1e-6, 1e-4)]
            {
                let request = request(form, likelihood, precision, particles);
                let guide = Chart::of(&panel, &request).start(&panel, &request);
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
                // A product of one row may be cut, and a shard may be without rows of a category.
                for shards in SHARDS.into_iter().filter(|shards| *shards <= panel.rows()) {
                    let found = found(&sharded(), &by_row(&request, shards));
                    let case = format!(
                        "{form:?} {likelihood:?} {precision:?} {particles:?} {n} products in {shards}"
                    );
                    // A share has terms of the size of its counts' `ln y!`, of which only the total cancels; the roundings of as many additions as
                    // rows grow with their square root.
                    let additions = (panel.rows() as f64).sqrt();
                    let rounding = additions * f64::EPSILON * panel.sums().ln_factorials;
                    for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
                        let off = (l - e).abs();
                        assert!(off <= weight_error * e.abs() + rounding, "{case}: {l} {e}");
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

/// The losses of all iterations, where the guide ends, and what crossed.
fn path(mut run: Box<dyn GuidedRun>) -> (Vec<f64>, Guide, Option<CommunicationReport>) {
    // In pieces: a step may be pending between them.
    for steps in [1, 5, u64::MAX] {
        run.advance(steps, &Interrupt::new()).unwrap();
    }
    assert!(run.progress().state.is_complete());
    let Detail::Svi(report) = run.report().detail else {
        panic!("a report of SVI")
    };
    assert_eq!(report.trace.len() as u64, run.progress().total);
    (
        report.trace.iter().map(|point| point.loss).collect(),
        run.guide().unwrap(),
        report.communication,
    )
}

fn start(backend: &SviSharded, panel: &Arc<Panel>, request: &Request) -> Box<dyn GuidedRun> {
    let guide = Chart::of(panel, request).start(panel, request);
    let noise = NoiseSource::Philox { seed: request.seed };
    backend.start_from(panel.clone(), request, &guide, noise).unwrap()
}

/// As for shards that are cut by product: only the order of sums differs.
#[test]
fn traces_are_those_of_the_whole_panel() {
    let panel = random_panel(&mut StdRng::seed_from_u64(21), 60, 5, 40, 0.2, 200);
    for form in FORMS {
        for likelihood in LIKELIHOODS {
            for particles in [PARTICLES[1], PARTICLES[2]] {
                let request = request(form, likelihood, Precision::F64, particles);
                let guide = Chart::of(&panel, &request).start(&panel, &request);
                let noise = NoiseSource::Philox { seed: request.seed };
                let whole = path(
                    SviCpu::new()
                        .start_from(panel.clone(), &request, &guide, noise)
                        .unwrap(),
                );
                assert_eq!(whole.2, None);
                for shards in SHARDS {
                    let cut = path(start(&sharded(), &panel, &by_row(&request, shards)));
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
    let request = request(
        Form::ORTHOGONAL,
        Likelihood::Poisson,
        Precision::F32,
        PARTICLES[2],
    );
    for shards in [2, 7] {
        let run = |threads| {
            let request = Request {
                threads: Some(threads),
                ..by_row(&request, shards)
            };
            let mut run = sharded().start(panel.clone(), &request).unwrap();
            run.advance(u64::MAX, &Interrupt::new()).unwrap();
            run.posterior().unwrap()
        };
        let first = run(1);
        for threads in [2, 16] {
            let again = run(threads);
            assert_eq!(
                (&again.mean, &again.sd),
                (&first.mean, &first.sd),
                "{shards} shards"
            );
        }
    }
}

/// What a rank brings to the all-reduces of an iteration is what the formulas say, for either cut, whatever the shards.
#[test]
fn bytes_of_an_iteration_are_those_of_the_formula() {
    for (n, c, t) in [(60, 5, 40), (7, 3, 1), (130, 2, 9)] {
        let panel = random_panel(&mut StdRng::seed_from_u64(4), n, c, t, 0.2, 50);
        for (form, likelihood) in FORMS
            .into_iter()
            .flat_map(|form| LIKELIHOODS.map(|likelihood| (form, likelihood)))
        {
            let request = request(form, likelihood, Precision::F32, PARTICLES[1]);
            let (chart, layout) = (Chart::of(&panel, &request), panel.layout_for(likelihood));
            let k = request.method.particles();
            let is = |yes: bool| usize::from(yes);
            let (orthogonal, learned) = (form == Form::ORTHOGONAL, form == FORMS[1]);
            let shaped = likelihood == Likelihood::NegativeBinomial;
            // By hand: the tests of the layouts are elsewhere.
            let sums = k + c * k * (1 + t + is(orthogonal) + is(shaped)) + 2 * k * is(learned) + 1;
            let latents = 1 + c + 2 * n + c * t + c * is(shaped);
            let gradients = k + 1 + 2 * latents + 5 * is(learned);
            assert_eq!(Sums::new(&layout, &chart, k).numbers(), sums);
            assert_eq!(ReplicaLink::numbers(&layout, &chart, k), gradients);
            for shards in [2, 3] {
                for (cut, operations, numbers) in [(Cut::Product, 1.0, sums), (Cut::Row, 2.0, gradients)] {
                    let request = Request {
                        cut,
                        ..by_row(&request, shards)
                    };
                    let crossed = path(start(&sharded(), &panel, &request)).2.unwrap();
                    assert_eq!(crossed.ranks, shards);
                    assert_eq!(crossed.operations_per_iteration, operations);
                    assert_eq!(
                        crossed.bytes_per_iteration,
                        8.0 * numbers as f64,
                        "{cut:?} {form:?}"
                    );
                    assert!(crossed.seconds > 0.0 && crossed.bus_bandwidth > 0.0);
                }
            }
        }
    }
}

#[test]
fn what_is_not_cut_by_row_is_refused() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 2, 1, 2, 0.0, 9);
    let request = request(FORMS[0], Likelihood::Poisson, Precision::F64, PARTICLES[1]);
    let refused = |shards| sharded().start(panel.clone(), &by_row(&request, shards)).err();
    assert_eq!(refused(4), None);
    assert_eq!(
        refused(5).map(|error| error.to_string()).as_deref(),
        Some("4 rows cannot be cut into 5 shards; ask for fewer shards")
    );
    let mut batches = by_row(&request, 2);
    let Method::Svi(settings) = &mut batches.method else {
        unreachable!("a request for SVI")
    };
    settings.batch_products = Some(1);
    let error = sharded().supports(&batches).unwrap_err();
    assert!(matches!(error, BackendError::Request(_)));
    assert_eq!(
        error.to_string(),
        "mini-batches are of products, and the panel is cut by row; choose the cut by product"
    );
}

conformance!(
    learned_by_row,
    sharded(),
    by_row(
        &svi_request(DeviceId::CPU, FORMS[1], 3, Objective::Renyi { alpha: 0.0 }),
        3
    ),
    ToTheBit
);
conformance!(
    negative_binomial_by_row,
    sharded(),
    Request {
        likelihood: Likelihood::NegativeBinomial,
        ..by_row(
            &svi_request(
                DeviceId::CPU,
                Form::ORTHOGONAL,
                3,
                Objective::Renyi { alpha: 0.0 }
            ),
            2
        )
    },
    ToTheBit
);
