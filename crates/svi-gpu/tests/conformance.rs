//! The contract of a run.

mod support;

use infermark_backend::{Method, Request};
use infermark_model::objective::Objective;
use infermark_svi_gpu::SviGpu;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::iterations::{FORMS, Form, path_length, svi_request};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};

/// Fewer iterations than elsewhere: a software rasterizer is slow.
fn request(form: Form) -> Option<Request> {
    let mut request = svi_request(support::device()?, form, 4, Objective::Renyi { alpha: 0.0 });
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    settings.iterations = path_length().min(80);
    Some(request)
}

conformance!(published, SviGpu::new(), request(FORMS[0]), ToTheBit);
conformance!(orthogonal, SviGpu::new(), request(Form::ORTHOGONAL), ToTheBit);

#[test]
fn a_run_that_diverges_stays_readable() {
    let Some(mut request) = request(FORMS[0]) else {
        return;
    };
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    // Parameters grow a thousandfold at every step: the decay overshoots by that.
    settings.optimizer.learning_rate = 1e3;
    settings.optimizer.weight_decay = 1.0;
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 12, 2, 9, 0.0, 30);
    conformance::a_run_that_diverges_stays_readable(&SviGpu::new(), &panel, &request);
}
