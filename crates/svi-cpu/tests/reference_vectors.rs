//! The production code against NumPyro's float64 vectors: trajectories fed with the recorded noise, and gradients.

use infermark_backend::{Backend, Interrupt, Method, Precision, Request, SviSettings};
use infermark_cpu_kernels::InstructionSet;
use infermark_model::log_joint::LogJoint;
use infermark_model::{Panel, Parameterization, Priors};
use infermark_svi::{NoiseSource, Recording};
use infermark_svi_cpu::SviCpu;
use infermark_test_support::trajectories::{RECORDED_RATES, Trajectory, flat, sites, trajectories};
use infermark_test_support::{norm, small_panel, vectors};
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
        let source = NoiseSource::Recorded(Recording {
            noise: trajectory.noise(),
            learning_rates: RECORDED_RATES.to_vec(),
        });
        for set in InstructionSet::available() {
            for precision in [Precision::F64, Precision::F32] {
                follow(
                    &panel,
                    &trajectory,
                    SviCpu::with_instruction_set(set),
                    &request(trajectory.parameterization, precision),
                    &source,
                    &format!("{:?} {set} {precision:?}", trajectory.parameterization),
                );
            }
        }
    }
}

/// Follows a recorded trajectory step by step.
fn follow(
    panel: &Arc<Panel>,
    trajectory: &Trajectory,
    backend: SviCpu,
    request: &Request,
    source: &NoiseSource,
    case: &str,
) {
    // f64: the two programs differ in the order of sums alone. f32: a parameter of size 2 is rounded at 1e-7 a step;
    // where a gradient is nearly zero AdamW's first steps have its sign's size, so single-precision gradients (1e-6
    // relative to the norm) may move a parameter by more than that.
    let Method::Svi(settings) = &request.method else {
        unreachable!("made by `request`")
    };
    let (loss_error, gradient_error, parameter_error) = match settings.precision {
        Precision::F64 => (1e-9, 1e-9, 1e-9),
        Precision::F32 => (1e-6, 1e-5, 1e-4),
    };
    let mut run = backend
        .start_from(panel.clone(), request, &trajectory.start, source.clone())
        .unwrap();
    for (t, step) in trajectory.steps.iter().enumerate() {
        let before = run.guide().unwrap();
        let evaluated = backend
            .loss_and_gradient_under(panel, request, &before, source.clone(), t as u32)
            .unwrap();
        run.advance(1, &Interrupt::new()).unwrap();
        let (loss, found) = (step.loss, evaluated.weighted.loss);
        assert!(
            (found - loss).abs() < loss_error * loss.abs(),
            "{case} step {t}: loss {found} {loss}"
        );
        if let Some(gradient) = &step.gradient {
            let expected = flat(gradient);
            let found = flat(&evaluated.gradient);
            let difference: Vec<f64> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
            let off = norm(&difference) / norm(&expected);
            assert!(off < gradient_error, "{case} step {t}: gradient off by {off:e}");
        }
        if let Some(after) = &step.after {
            let found = flat(&run.guide().unwrap());
            for (j, (p, e)) in found.iter().zip(flat(after)).enumerate() {
                assert!(
                    (p - e).abs() <= parameter_error * e.abs().max(1.0),
                    "{case} step {t}: {j} {p} {e}"
                );
            }
        }
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
