//! The contract of a run.

use infermark_backend::{MeanfieldSettings, Method, MethodKind, Request};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Coordinates, Likelihood};
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted;

/// As in `interrupted.rs`.
const NEAR: Interrupted = Interrupted::Within(1e-3);

fn request(method: MethodKind, likelihood: Likelihood) -> Request {
    Request {
        likelihood,
        ..Request::new(method.default_method())
    }
}

fn in_shards(shards: usize, request: Request) -> Request {
    Request { shards, ..request }
}

fn orthogonal() -> Request {
    Request::new(Method::Meanfield(MeanfieldSettings {
        coordinates: Coordinates::Orthogonal,
        ..MeanfieldSettings::default()
    }))
}

conformance!(
    laplace,
    GaussianCpu::laplace(),
    request(MethodKind::Laplace, Likelihood::Poisson),
    NEAR
);
conformance!(
    laplace_negative_binomial,
    GaussianCpu::laplace(),
    request(MethodKind::Laplace, Likelihood::NegativeBinomial),
    NEAR
);
conformance!(
    structured_vi,
    GaussianCpu::structured_vi(),
    request(MethodKind::StructuredVi, Likelihood::Poisson),
    NEAR
);
conformance!(
    structured_vi_negative_binomial,
    GaussianCpu::structured_vi(),
    request(MethodKind::StructuredVi, Likelihood::NegativeBinomial),
    NEAR
);
conformance!(
    meanfield,
    GaussianCpu::meanfield(),
    request(MethodKind::Meanfield, Likelihood::Poisson),
    NEAR
);
conformance!(
    meanfield_negative_binomial,
    GaussianCpu::meanfield(),
    request(MethodKind::Meanfield, Likelihood::NegativeBinomial),
    NEAR
);
conformance!(meanfield_orthogonal, GaussianCpu::meanfield(), orthogonal(), NEAR);
conformance!(
    laplace_in_shards,
    GaussianCpu::laplace(),
    in_shards(3, request(MethodKind::Laplace, Likelihood::Poisson)),
    NEAR
);
conformance!(
    structured_vi_in_shards,
    GaussianCpu::structured_vi(),
    in_shards(2, request(MethodKind::StructuredVi, Likelihood::Poisson)),
    NEAR
);
conformance!(
    laplace_negative_binomial_in_shards,
    GaussianCpu::laplace(),
    in_shards(2, request(MethodKind::Laplace, Likelihood::NegativeBinomial)),
    NEAR
);
