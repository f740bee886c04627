//! The fused kernels against svi-cpu and the plain iteration, on awkward panels and settings.

mod support;

use infermark_backend::{
    Backend, BackendError, DeviceId, Interrupt, Method, Precision, Request, RunState, SviSettings,
};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::{draw_noise, loss_and_gradient};
use infermark_model::{Panel, Parameterization, Priors};
use infermark_svi::NoiseSource;
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::{SviGpu, Variant};
use infermark_test_support::trajectories::flat;
use infermark_test_support::{norm, random_panel};
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn request(
    device: DeviceId,
    parameterization: Parameterization,
    particles: usize,
    objective: Objective,
) -> Request {
    let settings = SviSettings {
        iterations: 200,
        particles,
        objective,
        ..SviSettings::default()
    };
    Request {
        parameterization,
        devices: vec![device],
        seed: 11,
        ..Request::new(Method::Svi(settings))
    }
}

/// Loss, log-weights and gradient against the plain iteration in f64.
fn compare(backend: SviGpu, panel: &Arc<Panel>, request: &Request) {
    let Method::Svi(settings) = &request.method else {
        unreachable!()
    };
    let mut guide = Guide::start(&panel.layout(), request.parameterization, 5);
    for (i, u) in guide.unconstrained_scale.iter_mut().enumerate() {
        *u += (i as f64 * 0.61).sin();
    }
    if let Some(u) = &mut guide.unconstrained_centredness {
        *u = [0.4, -0.3, 1.0, 0.0, -1.2];
    }
    let stream = Stream {
        seed: 99,
        iteration: 3,
    };
    let noise = draw_noise(&panel.layout(), settings.particles, stream);
    let expected = loss_and_gradient(
        panel,
        &request.priors,
        request.parameterization,
        settings.objective,
        &guide,
        &noise,
    );
    let found = backend
        .loss_and_gradient_under(panel, request, &guide, NoiseSource::Philox { seed: 99 }, 3)
        .unwrap();
    let layout = panel.layout();
    let case = format!(
        "{:?} K={} {:?} {}x{} clip [{}, {}]",
        request.parameterization,
        settings.particles,
        settings.objective,
        layout.products,
        layout.periods,
        request.priors.clip_low,
        request.priors.clip_high
    );
    // As for svi-cpu in single precision: a latent is rounded at 1e-7 and the noise is good to 1e-5, which a rate of
    // size lambda turns into 1e-5 lambda; the largest rates dominate both the log-weight and the gradient's norm.
    for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
        assert!((l - e).abs() <= 1e-5 * e.abs(), "{case}: {l} {e}");
    }
    // Where rounding changes the weights themselves the gradients are of different particles.
    let mut weights = found.weighted.weights.iter().zip(&expected.weighted.weights);
    if weights.all(|(a, b)| (a - b).abs() < 1e-4) {
        let expected = flat(&expected.gradient);
        let difference: Vec<f64> = flat(&found.gradient)
            .iter()
            .zip(&expected)
            .map(|(a, b)| a - b)
            .collect();
        let off = norm(&difference) / norm(&expected);
        assert!(off < 1e-3, "{case}: gradient off by {off}");
    }
}

/// N, C, T, share of missing rows, largest count.
const PANELS: [(usize, usize, usize, f64, u32); 6] = [
    (1, 1, 1, 0.0, 9),
    (3, 1, 17, 0.0, 0),
    (40, 4, 13, 0.2, 5),
    (150, 2, 156, 0.0, 1_000),
    (70, 3, 90, 0.9, 50),
    (9, 9, 300, 0.4, 100),
];

#[test]
fn loss_and_gradient_are_the_plain_iterations() {
    let Some(device) = support::device() else { return };
    for (i, (n, c, t, gaps, largest)) in PANELS.into_iter().enumerate() {
        let panel = random_panel(&mut StdRng::seed_from_u64(i as u64), n, c, t, gaps, largest);
        // Every number of particles meets every parameterization over the panels.
        for (j, (particles, objective)) in [
            (1, Objective::Renyi { alpha: 0.0 }),
            (3, Objective::Elbo),
            (4, Objective::Renyi { alpha: 0.5 }),
            (8, Objective::Renyi { alpha: 2.0 }),
        ]
        .into_iter()
        .enumerate()
        {
            // Software compiles a kernel of eight particles for half a minute: two panels see it.
            if particles == 8 && i % 3 != 2 {
                continue;
            }
            let parameterization = [
                Parameterization::Centered,
                Parameterization::Learned,
                Parameterization::Noncentered,
            ][(i + j) % 3];
            compare(
                SviGpu::new(),
                &panel,
                &request(device, parameterization, particles, objective),
            );
        }
    }
}

#[test]
fn both_clip_bounds_bite() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(31), 25, 3, 30, 0.2, 6);
    let mut request = request(device, Parameterization::Centered, 4, Objective::Elbo);
    request.priors = Priors {
        clip_low: -1.0,
        clip_high: 2.0,
        ..Priors::default()
    };
    compare(SviGpu::new(), &panel, &request);
}

#[test]
fn every_variant_of_the_kernel_agrees() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(5), 130, 3, 40, 0.1, 60);
    let request = request(
        device,
        Parameterization::Centered,
        4,
        Objective::Renyi { alpha: 0.0 },
    );
    for native_exp2 in [false, true] {
        for cubes in [1, 7, 500] {
            let variant = Variant {
                native_exp2: Some(native_exp2),
                cubes: Some(cubes),
            };
            compare(SviGpu::with_variant(variant), &panel, &request);
        }
    }
}

#[test]
fn two_hundred_iterations_follow_the_processors() {
    let Some(device) = support::device() else { return };
    for (i, (n, c, t, gaps, parameterization, particles)) in [
        (37, 3, 21, 0.3, Parameterization::Learned, 3),
        (60, 2, 52, 0.0, Parameterization::Centered, 4),
    ]
    .into_iter()
    .enumerate()
    {
        let panel = random_panel(&mut StdRng::seed_from_u64(40 + i as u64), n, c, t, gaps, 40);
        // The plain ELBO: equal weights. Under the importance-weighted bound the particles' weights decide, and a
        // rounding that turns one over is a path of its own.
        let on_gpu = request(device, parameterization, particles, Objective::Elbo);
        let mut on_cpu = on_gpu.clone();
        on_cpu.devices = vec![DeviceId::CPU];
        let Method::Svi(settings) = &mut on_cpu.method else {
            unreachable!()
        };
        settings.precision = Precision::F64;
        let start = Guide::start(&panel.layout(), parameterization, 1);
        let source = NoiseSource::Philox { seed: 11 };
        let mut gpu = SviGpu::new()
            .start_from(panel.clone(), &on_gpu, &start, source.clone())
            .unwrap();
        let mut cpu = SviCpu::new()
            .start_from(panel.clone(), &on_cpu, &start, source)
            .unwrap();
        // In pieces of odd lengths: what is pending between pieces must not show.
        for steps in [1, 2, 60, 137] {
            let progress = gpu.advance(steps, &Interrupt::new()).unwrap();
            cpu.advance(steps, &Interrupt::new()).unwrap();
            assert_eq!(progress.completed, cpu.progress().completed);
            let (g, c) = (flat(&gpu.guide().unwrap()), flat(&cpu.guide().unwrap()));
            let worst = g.iter().zip(&c).map(|(g, c)| (g - c).abs()).fold(0.0, f64::max);
            // A step is 0.01; AdamW's first steps have the size of a gradient's sign, so that a gradient within
            // rounding of zero may cost a step or two.
            assert!(worst < 2e-2, "after {}: {worst}", progress.completed);
            let mean = g.iter().zip(&c).map(|(g, c)| (g - c).abs()).sum::<f64>() / g.len() as f64;
            assert!(mean < 1e-4, "after {}: mean {mean}", progress.completed);
        }
        assert_eq!(gpu.progress().state, RunState::Finished);
    }
}

#[test]
fn a_run_that_diverges_says_so_and_stays_readable() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 12, 2, 9, 0.0, 30);
    let mut request = request(device, Parameterization::Centered, 4, Objective::Elbo);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    // Parameters grow a thousandfold at every step: the decay overshoots by that.
    settings.optimizer.learning_rate = 1e3;
    settings.optimizer.weight_decay = 1.0;
    let mut run = SviGpu::new().start(panel.clone(), &request).unwrap();
    let error = run.advance(200, &Interrupt::new()).unwrap_err();
    assert!(matches!(error, BackendError::Diverged { .. }), "{error}");
    assert_eq!(run.advance(1, &Interrupt::new()), Err(error));
    assert_eq!(run.progress().state, RunState::Failed);
    // What it had before that iteration is what a run has that stopped there, whatever the batch did after it.
    let completed = run.progress().completed;
    assert!(completed > 1);
    let mut shorter = SviGpu::new().start(panel, &request).unwrap();
    shorter.advance(completed, &Interrupt::new()).unwrap();
    match (run.posterior(), shorter.posterior()) {
        (Ok(failed), Ok(stopped)) => assert_eq!(failed, stopped),
        (Err(failed), Err(stopped)) => assert_eq!(failed.to_string(), stopped.to_string()),
        (failed, stopped) => panic!("{failed:?} {stopped:?}"),
    }
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 4, 2, 9, 0.0, 30);
    let refused = |request: Request| {
        let error = SviGpu::new()
            .start(panel.clone(), &request)
            .err()
            .expect("refused");
        error.to_string()
    };
    let fine = request(device, Parameterization::Centered, 4, Objective::Elbo);
    assert!(
        refused(Request {
            devices: vec![DeviceId::CPU],
            ..fine.clone()
        })
        .contains("cpu")
    );
    assert!(
        refused(Request {
            devices: vec![device, device],
            ..fine.clone()
        })
        .contains("2 devices")
    );
    assert!(
        refused(request(device, Parameterization::Centered, 17, Objective::Elbo)).contains("17 particles")
    );
    let mut precise = fine;
    let Method::Svi(settings) = &mut precise.method else {
        unreachable!()
    };
    settings.precision = Precision::F64;
    assert!(refused(precise).contains("f64"));
}
