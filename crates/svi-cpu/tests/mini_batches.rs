//! Mini-batches against passes over all products.

use infermark_backend::{Backend, DeviceId, Interrupt, Method, Precision, Request};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::{Likelihood, Panel, Site};
use infermark_svi::Chart;
use infermark_svi_cpu::SviCpu;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::guides::{difference, flat};
use infermark_test_support::iterations::{FORMS, Form, svi_request};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn request(form: Form, likelihood: Likelihood, batch_products: Option<usize>) -> Request {
    let mut request = svi_request(DeviceId::CPU, form, 2, Objective::Elbo);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!("a request for SVI")
    };
    settings.precision = Precision::F64;
    settings.batch_products = batch_products;
    Request {
        likelihood,
        threads: Some(2),
        ..request
    }
}

conformance!(
    mini_batches,
    SviCpu::new(),
    request(Form::ORTHOGONAL, Likelihood::Poisson, Some(7)),
    ToTheBit
);
conformance!(
    mini_batches_of_negative_binomial_counts,
    SviCpu::new(),
    request(FORMS[1], Likelihood::NegativeBinomial, Some(5)),
    ToTheBit
);

fn panel() -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(12), 96, 3, 40, 0.1, 200)
}

fn posterior(panel: &Arc<Panel>, request: &Request) -> infermark_backend::Posterior {
    let mut run = SviCpu::new().start(panel.clone(), request).unwrap();
    run.advance(u64::MAX, &Interrupt::new()).unwrap();
    run.posterior().unwrap()
}

/// A batch of all products is no batch. Only the units that a period effect is held against are added up in another order.
#[test]
fn a_batch_of_all_products_follows_the_same_path() {
    let panel = panel();
    for form in FORMS {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let of = |batch| posterior(&panel, &request(form, likelihood, batch));
            let (whole, batch) = (of(None), of(Some(96)));
            for (a, b) in [(&whole.mean, &batch.mean), (&whole.sd, &batch.sd)] {
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-7, "{form:?} {likelihood:?}: {worst}");
            }
        }
    }
}

/// Over an epoch the gradient of the hierarchy is that of the whole panel in the mean, to rounding: the same noise in every batch.
#[test]
fn the_gradient_of_the_hierarchy_is_right_in_the_mean() {
    let panel = panel();
    for form in FORMS {
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let whole = request(form, likelihood, None);
            let batch = request(form, likelihood, Some(8));
            let guide = Chart::of(&panel, &whole).start(&panel, &whole);
            let layout = panel.layout_for(likelihood);
            let of = |request: &Request, epoch: u64, iteration: u32| {
                // The order of batches is that of the seed, the noise that of seed and iteration: an iteration of another seed has other
                // noise, so both are compared at the same one.
                let stream = Stream {
                    seed: 40 + epoch,
                    iteration,
                };
                SviCpu::new()
                    .loss_and_gradient(&panel, request, &guide, stream)
                    .unwrap()
                    .unwrap()
            };
            // Noise differs by iteration: its part cancels where the whole panel's gradient has the same.
            let (mut off, mut size) = (vec![0.0; flat(&guide).len()], 0.0);
            let (epochs, per_epoch) = (60, 12);
            for epoch in 0..epochs {
                for iteration in 0..per_epoch {
                    let (found, expected) = (of(&batch, epoch, iteration), of(&whole, epoch, iteration));
                    let parts = hierarchy(&found.gradient, &expected.gradient, &layout);
                    for (total, part) in off.iter_mut().zip(&parts) {
                        *total += part / f64::from(per_epoch) / epochs as f64;
                    }
                    size += parts.iter().map(|d| d * d).sum::<f64>();
                }
            }
            let of_mean = off.iter().map(|d| d * d).sum::<f64>().sqrt();
            let of_one = (size / f64::from(per_epoch) / epochs as f64).sqrt();
            // 720 batches, drawn without replacement within an epoch: their mean is far closer than one over the root of 720.
            assert!(
                of_mean < 0.06 * of_one,
                "{form:?} {likelihood:?}: {of_mean} of {of_one}"
            );
        }
    }
}

/// The difference of two gradients in the latents above the products, and 0 elsewhere.
fn hierarchy(found: &Guide, expected: &Guide, layout: &infermark_model::Layout) -> Vec<f64> {
    let of_products = [Site::ProductA, Site::ProductEffect].map(|site| layout.range(site));
    let latents = layout.latents();
    let mut off = difference(&flat(found), &flat(expected));
    for (i, d) in off.iter_mut().enumerate() {
        if i < 2 * latents && of_products.iter().any(|range| range.contains(&(i % latents))) {
            *d = 0.0;
        }
    }
    off
}

/// A long run ends where one over all products does.
#[test]
fn the_optimum_is_that_of_the_whole_panel() {
    let panel = panel();
    let long = |batch| {
        let mut request = request(Form::ORTHOGONAL, Likelihood::Poisson, batch);
        let Method::Svi(settings) = &mut request.method else {
            unreachable!("a request for SVI")
        };
        *settings = settings.clone().falling_over(20_000);
        posterior(&panel, &request)
    };
    let (whole, batch) = (long(None), long(Some(24)));
    for j in 0..whole.mean.len() {
        let off = (batch.mean[j] - whole.mean[j]).abs() / whole.sd[j];
        let ratio = batch.sd[j] / whole.sd[j];
        assert!(off < 0.15 && (0.9..1.1).contains(&ratio), "{j}: {off} {ratio}");
    }
}

#[test]
fn mini_batches_go_with_the_elbo() {
    let mut request = request(FORMS[0], Likelihood::Poisson, Some(3));
    let Method::Svi(settings) = &mut request.method else {
        unreachable!("a request for SVI")
    };
    settings.objective = Objective::Renyi { alpha: 0.0 };
    let refused = SviCpu::new().supports(&request).unwrap_err().to_string();
    assert!(refused.contains("mini-batches go with the ELBO"), "{refused}");
}
