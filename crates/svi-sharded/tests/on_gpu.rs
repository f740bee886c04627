//! Shards on a GPU against the unsharded engine there, and against shards on the CPU in double precision.
//!
//! On one device a shard's products get the same bits as in the whole; what is added over products is in another order. Log-weights
//! are added in two floats, and rates and derivatives by category partly in single precision.

use infermark_backend::{Backend, Detail, DeviceId, Interrupt, Method, Precision, Request};
use infermark_communicator::Local;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::{LossAndGradient, draw_noise};
use infermark_model::{Panel, Shard};
use infermark_svi::{
    Chart, GuidedRun, Iterate, NoiseSource, Piece, RunSetup, ShardEngine, ShardIterate, ShardSetup, SviRun,
};
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_sharded::SviSharded;
use infermark_test_support::conformance;
use infermark_test_support::conformance::Interrupted::ToTheBit;
use infermark_test_support::guides::relative_distance;
use infermark_test_support::iterations::{FORMS, Form, assert_same_path, svi_request, uneven_guide};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// One number of periods and one of particles, those of the conformance suite too: software takes seconds to compile the kernels of
/// another shape.
const PERIODS: usize = 20;
const PARTICLES: usize = 2;

/// N, C, share of missing rows, largest count. Categories that span shards; one that all shards share; uneven shards of a product or
/// two, with categories of one product, which are absent from all other shards; and as many shards as products.
const PANELS: [(usize, usize, f64, u32); 4] = [
    (40, 4, 0.2, 50),
    (23, 1, 0.3, 400),
    (9, 9, 0.6, 100),
    (7, 3, 0.1, 5),
];

const OBJECTIVES: [Objective; 4] = [
    Objective::Elbo,
    Objective::Renyi { alpha: 0.0 },
    Objective::Renyi { alpha: 0.5 },
    Objective::Renyi { alpha: 2.0 },
];

/// A panel is its own shard, and those that are cut.
const SHARDS: [usize; 5] = [1, 2, 3, 4, 7];

const STREAM: Stream = Stream {
    seed: 99,
    iteration: 3,
};

fn device() -> Option<DeviceId> {
    infermark_test_support::gpu(&SviGpu::new().devices())
}

fn sharded() -> SviSharded {
    SviSharded::over(SviCpu::new()).and(SviGpu::new())
}

fn panel(i: usize) -> Arc<Panel> {
    let (n, c, gaps, largest) = PANELS[i];
    random_panel(
        &mut StdRng::seed_from_u64(50 + i as u64),
        n,
        c,
        PERIODS,
        gaps,
        largest,
    )
}

fn request(device: DeviceId, form: Form, objective: Objective, iterations: u64) -> Request {
    let mut request = svi_request(device, form, PARTICLES, objective);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!("a request for SVI")
    };
    settings.iterations = iterations;
    settings.trace_every = 1;
    if device == DeviceId::CPU {
        settings.precision = Precision::F64;
    }
    request
}

fn in_shards(request: &Request, shards: usize) -> Request {
    Request {
        shards,
        ..request.clone()
    }
}

/// What a shard starts from that has all products.
fn whole<'a>(
    panel: &Arc<Panel>,
    request: &'a Request,
    chart: &'a Chart,
    guide: &'a Guide,
    noise: NoiseSource,
) -> ShardSetup<'a> {
    ShardSetup {
        shard: Shard::whole(panel.clone()),
        request,
        chart,
        guide,
        noise,
        communicator: Box::new(Local::default()),
        shards_on_device: 1,
    }
}

fn loss_and_gradient(panel: &Arc<Panel>, request: &Request, guide: &Guide) -> LossAndGradient {
    match (request.shards, request.devices[0]) {
        (1, DeviceId::CPU) => SviCpu::new()
            .loss_and_gradient(panel, request, guide, STREAM)
            .unwrap()
            .unwrap(),
        (1, _) => {
            let chart = Chart::of(panel, request);
            let noise = NoiseSource::Philox { seed: STREAM.seed };
            SviGpu::new()
                .shard_loss_and_gradient(whole(panel, request, &chart, guide, noise), STREAM.iteration)
                .unwrap()
        }
        _ => sharded()
            .loss_and_gradient(panel, request, guide, STREAM)
            .unwrap()
            .unwrap(),
    }
}

/// Asserts that losses and log-weights are near, and gradients as well where the weights are. Returns whether those are: where
/// rounding changes the weights the gradients are of different particles.
fn assert_near(
    found: &LossAndGradient,
    expected: &LossAndGradient,
    (weight_error, gradient_error): (f64, f64),
    case: &str,
) -> bool {
    let near = |found: f64, expected: f64, rounding: f64| {
        assert!(
            (found - expected).abs() <= weight_error * expected.abs() + rounding,
            "{case}: {found} {expected}"
        );
    };
    // The logarithm of the weights' sum is in single precision.
    near(found.weighted.loss, expected.weighted.loss, 1e-6);
    for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
        near(*l, *e, 0.0);
    }
    let mut weights = found.weighted.weights.iter().zip(&expected.weighted.weights);
    let same_weights = weights.all(|(a, b)| (a - b).abs() < 1e-4);
    if same_weights {
        let off = relative_distance(&found.gradient, &expected.gradient);
        assert!(off < gradient_error, "{case}: gradient off by {off}");
    }
    same_weights
}

#[test]
fn an_iteration_is_that_of_the_whole_panel() {
    let Some(device) = device() else { return };
    for i in 0..PANELS.len() {
        let panel = panel(i);
        for (j, form) in FORMS.into_iter().enumerate() {
            let objective = OBJECTIVES[(i + j) % OBJECTIVES.len()];
            let on_gpu = request(device, form, objective, 1);
            let on_cpu = request(DeviceId::CPU, form, objective, 1);
            let guide = uneven_guide(&panel, form.1);
            let unsharded = SviGpu::new()
                .loss_and_gradient(&panel, &on_gpu, &guide, STREAM)
                .unwrap()
                .unwrap();
            for shards in SHARDS {
                let found = loss_and_gradient(&panel, &in_shards(&on_gpu, shards), &guide);
                let there = loss_and_gradient(&panel, &in_shards(&on_cpu, shards), &guide);
                let case = format!("{form:?} {objective:?} {:?} in {shards}", PANELS[i]);
                assert!(assert_near(&found, &unsharded, (1e-11, 1e-5), &case), "{case}");
                // As for the unsharded engine: noise is good to 1e-5.
                assert_near(&found, &there, (1e-5, 1e-3), &format!("{case}, on the CPU"));
            }
        }
    }
}

/// The iterations of a shard that has all products.
struct Alone(Box<dyn ShardIterate>);

impl Iterate for Alone {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), infermark_backend::BackendError> {
        self.0.iterate(piece)
    }

    fn guide(&self) -> Result<Guide, infermark_backend::BackendError> {
        self.0.guide()
    }
}

/// The run of a request from its chart's start.
fn start(panel: &Arc<Panel>, request: &Request, noise: NoiseSource) -> Box<dyn GuidedRun> {
    let chart = Chart::of(panel, request);
    let guide = chart.start(panel, request);
    match (request.shards, request.devices[0]) {
        (1, DeviceId::CPU) => SviCpu::new()
            .start_from(panel.clone(), request, &guide, noise)
            .unwrap(),
        (1, _) => {
            let iterations = SviGpu::new()
                .start_shard(whole(panel, request, &chart, &guide, noise))
                .unwrap();
            let setup = RunSetup {
                backend: "one shard",
                device: String::new(),
                threads: 1,
                panel: panel.clone(),
                request: request.clone(),
                chart,
                setup_seconds: 0.0,
            };
            Box::new(SviRun::new(Alone(iterations), setup))
        }
        _ => sharded()
            .start_from(panel.clone(), request, &guide, noise)
            .unwrap(),
    }
}

/// The losses of all iterations, and where the guide ends.
fn path(mut run: Box<dyn GuidedRun>) -> (Vec<f64>, Guide) {
    // In pieces: what is pending between them must not show.
    for steps in [1, 4, u64::MAX] {
        run.advance(steps, &Interrupt::new()).unwrap();
    }
    assert!(run.progress().state.is_complete());
    let Detail::Svi(report) = run.report().detail else {
        panic!("a report of SVI")
    };
    assert_eq!(report.trace.len() as u64, run.progress().total);
    (
        report.trace.iter().map(|point| point.loss).collect(),
        run.guide().unwrap(),
    )
}

fn assert_same_trace(found: &(Vec<f64>, Guide), expected: &(Vec<f64>, Guide), loss_error: f64, case: &str) {
    for (i, (l, e)) in found.0.iter().zip(&expected.0).enumerate() {
        assert!((l - e).abs() <= loss_error * e.abs(), "{case}: {i}: {l} {e}");
    }
    assert_same_path(&found.1, &expected.1, found.0.len() as u64);
}

/// Iterations of a trace. The conformance suite's runs have more than one batch of a shard.
const TRACE: u64 = 12;

/// The plain ELBO, whose weights are equal: under the importance-weighted bound a rounding that turns one over is a path of its own.
#[test]
fn traces_are_those_of_the_whole_panel() {
    let Some(device) = device() else { return };
    for (i, form) in FORMS.into_iter().enumerate() {
        let panel = panel(i % 3);
        let on_gpu = request(device, form, Objective::Elbo, TRACE);
        let on_cpu = request(DeviceId::CPU, form, Objective::Elbo, TRACE);
        let noise = NoiseSource::Philox { seed: on_gpu.seed };
        let guide = Chart::of(&panel, &on_gpu).start(&panel, &on_gpu);
        let unsharded = path(
            SviGpu::new()
                .start_from(panel.clone(), &on_gpu, &guide, noise.clone())
                .unwrap(),
        );
        for shards in SHARDS {
            let found = path(start(&panel, &in_shards(&on_gpu, shards), noise.clone()));
            let there = path(start(&panel, &in_shards(&on_cpu, shards), noise.clone()));
            let case = format!("{form:?} in {shards}");
            assert_same_trace(&found, &unsharded, 1e-6, &case);
            assert_same_trace(&found, &there, 1e-5, &format!("{case}, on the CPU"));
        }
    }
}

#[test]
fn recorded_noise_is_counted_by_the_latents_of_the_panel() {
    let Some(device) = device() else { return };
    let panel = panel(0);
    let request = request(device, FORMS[0], Objective::Elbo, 6);
    let noise = (0..7).map(|iteration| draw_noise(&panel.layout(), PARTICLES, Stream { seed: 4, iteration }));
    let noise = NoiseSource::recorded(noise.collect());
    let guide = Chart::of(&panel, &request).start(&panel, &request);
    let unsharded = path(
        SviGpu::new()
            .start_from(panel.clone(), &request, &guide, noise.clone())
            .unwrap(),
    );
    let found = path(start(&panel, &in_shards(&request, 3), noise));
    assert_same_trace(&found, &unsharded, 1e-6, "recorded noise");
}

/// Cards that are alike give the bits that one gives.
#[test]
fn shards_on_several_cards_are_those_on_one() {
    let Some(cards) = infermark_test_support::gpus(&SviGpu::new().devices()) else {
        return;
    };
    let panel = panel(0);
    let count = cards.len();
    for (form, on_each) in [(FORMS[1], 1), (Form::ORTHOGONAL, 1), (FORMS[0], 2)] {
        let on_one = in_shards(
            &request(cards[0], form, Objective::Renyi { alpha: 0.5 }, 12),
            on_each * count,
        );
        let on_all = Request {
            devices: cards.clone(),
            ..on_one.clone()
        };
        let guide = uneven_guide(&panel, form.1);
        let found = loss_and_gradient(&panel, &on_all, &guide);
        assert_eq!(found, loss_and_gradient(&panel, &on_one, &guide), "{form:?}");
        let noise = || NoiseSource::Philox { seed: 5 };
        let run = start(&panel, &on_all, noise());
        let device = run.report().device;
        assert!(device.starts_with(&format!("{count} of ")), "{device}");
        assert_eq!(
            device.ends_with("2 logical shards on each"),
            on_each == 2,
            "{device}"
        );
        assert_eq!(path(run), path(start(&panel, &on_one, noise())), "{form:?}");
    }
}

fn conforming(shards: usize, form: Form) -> Option<Request> {
    let request = request(device()?, form, Objective::Renyi { alpha: 0.0 }, 36);
    Some(in_shards(&request, shards))
}

conformance!(published, sharded(), conforming(2, FORMS[1]), ToTheBit);
conformance!(orthogonal, sharded(), conforming(3, Form::ORTHOGONAL), ToTheBit);

/// A loss that is not finite ends all shards before their step.
#[test]
fn a_run_that_diverges_ends_on_all_shards() {
    let Some(device) = device() else { return };
    let mut request = in_shards(&request(device, FORMS[0], Objective::Elbo, 40), 3);
    let Method::Svi(settings) = &mut request.method else {
        unreachable!("a request for SVI")
    };
    // Parameters grow a thousandfold at every step: the decay overshoots by that.
    settings.optimizer.learning_rate = 1e3;
    settings.optimizer.weight_decay = 1.0;
    conformance::a_run_that_diverges_stays_readable(&sharded(), &panel(0), &request);
}
