//! Requests that are refused.

use infermark_backend::{Backend, Method, Precision, Request, Run, SviSettings};
use infermark_model::Priors;
use infermark_svi_cpu::SviCpu;
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};

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
    for word in ["clip_high is 40.5", "limit is 40", "precision f64"] {
        assert!(high.contains(word), "{high}");
    }
    assert_eq!(refusal(&svi(Precision::F32, 40.0)), None);
    assert_eq!(refusal(&svi(Precision::F64, 80.0)), None);
}
