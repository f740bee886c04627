//! A run that is stopped within a step reports it at once, and can be resumed.

mod methods;

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, Request, RunState, StructuredViSettings,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::Likelihood;
use infermark_test_support::random_panel;
use methods::methods;
use rand::{SeedableRng, rngs::StdRng};

#[test]
fn what_is_stopped_within_a_step_goes_on_to_the_same_posterior() {
    let panel = random_panel(&mut StdRng::seed_from_u64(7), 30, 2, 90, 0.1, 200);
    for (backend, method) in methods() {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let request = Request {
                likelihood,
                ..Request::new(method.clone())
            };
            let start = || backend.start(panel.clone(), &request).unwrap();
            let mut whole = start();
            let mut steps = 0;
            while !whole.advance(1, &Interrupt::new()).unwrap().state.is_complete() {
                steps += 1;
            }
            // Stopped in the first step, in the middle, and in the marginals at the end.
            for at in [0, steps / 2, steps] {
                let mut run = start();
                for _ in 0..at {
                    run.advance(1, &Interrupt::new()).unwrap();
                }
                let done = run.progress().completed;
                let asked = Interrupt::new();
                asked.set();
                let progress = run.advance(5, &asked).unwrap();
                if progress.state.is_complete() {
                    // The optimum was known before: nothing was left to stop.
                    continue;
                }
                assert_eq!(progress.state, RunState::Interrupted);
                assert!(progress.completed <= done + 1);
                assert!(run.posterior().is_err());
                while !run.advance(3, &Interrupt::new()).unwrap().state.is_complete() {}
                let (found, expected) = (run.posterior().unwrap(), whole.posterior().unwrap());
                assert_eq!(run.progress().state, RunState::Converged, "{}", backend.name());
                for j in 0..found.mean.len() {
                    let off = (found.mean[j] - expected.mean[j]).abs() / expected.sd[j];
                    assert!(off < 1e-3, "{} at {at}: {j} off by {off}", backend.name());
                }
            }
        }
    }
}

/// A run that is stopped after the last requested step needs its point evaluated again, but no more steps.
#[test]
fn what_is_stopped_at_the_limit_of_steps_is_taken_up_again() {
    let panel = random_panel(&mut StdRng::seed_from_u64(7), 30, 2, 90, 0.1, 200);
    let limited = [
        (
            GaussianCpu::laplace(),
            Method::Laplace(LaplaceSettings {
                steps: 1,
                // A tolerance that one step does not meet.
                tolerance: 1e-12,
                ..LaplaceSettings::default()
            }),
        ),
        (
            GaussianCpu::structured_vi(),
            Method::StructuredVi(StructuredViSettings {
                steps: 1,
                ..StructuredViSettings::default()
            }),
        ),
    ];
    for (backend, method) in limited {
        for at in 0..4 {
            let mut run = backend
                .start(panel.clone(), &Request::new(method.clone()))
                .unwrap();
            for _ in 0..at {
                run.advance(1, &Interrupt::new()).unwrap();
            }
            let asked = Interrupt::new();
            asked.set();
            run.advance(5, &asked).unwrap();
            while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
            assert_eq!(
                run.progress().state,
                RunState::Finished,
                "{} at {at}",
                backend.name()
            );
            // Signals after the end change nothing.
            assert!(run.posterior().is_ok() && run.dispersion().is_some());
        }
    }
}
