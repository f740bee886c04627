//! A backend's SVI iteration against the model crate's plain one.

use crate::guides::{difference, flat, relative_distance};
use infermark_backend::{DeviceId, Method, Request, SviSettings};
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::{LossAndGradient, draw_noise};
use infermark_model::{Coordinates, Panel, Parameterization, PerSite};
use infermark_svi::Chart;

/// N, C, T, share of missing rows, largest count: one product, one period, all zeros, gaps, counts from few to many.
pub const AWKWARD_PANELS: [(usize, usize, usize, f64, u32); 6] = [
    (1, 1, 1, 0.0, 9),
    (3, 1, 17, 0.0, 0),
    (40, 4, 13, 0.2, 5),
    (150, 2, 156, 0.0, 1_000),
    (70, 3, 90, 0.9, 50),
    (9, 9, 300, 0.4, 100),
];

/// Numbers of particles that a kernel may treat differently, each with an objective.
pub const PARTICLES: [(usize, Objective); 4] = [
    (1, Objective::Renyi { alpha: 0.0 }),
    (3, Objective::Elbo),
    (4, Objective::Renyi { alpha: 0.5 }),
    (8, Objective::Renyi { alpha: 2.0 }),
];

/// How a guide's latents stand for the natural parameters: their coordinates, and the parameterization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form(pub Coordinates, pub Parameterization);

impl Form {
    /// Those of [`Coordinates::Orthogonal`].
    pub const ORTHOGONAL: Form = Form(Coordinates::Orthogonal, Parameterization::Centered);
}

impl From<Parameterization> for Form {
    /// A form in the published coordinates.
    fn from(parameterization: Parameterization) -> Self {
        Form(Coordinates::Published, parameterization)
    }
}

/// Every form of a guide.
pub const FORMS: [Form; 4] = [
    Form(Coordinates::Published, Parameterization::Centered),
    Form(Coordinates::Published, Parameterization::Learned),
    Form(Coordinates::Published, Parameterization::Noncentered),
    Form::ORTHOGONAL,
];

/// A request for 200 iterations of SVI.
pub fn svi_request(
    device: DeviceId,
    form: impl Into<Form>,
    particles: usize,
    objective: Objective,
) -> Request {
    let Form(coordinates, parameterization) = form.into();
    let settings = SviSettings {
        iterations: 200,
        particles,
        objective,
        coordinates,
        ..SviSettings::default()
    };
    Request {
        parameterization,
        devices: vec![device],
        seed: 11,
        ..Request::new(Method::Svi(settings))
    }
}

/// How many iterations two implementations are followed where one of them is slow: 200, or what `INFERMARK_TEST_ITERATIONS` says, for
/// a device that is played.
///
/// # Panics
/// When that is no number from 21 to 200.
pub fn path_length() -> u64 {
    let Ok(asked) = std::env::var("INFERMARK_TEST_ITERATIONS") else {
        return 200;
    };
    asked
        .parse()
        .ok()
        .filter(|n| (21..=200).contains(n))
        .unwrap_or_else(|| panic!("INFERMARK_TEST_ITERATIONS is {asked}, no number from 21 to 200"))
}

/// A guide with scales that differ and, where it is learned, five centrednesses.
pub fn uneven_guide(panel: &Panel, parameterization: Parameterization) -> Guide {
    let mut guide = Guide::start(&panel.layout(), parameterization, 5);
    for (i, u) in guide.unconstrained_scale.iter_mut().enumerate() {
        *u += (i as f64 * 0.61).sin();
    }
    if let Some(u) = &mut guide.unconstrained_centredness {
        *u = PerSite::from_reparameterized([0.4, -0.3, 1.0, 0.0, -1.2], 0.0);
    }
    guide
}

/// Asserts that a single-precision iteration at `guide`, under the noise of `stream`, is the plain one's.
///
/// A latent is rounded at 1e-7 and the noise is good to 1e-5, which a rate of size lambda turns into 1e-5 lambda; the
/// largest rates dominate both the log-weight and the gradient's norm.
pub fn assert_plain_iteration(
    found: &LossAndGradient,
    panel: &Panel,
    request: &Request,
    guide: &Guide,
    stream: Stream,
) {
    let Method::Svi(settings) = &request.method else {
        panic!("a request for SVI")
    };
    let noise = draw_noise(&panel.layout(), settings.particles, stream);
    let log_joint = LogJoint::new(panel, request.priors);
    let chart = Chart::of(panel, request);
    let expected = chart.plain_iteration(&log_joint, settings.objective, guide, &noise);
    let layout = panel.layout();
    let case = format!(
        "{:?} {:?} K={} {:?} {}x{} clip [{}, {}]",
        settings.coordinates,
        request.parameterization,
        settings.particles,
        settings.objective,
        layout.products,
        layout.periods,
        request.priors.clip_low,
        request.priors.clip_high
    );
    for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
        assert!((l - e).abs() <= 1e-5 * e.abs(), "{case}: {l} {e}");
    }
    // Where rounding changes the weights themselves the gradients are of different particles.
    let mut weights = found.weighted.weights.iter().zip(&expected.weighted.weights);
    if weights.all(|(a, b)| (a - b).abs() < 1e-4) {
        let off = relative_distance(&found.gradient, &expected.gradient);
        assert!(off < 1e-3, "{case}: gradient off by {off}");
    }
}

/// Asserts that two runs are at the same parameters after `completed` iterations in single precision.
///
/// A step is 0.01; AdamW's first steps have the size of a gradient's sign, so that a gradient within rounding of zero may
/// cost a step or two. On the mean nothing of that is left.
pub fn assert_same_path(found: &Guide, expected: &Guide, completed: u64) {
    let off = difference(&flat(found), &flat(expected));
    let worst = off.iter().map(|d| d.abs()).fold(0.0, f64::max);
    assert!(worst < 2e-2, "after {completed}: {worst}");
    let mean = off.iter().map(|d| d.abs()).sum::<f64>() / off.len() as f64;
    assert!(mean < 1e-4, "after {completed}: mean {mean}");
}
