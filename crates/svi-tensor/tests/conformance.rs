//! The contract of a run.

use infermark_backend::{Backend, Method, Request};
use infermark_model::objective::Objective;
use infermark_svi_tensor::SviTensor;
use infermark_test_support::conformance::{self, Interrupted};
use infermark_test_support::iterations::{FORMS, svi_request};
use infermark_test_support::{gpu, random_panel};
use rand::{SeedableRng, rngs::StdRng};

/// One after the other: all runs of a device share the noise of its own generator, which each seeds at its start.
#[test]
fn a_run_keeps_to_the_contract() {
    let Some(device) = gpu(&SviTensor.devices()) else {
        return;
    };
    let mut request: Request = svi_request(device, FORMS[0], 4, Objective::Elbo);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    settings.iterations = 24;
    conformance::a_run_that_was_started_is_consistent(&SviTensor, &request);
    conformance::pieces_give_the_bits_of_one_go(&SviTensor, &request);
    conformance::threads_change_no_bit(&SviTensor, &request);
    conformance::an_interrupted_run_goes_on(&SviTensor, &request, Interrupted::ToTheBit);
    conformance::an_end_is_an_end(&SviTensor, &request);
    conformance::a_checkpoint_is_resumed_or_refused(&SviTensor, &request, Interrupted::ToTheBit);
    conformance::what_is_not_served_is_refused_by_name(&SviTensor, &request);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    settings.optimizer.learning_rate = 1e3;
    settings.optimizer.weight_decay = 1.0;
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 12, 2, 9, 0.0, 30);
    conformance::a_run_that_diverges_stays_readable(&SviTensor, &panel, &request);
}
