//! The contract of a run over shards.

use infermark_backend::{DeviceId, Request};
use infermark_model::Likelihood;
use infermark_model::objective::Objective;
use infermark_svi_cpu::SviCpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::iterations::{FORMS, Form, svi_request};

fn request(shards: usize, form: Form, likelihood: Likelihood) -> Request {
    Request {
        shards,
        likelihood,
        ..svi_request(DeviceId::CPU, form, 3, Objective::Renyi { alpha: 0.0 })
    }
}

conformance!(
    published,
    SviSharded::over(SviCpu::new()),
    request(2, FORMS[0], Likelihood::Poisson),
    ToTheBit
);
conformance!(
    learned,
    SviSharded::over(SviCpu::new()),
    request(3, FORMS[1], Likelihood::Poisson),
    ToTheBit
);
conformance!(
    orthogonal,
    SviSharded::over(SviCpu::new()),
    request(4, Form::ORTHOGONAL, Likelihood::Poisson),
    ToTheBit
);
conformance!(
    negative_binomial_in_orthogonal_coordinates,
    SviSharded::over(SviCpu::new()),
    request(2, Form::ORTHOGONAL, Likelihood::NegativeBinomial),
    ToTheBit
);
