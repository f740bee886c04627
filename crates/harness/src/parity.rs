//! Parity before speed: a backend is timed only once it agrees with the `f64` reference.
//!
//! Each backend's own pass is compared, under the request's likelihood. At two fixed points, one near the
//! data and one as extreme as a guide's start (rows on both sides of the clip), the log joint and its
//! gradient; the Gaussian methods ignore the clip, and so does the reference for them. For the Gaussian
//! methods, also the results that a run takes from a pass: the step and the marginal variances, and for the
//! variational ones the evidence lower bound of a Gaussian and its gradient with respect to the means. For
//! methods with a guide, also the log-weights, the loss and its gradient under the noise of one stream. The
//! loss's gradient is compared with the reference particles combined by the backend's own weights: single
//! precision may weight two nearly equal particles differently, which the log-weights' own check covers.

mod gaussian;
mod point;
mod sub_panel;

use infermark_backend::{Backend, BackendError, GaussianPoint, Method, Precision, Request};
use infermark_model::guide::{Guide, softplus_inverse};
use infermark_model::log_joint::LogJoint;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::draw_noise;
use infermark_model::{Likelihood, Panel};
use infermark_report::records::parity::ParityRecord;
use infermark_svi::Chart;
use std::sync::Arc;

use gaussian::{Kind, Reference};
pub use point::{gaussian_near_the_data, point_like_a_start, point_near_the_data};
pub use sub_panel::sub_panel;

/// Largest panel on which the reference is evaluated in full; from a larger one every k-th product is taken.
pub const PARITY_ROWS: usize = 20_000_000;

/// Rows times periods of the largest panel that the reference for the Gaussian methods' passes is evaluated on, a few seconds.
const PASS_WORK: usize = 200_000_000;

/// Rows of the largest such panel if the means have no closed form.
const PASS_ROWS_BY_QUADRATURE: usize = 100_000;

/// Standard deviation of the guide at which the loss is compared.
const GUIDE_SCALE: f64 = 1e-3;

/// Largest relative errors that are accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerances {
    /// Error of the log joint, relative to its size, and of the loss, relative to its size or to the units
    /// sold, whichever is more.
    pub value: f64,
    /// Error of the log joint's gradient, norm-wise.
    pub gradient: f64,
    /// Error of differences between log-weights, relative to the largest log-weight or to the units sold,
    /// whichever is more.
    pub log_weights: f64,
    /// Error of the loss's gradient with respect to the guide's means, and to its centredness, norm-wise.
    pub loss_gradient: f64,
    /// Error of the loss's gradient with respect to the guide's scales, norm-wise.
    pub scale_gradient: f64,
}

/// Largest relative errors that are accepted, of what the Gaussian methods' passes give; they are in double
/// precision.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PassTolerances {
    /// Error of the log joint or the evidence lower bound.
    value: f64,
    /// Error of its gradient, norm-wise.
    gradient: f64,
    /// Error of `Q step = gradient`, norm-wise, both weighted by the diagonal of Q.
    step: f64,
    /// Error of each marginal variance.
    variance: f64,
}

impl PassTolerances {
    fn of(kind: Kind, likelihood: Likelihood) -> Self {
        let value = match (kind, likelihood.has_shape()) {
            // Sums in another order, as for the log joint.
            (Kind::Point, _) | (_, false) => 1e-9,
            // Means by a rule of few nodes: its next term is the cube of a variance over 48, of rates whose variances are
            // mostly below 0.02.
            (_, true) => 1e-6,
        };
        PassTolerances {
            value,
            gradient: value * 10.0,
            // Borders are differences of sums that are larger by the ratio of counts to priors, 1e7 and more,
            // so nine digits of sixteen remain; on a panel of 150 products, twelve. The curvature along a log
            // shape is differenced: 1e-8.
            step: value.max(1e-7) * 10.0,
            variance: value.max(1e-7) * 10.0,
        }
    }
}

impl Tolerances {
    /// The tolerances of a precision.
    pub const fn of(precision: Precision) -> Self {
        match precision {
            // 1e7 terms in another order leave some 1e-13; 1e-9 leaves room for the cancellation between
            // count and rate, and is far below any error of a formula. The noise itself is defined to 1e-5:
            // at a scale of 1e-3 it moves the rates by 1e-8 times ln price, and is a factor in the gradient
            // with respect to the scales.
            Precision::F64 => Tolerances {
                value: 1e-9,
                gradient: 1e-9,
                log_weights: 1e-9,
                loss_gradient: 1e-6,
                scale_gradient: 3e-5,
            },
            // A rate is good to about 1e-6 of itself (eta up to 20 in 24 bits): random over the rows in the log joint,
            // whose sums are in double precision; in the gradient, count minus rate cancels a digit or two of it.
            Precision::F32 => Tolerances {
                value: 1e-6,
                gradient: 1e-4,
                log_weights: 1e-6,
                loss_gradient: 1e-4,
                scale_gradient: 1e-3,
            },
        }
    }
}

/// Compares `backend` with the reference on `panel`, or on every k-th product of one with more than `most_rows` rows.
///
/// # Errors
/// When the backend cannot serve the request; a disagreement is not an error but a record that did not pass.
pub fn check_parity(
    backend: &dyn Backend,
    panel: &Arc<Panel>,
    request: &Request,
    most_rows: usize,
) -> Result<ParityRecord, BackendError> {
    let precision = backend.parity_precision(request);
    let tolerances = Tolerances::of(precision);
    let kind = kind_of(&request.method);
    let most_rows = match kind {
        None => most_rows,
        Some(_) => {
            let by_work = PASS_WORK / panel.layout().periods;
            match request.likelihood.has_shape() {
                false => most_rows.min(by_work),
                true => most_rows.min(by_work).min(PASS_ROWS_BY_QUADRATURE),
            }
        }
    };
    let (panel, mut words) = sub_panel(panel, most_rows);
    let of_passes = kind.map(|_| Reference::new(&panel, &request.priors, request.likelihood));
    // The methods leave these products out of the model's log joint.
    let left_out = of_passes.as_ref().map_or(0, Reference::left_out);
    if left_out > 0 {
        words.push_str(&format!(
            ", {left_out} products left out with counts at the upper clip bound"
        ));
    }
    let mut record = ParityRecord {
        panel: words,
        rows: panel.rows(),
        precision,
        likelihood: request.likelihood,
        compared: compared(&request.method).into(),
        checks: Vec::new(),
        log_joint_relative_error: Some(0.0),
        gradient_relative_error: Some(0.0),
        loss_relative_error: None,
        log_weight_error: None,
    };
    let priors = match kind {
        None => request.priors,
        Some(_) => gaussian::without_clip(&request.priors),
    };
    let reference = LogJoint::new(&panel, priors).with_likelihood(request.likelihood);
    let without_clip = if kind.is_some() { " without the clip" } else { "" };
    for (name, point) in [
        ("near the data", point_near_the_data(&panel, request.likelihood)),
        (
            "at a guide's start",
            point_like_a_start(&panel, request.likelihood),
        ),
    ] {
        let (value, gradient) = match &of_passes {
            Some(of_passes) if left_out > 0 => of_passes.log_joint(&point),
            _ => reference.natural(&point),
        };
        let (got, got_gradient) = backend.log_joint(&panel, request, &point)?;
        let error = record.check(
            format!("log joint{without_clip} {name}"),
            (got - value).abs() / value.abs(),
            tolerances.value,
        );
        record.log_joint_relative_error = worse(record.log_joint_relative_error, error);
        let error = record.check(
            format!("gradient{without_clip} {name}"),
            norm_wise_error(&got_gradient, &gradient),
            tolerances.gradient,
        );
        record.gradient_relative_error = worse(record.gradient_relative_error, error);
    }
    if let (Some(kind), Some(reference)) = (kind, &of_passes) {
        check_pass(backend, &panel, request, kind, reference, &mut record)?;
    }
    if let Method::Svi(svi) = &request.method {
        check_loss(
            backend,
            &panel,
            request,
            svi.particles,
            svi.objective,
            tolerances,
            &mut record,
        )?;
    }
    Ok(record)
}

/// The Gaussian of a method's pass, for the Gaussian methods.
fn kind_of(method: &Method) -> Option<Kind> {
    match method {
        Method::Svi(_) | Method::Nuts(_) => None,
        Method::Laplace(_) => Some(Kind::Point),
        Method::StructuredVi(_) => Some(Kind::Structured),
        Method::Meanfield(_) => Some(Kind::MeanField),
    }
}

/// What is compared of a method without a guide, and of a backend that does not tell its loss.
const LOG_JOINT_ALONE: &str = "log joint and gradient";

fn compared(method: &Method) -> &'static str {
    match method {
        Method::Svi(_) => "log joint and gradient; log-weights, loss and its gradient",
        Method::Nuts(_) => LOG_JOINT_ALONE,
        Method::Laplace(_) => "log joint without the clip and gradient; Newton step and variances",
        Method::StructuredVi(_) | Method::Meanfield(_) => {
            "evidence lower bound without the clip and gradient; step and variances; log joint of the search it starts with"
        }
    }
}

/// Compares a pass of a Gaussian method, with all results that a run takes from it.
fn check_pass(
    backend: &dyn Backend,
    panel: &Arc<Panel>,
    request: &Request,
    kind: Kind,
    reference: &Reference<'_>,
    record: &mut ParityRecord,
) -> Result<(), BackendError> {
    let (precision_at, mean) = gaussian_near_the_data(panel, request.likelihood);
    let at = GaussianPoint {
        mean: &mean,
        precision_at: &precision_at,
    };
    let Some(got) = backend.gaussian_pass(panel, request, at)? else {
        record.check(
            "pass of the method, which gives none to compare,".into(),
            f64::NAN,
            0.0,
        );
        return Ok(());
    };
    let [value, gradient, step, variance] = reference.errors(kind, at, &got)?;
    let tolerances = PassTolerances::of(kind, request.likelihood);
    let what = match kind {
        Kind::Point => "log joint without the clip",
        Kind::Structured | Kind::MeanField => "evidence lower bound",
    };
    let value = record.check(format!("{what} of a pass"), value, tolerances.value);
    let gradient = record.check(
        format!("gradient of the {what} of a pass"),
        gradient,
        tolerances.gradient,
    );
    record.check("step of a pass".into(), step, tolerances.step);
    record.check("variances of a pass".into(), variance, tolerances.variance);
    if kind == Kind::Point {
        record.log_joint_relative_error = worse(record.log_joint_relative_error, value);
        record.gradient_relative_error = worse(record.gradient_relative_error, gradient);
    } else {
        record.log_joint_relative_error = None;
        record.gradient_relative_error = gradient;
        record.loss_relative_error = value;
    }
    Ok(())
}

fn check_loss(
    backend: &dyn Backend,
    panel: &Arc<Panel>,
    request: &Request,
    particles: usize,
    objective: Objective,
    tolerances: Tolerances,
    record: &mut ParityRecord,
) -> Result<(), BackendError> {
    let layout = panel.layout_for(request.likelihood);
    let log_joint = LogJoint::new(panel, request.priors).with_likelihood(request.likelihood);
    let stream = Stream {
        seed: request.seed,
        iteration: 7,
    };
    let chart = Chart::of(panel, request);
    let mut guide = chart.start(panel, request);
    let point = point_near_the_data(panel, request.likelihood);
    guide.loc = match &chart {
        Chart::Published(parameterization) => guide.centredness(*parameterization).from_natural(
            &point,
            panel.category_of(),
            &layout,
            &request.priors,
        ),
        Chart::Orthogonal(orthogonal) => orthogonal.from_natural(&point),
    };
    guide.unconstrained_scale = vec![softplus_inverse(GUIDE_SCALE); layout.latents()];
    let Some(got) = backend.loss_and_gradient(panel, request, &guide, stream)? else {
        record.compared = LOG_JOINT_ALONE.into();
        return Ok(());
    };

    // Each particle alone has weight 1: its gradient is its own, to be combined by the backend's weights.
    let alone: Vec<_> = draw_noise(&layout, particles, stream)
        .into_iter()
        .map(|eps| chart.plain_iteration(&log_joint, Objective::Elbo, &guide, &vec![eps]))
        .collect();
    let log_weights: Vec<f64> = alone.iter().map(|p| p.log_weights[0]).collect();
    let reference = objective.weigh(&log_weights);
    // A relative error of a rate moves a log-weight by that fraction of the expected units, however much of
    // them cancels against the counts: errors are compared with whichever is larger.
    let units: f64 = panel.sums().product.iter().map(|y| *y as f64).sum();
    let loss_error = (got.weighted.loss - reference.loss).abs();
    record.loss_relative_error = Some(loss_error / reference.loss.abs()).filter(|error| error.is_finite());
    record.check(
        "loss".into(),
        loss_error / reference.loss.abs().max(units),
        tolerances.value,
    );
    let largest = log_weights.iter().fold(units, |m: f64, l| m.max(l.abs()));
    let spread = if got.log_weights.len() == particles {
        let offsets: Vec<f64> = got
            .log_weights
            .iter()
            .zip(&log_weights)
            .map(|(g, r)| g - r)
            .collect();
        let low = offsets.iter().copied().fold(f64::INFINITY, f64::min);
        let high = offsets.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // `min` and `max` skip NaN; a sum does not.
        if offsets.iter().sum::<f64>().is_finite() {
            high - low
        } else {
            f64::NAN
        }
    } else {
        f64::NAN
    };
    record.log_weight_error = spread.is_finite().then_some(spread);
    record.check("log-weights".into(), spread / largest, tolerances.log_weights);
    let own = objective.weigh(&got.log_weights).weights;
    // Weights may be held in single precision.
    record.check(
        "weights of the particles".into(),
        largest_difference(&own, &got.weighted.weights),
        1e-6,
    );

    let combined = |of: &dyn Fn(&Guide) -> Vec<f64>| -> Vec<f64> {
        let mut sum = vec![0.0; of(&guide).len()];
        for (weight, particle) in got.weighted.weights.iter().zip(&alone) {
            for (s, g) in sum.iter_mut().zip(of(&particle.gradient)) {
                *s += weight * g;
            }
        }
        sum
    };
    record.check(
        "loss's gradient by the means".into(),
        norm_wise_error(&got.gradient.loc, &combined(&|g| g.loc.clone())),
        tolerances.loss_gradient,
    );
    record.check(
        "loss's gradient by the scales".into(),
        norm_wise_error(
            &got.gradient.unconstrained_scale,
            &combined(&|g| g.unconstrained_scale.clone()),
        ),
        tolerances.scale_gradient,
    );
    let by_centredness = combined(&|g| {
        g.unconstrained_centredness
            .map_or(Vec::new(), |c| c.reparameterized().to_vec())
    });
    if !by_centredness.is_empty() {
        let got = got
            .gradient
            .unconstrained_centredness
            .map_or(Vec::new(), |c| c.reparameterized().to_vec());
        record.check(
            "loss's gradient by the centredness".into(),
            norm_wise_error(&got, &by_centredness),
            tolerances.loss_gradient,
        );
    }
    Ok(())
}

/// `|a - b| / |b|` in the Euclidean norm; not a number when the lengths differ.
pub fn norm_wise_error(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    let norm: f64 = b.iter().map(|b| b * b).sum();
    (difference / norm).sqrt()
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() || b.iter().any(|b| !b.is_finite()) {
        return f64::NAN;
    }
    a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()))
}

/// The larger of two errors; NaN is the worst.
fn worse(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a?.max(b?))
}
