//! The recorded trajectories of `vectors.json`: twelve steps of another implementation with the noise that it drew.

use crate::guides::{flat, relative_distance};
use crate::{numbers, orthogonal_vectors, vectors};
use infermark_backend::Interrupt;
use infermark_model::guide::Guide;
use infermark_model::svi::{LossAndGradient, Noise};
use infermark_model::{Parameterization, PerSite, Site};
use infermark_svi::{GuidedRun, Recording};
use serde_json::Value;

/// The record's learning rates: `optax.exponential_decay(0.01, 1000, 0.99, end_value=1e-5)` evaluates in single
/// precision even where all else is double, and its power is off by a last digit here and there.
const RECORDED_RATES: [f64; 12] = [
    0.009999999776482582,
    0.009999899193644524,
    0.009999798610806465,
    0.009999698027968407,
    0.009999598376452923,
    0.00999949686229229,
    0.009999396279454231,
    0.009999296627938747,
    0.009999196045100689,
    0.00999909546226263,
    0.009998994879424572,
    0.009998894296586514,
];

/// One recorded trajectory.
#[derive(Debug, Clone)]
pub struct Trajectory {
    /// What it was recorded with.
    pub parameterization: Parameterization,
    /// The guide at its start.
    pub start: Guide,
    /// Its twelve steps.
    pub steps: Vec<Step>,
}

/// One recorded step.
#[derive(Debug, Clone)]
pub struct Step {
    /// `[particle][latent]`.
    pub noise: Noise,
    /// The loss before the step.
    pub loss: f64,
    /// The loss's gradient, in a guide's shape; recorded at two of the steps.
    pub gradient: Option<Guide>,
    /// The guide after the step; recorded at three.
    pub after: Option<Guide>,
}

/// How far a backend may be from a recorded trajectory.
#[derive(Debug, Clone, Copy)]
pub struct StepTolerances {
    /// Relative, of the loss.
    pub loss: f64,
    /// Of the gradient, relative to its norm.
    pub gradient: f64,
    /// Of a parameter, relative to it or to 1.
    pub parameters: f64,
}

/// f64: the two programs differ only in the order of sums.
pub const DOUBLE_PRECISION: StepTolerances = StepTolerances {
    loss: 1e-9,
    gradient: 1e-9,
    parameters: 1e-9,
};

/// f32: a parameter of size 2 is rounded at 1e-7 per step; where a gradient is nearly zero AdamW's first steps have its
/// sign's size, so single-precision gradients (1e-6 relative to the norm) may move a parameter by more than that.
pub const SINGLE_PRECISION: StepTolerances = StepTolerances {
    loss: 1e-6,
    gradient: 1e-5,
    parameters: 1e-4,
};

impl Trajectory {
    /// The noise of all steps.
    pub fn noise(&self) -> Vec<Noise> {
        self.steps.iter().map(|s| s.noise.clone()).collect()
    }

    /// The noise and the learning rates of all steps.
    pub fn recording(&self) -> Recording {
        Recording {
            noise: self.noise(),
            learning_rates: RECORDED_RATES.to_vec(),
        }
    }

    /// Asserts that `run`, which has started at [`Trajectory::start`] under [`Trajectory::recording`], follows this
    /// trajectory, and that `loss_and_gradient` of a guide at an iteration under the same noise is the recorded one.
    pub fn assert_followed(
        &self,
        run: &mut dyn GuidedRun,
        loss_and_gradient: impl Fn(&Guide, u32) -> LossAndGradient,
        tolerances: StepTolerances,
        case: &str,
    ) {
        for (t, step) in self.steps.iter().enumerate() {
            let found = loss_and_gradient(&run.guide().unwrap(), t as u32);
            run.advance(1, &Interrupt::new()).unwrap();
            let (loss, expected) = (found.weighted.loss, step.loss);
            assert!(
                (loss - expected).abs() < tolerances.loss * expected.abs(),
                "{case} step {t}: loss {loss} {expected}"
            );
            if let Some(gradient) = &step.gradient {
                let off = relative_distance(&found.gradient, gradient);
                assert!(
                    off < tolerances.gradient,
                    "{case} step {t}: gradient off by {off:e}"
                );
            }
            if let Some(after) = &step.after {
                for (j, (p, e)) in flat(&run.guide().unwrap()).iter().zip(flat(after)).enumerate() {
                    assert!(
                        (p - e).abs() <= tolerances.parameters * e.abs().max(1.0),
                        "{case} step {t}: {j} {p} {e}"
                    );
                }
            }
        }
    }
}

/// The two trajectories: centred and learned.
pub fn trajectories() -> Vec<Trajectory> {
    let vectors = vectors();
    [
        ("centered", Parameterization::Centered),
        ("learned", Parameterization::Learned),
    ]
    .into_iter()
    .map(|(name, parameterization)| trajectory_of(&vectors["svi"][name], parameterization))
    .inspect(|trajectory| {
        let count = |f: fn(&Step) -> bool| trajectory.steps.iter().filter(|s| f(s)).count();
        let found = (
            trajectory.steps.len(),
            count(|s| s.gradient.is_some()),
            count(|s| s.after.is_some()),
        );
        assert_eq!(
            found,
            (12, 2, 3),
            "the record of {:?}",
            trajectory.parameterization
        );
    })
    .collect()
}

/// The trajectory in orthogonal coordinates, of `vectors_orthogonal.json`.
pub fn orthogonal_trajectory() -> Trajectory {
    trajectory_of(
        &orthogonal_vectors()["svi"]["orthogonal"],
        Parameterization::Centered,
    )
}

fn trajectory_of(recorded: &Value, parameterization: Parameterization) -> Trajectory {
    let learned = parameterization == Parameterization::Learned;
    let guide = |value: &Value| (!value.is_null()).then(|| guide_of(value, learned));
    Trajectory {
        parameterization,
        start: guide_of(&recorded["init_unconstrained"], learned),
        steps: recorded["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| Step {
                noise: step["eps"].as_array().unwrap().iter().map(sites).collect(),
                loss: step["loss"].as_f64().unwrap(),
                gradient: guide(&step["grad"]),
                after: guide(&step["params_after"]),
            })
            .collect(),
    }
}

/// A site's numbers of one kind: `loc` and `scale` are named after the decentred site where it is reparameterized.
pub fn guide_of(params: &Value, learned: bool) -> Guide {
    let suffix = if learned { "_decentered" } else { "" };
    let column = |kind: &str| -> Vec<f64> {
        Site::REPARAMETERIZED
            .iter()
            .flat_map(|site| numbers(&params[format!("{}{suffix}_auto_{kind}", site.name())]))
            .collect()
    };
    Guide {
        loc: column("loc"),
        unconstrained_scale: column("scale"),
        unconstrained_centredness: learned.then(|| {
            let of = |site: Site| params[format!("{}_centered", site.name())].as_f64().unwrap();
            PerSite::from_reparameterized(Site::REPARAMETERIZED.map(of), 0.0)
        }),
    }
}

/// The numbers of an object with one entry per site, in the order of the flat vector.
pub fn sites(value: &Value) -> Vec<f64> {
    Site::REPARAMETERIZED
        .iter()
        .flat_map(|site| numbers(&value[site.name()]))
        .collect()
}
