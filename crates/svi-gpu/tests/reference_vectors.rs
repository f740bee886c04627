//! The fused kernels against NumPyro's float64 vectors: trajectories fed with the recorded noise, and gradients.

mod support;

use infermark_backend::{Backend, DeviceId, Method, Request, SviSettings};
use infermark_model::Parameterization;
use infermark_model::guide::Guide;
use infermark_svi::NoiseSource;
use infermark_svi_gpu::SviGpu;
use infermark_test_support::guides::difference;
use infermark_test_support::trajectories::{SINGLE_PRECISION, sites, trajectories};
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
        let source = NoiseSource::Recorded(trajectory.recording());
        let mut run = backend
            .start_from(panel.clone(), &request, &trajectory.start, source.clone())
            .unwrap();
        let loss_and_gradient = |guide: &Guide, t: u32| {
            backend
                .loss_and_gradient_under(&panel, &request, guide, source.clone(), t)
                .unwrap()
        };
        let case = format!("{:?}", trajectory.parameterization);
        trajectory.assert_followed(&mut *run, loss_and_gradient, SINGLE_PRECISION, &case);
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
