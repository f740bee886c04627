//! The contract of a run.

use infermark_backend::{Backend, MethodKind, Request};
use infermark_gaussian_gpu::LaplaceGpu;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted;

fn request() -> Option<Request> {
    let device = infermark_test_support::gpu(&LaplaceGpu::new().devices())?;
    Some(Request {
        devices: vec![device],
        ..Request::new(MethodKind::Laplace.default_method())
    })
}

conformance!(laplace, LaplaceGpu::new(), request(), Interrupted::Within(1e-3));
