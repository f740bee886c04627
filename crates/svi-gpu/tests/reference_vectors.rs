//! The fused kernels against NumPyro's float64 vectors: trajectories fed with the recorded noise, and gradients.

mod support;

use infermark_backend::{Backend, DeviceId, Interrupt, Method, Request, SviSettings};
use infermark_model::Parameterization;
use infermark_svi::{NoiseSource, Recording};
use infermark_svi_gpu::SviGpu;
use infermark_test_support::iterations::{difference, relative_distance};
use infermark_test_support::trajectories::{RECORDED_RATES, flat, sites, trajectories};
use infermark_test_support::{norm, small_panel, vectors};

fn request(device: DeviceId, parameterization: Parameterization) -> Request {
    let settings = SviSettings {
        iterations: 12,
        ..SviSettings::default()
    };
    Request {
        parameterization,
        devices: vec![device],
        ..Request::new(Method::Svi(settings))
    }
}

#[test]
fn trajectories_are_reproduced() {
    let Some(device) = support::device() else { return };
    let panel = small_panel();
    let backend = SviGpu::new();
    for trajectory in trajectories() {
        let request = request(device, trajectory.parameterization);
        let source = NoiseSource::Recorded(Recording {
            noise: trajectory.noise(),
            learning_rates: RECORDED_RATES.to_vec(),
        });
        let mut run = backend
            .start_from(panel.clone(), &request, &trajectory.start, source.clone())
            .unwrap();
        for (t, step) in trajectory.steps.iter().enumerate() {
            let case = format!("{:?} step {t}", trajectory.parameterization);
            let before = run.guide().unwrap();
            let found = backend
                .loss_and_gradient_under(&panel, &request, &before, source.clone(), t as u32)
                .unwrap();
            run.advance(1, &Interrupt::new()).unwrap();
            let off = (found.weighted.loss - step.loss).abs() / step.loss.abs();
            assert!(off < 1e-6, "{case}: loss {} {}", found.weighted.loss, step.loss);
            // Single-precision gradients are good to 1e-6 of their norm.
            if let Some(gradient) = &step.gradient {
                let off = relative_distance(&found.gradient, gradient);
                assert!(off < 1e-5, "{case}: gradient off by {off:e}");
            }
            // Where a gradient is nearly zero AdamW's first steps have its sign's size.
            if let Some(after) = &step.after {
                for (j, (p, e)) in flat(&run.guide().unwrap()).iter().zip(flat(after)).enumerate() {
                    assert!((p - e).abs() <= 1e-4 * e.abs().max(1.0), "{case}: {j} {p} {e}");
                }
            }
        }
    }
}

/// Differences between log-weights decide the weights: they are held to 1e-2 nats. The expected ones are the plain f64
/// iteration's under the same recorded noise.
#[test]
fn log_weights_differ_as_they_should() {
    let Some(device) = support::device() else { return };
    let panel = small_panel();
    for trajectory in trajectories() {
        let request = request(device, trajectory.parameterization);
        for (t, step) in trajectory.steps.iter().enumerate() {
            let Some(guide) = &step.after else { continue };
            let source = NoiseSource::recorded(trajectory.noise());
            let found = SviGpu::new()
                .loss_and_gradient_under(&panel, &request, guide, source, t as u32)
                .unwrap();
            let Method::Svi(settings) = &request.method else {
                unreachable!()
            };
            let expected = infermark_model::svi::loss_and_gradient(
                &panel,
                &request.priors,
                trajectory.parameterization,
                settings.objective,
                guide,
                &step.noise,
            );
            let (f, e) = (&found.log_weights, &expected.log_weights);
            for k in 1..f.len() {
                let off = (f[k] - f[0]) - (e[k] - e[0]);
                assert!(
                    off.abs() < 1e-2,
                    "{:?} step {t}, particle {k}: {off}",
                    trajectory.parameterization
                );
            }
        }
    }
}

#[test]
fn log_joint_and_gradient_equal_the_four_points() {
    let Some(device) = support::device() else { return };
    let (panel, vectors) = (small_panel(), vectors());
    let points = vectors["centered_log_joint"].as_array().unwrap();
    assert_eq!(points.len(), 4);
    for (i, point) in points.iter().enumerate() {
        let z = sites(&point["z"]);
        let expected = point["log_joint"].as_f64().unwrap();
        let gradient = sites(&point["grad"]);
        let request = request(device, Parameterization::Learned);
        let (value, by_z) = SviGpu::new().log_joint(&panel, &request, &z).unwrap();
        let off = norm(&difference(&by_z, &gradient)) / norm(&gradient);
        assert!(
            (value - expected).abs() < 1e-6 * expected.abs(),
            "point {i}: {value} {expected}"
        );
        assert!(off < 1e-5, "point {i}: gradient off by {off:e}");
    }
}
