//! The fused kernels against svi-cpu and the plain iteration, on awkward panels and settings.

mod support;

use infermark_backend::{Backend, DeviceId, EarlyStop, Interrupt, Method, Precision, Request, RunState};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::{Panel, Parameterization, Priors};
use infermark_svi::{Chart, NoiseSource};
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::{SviGpu, Variant};
use infermark_test_support::iterations::{
    AWKWARD_PANELS, FORMS, Form, PARTICLES, assert_plain_iteration, assert_same_path, svi_request,
    uneven_guide,
};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// Loss, log-weights and gradient against the plain iteration in f64, in the orthogonal coordinates also where a run starts.
fn compare(backend: SviGpu, panel: &Arc<Panel>, request: &Request) {
    compare_at(
        backend,
        panel,
        request,
        &uneven_guide(panel, request.parameterization),
    );
    let chart = Chart::of(panel, request);
    if chart.orthogonal().is_some() {
        compare_at(backend, panel, request, &chart.start(panel, request));
    }
}

fn compare_at(backend: SviGpu, panel: &Arc<Panel>, request: &Request, guide: &Guide) {
    let stream = Stream {
        seed: 99,
        iteration: 3,
    };
    let found = backend
        .loss_and_gradient_under(panel, request, guide, NoiseSource::Philox { seed: 99 }, 3)
        .unwrap();
    assert_plain_iteration(&found, panel, request, guide, stream);
}

#[test]
fn loss_and_gradient_are_the_plain_iterations() {
    let Some(device) = support::device() else { return };
    for (i, (n, c, t, gaps, largest)) in AWKWARD_PANELS.into_iter().enumerate() {
        let panel = random_panel(&mut StdRng::seed_from_u64(i as u64), n, c, t, gaps, largest);
        // Every number of particles meets every parameterization over the panels.
        for (j, (particles, objective)) in PARTICLES.into_iter().enumerate() {
            // Software compiles a kernel of eight particles for half a minute: two panels see it.
            if particles == 8 && i % 3 != 2 {
                continue;
            }
            for form in [FORMS[(i + j) % 3], Form::ORTHOGONAL] {
                compare(
                    SviGpu::new(),
                    &panel,
                    &svi_request(device, form, particles, objective),
                );
            }
        }
    }
}

/// The widest shapes: as many particles as are served, more periods than two tiles of threads hold, more categories than
/// a cube has threads.
#[test]
fn shapes_at_their_limits() {
    let Some(device) = support::device() else { return };
    for (i, (n, c, t, particles)) in [(6, 1, 20, 16), (3, 1, 2_100, 1), (310, 300, 2, 1)]
        .into_iter()
        .enumerate()
    {
        let panel = random_panel(&mut StdRng::seed_from_u64(80 + i as u64), n, c, t, 0.1, 40);
        for form in [FORMS[1], Form::ORTHOGONAL] {
            let request = svi_request(device, form, particles, Objective::Elbo);
            compare(SviGpu::new(), &panel, &request);
        }
    }
}

#[test]
fn an_early_stop_is_at_the_end_of_a_window_however_long_the_batches() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(12), 12, 2, 9, 0.0, 30);
    let mut request = svi_request(device, Parameterization::Centered, 4, Objective::Elbo);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!()
    };
    // Any fall counts as none: the second window meets the criterion.
    settings.early_stop = Some(EarlyStop {
        window: 20,
        tolerance: 1e9,
        patience: 1,
        ..EarlyStop::default()
    });
    let mut run = SviGpu::new().start(panel, &request).unwrap();
    let progress = run.advance(200, &Interrupt::new()).unwrap();
    assert_eq!((progress.state, progress.completed), (RunState::Converged, 40));
}

#[test]
fn both_clip_bounds_bite() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(31), 25, 3, 30, 0.2, 6);
    for form in [FORMS[0], Form::ORTHOGONAL] {
        let mut request = svi_request(device, form, 4, Objective::Elbo);
        request.priors = Priors {
            clip_low: -1.0,
            clip_high: 2.0,
            ..Priors::default()
        };
        compare(SviGpu::new(), &panel, &request);
    }
}

#[test]
fn every_variant_of_the_kernel_agrees() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(5), 130, 3, 40, 0.1, 60);
    for form in [FORMS[0], Form::ORTHOGONAL] {
        let request = svi_request(device, form, 4, Objective::Renyi { alpha: 0.0 });
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
}

/// More products than a cube prepares at a time, and more than it takes between two additions of the lanes' sums; the last ones fill neither.
#[test]
fn a_cube_of_many_products_takes_them_chunk_by_chunk() {
    let Some(device) = support::device() else { return };
    for (n, c, t, gaps, form) in [
        (520, 1, 68, 0.0, FORMS[0]),
        (600, 2, 5, 0.2, FORMS[1]),
        (530, 1, 72, 0.3, Form::ORTHOGONAL),
    ] {
        let panel = random_panel(&mut StdRng::seed_from_u64(n as u64), n, c, t, gaps, 50);
        let mut request = svi_request(device, form, 4, Objective::Renyi { alpha: 0.0 });
        // Some products clip, others do not.
        request.priors.clip_low = -2.0;
        let variant = Variant {
            cubes: Some(c),
            ..Variant::default()
        };
        compare(SviGpu::with_variant(variant), &panel, &request);
    }
}

#[test]
fn two_hundred_iterations_follow_the_processors() {
    let Some(device) = support::device() else { return };
    for (i, (n, c, t, gaps, form, particles)) in [
        (37, 3, 21, 0.3, FORMS[1], 3),
        (60, 2, 52, 0.0, FORMS[0], 4),
        (37, 3, 21, 0.3, Form::ORTHOGONAL, 3),
        (60, 2, 52, 0.0, Form::ORTHOGONAL, 4),
        (17, 3, 1, 0.0, Form::ORTHOGONAL, 4),
    ]
    .into_iter()
    .enumerate()
    {
        let panel = random_panel(&mut StdRng::seed_from_u64(40 + i as u64), n, c, t, gaps, 40);
        // The plain ELBO: equal weights. Under the importance-weighted bound the particles' weights decide, and a
        // rounding that turns one over is a path of its own.
        let on_gpu = svi_request(device, form, particles, Objective::Elbo);
        let mut on_cpu = on_gpu.clone();
        on_cpu.devices = vec![DeviceId::CPU];
        let Method::Svi(settings) = &mut on_cpu.method else {
            unreachable!()
        };
        settings.precision = Precision::F64;
        let chart = Chart::of(&panel, &on_gpu);
        let start = chart.start(&panel, &on_gpu);
        let source = NoiseSource::Philox { seed: 11 };
        let mut gpu = SviGpu::new()
            .start_from(panel.clone(), &on_gpu, &start, source.clone())
            .unwrap();
        let mut cpu = SviCpu::new()
            .start_from(panel.clone(), &on_cpu, &start, source)
            .unwrap();
        let mut by_itself = SviGpu::new().start(panel.clone(), &on_gpu).unwrap();
        by_itself.advance(3, &Interrupt::new()).unwrap();
        // In pieces of odd lengths: what is pending between pieces must not show.
        for steps in [1, 2, 60, 137] {
            let progress = gpu.advance(steps, &Interrupt::new()).unwrap();
            cpu.advance(steps, &Interrupt::new()).unwrap();
            assert_eq!(progress.completed, cpu.progress().completed);
            assert_same_path(&gpu.guide().unwrap(), &cpu.guide().unwrap(), progress.completed);
            if progress.completed == 3 {
                assert_eq!(by_itself.posterior().unwrap(), gpu.posterior().unwrap());
            }
        }
        assert_eq!(gpu.progress().state, RunState::Finished);
        let expected = chart.posterior(&gpu.guide().unwrap(), &panel, on_gpu.likelihood, &on_gpu.priors);
        assert_eq!(gpu.posterior(), expected, "{form:?}");
    }
}

#[test]
fn more_particles_than_a_thread_has_registers_for_and_double_precision_are_refused() {
    let Some(device) = support::device() else { return };
    let refused = |request: Request| SviGpu::new().supports(&request).unwrap_err().to_string();
    let form = Parameterization::Centered;
    let many = svi_request(device, form, 17, Objective::Elbo);
    assert!(refused(many).contains("17 particles"));
    let mut precise = svi_request(device, form, 4, Objective::Elbo);
    let Method::Svi(settings) = &mut precise.method else {
        unreachable!()
    };
    settings.precision = Precision::F64;
    assert!(refused(precise).contains("f64"));
}

#[test]
fn limits_and_profile_are_numbers_of_a_real_device() {
    let Some(device) = support::device() else { return };
    let panel = random_panel(&mut StdRng::seed_from_u64(9), 60, 3, 40, 0.0, 30);
    let request = svi_request(device, Parameterization::Centered, 4, Objective::Elbo);
    let profile = SviGpu::new().profile(&panel, &request).unwrap();
    let limits = profile.limits;
    // While other tests run, a time can only be required to be positive.
    for figure in [
        limits.read_bytes_per_second,
        limits.row_particles_per_second,
        limits.native_exp2_ratio,
        limits.launch_seconds,
        limits.round_trip_seconds,
    ] {
        assert!(figure > 0.0 && figure.is_finite(), "{limits:?}");
    }
    let names: Vec<_> = profile.launches.iter().map(|l| l.name).collect();
    assert_eq!(names, ["products", "fold", "hierarchy"]);
    assert!(profile.launches.iter().all(|l| l.seconds > 0.0));
    assert!(profile.batches.iter().all(|b| b.seconds_per_iteration > 0.0));
    assert_eq!(profile.batches[0].iterations, 1);
}
