//! The tensor implementation against NumPyro's float64 vectors, the plain iteration, the fused kernels and
//! the CPU.

use infermark_backend::{Backend, DeviceId, Interrupt, Method, Precision, Request, RunState, SviSettings};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::draw_noise;
use infermark_model::{Parameterization, Priors};
use infermark_svi::{Chart, NoiseSource, Recording};
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_tensor::SviTensor;
use infermark_test_support::guides::difference;
use infermark_test_support::iterations::{
    AWKWARD_PANELS, FORMS, Form, PARTICLES, assert_plain_iteration, assert_same_path, path_length,
    svi_request, uneven_guide,
};
use infermark_test_support::trajectories::{SINGLE_PRECISION, sites, trajectories};
use infermark_test_support::{gpu, norm, numbers, random_panel, small_panel, vectors};
use rand::{SeedableRng, rngs::StdRng};

fn device() -> Option<DeviceId> {
    gpu(&SviTensor.devices())
}

#[test]
fn trajectories_are_reproduced() {
    let Some(device) = device() else { return };
    let panel = small_panel();
    for trajectory in trajectories() {
        let settings = SviSettings {
            iterations: 12,
            ..SviSettings::default()
        };
        let request = Request {
            parameterization: trajectory.parameterization,
            devices: vec![device],
            ..Request::new(Method::Svi(settings))
        };
        let record = trajectory.recording();
        let mut run = SviTensor
            .start_from(panel.clone(), &request, &trajectory.start, record.clone())
            .unwrap();
        let loss_and_gradient = |guide: &Guide, t: u32| {
            SviTensor
                .loss_and_gradient_under(&panel, &request, guide, record.clone(), t)
                .unwrap()
        };
        let case = format!("{:?}", trajectory.parameterization);
        trajectory.assert_followed(&mut *run, loss_and_gradient, SINGLE_PRECISION, &case);
    }
}

#[test]
fn log_joint_and_gradient_equal_the_four_points() {
    let Some(device) = device() else { return };
    let (panel, vectors) = (small_panel(), vectors());
    for (i, point) in vectors["centered_log_joint"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let request = svi_request(device, Parameterization::Centered, 1, Objective::Elbo);
        let (value, by_z) = SviTensor
            .log_joint(&panel, &request, &sites(&point["z"]))
            .unwrap();
        let (expected, gradient) = (numbers(&point["log_joint"])[0], sites(&point["grad"]));
        assert!(
            (value - expected).abs() < 1e-6 * expected.abs(),
            "point {i}: {value} {expected}"
        );
        let off = norm(&difference(&by_z, &gradient)) / norm(&gradient);
        assert!(off < 1e-5, "point {i}: gradient off by {off:e}");
    }
}

#[test]
fn loss_and_gradient_are_the_plain_iterations() {
    let Some(device) = device() else { return };
    let stream = Stream {
        seed: 99,
        iteration: 3,
    };
    for (i, (n, c, t, gaps, largest)) in AWKWARD_PANELS.into_iter().enumerate() {
        let panel = random_panel(&mut StdRng::seed_from_u64(i as u64), n, c, t, gaps, largest);
        for (j, (particles, objective)) in PARTICLES.into_iter().enumerate() {
            for form in [FORMS[(i + j) % 3], Form::ORTHOGONAL] {
                let mut request = svi_request(device, form, particles, objective);
                if i % 2 == 0 {
                    request.priors = Priors {
                        clip_low: -1.0,
                        clip_high: 2.0,
                        ..Priors::default()
                    };
                }
                let guide = uneven_guide(&panel, request.parameterization);
                let found = SviTensor
                    .loss_and_gradient(&panel, &request, &guide, stream)
                    .unwrap();
                assert_plain_iteration(&found.unwrap(), &panel, &request, &guide, stream);
            }
        }
    }
}

/// The same noise for all three: drawn once, from the stream that the kernels and the CPU draw themselves.
#[test]
fn tensor_fused_and_processors_take_the_same_path() {
    let Some(device) = device() else { return };
    for (i, (n, c, t, gaps, largest, form, particles)) in [
        (37, 3, 21, 0.3, 40, FORMS[1], 3),
        (60, 2, 52, 0.0, 40, FORMS[0], 4),
        (1, 1, 9, 0.0, 20, FORMS[2], 1),
        (17, 3, 1, 0.0, 30, FORMS[0], 8),
        (37, 3, 21, 0.3, 40, Form::ORTHOGONAL, 3),
        (60, 2, 52, 0.0, 40, Form::ORTHOGONAL, 4),
        (1, 1, 9, 0.0, 20, Form::ORTHOGONAL, 1),
        (17, 3, 1, 0.0, 30, Form::ORTHOGONAL, 4),
    ]
    .into_iter()
    .enumerate()
    {
        let panel = random_panel(&mut StdRng::seed_from_u64(60 + i as u64), n, c, t, gaps, largest);
        // Equal weights. Under the importance-weighted bound the particles' weights decide, and a rounding that turns one
        // over is a path of its own.
        let request = svi_request(device, form, particles, Objective::Elbo);
        let mut on_cpu = request.clone();
        on_cpu.devices = vec![DeviceId::CPU];
        let Method::Svi(settings) = &mut on_cpu.method else {
            unreachable!()
        };
        settings.precision = Precision::F64;
        let seed = request.seed;
        let noise = (0..path_length() as u32)
            .map(|iteration| draw_noise(&panel.layout(), particles, Stream { seed, iteration }))
            .collect();
        let record = Recording {
            noise,
            learning_rates: Vec::new(),
        };
        let source = NoiseSource::Philox { seed };
        let start = Chart::of(&panel, &request).start(&panel, &request);
        let mut tensor = SviTensor
            .start_from(panel.clone(), &request, &start, record)
            .unwrap();
        let mut fused = SviGpu::new()
            .start_from(panel.clone(), &request, &start, source.clone())
            .unwrap();
        let mut cpu = SviCpu::new().start_from(panel, &on_cpu, &start, source).unwrap();
        for steps in [1, 19, path_length() - 20] {
            let completed = tensor.advance(steps, &Interrupt::new()).unwrap().completed;
            fused.advance(steps, &Interrupt::new()).unwrap();
            cpu.advance(steps, &Interrupt::new()).unwrap();
            let expected = cpu.guide().unwrap();
            assert_same_path(&tensor.guide().unwrap(), &expected, completed);
            assert_same_path(&fused.guide().unwrap(), &expected, completed);
        }
        if path_length() == 200 {
            assert_eq!(tensor.progress().state, RunState::Finished);
        }
    }
}

#[test]
fn a_run_on_the_devices_own_noise_descends() {
    let Some(device) = device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(4), 30, 2, 20, 0.1, 40);
    let request = svi_request(
        device,
        Parameterization::Centered,
        4,
        Objective::Renyi { alpha: 0.0 },
    );
    let mut run = SviTensor.start(panel, &request).unwrap();
    run.advance(1, &Interrupt::new()).unwrap();
    run.advance(199, &Interrupt::new()).unwrap();
    let infermark_backend::Detail::Svi(report) = run.report().detail else {
        panic!("a report of SVI")
    };
    let (first, last) = (
        report.trace.first().unwrap().loss,
        report.trace.last().unwrap().loss,
    );
    assert!(last < first, "{first} {last}");
    run.posterior().unwrap();
}

#[test]
fn double_precision_is_refused() {
    let Some(device) = device() else { return };
    let mut precise = svi_request(device, Parameterization::Centered, 4, Objective::Elbo);
    let Method::Svi(settings) = &mut precise.method else {
        unreachable!()
    };
    settings.precision = Precision::F64;
    let refused = SviTensor.supports(&precise).unwrap_err().to_string();
    assert!(refused.contains("f64"), "{refused}");
}
