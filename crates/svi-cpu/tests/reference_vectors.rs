//! The production code against NumPyro's float64 vectors: trajectories fed with the recorded noise, and gradients.

use infermark_backend::{Backend, Interrupt, Method, Precision, Request, SviSettings};
use infermark_cpu_kernels::InstructionSet;
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::{Parameterization, Priors, Site};
use infermark_svi_cpu::{NoiseSource, Recording, SviCpu};
use infermark_test_support::{norm, numbers, small_panel, vectors};
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

/// A site's numbers of one kind: `loc` and `scale` are named after the decentred site where it is reparameterized.
fn guide_of(params: &Value, learned: bool) -> Guide {
    let suffix = if learned { "_decentered" } else { "" };
    let column = |kind: &str| -> Vec<f64> {
        Site::ALL
            .iter()
            .flat_map(|site| numbers(&params[format!("{}{suffix}_auto_{kind}", site.name())]))
            .collect()
    };
    Guide {
        loc: column("loc"),
        unconstrained_scale: column("scale"),
        unconstrained_centredness: learned
            .then(|| Site::ALL.map(|site| params[format!("{}_centered", site.name())].as_f64().unwrap())),
    }
}

fn flat(guide: &Guide) -> Vec<f64> {
    let mut all = guide.loc.clone();
    all.extend(&guide.unconstrained_scale);
    all.extend(guide.unconstrained_centredness.iter().flatten());
    all
}

fn sites(value: &Value) -> Vec<f64> {
    Site::ALL
        .iter()
        .flat_map(|site| numbers(&value[site.name()]))
        .collect()
}

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
    let (panel, vectors) = (small_panel(), vectors());
    for (name, parameterization) in [
        ("centered", Parameterization::Centered),
        ("learned", Parameterization::Learned),
    ] {
        let learned = parameterization == Parameterization::Learned;
        let recorded = &vectors["svi"][name];
        let steps = recorded["steps"].as_array().unwrap();
        let noise: Vec<Vec<Vec<f64>>> = steps
            .iter()
            .map(|s| s["eps"].as_array().unwrap().iter().map(sites).collect())
            .collect();
        for set in InstructionSet::available() {
            for precision in [Precision::F64, Precision::F32] {
                let backend = SviCpu::with_instruction_set(set);
                let request = request(parameterization, precision);
                let source = NoiseSource::Recorded(Recording {
                    noise: noise.clone(),
                    learning_rates: RECORDED_RATES.to_vec(),
                });
                let start = guide_of(&recorded["init_unconstrained"], learned);
                let mut run = backend
                    .start_from(panel.clone(), &request, &start, source.clone())
                    .unwrap();
                let (mut gradients, mut parameters) = (0, 0);
                for (t, step) in steps.iter().enumerate() {
                    let case = format!("{name} {set} {precision:?} step {t}");
                    let before = run.guide();
                    let evaluated = backend
                        .loss_and_gradient_under(&panel, &request, &before, source.clone(), t as u32)
                        .unwrap();
                    let loss = step["loss"].as_f64().unwrap();
                    run.advance(1, &Interrupt::new()).unwrap();
                    // f64: the two programs differ in the order of sums alone. f32: a parameter of size 2 is rounded
                    // at 1e-7 a step; where a gradient is nearly zero AdamW's first steps have its sign's size, so
                    // single-precision gradients (1e-6 relative to the norm) may move a parameter by more than that.
                    let (loss_error, gradient_error, parameter_error) = match precision {
                        Precision::F64 => (1e-9, 1e-9, 1e-9),
                        Precision::F32 => (1e-6, 1e-5, 1e-4),
                    };
                    let loss_off = (evaluated.weighted.loss - loss).abs() / loss.abs();
                    assert!(
                        loss_off < loss_error,
                        "{case}: loss {} {loss}",
                        evaluated.weighted.loss
                    );
                    // Gradients and parameters are recorded at some of the steps.
                    if !step["grad"].is_null() {
                        let gradient = flat(&guide_of(&step["grad"], learned));
                        let found = flat(&evaluated.gradient);
                        let difference: Vec<f64> = found.iter().zip(&gradient).map(|(a, b)| a - b).collect();
                        assert!(
                            norm(&difference) < gradient_error * norm(&gradient),
                            "{case}: gradient {:e}",
                            norm(&difference) / norm(&gradient)
                        );
                        gradients += 1;
                    }
                    if !step["params_after"].is_null() {
                        let expected = flat(&guide_of(&step["params_after"], learned));
                        for (j, (p, e)) in flat(&run.guide()).iter().zip(&expected).enumerate() {
                            assert!(
                                (p - e).abs() <= parameter_error * e.abs().max(1.0),
                                "{case}: {j} {p} {e}"
                            );
                        }
                        parameters += 1;
                    }
                }
                assert_eq!((steps.len(), gradients, parameters), (12, 2, 3));
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
