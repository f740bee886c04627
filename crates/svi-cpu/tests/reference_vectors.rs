//! The production code against NumPyro's float64 vectors: trajectories fed with the recorded noise, and gradients.

use infermark_backend::{Backend, Method, Precision, Request, SviSettings};
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::objective::Objective;
use infermark_model::{
    Coordinates, Labels, Likelihood, Orthogonal, Panel, PanelPart, Parameterization, Priors, Row,
};
use infermark_processor::InstructionSet;
use infermark_svi::NoiseSource;
use infermark_svi_cpu::SviCpu;
use infermark_test_support::guides::flat;
use infermark_test_support::trajectories::{
    DOUBLE_PRECISION, SINGLE_PRECISION, StepTolerances, Trajectory, guide_of, orthogonal_trajectory, sites,
    trajectories,
};
use infermark_test_support::{norm, numbers, orthogonal_vectors, small_panel, vectors};
use serde_json::Value;
use std::sync::Arc;

fn request(parameterization: Parameterization, precision: Precision) -> Request {
    let settings = SviSettings {
        iterations: 12,
        precision,
        ..SviSettings::default()
    };
    Request {
        parameterization,
        threads: Some(2),
        ..Request::new(Method::Svi(settings))
    }
}

#[test]
fn trajectories_are_reproduced() {
    let panel = small_panel();
    for trajectory in trajectories() {
        for set in InstructionSet::available() {
            for precision in [Precision::F64, Precision::F32] {
                follow(
                    &panel,
                    &trajectory,
                    SviCpu::with_instruction_set(set),
                    &request(trajectory.parameterization, precision),
                    &format!("{:?} {set} {precision:?}", trajectory.parameterization),
                );
            }
        }
    }
}

/// Follows a recorded trajectory step by step.
fn follow(panel: &Arc<Panel>, trajectory: &Trajectory, backend: SviCpu, request: &Request, case: &str) {
    let Method::Svi(settings) = &request.method else {
        unreachable!("made by `request`")
    };
    let tolerances = match settings.precision {
        Precision::F64 => DOUBLE_PRECISION,
        // In orthogonal coordinates the record starts near the data, where a gradient is what counts less rates leave.
        Precision::F32 if settings.coordinates == Coordinates::Orthogonal => StepTolerances {
            gradient: 5e-5,
            ..SINGLE_PRECISION
        },
        Precision::F32 => SINGLE_PRECISION,
    };
    let source = NoiseSource::Recorded(trajectory.recording());
    let mut run = backend
        .start_from(panel.clone(), request, &trajectory.start, source.clone())
        .unwrap();
    let loss_and_gradient = |guide: &Guide, t: u32| {
        backend
            .loss_and_gradient_under(panel, request, guide, source.clone(), t)
            .unwrap()
    };
    trajectory.assert_followed(&mut *run, loss_and_gradient, tolerances, case);
}

#[test]
fn orthogonal_trajectory_is_reproduced() {
    let panel = small_panel();
    let trajectory = orthogonal_trajectory();
    assert_eq!(trajectory.steps.len(), 12);
    for set in InstructionSet::available() {
        for precision in [Precision::F64, Precision::F32] {
            let request = orthogonal_request(precision, Objective::default());
            follow(
                &panel,
                &trajectory,
                SviCpu::with_instruction_set(set),
                &request,
                &format!("orthogonal {set} {precision:?}"),
            );
        }
    }
}

fn orthogonal_request(precision: Precision, objective: Objective) -> Request {
    let mut request = request(Parameterization::Centered, precision);
    if let Method::Svi(settings) = &mut request.method {
        settings.coordinates = Coordinates::Orthogonal;
        settings.objective = objective;
    }
    request
}

fn close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-9 * e.abs().max(1.0), "{what}: {f} {e}");
    }
}

/// The coordinates of `panel` are those of a record, and so are natural parameters, log joint and gradient at its `points` points.
fn equal_the_points(panel: &Panel, vectors: &Value, points: usize) {
    let priors = Priors::default();
    let orthogonal = Orthogonal::new(panel, Likelihood::Poisson, &priors);
    close(&orthogonal.origin, &numbers(&vectors["centre"]), "centres");
    if let Some(weights) = vectors["period_weights"].as_array() {
        let shares: Vec<f64> = weights.iter().flat_map(numbers).collect();
        close(&orthogonal.period_share, &shares, "weights of the periods");
    }
    let recorded = vectors["orthogonal_log_joint"].as_array().unwrap();
    assert_eq!(recorded.len(), points);
    let log_joint = LogJoint::new(panel, priors);
    for point in recorded {
        let z = sites(&point["z"]);
        let natural = orthogonal.to_natural(&z);
        close(&natural, &sites(&point["natural"]), "natural parameters");
        let (value, by_natural) = log_joint.natural(&natural);
        let expected = point["log_joint"].as_f64().unwrap();
        let value = value + orthogonal.ln_jacobian();
        assert!(
            (value - expected).abs() < 1e-10 * expected.abs(),
            "{value} {expected}"
        );
        let gradient = sites(&point["grad"]);
        let off: Vec<f64> = orthogonal
            .gradient(by_natural)
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        assert!(norm(&off) < 1e-9 * norm(&gradient));
    }
}

/// The reference panel with the rows that `units` leaves it, and the units that it gives them, of `periods` periods.
fn altered(periods: usize, units: impl Fn(usize, &Row) -> Option<u32>) -> Panel {
    let panel = small_panel();
    let mut part = PanelPart::new(panel.layout().categories, periods);
    let mut products = 0;
    for i in 0..panel.layout().products {
        let rows: Vec<(Row, u32)> = panel
            .product_rows(i)
            .filter_map(|row| units(i, &row).map(|y| (row, y)))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let here: Vec<u32> = rows.iter().map(|(row, _)| row.period as u32).collect();
        let prices: Vec<f64> = rows.iter().map(|(row, _)| row.log_price.exp()).collect();
        let units: Vec<u32> = rows.iter().map(|(_, y)| *y).collect();
        let dense = rows.len() == periods;
        part.push_product(
            panel.category_of()[i] as usize,
            (!dense).then_some(&here[..]),
            &prices,
            &units,
        )
        .unwrap();
        products += 1;
    }
    Panel::from_parts(
        Labels::numbered("p", products),
        Labels::numbered("c", panel.layout().categories),
        Labels::numbered("t", periods),
        vec![part],
    )
    .unwrap()
}

#[test]
fn orthogonal_coordinates_without_sales_and_of_one_period_are_those_of_the_record() {
    let vectors = orthogonal_vectors();
    let panel = small_panel();
    let category_of = panel.category_of();
    // The record says what was altered, of both.
    let unsold = altered(panel.layout().periods, |i, row| {
        Some(if i == 5 || category_of[i] == 3 {
            0
        } else {
            row.units
        })
    });
    equal_the_points(&unsold, &vectors["without_sales"], 2);
    let single = altered(1, |_, row| (row.period == 0).then_some(row.units));
    equal_the_points(&single, &vectors["one_period"], 2);
}

/// Log joints, gradients, natural parameters and their moments as another implementation has them in these coordinates, and the losses of every
/// objective.
#[test]
fn orthogonal_coordinates_are_those_of_the_record() {
    let (panel, vectors) = (small_panel(), orthogonal_vectors());
    let priors = Priors::default();
    let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &priors);
    equal_the_points(&panel, &vectors, 4);
    let objectives = &vectors["objectives"];
    let guide = guide_of(&objectives["guide_unconstrained"], false);
    for (name, objective) in [
        ("renyi", Objective::Renyi { alpha: 0.0 }),
        ("renyi_half", Objective::Renyi { alpha: 0.5 }),
        ("elbo", Objective::Elbo),
    ] {
        let recorded = &objectives[name];
        let noise = recorded["eps"].as_array().unwrap().iter().map(sites).collect();
        let found = SviCpu::new()
            .loss_and_gradient_under(
                &panel,
                &orthogonal_request(Precision::F64, objective),
                &guide,
                NoiseSource::recorded(vec![noise]),
                0,
            )
            .unwrap();
        let loss = recorded["loss"].as_f64().unwrap();
        assert!((found.weighted.loss - loss).abs() < 1e-10 * loss.abs(), "{name}");
        close(&found.log_weights, &numbers(&recorded["log_weights"]), name);
        let expected = flat(&guide_of(&recorded["grad"], false));
        let off: Vec<f64> = flat(&found.gradient)
            .iter()
            .zip(&expected)
            .map(|(a, b)| a - b)
            .collect();
        assert!(norm(&off) < 1e-9 * norm(&expected), "{name}");
    }
    let svi = &vectors["svi"]["orthogonal"];
    let trajectory = orthogonal_trajectory();
    let last = trajectory.steps.last().unwrap().after.as_ref().unwrap();
    for (guide, name) in [
        (&trajectory.start, "natural_moments_before"),
        (last, "natural_moments_after"),
    ] {
        let (mean, sd) = guide.orthogonal_moments(&orthogonal);
        close(&mean, &sites(&svi[name]["mean"]), name);
        close(&sd, &sites(&svi[name]["sd"]), name);
    }
}

#[test]
fn log_joint_and_gradient_equal_the_four_points() {
    let (panel, vectors) = (small_panel(), vectors());
    for (i, point) in vectors["centered_log_joint"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let z = sites(&point["z"]);
        let expected = point["log_joint"].as_f64().unwrap();
        let gradient = sites(&point["grad"]);
        let off = |g: &[f64]| {
            let difference: Vec<f64> = g.iter().zip(&gradient).map(|(a, b)| a - b).collect();
            norm(&difference) / norm(&gradient)
        };
        let (value, by_z) = LogJoint::new(&panel, Priors::default()).natural(&z);
        assert!(
            (value - expected).abs() < 1e-10 * expected.abs(),
            "reference, point {i}: {value} {expected}"
        );
        assert!(off(&by_z) < 1e-9, "reference, point {i}");
        for set in InstructionSet::available() {
            for (precision, value_error, gradient_error) in
                [(Precision::F64, 1e-10, 1e-9), (Precision::F32, 1e-6, 1e-5)]
            {
                let request = request(Parameterization::Learned, precision);
                let backend = SviCpu::with_instruction_set(set);
                let (value, by_z) = backend.log_joint(&panel, &request, &z).unwrap();
                let case = format!(
                    "{set} {precision:?} point {i}: {value} {expected}, {}",
                    off(&by_z)
                );
                assert!((value - expected).abs() < value_error * expected.abs(), "{case}");
                assert!(off(&by_z) < gradient_error, "{case}");
            }
        }
    }
}
