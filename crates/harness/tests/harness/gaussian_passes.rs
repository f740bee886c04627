//! The gate opens for the Gaussian methods' own passes, and bites when a pass is broken on purpose.

use infermark_backend::{
    Backend, BackendError, LaplaceSettings, MeanfieldSettings, Method, NutsSettings, Request,
    StructuredViSettings, SviSettings,
};
use infermark_gaussian::{Fault, GaussianCpu};
use infermark_harness::parity::check_parity;
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors};
use infermark_nuts_cpu::NutsCpu;
use infermark_report::records::parity::ParityRecord;
use infermark_svi_cpu::SviCpu;
use infermark_test_support::altered::Altered;
use infermark_test_support::panel_with_gaps as panel;
use std::sync::Arc;

const LIKELIHOODS: [Likelihood; 2] = [Likelihood::Poisson, Likelihood::NegativeBinomial];

fn methods() -> [(GaussianCpu, Method); 3] {
    [
        (
            GaussianCpu::laplace(),
            Method::Laplace(LaplaceSettings::default()),
        ),
        (
            GaussianCpu::structured_vi(),
            Method::StructuredVi(StructuredViSettings::default()),
        ),
        (
            GaussianCpu::meanfield(),
            Method::Meanfield(MeanfieldSettings::default()),
        ),
    ]
}

fn check(backend: &GaussianCpu, method: &Method, likelihood: Likelihood) -> ParityRecord {
    check_parity(backend, &panel(150), &request(method, likelihood), usize::MAX).unwrap()
}

fn request(method: &Method, likelihood: Likelihood) -> Request {
    Request {
        likelihood,
        threads: Some(2),
        ..Request::new(method.clone())
    }
}

#[test]
fn passes_agree_with_the_reference_under_both_likelihoods() {
    for (backend, method) in methods() {
        for likelihood in LIKELIHOODS {
            let record = check(&backend, &method, likelihood);
            assert!(record.passed(), "{}: {}", method.name(), record.failures());
            assert_eq!(record.likelihood, likelihood);
            assert_eq!(record.checks.len(), 8);
            let is_variational = method.name() != "laplace";
            assert_eq!(record.compared.contains("evidence lower bound"), is_variational);
            assert_eq!(record.loss_relative_error.is_some(), is_variational);
            assert_eq!(record.log_joint_relative_error.is_none(), is_variational);
            for c in &record.checks {
                println!(
                    "{} {likelihood:?} {}: {:.1e}",
                    method.name(),
                    c.quantity,
                    c.error.unwrap()
                );
            }
        }
    }
}

/// The test that the gate is for: a fault in the pass itself, whatever it is in, fails.
#[test]
fn every_fault_of_a_pass_is_found() {
    let everywhere = [
        Fault::Value,
        Fault::Gradient,
        Fault::PeriodGradient,
        Fault::Weights,
    ];
    let of_shapes = [Fault::ShapeGradient, Fault::ShapeCoupling, Fault::ShapeCurvature];
    for (backend, method) in methods() {
        for likelihood in LIKELIHOODS {
            let mut faults = everywhere.to_vec();
            if likelihood == Likelihood::NegativeBinomial {
                faults.extend(of_shapes);
            }
            if method.name() == "structured-vi" {
                // The other two take no variances from the factor before.
                faults.push(Fault::Variances);
            }
            for fault in faults {
                let request = request(&method, likelihood);
                let found = check_parity(&backend.with_fault(fault), &panel(150), &request, usize::MAX);
                // A precision that a fault made indefinite is found, too.
                match found {
                    Ok(record) => assert!(!record.passed(), "{} {likelihood:?} {fault:?}", method.name()),
                    Err(BackendError::Diverged { .. }) => {}
                    Err(other) => panic!("{} {likelihood:?} {fault:?}: {other}", method.name()),
                }
            }
        }
    }
}

#[test]
fn products_at_the_upper_bound_are_left_out_and_named() {
    let panel = scaled(&panel(150), 200);
    // Counts reach 11,800; from eight standard deviations below the largest rate on, 10,766, products are left out.
    let priors = Priors {
        clip_high: 11_630f64.ln(),
        ..Priors::default()
    };
    let at_bound = |i: &usize| panel.product_rows(*i).any(|row| row.units >= 10_768);
    let left_out = (0..150).filter(at_bound).count();
    assert!((10..140).contains(&left_out), "{left_out}");
    for (backend, method) in methods() {
        let mut request = request(&method, Likelihood::Poisson);
        request.priors = priors;
        let record = check_parity(&backend, &panel, &request, usize::MAX).unwrap();
        assert!(record.passed(), "{}: {}", method.name(), record.failures());
        let words = format!("{left_out} products left out");
        assert!(record.panel.contains(&words), "{}", record.panel);
        // Faults in what stands for these products are found like any other.
        for fault in [Fault::Value, Fault::Gradient, Fault::Weights] {
            let found = check_parity(&backend.with_fault(fault), &panel, &request, usize::MAX);
            assert!(
                found.map_or(true, |record| !record.passed()),
                "{} {fault:?}",
                method.name()
            );
        }
        // The negative binomial leaves out none.
        request.likelihood = Likelihood::NegativeBinomial;
        let record = check_parity(&backend, &panel, &request, usize::MAX).unwrap();
        assert!(record.passed(), "{}: {}", method.name(), record.failures());
        assert!(!record.panel.contains("left out"), "{}", record.panel);
        // A run refuses this, and so do its passes.
        request.likelihood = Likelihood::Poisson;
        request.priors.clip_high = 1.0;
        let refused = check_parity(&backend, &panel, &request, usize::MAX).unwrap_err();
        assert!(refused.to_string().contains("raise clip_high"), "{refused}");
    }
}

/// The panel with all counts `factor` times as large.
fn scaled(panel: &Panel, factor: u32) -> Arc<Panel> {
    let layout = panel.layout();
    let mut part = PanelPart::new(layout.categories, layout.periods);
    for (i, category) in panel.category_of().iter().enumerate() {
        let rows: Vec<_> = panel.product_rows(i).collect();
        let periods: Vec<u32> = rows.iter().map(|row| row.period as u32).collect();
        let prices: Vec<f64> = rows.iter().map(|row| row.log_price.exp()).collect();
        let units: Vec<u32> = rows.iter().map(|row| factor * row.units).collect();
        part.push_product(*category as usize, Some(&periods), &prices, &units)
            .unwrap();
    }
    let panel = Panel::from_parts(
        Labels::numbered("p", layout.products),
        Labels::numbered("c", layout.categories),
        Labels::numbered("t", layout.periods),
        vec![part],
    );
    Arc::new(panel.unwrap())
}

/// The other backends' passes under the likelihood that is asked for.
#[test]
fn svi_and_nuts_are_compared_under_the_requests_likelihood() {
    for likelihood in LIKELIHOODS {
        let svi = request(&Method::Svi(SviSettings::default()), likelihood);
        let nuts = request(&Method::Nuts(NutsSettings::default()), likelihood);
        let of_svi = check_parity(&SviCpu::new(), &panel(60), &svi, usize::MAX).unwrap();
        let of_nuts = check_parity(&NutsCpu, &panel(60), &nuts, usize::MAX).unwrap();
        for record in [of_svi, of_nuts] {
            assert!(record.passed(), "{likelihood:?}: {}", record.failures());
            assert_eq!(record.likelihood, likelihood);
        }
        // A backend that evaluates the other likelihood has another log joint.
        let other = LIKELIHOODS.into_iter().find(|l| *l != likelihood).unwrap();
        let wrong = check_parity(&of_other_likelihood(other), &panel(60), &nuts, usize::MAX).unwrap();
        assert!(!wrong.passed());
    }
}

/// NUTS' pass under another likelihood than the one that is asked for.
fn of_other_likelihood(other: Likelihood) -> impl Backend {
    Altered::new(NutsCpu).log_joint(move |nuts, panel, request, point| {
        let mut there = point.to_vec();
        there.resize(panel.layout_for(other).latents(), 3.0);
        let request = Request {
            likelihood: other,
            ..request.clone()
        };
        let (value, mut gradient) = nuts.log_joint(panel, &request, &there)?;
        gradient.resize(point.len(), 0.0);
        Ok((value, gradient))
    })
}
