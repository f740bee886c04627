//! Requests that are refused, and runs that fail.

use infermark_backend::{
    Backend, BackendError, DeviceId, Interrupt, Method, NutsSettings, Precision, Request, Run, RunState,
    SviSettings,
};
use infermark_model::optimizer::AdamW;
use infermark_model::{Parameterization, Priors};
use infermark_svi_cpu::SviCpu;
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};

/// A request whose parameters grow a thousandfold at every step: the decay overshoots by that.
fn divergent(precision: Precision) -> Request {
    let settings = SviSettings {
        iterations: 1000,
        precision,
        optimizer: AdamW {
            learning_rate: 1e3,
            weight_decay: 1.0,
            ..AdamW::default()
        },
        ..SviSettings::default()
    };
    Request {
        threads: Some(2),
        ..Request::new(Method::Svi(settings))
    }
}

fn is_divergence(result: &Result<impl std::fmt::Debug, BackendError>, after: u64) -> bool {
    matches!(result, Err(BackendError::Diverged { step, .. }) if *step == after)
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_before_its_step() {
    let panel = random_panel(&mut StdRng::seed_from_u64(6), 200, 3, 12, 0.2, 30);
    for precision in [Precision::F32, Precision::F64] {
        for parameterization in [Parameterization::Centered, Parameterization::Learned] {
            let mut request = divergent(precision);
            request.parameterization = parameterization;
            let mut run = SviCpu::new().start(panel.clone(), &request).unwrap();
            let failed = run.advance(u64::MAX, &Interrupt::new());
            let case = format!("{precision:?} {parameterization:?}: {failed:?}");
            let completed = run.progress().completed;
            assert!(completed > 1 && is_divergence(&failed, completed), "{case}");
            assert_eq!(run.progress().state, RunState::Failed, "{case}");
            // A failed run stays failed, and says why again.
            for _ in 0..2 {
                assert_eq!(run.advance(1, &Interrupt::new()), failed);
            }
            assert_eq!(run.progress().completed, completed, "{case}");
            let report = run.report();
            assert!(
                report.warnings[0].contains("finite"),
                "{case}: {:?}",
                report.warnings
            );

            // What it had before that iteration is what a run has that stopped there.
            let mut shorter = SviCpu::new().start(panel.clone(), &request).unwrap();
            shorter.advance(completed, &Interrupt::new()).unwrap();
            match (run.posterior(), shorter.posterior()) {
                (Ok(failed), Ok(stopped)) => {
                    assert_eq!(failed, stopped, "{case}");
                    assert!(
                        failed.mean.iter().chain(&failed.sd).all(|x| x.is_finite()),
                        "{case}"
                    );
                }
                // In single precision the last finite loss may come with a step that is not.
                (failed, stopped) => {
                    assert_eq!(precision, Precision::F32, "{case}");
                    assert!(matches!(failed, Err(BackendError::NoPosterior(_))), "{case}");
                    assert_eq!(failed, stopped, "{case}");
                }
            }
        }
    }
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_the_reason() {
    let panel = random_panel(&mut StdRng::seed_from_u64(6), 2, 1, 3, 0.0, 5);
    let refusal = |request: &Request| {
        let started: Result<Box<dyn Run>, _> = SviCpu::new().start(panel.clone(), request);
        started.err().map(|error| error.to_string())
    };
    let svi = |precision, clip_high| Request {
        priors: Priors {
            clip_high,
            ..Priors::default()
        },
        ..Request::new(Method::Svi(SviSettings {
            precision,
            ..SviSettings::default()
        }))
    };
    let high = refusal(&svi(Precision::F32, 40.5)).unwrap();
    for word in ["clip_high is 40.5", "at most 40", "--precision f64"] {
        assert!(high.contains(word), "{high}");
    }
    assert_eq!(refusal(&svi(Precision::F32, 40.0)), None);
    assert_eq!(refusal(&svi(Precision::F64, 80.0)), None);

    let mut twice = svi(Precision::F32, 20.0);
    twice.devices = vec![DeviceId::CPU; 2];
    assert!(refusal(&twice).unwrap().contains("2 devices"));
    twice.devices = vec!["cuda".parse().unwrap()];
    assert!(refusal(&twice).unwrap().contains("the device cuda"));
    let nuts = Request::new(Method::Nuts(NutsSettings::default()));
    assert!(refusal(&nuts).unwrap().contains("nuts"));
}
