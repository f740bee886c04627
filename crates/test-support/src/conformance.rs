//! The contract of [`Run`] as checks that the runs of every backend pass: see its documentation.

mod checkpoints;

use infermark_backend::{
    Backend, BackendError, Detail, DeviceId, DeviceKind, Interrupt, MethodKind, Posterior, Precision,
    Progress, Report, Request, Run, RunState,
};
use infermark_model::{Panel, Parameterization};
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::time::Duration;

pub use checkpoints::a_checkpoint_is_resumed_or_refused;

/// Makes a module of tests that hold a backend to the contract of its runs: its name, the backend, the
/// request of a short run (or `None` where its device is not here), and how close an interrupted run comes to
/// an uninterrupted one.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $backend:expr, $request:expr, $interrupted:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::conformance;

            fn check(check: fn(&dyn infermark_backend::Backend, &infermark_backend::Request)) {
                if let Some(request) = Into::<Option<infermark_backend::Request>>::into($request) {
                    check(&$backend, &request);
                }
            }

            #[test]
            fn a_run_that_was_started_is_consistent() {
                check(conformance::a_run_that_was_started_is_consistent);
            }

            #[test]
            fn pieces_give_the_bits_of_one_go() {
                check(conformance::pieces_give_the_bits_of_one_go);
            }

            #[test]
            fn threads_change_no_bit() {
                check(conformance::threads_change_no_bit);
            }

            #[test]
            fn an_interrupted_run_goes_on() {
                check(|backend, request| {
                    conformance::an_interrupted_run_goes_on(backend, request, $interrupted)
                });
            }

            #[test]
            fn an_end_is_an_end() {
                check(conformance::an_end_is_an_end);
            }

            #[test]
            fn a_checkpoint_is_resumed_or_refused() {
                check(|backend, request| {
                    conformance::a_checkpoint_is_resumed_or_refused(backend, request, $interrupted)
                });
            }

            #[test]
            fn what_is_not_served_is_refused_by_name() {
                check(conformance::what_is_not_served_is_refused_by_name);
            }
        }
    };
}

/// How close an interrupted run comes to an uninterrupted one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interrupted {
    /// It does not show.
    ToTheBit,
    /// A search that was stopped within a step ends at the same optimum: means and standard deviations within this many standard
    /// deviations.
    Within(f64),
}

/// The panel of the suite: gaps, two categories, few and many sales.
pub fn panel() -> Arc<Panel> {
    crate::random_panel(&mut StdRng::seed_from_u64(16), 24, 2, 20, 0.1, 60)
}

/// All readings of a run except times and threads, as text: equal texts mean bit-equal readings.
fn readings(run: &dyn Run) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        run.progress(),
        run.posterior(),
        run.draws(),
        run.dispersion(),
        run.gradients(),
        without_times(run.report()),
    )
}

fn without_times(report: Report) -> Report {
    let mut report = Report {
        threads: 0,
        setup_seconds: 0.0,
        run_seconds: 0.0,
        ..report
    };
    match &mut report.detail {
        Detail::Svi(svi) => {
            svi.iterations_per_second = 0.0;
            svi.trace.iter_mut().for_each(|point| point.seconds = 0.0);
            if let Some(crossed) = &mut svi.communication {
                (crossed.seconds, crossed.bus_bandwidth) = (0.0, 0.0);
            }
        }
        Detail::Nuts(nuts) => {
            nuts.gradients_per_second = 0.0;
            if let Some(search) = &mut nuts.mode_search {
                search.seconds = 0.0;
            }
            for chain in &mut nuts.chains {
                (chain.warmup_seconds, chain.seconds) = (0.0, 0.0);
            }
        }
        Detail::Gaussian(gaussian) => gaussian.trace.iter_mut().for_each(|point| point.seconds = 0.0),
    }
    report
}

/// Fails with the first line in which two readings differ.
fn assert_same(found: &str, expected: &str, what: &str) {
    for (found, expected) in found.lines().zip(expected.lines()) {
        let short = |line: &str| line.chars().take(600).collect::<String>();
        assert!(
            found == expected,
            "{what}:\n{}\ninstead of\n{}",
            short(found),
            short(expected)
        );
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{what}");
}

fn start(backend: &dyn Backend, request: &Request) -> Box<dyn Run> {
    backend.start(panel(), request).unwrap()
}

/// The completed run.
fn finish(mut run: Box<dyn Run>) -> Box<dyn Run> {
    while !run
        .advance(u64::MAX, &Interrupt::new())
        .unwrap()
        .state
        .is_complete()
    {}
    run
}

/// Checks that the readings of a run are consistent.
fn assert_consistent(run: &dyn Run, backend: &dyn Backend, request: &Request) {
    let (progress, report) = (run.progress(), run.report());
    assert!(progress.completed <= progress.total, "{progress:?}");
    assert_eq!(progress.unit, backend.method().step_unit());
    assert_eq!(report.state, progress.state);
    assert_eq!(report.backend, backend.name());
    let threads = request.resolved_threads().max(request.shards);
    assert!((1..=threads).contains(&report.threads), "{}", report.threads);
    assert!(report.setup_seconds >= 0.0 && report.run_seconds >= 0.0);
    assert_eq!(run.draws().is_some(), backend.method().has_draws());
    assert_eq!(run.gradients().is_some(), backend.method().has_draws());
    match progress.state {
        RunState::Finished => assert_eq!(progress.completed, progress.total),
        RunState::Converged => {}
        _ => assert!(
            !report.warnings.is_empty(),
            "an unfinished run says so: {report:?}"
        ),
    }
    match run.posterior() {
        Ok(posterior) => assert_whole(&posterior, &panel(), request),
        Err(BackendError::NoPosterior(_)) => assert!(!progress.state.is_complete(), "{progress:?}"),
        Err(other) => panic!("{other}"),
    }
}

fn assert_whole(posterior: &Posterior, panel: &Panel, request: &Request) {
    assert_eq!(posterior.layout, panel.layout_for(request.likelihood));
    let (mean, sd, latents) = (&posterior.mean, &posterior.sd, posterior.layout.latents());
    assert_eq!([mean.len(), sd.len()], [latents; 2]);
    assert!(mean.iter().all(|m| m.is_finite()));
    assert!(sd.iter().all(|s| s.is_finite() && *s >= 0.0));
}

/// Before the first step a run reports its progress, and has no posterior unless its method starts with one.
pub fn a_run_that_was_started_is_consistent(backend: &dyn Backend, request: &Request) {
    assert_eq!(backend.supports(request), Ok(()));
    let mut run = start(backend, request);
    let progress = run.progress();
    assert_eq!((progress.completed, progress.state), (0, RunState::Running));
    assert!(progress.total > 0 && run.width() > 0);
    assert_consistent(&*run, backend, request);
    let waits = backend.method().is_fitted_whole() || backend.method().has_draws();
    assert_eq!(
        matches!(run.posterior(), Err(BackendError::NoPosterior(_))),
        waits
    );
    let before = readings(&*run);
    assert_eq!(run.advance(0, &Interrupt::new()), Ok(progress));
    assert_same(&readings(&*run), &before, "after no step");
}

/// Pieces of odd lengths, with all readings in between, against a single call.
pub fn pieces_give_the_bits_of_one_go(backend: &dyn Backend, request: &Request) {
    let whole = finish(start(backend, request));
    let mut run = start(backend, request);
    let total = run.progress().total;
    let mut pieces = [1, 7, 0, 2, 41, 13, 5, 64, 17].into_iter().cycle();
    let mut now = run.progress();
    while !now.state.is_complete() {
        let (before, steps) = (now.completed, pieces.next().expect("it is a cycle"));
        now = run.advance(steps, &Interrupt::new()).unwrap();
        assert_eq!(now, run.progress());
        assert!(now.completed <= before.saturating_add(steps), "{now:?}");
        if !now.state.is_complete() {
            assert_eq!(now.state, RunState::Running);
        }
        if !backend.method().is_fitted_whole() {
            let made = now.completed - before;
            assert!(made == steps || now.state.is_complete(), "{steps}: {now:?}");
            assert_eq!(now.total, total);
        }
        assert_consistent(&*run, backend, request);
        run.dispersion();
        run.checkpoint().unwrap();
    }
    assert_same(&readings(&*run), &readings(&*whole), "in pieces");
}

/// One thread, and more than there is work for.
pub fn threads_change_no_bit(backend: &dyn Backend, request: &Request) {
    let on = |threads: usize| {
        let request = Request {
            threads: Some(threads),
            ..request.clone()
        };
        readings(&*finish(start(backend, &request)))
    };
    let alone = on(1);
    for threads in [2, 7] {
        assert_same(&on(threads), &alone, &format!("on {threads} threads"));
    }
}

/// Interrupted before a call, and at moments within one.
pub fn an_interrupted_run_goes_on(backend: &dyn Backend, request: &Request, near: Interrupted) {
    let whole = finish(start(backend, request));
    let is_over = |progress: &Progress| {
        let state = progress.state;
        assert!(
            state == RunState::Interrupted || state.is_complete(),
            "{progress:?}"
        );
        state.is_complete()
    };
    let steps = whole.progress().completed;
    for at in [0, steps / 3, steps - 1] {
        let mut run = start(backend, request);
        while run.progress().completed < at {
            let left = at - run.progress().completed;
            run.advance(left, &Interrupt::new()).unwrap();
        }
        let set = Interrupt::new();
        set.set();
        let progress = run.advance(u64::MAX, &set).unwrap();
        is_over(&progress);
        assert_consistent(&*run, backend, request);
        assert_near(&*finish(run), &*whole, near, &format!("interrupted at {at}"));
    }
    let mut run = start(backend, request);
    for k in 0.. {
        let interrupt = Interrupt::new();
        let progress = std::thread::scope(|scope| {
            let flag = interrupt.clone();
            scope.spawn(move || {
                // Longer and longer, so that it comes to an end.
                std::thread::sleep(Duration::from_micros(200 << k.min(14)));
                flag.set();
            });
            loop {
                let progress = run.advance(u64::MAX, &interrupt).unwrap();
                if progress.state != RunState::Running {
                    break progress;
                }
            }
        });
        assert_consistent(&*run, backend, request);
        if is_over(&progress) {
            break;
        }
    }
    assert_near(&*run, &*whole, near, "interrupted at any moment");
}

fn assert_near(found: &dyn Run, expected: &dyn Run, near: Interrupted, what: &str) {
    let Interrupted::Within(bound) = near else {
        return assert_same(&readings(found), &readings(expected), what);
    };
    assert_eq!(found.progress().state, expected.progress().state, "{what}");
    let (found, expected) = (found.posterior().unwrap(), expected.posterior().unwrap());
    for j in 0..expected.mean.len() {
        let off = |a: &[f64], b: &[f64]| (a[j] - b[j]).abs() / expected.sd[j];
        let off = off(&found.mean, &expected.mean).max(off(&found.sd, &expected.sd));
        assert!(off < bound, "{what}: {j} is off by {off}");
    }
}

/// A complete run does nothing more, whatever is requested.
pub fn an_end_is_an_end(backend: &dyn Backend, request: &Request) {
    let mut run = finish(start(backend, request));
    assert_consistent(&*run, backend, request);
    let (progress, before) = (run.progress(), readings(&*run));
    let set = Interrupt::new();
    for interrupt in [&Interrupt::new(), &set] {
        set.set();
        for steps in [0, 1, u64::MAX] {
            assert_eq!(run.advance(steps, interrupt), Ok(progress.clone()));
        }
    }
    assert_same(&readings(&*run), &before, "after the end");
}

/// What a backend's capabilities leave out is refused, with the backend's name and what it is, before and at the start.
pub fn what_is_not_served_is_refused_by_name(backend: &dyn Backend, request: &Request) {
    let refused = |request: &Request| {
        let refused = backend.supports(request).unwrap_err();
        assert_eq!(
            backend.start(panel(), request).err(),
            Some(refused.clone()),
            "{request:?}"
        );
        refused
    };
    let named = |request: Request, word: &str| {
        let refused = refused(&request);
        assert!(matches!(refused, BackendError::Unsupported { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(backend.name()) && text.contains(word), "{text}");
    };
    let capabilities = backend.capabilities();
    for kind in MethodKind::ALL {
        if kind != backend.method() {
            let other = Request {
                method: kind.default_method(),
                parameterization: Parameterization::Centered,
                ..request.clone()
            };
            named(other, kind.name());
        }
    }
    for kind in [
        DeviceKind::Cpu,
        DeviceKind::Cuda,
        DeviceKind::Vulkan,
        DeviceKind::Metal,
    ] {
        if !capabilities.device_kinds.contains(&kind) {
            let elsewhere = Request {
                devices: vec![DeviceId { kind, index: 0 }; request.devices.len()],
                ..request.clone()
            };
            named(elsewhere, kind.name());
        }
    }
    let too_many = capabilities.devices_per_run.end() + 1;
    let crowded = Request {
        devices: vec![request.devices[0]; too_many],
        ..request.clone()
    };
    named(crowded, &format!("{too_many} devices"));
    for threads in [0, infermark_backend::MOST_THREADS + 1] {
        let out_of_range = Request {
            threads: Some(threads),
            ..request.clone()
        };
        let refused = refused(&out_of_range);
        assert!(matches!(refused, BackendError::Request(_)), "{refused:?}");
        assert!(refused.to_string().contains(&threads.to_string()), "{refused}");
    }
}

/// Checks that a run which has failed with `failure` stays failed, repeats the reason, and stays readable.
pub fn stays_failed(run: &mut dyn Run, failure: &BackendError) {
    let (progress, before) = (run.progress(), readings(run));
    assert_eq!(progress.state, RunState::Failed);
    let report = run.report();
    assert_eq!(report.state, RunState::Failed);
    assert!(!report.warnings.is_empty(), "a failed run says so: {report:?}");
    for steps in [0, 1, u64::MAX] {
        let again = run.advance(steps, &Interrupt::new());
        assert_eq!(again.as_ref(), Err(failure), "asked for {steps} steps");
    }
    assert_eq!(run.progress(), progress);
    assert_same(&readings(run), &before, "after a failure");
}

/// A run that diverges says so and stays failed; what it had before the step that failed is what a run has that stopped there.
/// `request` must be of one that makes more than one step before.
pub fn a_run_that_diverges_stays_readable(backend: &dyn Backend, panel: &Arc<Panel>, request: &Request) {
    let start = || backend.start(panel.clone(), request).unwrap();
    let mut run = start();
    let failure = run.advance(u64::MAX, &Interrupt::new()).unwrap_err();
    let completed = run.progress().completed;
    assert!(completed > 1, "{failure}");
    assert!(
        matches!(failure, BackendError::Diverged { step, .. } if step == completed),
        "{failure:?}"
    );
    stays_failed(&mut *run, &failure);
    let mut shorter = start();
    shorter.advance(completed, &Interrupt::new()).unwrap();
    // In single precision the last finite loss may come with a step that is not: then neither has a posterior.
    match run.posterior() {
        Ok(posterior) => assert_whole(&posterior, panel, request),
        Err(error) => {
            assert_eq!(request.method.precision(), Precision::F32, "{error}");
            assert!(matches!(error, BackendError::NoPosterior(_)), "{error}");
        }
    }
    assert_eq!(
        format!("{:?}", run.posterior()),
        format!("{:?}", shorter.posterior())
    );
}
