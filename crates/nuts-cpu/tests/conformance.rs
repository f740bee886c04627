//! The contract of a run.

use infermark_backend::{Method, Metric, NutsSettings, Request};
use infermark_model::Likelihood;
use infermark_nuts_cpu::NutsCpu;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;

/// An odd number of chains, on fewer threads.
fn request(metric: Metric, likelihood: Likelihood) -> Request {
    Request {
        likelihood,
        threads: Some(2),
        seed: 11,
        ..Request::new(Method::Nuts(NutsSettings {
            metric,
            chains: 3,
            warmup: 30,
            draws: 25,
            ..NutsSettings::diagonal()
        }))
    }
}

conformance!(
    structured,
    NutsCpu,
    request(Metric::Structured, Likelihood::Poisson),
    ToTheBit
);
conformance!(
    diagonal,
    NutsCpu,
    request(Metric::Diagonal, Likelihood::Poisson),
    ToTheBit
);
conformance!(
    structured_negative_binomial,
    NutsCpu,
    request(Metric::Structured, Likelihood::NegativeBinomial),
    ToTheBit
);
conformance!(
    diagonal_negative_binomial,
    NutsCpu,
    request(Metric::Diagonal, Likelihood::NegativeBinomial),
    ToTheBit
);
