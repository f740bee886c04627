//! The production iteration against the model crate's plain one, on awkward panels and settings.

use infermark_backend::{Backend, Interrupt, Method, Precision, Request, SviSettings};
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::svi::{GuideMoments, draw_noise};
use infermark_model::{Coordinates, Likelihood, Panel, Parameterization, PerSite, Priors};
use infermark_processor::InstructionSet;
use infermark_svi::{Chart, NoiseSource};
use infermark_svi_cpu::SviCpu;
use infermark_test_support::guides::flat;
use infermark_test_support::{norm, random_panel};
use rand::{SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// The charts of a guide.
const FORMS: [(Coordinates, Parameterization); 4] = [
    (Coordinates::Published, Parameterization::Centered),
    (Coordinates::Published, Parameterization::Learned),
    (Coordinates::Published, Parameterization::Noncentered),
    (Coordinates::Orthogonal, Parameterization::Centered),
];

/// N, C, T, share of missing rows, largest count.
const PANELS: [(usize, usize, usize, f64, u32); 7] = [
    (1, 1, 1, 0.0, 9),
    (3, 1, 17, 0.0, 0),
    (9, 9, 5, 0.4, 100),
    (40, 4, 13, 0.2, 5),
    (150, 2, 156, 0.0, 1_000),
    (70, 3, 90, 0.9, 50),
    (33, 2, 300, 0.1, 2_000_000_000),
];

/// Loss, log-weights and gradient of every instruction set and precision against the plain iteration.
fn compare(
    panel: &Arc<Panel>,
    likelihood: Likelihood,
    priors: Priors,
    (coordinates, parameterization): (Coordinates, Parameterization),
    particles: usize,
    objective: Objective,
) {
    let layout = panel.layout_for(likelihood);
    let mut guide = Guide::start(&layout, parameterization, 5);
    for (i, u) in guide.unconstrained_scale.iter_mut().enumerate() {
        *u += (i as f64 * 0.61).sin();
    }
    if let Some(u) = &mut guide.unconstrained_centredness {
        *u = PerSite::from_reparameterized([0.4, -0.3, 1.0, 0.0, -1.2], 0.0);
    }
    let stream = Stream {
        seed: 99,
        iteration: 3,
    };
    let noise = draw_noise(&layout, particles, stream);
    let log_joint = LogJoint::new(panel, priors).with_likelihood(likelihood);
    let request_with = |precision| Request {
        priors,
        likelihood,
        parameterization,
        threads: Some(3),
        ..Request::new(Method::Svi(SviSettings {
            particles,
            objective,
            precision,
            coordinates,
            ..Default::default()
        }))
    };
    let chart = Chart::of(panel, &request_with(Precision::F64));
    let expected = chart.plain_iteration(&log_joint, objective, &guide, &noise);
    for set in InstructionSet::available() {
        for precision in [Precision::F64, Precision::F32] {
            let request = request_with(precision);
            let backend = SviCpu::with_instruction_set(set);
            let found = match precision {
                Precision::F64 => {
                    let noise = NoiseSource::recorded(vec![noise.clone(); 4]);
                    backend
                        .loss_and_gradient_under(panel, &request, &guide, noise, 3)
                        .unwrap()
                }
                Precision::F32 => backend
                    .loss_and_gradient(panel, &request, &guide, stream)
                    .unwrap()
                    .unwrap(),
            };
            let case = format!(
                "{set} {precision:?} {likelihood:?} {coordinates:?} {parameterization:?} K={particles} {objective:?} {}x{} clip [{}, {}]",
                layout.products, layout.periods, priors.clip_low, priors.clip_high
            );
            // f64: sums in another order. f32: a latent is rounded at 1e-7 and the vector noise is good to 1e-5, which
            // a rate of size lambda turns into 1e-5 lambda; the largest rates dominate both the log-weight and the
            // gradient's norm.
            let (log_weight_error, gradient_error) = match precision {
                Precision::F64 => (1e-11, 1e-9),
                Precision::F32 => (1e-5, 1e-3),
            };
            for (l, e) in found.log_weights.iter().zip(&expected.log_weights) {
                assert!((l - e).abs() <= log_weight_error * e.abs(), "{case}: {l} {e}");
            }
            // Where rounding changes the weights themselves the gradients are of different particles.
            let weights = found.weighted.weights.iter().zip(&expected.weighted.weights);
            let same_weights = weights.clone().all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(same_weights || precision == Precision::F32, "{case}");
            if same_weights {
                let expected = flat(&expected.gradient);
                let difference: Vec<f64> = flat(&found.gradient)
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| a - b)
                    .collect();
                let off = norm(&difference) / norm(&expected);
                assert!(off < gradient_error, "{case}: gradient off by {off}");
            }
        }
    }
}

/// Every number of particles that a group can have, alone and after a full group.
const PARTICLES: [(usize, Objective); 8] = [
    (1, Objective::Renyi { alpha: 0.0 }),
    (2, Objective::Elbo),
    (3, Objective::Elbo),
    (4, Objective::Renyi { alpha: 0.5 }),
    (5, Objective::Renyi { alpha: 2.0 }),
    (6, Objective::Elbo),
    (7, Objective::Renyi { alpha: 0.0 }),
    (8, Objective::Renyi { alpha: 0.0 }),
];

#[test]
fn loss_log_weights_and_gradient() {
    for (seed, (n, c, t, gaps, largest)) in PANELS.into_iter().enumerate() {
        let panel = random_panel(&mut StdRng::seed_from_u64(seed as u64), n, c, t, gaps, largest);
        for form in FORMS {
            for (particles, objective) in PARTICLES {
                compare(
                    &panel,
                    Likelihood::Poisson,
                    Priors::default(),
                    form,
                    particles,
                    objective,
                );
            }
        }
    }
}

#[test]
fn negative_binomial_loss_log_weights_and_gradient() {
    for (seed, (n, c, t, gaps, largest)) in PANELS.into_iter().enumerate() {
        let panel = random_panel(&mut StdRng::seed_from_u64(seed as u64), n, c, t, gaps, largest);
        for form in FORMS {
            for (particles, objective) in [(1, Objective::default()), (5, Objective::Renyi { alpha: 0.5 })] {
                for clip_high in [2.0, 20.0] {
                    let priors = Priors {
                        clip_high,
                        ..Priors::default()
                    };
                    let likelihood = Likelihood::NegativeBinomial;
                    compare(&panel, likelihood, priors, form, particles, objective);
                }
            }
        }
    }
}

#[test]
fn both_clip_bounds_bite_at_every_number_of_particles() {
    let priors = Priors {
        clip_low: -1.0,
        clip_high: 2.0,
        ..Priors::default()
    };
    for (n, c, t, gaps, largest) in [(3, 1, 17, 0.0, 9), (40, 4, 13, 0.2, 50), (70, 3, 90, 0.5, 9)] {
        let panel = random_panel(&mut StdRng::seed_from_u64(17), n, c, t, gaps, largest);
        for (particles, objective) in PARTICLES {
            for coordinates in [Coordinates::Published, Coordinates::Orthogonal] {
                let form = (coordinates, Parameterization::Centered);
                compare(&panel, Likelihood::Poisson, priors, form, particles, objective);
            }
        }
    }
}

#[test]
fn fifty_iterations_follow_the_reference() {
    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
        follow(likelihood);
    }
}

fn follow(likelihood: Likelihood) {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 37, 3, 21, 0.3, 40);
    let layout = panel.layout_for(likelihood);
    let log_joint = LogJoint::new(&panel, Priors::default()).with_likelihood(likelihood);
    for (coordinates, parameterization) in FORMS {
        let settings = SviSettings {
            iterations: 50,
            precision: Precision::F64,
            coordinates,
            ..Default::default()
        };
        let request = Request {
            likelihood,
            parameterization,
            seed: 8,
            threads: Some(2),
            ..Request::new(Method::Svi(settings.clone()))
        };
        let chart = Chart::of(&panel, &request);
        let mut guide = chart.start(&panel, &request);
        let mut moments = GuideMoments::new(layout.latents());
        let noise: Vec<_> = (0..50)
            .map(|iteration| draw_noise(&layout, 4, Stream { seed: 8, iteration }))
            .collect();
        let source = NoiseSource::recorded(noise.clone());
        let mut run = SviCpu::new()
            .start_from(panel.clone(), &request, &guide, source)
            .unwrap();
        run.advance(50, &Interrupt::new()).unwrap();
        for (t, noise) in noise.iter().enumerate() {
            let at = chart.plain_iteration(&log_joint, settings.objective, &guide, noise);
            moments.step(&settings.optimizer, t as u64, &mut guide, &at.gradient);
        }
        for (a, b) in flat(&run.guide().unwrap()).iter().zip(flat(&guide)) {
            // Rounding at 1e-16 grows through fifty steps; a step is at most the learning rate.
            assert!(
                (a - b).abs() < 1e-9,
                "{coordinates:?} {parameterization:?}: {a} {b}"
            );
        }
    }
}

#[test]
fn pieces_threads_and_repeats_do_not_change_a_bit() {
    // Large enough for five threads to have something to do.
    let panel = random_panel(&mut StdRng::seed_from_u64(4), 300, 4, 60, 0.2, 60);
    let run = |likelihood, (coordinates, parameterization), threads: usize, pieces: &[u64]| {
        let settings = SviSettings {
            iterations: 60,
            particles: 5,
            coordinates,
            ..Default::default()
        };
        let request = Request {
            likelihood,
            parameterization,
            threads: Some(threads),
            seed: 2,
            ..Request::new(Method::Svi(settings))
        };
        let mut run = SviCpu::new().start(panel.clone(), &request).unwrap();
        for piece in pieces {
            run.advance(*piece, &Interrupt::new()).unwrap();
        }
        assert_eq!(run.report().threads, threads);
        run.posterior().unwrap()
    };
    for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
        for form in [FORMS[1], FORMS[3]] {
            let once = run(likelihood, form, 1, &[60]);
            assert_eq!(once, run(likelihood, form, 1, &[1, 30, 7, 100]));
            for threads in [2, 3, 5] {
                assert_eq!(once, run(likelihood, form, threads, &[13, 47]));
            }
        }
    }
}

#[test]
fn small_panels_take_as_many_threads_as_they_can_use() {
    let used = |panel: &Arc<Panel>, threads: usize| {
        let settings = SviSettings {
            iterations: 3,
            ..Default::default()
        };
        let request = Request {
            threads: Some(threads),
            ..Request::new(Method::Svi(settings))
        };
        let mut run = SviCpu::new().start(panel.clone(), &request).unwrap();
        run.advance(3, &Interrupt::new()).unwrap();
        run.report().threads
    };
    let of = |products, categories, periods| {
        random_panel(
            &mut StdRng::seed_from_u64(5),
            products,
            categories,
            periods,
            0.0,
            9,
        )
    };
    // One chunk, and several whose iteration takes less than handing them out.
    for panel in [of(2, 1, 400), of(1, 1, 12), of(40, 4, 12), of(12, 2, 52)] {
        assert_eq!(used(&panel, 64), 1);
    }
    // More work than two chunks can share among more threads.
    assert_eq!(used(&of(120, 2, 300), 64), 2);
    let large = of(2_000, 4, 100);
    assert_eq!([1, 2, 7].map(|threads| used(&large, threads)), [1, 2, 7]);
}
