//! The gate opens for the reference's equals, and bites on every kind of fault.

use crate::fake::{Fake, Fault};
use infermark_backend::{Method, NutsSettings, Precision, Request, SviSettings};
use infermark_harness::parity::{check_parity, norm_wise_error, point_near_the_data, sub_panel};
use infermark_model::log_joint::LogJoint;
use infermark_model::objective::Objective;
use infermark_model::{Likelihood, Parameterization, Priors};
use infermark_report::records::parity::ParityRecord;
use infermark_test_support::panel_with_gaps as panel;

fn svi(precision: Precision) -> Request {
    Request::new(Method::Svi(SviSettings {
        precision,
        ..SviSettings::default()
    }))
}

fn check(fault: Fault, request: &Request) -> ParityRecord {
    check_parity(&*Fake::backend("fake", fault), &panel(40), request, usize::MAX).unwrap()
}

#[test]
fn the_reference_passes_against_itself_in_every_setting() {
    for parameterization in [
        Parameterization::Centered,
        Parameterization::Learned,
        Parameterization::Noncentered,
    ] {
        for objective in [
            Objective::default(),
            Objective::Elbo,
            Objective::Renyi { alpha: 0.5 },
        ] {
            for particles in [1, 3, 6] {
                let request = Request {
                    parameterization,
                    ..Request::new(Method::Svi(SviSettings {
                        objective,
                        particles,
                        precision: Precision::F64,
                        ..SviSettings::default()
                    }))
                };
                let record = check(Fault::None, &request);
                assert!(record.passed(), "{}", record.failures());
                let centredness = usize::from(parameterization == Parameterization::Learned);
                assert_eq!(record.checks.len(), 9 + centredness);
                // Particles combined one by one differ in the order of a few sums.
                assert!(record.checks.iter().all(|c| c.error.unwrap() < 1e-12));
            }
        }
    }
    let nuts = Request::new(Method::Nuts(NutsSettings::default()));
    let record = check(Fault::None, &nuts);
    assert!(record.passed() && record.checks.len() == 4);
    assert_eq!(record.precision, Precision::F64);
    assert_eq!(record.loss_relative_error, None);
}

#[test]
fn every_fault_is_named() {
    for (fault, words) in [
        (Fault::Gradient, "gradient near the data is off by 1.0e-2"),
        (Fault::LogJoint, "log joint at a guide's start is off by 1.0e-5"),
        (Fault::LogWeight, "log-weights is off by"),
        (
            Fault::LossGradient,
            "loss's gradient by the means is off by 1.0e-2",
        ),
        (Fault::ScaleGradient, "loss's gradient by the scales is off by"),
        (Fault::NotANumber, "gradient near the data is not a finite number"),
    ] {
        for precision in [Precision::F32, Precision::F64] {
            let record = check(fault, &svi(precision));
            assert!(!record.passed());
            assert!(
                record.failures().contains(words),
                "{fault:?}: {}",
                record.failures()
            );
        }
    }
    let record = check(Fault::NotANumber, &svi(Precision::F32));
    assert_eq!(record.gradient_relative_error, None);
    // What is not a number must survive the file.
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<ParityRecord>(&json).unwrap(), record);
}

#[test]
fn the_points_lie_where_they_should() {
    let panel = panel(200);
    let point = point_near_the_data(&panel, Likelihood::Poisson);
    let layout = panel.layout();
    let (mut below, mut inside, mut rows) = (0, 0, 0);
    for (product, category) in panel.category_of().iter().enumerate() {
        for row in panel.product_rows(product) {
            let a = point[layout.start(infermark_model::Site::ProductA) + product];
            let e = point[layout.start(infermark_model::Site::ProductEffect) + product];
            let t = point[layout.time_index(*category as usize, row.period)];
            let eta = a * row.log_price + t + e;
            rows += 1;
            below += usize::from(eta < Priors::default().clip_low);
            inside += usize::from(eta > 0.0 && eta < 6.0);
        }
    }
    assert!(below > 0, "some rows are clipped");
    assert!(
        inside * 10 > rows * 9,
        "{inside} of {rows} rows are near the data"
    );
}

#[test]
fn a_large_panel_is_checked_on_a_part_that_is_named() {
    let panel = panel(100);
    let (whole, words) = sub_panel(&panel, panel.rows());
    assert_eq!((whole.rows(), words.as_str()), (panel.rows(), "the whole panel"));
    let (part, words) = sub_panel(&panel, panel.rows() / 9);
    assert!(words.starts_with("every 10th product: 10 products"), "{words}");
    assert_eq!(part.category_of().len(), 10);
    for (k, product) in (0..100).step_by(10).enumerate() {
        assert_eq!(
            part.units()[part.row_range(k)],
            panel.units()[panel.row_range(product)]
        );
        let prices = |p: &infermark_model::Panel, i| {
            p.product_rows(i)
                .map(|r| (r.period, r.log_price))
                .collect::<Vec<_>>()
        };
        for (a, b) in prices(&part, k).iter().zip(prices(&panel, product)) {
            assert_eq!(a.0, b.0);
            // One exp and one ln in between.
            assert!((a.1 - b.1).abs() < 1e-14);
        }
    }
    // One product only: two categories are left out.
    let (single, _) = sub_panel(&panel, 1);
    assert_eq!((single.category_of().len(), single.categories().len()), (1, 1));
    let point = vec![0.1; single.layout().latents()];
    assert!(
        LogJoint::new(&single, Priors::default())
            .natural(&point)
            .0
            .is_finite()
    );
    let record = check_parity(
        &*Fake::backend("fake", Fault::None),
        &panel,
        &svi(Precision::F32),
        panel.rows() / 9,
    )
    .unwrap();
    assert_eq!(record.rows, part.rows());
    assert_eq!(record.panel, words);
}

#[test]
fn errors_are_norm_wise() {
    assert!((norm_wise_error(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-15);
    assert!(norm_wise_error(&[1.0], &[1.0, 2.0]).is_nan());
}
