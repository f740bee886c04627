//! Runs that go on from the checkpoint of another number of shards, against the unbroken run of the whole panel.

use infermark_backend::{
    Backend, BackendError, Checkpoint, Detail, DeviceId, EarlyStop, Interrupt, Method, Posterior, Precision,
    Request, Run, RunState, SviSettings,
};
use infermark_model::{Likelihood, Panel};
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::iterations::{FORMS, Form, PARTICLES, svi_request};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn panel() -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(21), 60, 5, 40, 0.2, 200)
}

fn request(form: Form, likelihood: Likelihood, change: impl FnOnce(&mut SviSettings)) -> Request {
    let (particles, objective) = PARTICLES[1];
    let mut request = svi_request(DeviceId::CPU, form, particles, objective);
    if let Method::Svi(settings) = &mut request.method {
        settings.trace_every = 1;
        change(settings);
    }
    Request {
        likelihood,
        threads: Some(3),
        ..request
    }
}

/// The backend that serves so many shards, with its request.
fn on(request: &Request, shards: usize) -> (Box<dyn Backend>, Request) {
    let request = Request {
        shards,
        ..request.clone()
    };
    match shards {
        1 => (Box::new(SviCpu::new()), request),
        _ => (Box::new(SviSharded::over(SviCpu::new())), request),
    }
}

fn start(request: &Request, shards: usize) -> Box<dyn Run> {
    let (backend, request) = on(request, shards);
    backend.start(panel(), &request).unwrap()
}

fn resume(request: &Request, shards: usize, checkpoint: &Checkpoint) -> Box<dyn Run> {
    let (backend, request) = on(request, shards);
    backend.resume(panel(), &request, checkpoint).unwrap()
}

fn advance(run: &mut dyn Run, steps: u64) -> RunState {
    run.advance(steps, &Interrupt::new()).unwrap().state
}

fn losses(run: &dyn Run) -> Vec<f64> {
    let Detail::Svi(report) = run.report().detail else {
        panic!("a report of SVI")
    };
    report.trace.iter().map(|point| point.loss).collect()
}

/// The largest distance of means and of standard deviations, in standard deviations.
fn distance(one: &Posterior, other: &Posterior) -> f64 {
    let off = |a: &[f64], b: &[f64], j: usize| (a[j] - b[j]).abs() / other.sd[j];
    (0..one.mean.len())
        .map(|j| off(&one.mean, &other.mean, j).max(off(&one.sd, &other.sd, j)))
        .fold(0.0, f64::max)
}

/// In double precision traces are the same to 1e-9 of the loss and posteriors to 1e-6 standard deviations, as for shards that were
/// never broken; and not the same where a moment is lost.
#[test]
fn a_run_goes_on_with_other_shards() {
    for form in FORMS {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let request = request(form, likelihood, |settings| settings.precision = Precision::F64);
            let mut whole = start(&request, 1);
            advance(&mut *whole, u64::MAX);
            for path in [vec![1, 3], vec![7, 1], vec![2, 4], vec![3, 1, 2]] {
                let mut run = start(&request, path[0]);
                for shards in &path[1..] {
                    advance(&mut *run, 60);
                    run = resume(&request, *shards, &run.checkpoint().unwrap().unwrap());
                }
                assert_eq!(advance(&mut *run, u64::MAX), RunState::Finished);
                let case = format!("{form:?} {likelihood:?} {path:?}");
                let (found, expected) = (losses(&*run), losses(&*whole));
                assert_eq!(found.len(), expected.len(), "{case}");
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (found - expected).abs() < 1e-9 * expected.abs(),
                        "{case}: {i}: {found} {expected}"
                    );
                }
                let off = distance(&run.posterior().unwrap(), &whole.posterior().unwrap());
                assert!(off < 1e-6, "{case}: {off}");
            }
        }
    }
}

/// The windows of an early stop are a part of the state: a run that goes on stops at the iteration of the unbroken one.
#[test]
fn an_early_stop_is_met_at_the_same_iteration() {
    let request = request(FORMS[0], Likelihood::Poisson, |settings| {
        settings.iterations = 20_000;
        settings.early_stop = Some(EarlyStop {
            window: 300,
            tolerance: 1.0,
            patience: 2,
            least_fall: 0.02,
        });
    });
    for shards in [1, 2] {
        let mut whole = start(&request, shards);
        assert_eq!(advance(&mut *whole, u64::MAX), RunState::Converged);
        let end = whole.progress().completed;
        let mut run = start(&request, shards);
        for steps in [450, 1, end / 3] {
            advance(&mut *run, steps);
            run = resume(&request, shards, &run.checkpoint().unwrap().unwrap());
        }
        assert_eq!(advance(&mut *run, u64::MAX), RunState::Converged);
        assert_eq!(run.progress().completed, end, "{shards} shards");
        let (found, expected) = (run.posterior().unwrap(), whole.posterior().unwrap());
        assert_eq!(
            (found.mean, found.sd),
            (expected.mean, expected.sd),
            "{shards} shards"
        );
    }
}

#[test]
fn a_checkpoint_of_another_size_or_guide_is_refused() {
    let centered = request(FORMS[0], Likelihood::Poisson, |_| ());
    let mut run = start(&centered, 1);
    advance(&mut *run, 50);
    let checkpoint = run.checkpoint().unwrap().unwrap();
    let other = random_panel(&mut StdRng::seed_from_u64(2), 59, 5, 40, 0.2, 200);
    for shards in [1, 2] {
        let refused = |panel: Arc<Panel>, request: &Request| {
            let (backend, request) = on(request, shards);
            backend.resume(panel, &request, &checkpoint).err()
        };
        for refused in [
            refused(other.clone(), &centered),
            refused(panel(), &request(FORMS[1], Likelihood::Poisson, |_| ())),
            refused(panel(), &request(FORMS[0], Likelihood::NegativeBinomial, |_| ())),
            refused(
                panel(),
                &request(FORMS[0], Likelihood::Poisson, |settings| settings.iterations = 49),
            ),
        ] {
            assert!(matches!(refused, Some(BackendError::Request(_))), "{refused:?}");
        }
    }
}
