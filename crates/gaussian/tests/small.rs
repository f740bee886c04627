//! Mode, structured and mean-field Gaussians on random panels and on the reference panel, against the model's own log joint
//! and against NUTS.

mod methods;

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, Posterior, Request, StructuredViSettings,
};
use infermark_gaussian::variational::{Family, Settings, fit};
use infermark_gaussian::{GaussianCpu, GaussianObjective, ModeSettings, find_mode};
use infermark_model::log_joint::LogJoint;
use infermark_model::{
    Coordinates, Labels, Likelihood, Orthogonal, Panel, PanelPart, Parameterization, Priors, Site,
};
use infermark_test_support::mean_field::mean_field_optimum;
use infermark_test_support::{data, norm, normal, random_panel, small_panel};
use methods::methods;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::HashMap;
use std::sync::Arc;

/// Priors whose clip bounds are far outside the rates, since the Gaussian methods ignore them.
fn unclipped() -> Priors {
    Priors {
        clip_low: -80.0,
        clip_high: 80.0,
        ..Priors::default()
    }
}

fn poisson(panel: &Arc<Panel>) -> GaussianObjective {
    GaussianObjective::new(panel, &Priors::default(), Likelihood::Poisson)
}

fn random_panels() -> Vec<Arc<Panel>> {
    [
        (1, 1, 1, 0.0, 9),
        (3, 1, 17, 0.0, 0),
        (40, 4, 13, 0.2, 5),
        (150, 2, 30, 0.0, 1_000),
        (70, 3, 20, 0.9, 50),
        (600, 1, 5, 0.3, 3),
    ]
    .into_iter()
    .enumerate()
    .map(|(seed, (n, c, t, gaps, largest))| {
        random_panel(&mut StdRng::seed_from_u64(seed as u64), n, c, t, gaps, largest)
    })
    .collect()
}

#[test]
fn the_mode_is_where_the_gradient_vanishes() {
    for panel in random_panels() {
        let settings = ModeSettings {
            tolerance: 1e-12,
            ..ModeSettings::default()
        };
        let mode = find_mode(&poisson(&panel), &settings).unwrap();
        let case = format!("{} rows", panel.rows());
        assert!(mode.converged, "{case}: {} after {}", mode.decrement, mode.steps);
        let centred = Parameterization::Centered.start();
        let (value, gradient) = LogJoint::new(&panel, unclipped()).at(&mode.point, &centred);
        assert!(
            (value - mode.log_joint).abs() < 1e-9 * value.abs().max(1.0),
            "{case}: {value} {}",
            mode.log_joint
        );
        // Relative to the sum of the rows' terms, which cancel here.
        let scale = (panel.sums().product.iter().sum::<u64>() as f64).max(1.0);
        assert!(norm(&gradient.z) < 1e-6 * scale, "{case}: {}", norm(&gradient.z));
    }
}

#[test]
fn the_same_bits_come_from_any_number_of_threads() {
    let panel = random_panel(&mut StdRng::seed_from_u64(9), 1_500, 2, 11, 0.1, 40);
    let mode = |threads| {
        let settings = ModeSettings {
            threads,
            ..ModeSettings::default()
        };
        find_mode(&poisson(&panel), &settings).unwrap().point
    };
    let one = mode(1);
    assert!(one == mode(2) && one == mode(5));
}

/// The bound from plain Monte Carlo: mean log joint under independent latents and their entropy.
#[test]
fn the_mean_field_bound_is_that_of_its_draws_and_is_largest_there() {
    let panel = random_panel(&mut StdRng::seed_from_u64(4), 12, 2, 6, 0.2, 30);
    let found = fit(&poisson(&panel), Family::MeanField, &Settings::default()).unwrap();
    assert!(found.converged);
    let log_joint = LogJoint::new(&panel, unclipped());
    let mut rng = StdRng::seed_from_u64(5);
    // Pairs of opposite noise, whose odd parts cancel.
    let mut bound = |mean: &[f64], variance: &[f64], draws: u32| {
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..draws {
            let noise: Vec<f64> = variance.iter().map(|v| v.sqrt() * normal(&mut rng)).collect();
            let at = |sign: f64| -> Vec<f64> { mean.iter().zip(&noise).map(|(m, n)| m + sign * n).collect() };
            let value = 0.5 * (log_joint.natural(&at(1.0)).0 + log_joint.natural(&at(-1.0)).0);
            sum += value;
            squares += value * value;
        }
        let draws = f64::from(draws);
        let entropy: f64 = variance
            .iter()
            .map(|v| 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * v).ln())
            .sum();
        let mean = sum / draws;
        (mean + entropy, ((squares / draws - mean * mean) / draws).sqrt())
    };
    let (by_draws, error) = bound(&found.mean, &found.variance, 20_000);
    assert!(
        (by_draws - found.elbo).abs() < 4.0 * error,
        "{by_draws} +- {error}, closed form {}",
        found.elbo
    );
    // A shift by a quarter of each standard deviation, or a tenth on each of them, loses more than the noise.
    let shifted: Vec<f64> = found
        .mean
        .iter()
        .zip(&found.variance)
        .enumerate()
        .map(|(j, (m, v))| m + if j % 2 == 0 { 0.25 } else { -0.25 } * v.sqrt())
        .collect();
    let wider: Vec<f64> = found.variance.iter().map(|v| v * 1.21).collect();
    assert!(bound(&shifted, &found.variance, 20_000).0 < found.elbo - 4.0 * error);
    assert!(bound(&found.mean, &wider, 20_000).0 < found.elbo - 4.0 * error);
}

/// The mean-field optimum against dense algebra, in both coordinates.
#[test]
fn the_mean_field_optimum_is_the_dense_one_in_either_coordinates() {
    let panel = small_panel();
    let orthogonal = Orthogonal::new(&panel, Likelihood::Poisson, &Priors::default());
    let mut bounds = Vec::new();
    for (coordinates, dense) in [
        (Coordinates::Published, None),
        (Coordinates::Orthogonal, Some(&orthogonal)),
    ] {
        let settings = Settings {
            coordinates,
            tolerance: 1e-9,
            ..Settings::default()
        };
        let found = fit(&poisson(&panel), Family::MeanField, &settings).unwrap();
        assert!(found.converged, "{coordinates:?}");
        let (mean, sd) = mean_field_optimum(&panel, dense);
        for j in 0..mean.len() {
            assert!(
                (found.mean[j] - mean[j]).abs() < 1e-6 * sd[j],
                "{coordinates:?} {j}"
            );
            assert!(
                (found.variance[j].sqrt() / sd[j] - 1.0).abs() < 1e-6,
                "{coordinates:?} {j}"
            );
        }
        bounds.push(found.elbo);
    }
    // Closer to the posterior: by half the log determinant of the correlations that the published coordinates
    // ignore, at least some nats for each product.
    assert!(bounds[1] > bounds[0] + 40.0, "{bounds:?}");
}

#[test]
fn both_iterations_converge_on_awkward_panels() {
    for panel in random_panels() {
        for (family, likelihood) in [
            (Family::Structured, Likelihood::Poisson),
            (Family::MeanField, Likelihood::Poisson),
            (Family::Structured, Likelihood::NegativeBinomial),
            (Family::MeanField, Likelihood::NegativeBinomial),
        ] {
            // From few rows or small counts that vary less than Poisson ones a shape is hardly known: the fit may say that it has not
            // converged.
            let units: u64 = panel.sums().product.iter().sum();
            if likelihood == Likelihood::NegativeBinomial && units < 100 * panel.rows() as u64 {
                continue;
            }
            let counts = GaussianObjective::new(&panel, &Priors::default(), likelihood);
            let found = fit(&counts, family, &Settings::default()).unwrap();
            assert!(
                found.converged,
                "{} rows, {family:?}, {likelihood:?}: {} steps",
                panel.rows(),
                found.steps
            );
            assert!(found.decrement < 1e-6, "{}", found.decrement);
        }
    }
}

/// `posterior.csv` of the reference: mean, standard deviation, 5% and 95% quantile by site and index.
fn reference() -> HashMap<(String, usize), [f64; 4]> {
    let text = std::fs::read_to_string(data("posterior.csv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let columns = ["mean", "sd", "q05", "q95"].map(column);
    let mut seen: HashMap<String, usize> = HashMap::new();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let site = cells[column("site")].to_owned();
            let index = seen.entry(site.clone()).or_default();
            let key = (site, *index);
            *index += 1;
            (key, columns.map(|c| cells[c].parse().unwrap()))
        })
        .collect()
}

fn run(backend: GaussianCpu, method: Method) -> Posterior {
    let mut run = backend.start(small_panel(), &Request::new(method)).unwrap();
    while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
    run.posterior().unwrap()
}

/// Largest error of means, in standard deviations, and largest relative error of standard deviations, over all parameters;
/// root mean square error of the products' 5% and 95% quantiles, in standard deviations.
fn against_nuts(posterior: &Posterior) -> (f64, f64, f64) {
    let reference = reference();
    let (mut worst_mean, mut worst_sd): (f64, f64) = (0.0, 0.0);
    let (mut squares, mut count) = (0.0, 0.0);
    for site in Site::REPARAMETERIZED {
        for (k, j) in posterior.layout.range(site).enumerate() {
            let [mean, sd, q05, q95] = reference[&(site.name().to_owned(), k)];
            worst_mean = worst_mean.max((posterior.mean[j] - mean).abs() / sd);
            worst_sd = worst_sd.max((posterior.sd[j] / sd - 1.0).abs());
            if matches!(site, Site::ProductA | Site::ProductEffect) {
                squares += ((posterior.q05[j] - q05) / sd).powi(2) + ((posterior.q95[j] - q95) / sd).powi(2);
                count += 2.0;
            }
        }
    }
    (worst_mean, worst_sd, f64::sqrt(squares / count))
}

/// Bounds: a dense prototype had means within 0.13 (Laplace) and 0.03 (structured) and standard deviations within 4%.
#[test]
fn the_gaussians_are_near_nuts_and_the_corrected_quantiles_nearer() {
    let [laplace, corrected_laplace] = [false, true].map(|skewness_correction| {
        let settings = LaplaceSettings {
            skewness_correction,
            ..LaplaceSettings::default()
        };
        against_nuts(&run(GaussianCpu::laplace(), Method::Laplace(settings)))
    });
    let [structured, corrected_structured] = [false, true].map(|skewness_correction| {
        let settings = StructuredViSettings {
            skewness_correction,
            ..StructuredViSettings::default()
        };
        against_nuts(&run(GaussianCpu::structured_vi(), Method::StructuredVi(settings)))
    });
    println!("Laplace {laplace:?}, corrected {corrected_laplace:?}");
    println!("structured VI {structured:?}, corrected {corrected_structured:?}");
    assert!(laplace.0 < 0.16 && laplace.1 < 0.06, "{laplace:?}");
    for near in [structured, corrected_laplace, corrected_structured] {
        assert!(near.0 < 0.06 && near.1 < 0.06, "{near:?}");
    }
    // The reference's quantiles come from 16,000 draws: their own errors are about 0.02 standard deviations.
    for corrected in [corrected_laplace, corrected_structured] {
        assert!(corrected.2 < 0.5 * laplace.2, "{corrected:?} {laplace:?}");
        assert!(corrected.2 < structured.2, "{corrected:?} {structured:?}");
    }
}

/// Over-dispersed counts, whose shape matters, with gaps.
fn over_dispersed(seed: u64) -> Arc<Panel> {
    random_panel(&mut StdRng::seed_from_u64(seed), 60, 2, 15, 0.1, 200)
}

#[test]
fn the_negative_binomial_mode_is_where_the_models_gradient_vanishes_and_its_precision_is_minus_the_hessian() {
    let panel = over_dispersed(3);
    let counts = GaussianObjective::new(&panel, &Priors::default(), Likelihood::NegativeBinomial);
    let settings = ModeSettings {
        tolerance: 1e-12,
        ..ModeSettings::default()
    };
    let mode = find_mode(&counts, &settings).unwrap();
    assert!(mode.converged, "{} after {}", mode.decrement, mode.steps);
    let model = LogJoint::new(&panel, unclipped()).with_likelihood(Likelihood::NegativeBinomial);
    let (value, gradient) = model.natural(&mode.point);
    assert!(
        (value - mode.log_joint).abs() < 1e-9 * value.abs(),
        "{value} {}",
        mode.log_joint
    );
    assert!(norm(&gradient) < 1e-5, "{}", norm(&gradient));
    // Q x by the whitening, x' Q x = |L' x|^2, against differences of the model's gradient along x.
    let mut rng = StdRng::seed_from_u64(8);
    for _ in 0..5 {
        let x: Vec<f64> = mode.point.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
        let h = 1e-5;
        let along = |sign: f64| {
            let at: Vec<f64> = mode.point.iter().zip(&x).map(|(p, x)| p + sign * h * x).collect();
            let (_, gradient) = model.natural(&at);
            gradient.iter().zip(&x).map(|(g, x)| g * x).sum::<f64>()
        };
        let expected = -(along(1.0) - along(-1.0)) / (2.0 * h);
        let mut whitened = x.clone();
        mode.factor.times_upper(&mut whitened);
        let found = whitened.iter().map(|w| w * w).sum::<f64>();
        assert!((found / expected - 1.0).abs() < 1e-6, "{found} {expected}");
        // And L L' = Q: L^-1 (Q x) = L' x.
        let mut back = whitened.clone();
        mode.factor.solve_upper(&mut back);
        assert!(back.iter().zip(&x).all(|(b, x)| (b - x).abs() < 1e-8));
    }
}

#[test]
fn negative_binomial_gaussians_agree_with_each_other_and_with_poisson_where_shapes_are_large() {
    let panel = over_dispersed(5);
    let of = |method: Method, priors: Priors, likelihood| {
        let backend = match &method {
            Method::Laplace(_) => GaussianCpu::laplace(),
            Method::StructuredVi(_) => GaussianCpu::structured_vi(),
            _ => GaussianCpu::meanfield(),
        };
        let request = Request {
            likelihood,
            priors,
            ..Request::new(method)
        };
        let mut run = backend.start(panel.clone(), &request).unwrap();
        while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
        assert_eq!(run.progress().state, infermark_backend::RunState::Converged);
        run.posterior().unwrap()
    };
    let plain = Method::Laplace(LaplaceSettings {
        skewness_correction: false,
        ..LaplaceSettings::default()
    });
    let (poisson, negative_binomial) = (Likelihood::Poisson, Likelihood::NegativeBinomial);
    let structured = of(
        Method::StructuredVi(Default::default()),
        Priors::default(),
        negative_binomial,
    );
    let laplace = of(plain.clone(), Priors::default(), negative_binomial);
    let shapes = structured.layout.range(Site::LogShape);
    assert_eq!(shapes.len(), 2);
    for j in 0..shapes.start {
        // Counts of about 100, and shapes of about 2: both Gaussians are good here, but not for the shapes
        // themselves: at the joint mode the rows' own parameters are fitted to their scatter and leave too
        // little of it.
        let apart = (structured.mean[j] - laplace.mean[j]).abs() / laplace.sd[j];
        assert!(apart < 0.5, "{j}: {apart}");
        assert!((structured.sd[j] / laplace.sd[j] - 1.0).abs() < 0.25, "{j}");
    }
    assert!(shapes.clone().all(|j| structured.mean[j] < laplace.mean[j]));
    // Over-dispersion widens the intervals.
    let narrow = of(plain.clone(), Priors::default(), poisson);
    let products = structured.layout.range(Site::ProductA);
    assert!(products.clone().all(|j| laplace.sd[j] > 1.5 * narrow.sd[j]));
    // Shapes held at e^16, where counts are Poisson to 1e-5.
    let held = Priors {
        log_shape_mean: 16.0,
        log_shape_sd: 1e-3,
        ..Priors::default()
    };
    for method in [
        plain,
        Method::StructuredVi(Default::default()),
        Method::Meanfield(Default::default()),
    ] {
        let limit = of(method.clone(), held, negative_binomial);
        let exact = of(method, Priors::default(), poisson);
        for j in 0..exact.mean.len() {
            assert!((limit.mean[j] - exact.mean[j]).abs() < 1e-2 * exact.sd[j], "{j}");
            assert!((limit.sd[j] / exact.sd[j] - 1.0).abs() < 1e-2, "{j}");
        }
    }
}

#[test]
fn a_product_with_a_row_at_the_upper_bound_is_left_out_whole() {
    // Two panels that differ only in the other rows of such products.
    let panel = |others: u64| {
        let mut rng = StdRng::seed_from_u64(12);
        let mut of_others = StdRng::seed_from_u64(others);
        let mut part = PanelPart::new(2, 9);
        for i in 0..20 {
            let prices: Vec<f64> = (0..9).map(|_| rng.random_range(1.0..9.0)).collect();
            let mut units: Vec<u32> = (0..9).map(|_| rng.random_range(0..30)).collect();
            if i % 4 == 0 {
                units = (0..9).map(|_| of_others.random_range(0..400_000_000)).collect();
                units[i % 9] = 485_200_000;
            }
            part.push_product(i % 2, None, &prices, &units).unwrap();
        }
        let numbered = |n| Labels::numbered("x", n);
        Arc::new(Panel::from_parts(numbered(20), numbered(2), numbered(9), vec![part]).unwrap())
    };
    let (one, other) = (panel(1), panel(2));
    assert_eq!(poisson(&one).left_out(), [0, 4, 8, 12, 16]);
    for (backend, method) in methods() {
        let of = |panel: &Arc<Panel>| {
            let mut run = backend
                .start(panel.clone(), &Request::new(method.clone()))
                .unwrap();
            while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
            let report = run.report();
            assert_eq!(
                report.state,
                infermark_backend::RunState::Converged,
                "{}",
                backend.name()
            );
            let expected = "5 of 20 products have counts at the upper bound";
            assert!(
                report.warnings.iter().any(|w| w.to_string().contains(expected)),
                "{:?}",
                report.warnings
            );
            run.posterior().unwrap()
        };
        let (one, other) = (of(&one), of(&other));
        for j in 0..one.mean.len() {
            let sd = one.sd[j];
            // Starts differ; both have converged to 4e-5 of their sds.
            assert!((one.mean[j] - other.mean[j]).abs() < 1e-3 * sd, "{j}");
            assert!((other.sd[j] / sd - 1.0).abs() < 1e-3, "{j}");
            assert!((one.q95[j] - other.q95[j]).abs() < 1e-3 * sd, "{j}");
        }
    }
}

#[test]
fn a_product_with_all_its_rows_at_the_upper_bound_is_known_to_be_high_and_no_more() {
    let mut rng = StdRng::seed_from_u64(13);
    let mut part = PanelPart::new(1, 12);
    for i in 0..6 {
        let prices: Vec<f64> = (0..12).map(|_| rng.random_range(1.0..9.0)).collect();
        let units: Vec<u32> = (0..12)
            .map(|_| {
                if i == 0 {
                    485_200_000
                } else {
                    rng.random_range(0..40)
                }
            })
            .collect();
        part.push_product(0, None, &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    let panel = Arc::new(Panel::from_parts(numbered(6), numbered(1), numbered(12), vec![part]).unwrap());
    let method = Method::Laplace(LaplaceSettings::default());
    let mut run = GaussianCpu::laplace()
        .start(panel.clone(), &Request::new(method))
        .unwrap();
    while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
    let posterior = run.posterior().unwrap();
    let priors = Priors::default();
    let effect = panel.layout().start(Site::ProductEffect);
    // Where (eta - h) / scale of the logistic function balances the priors: h = ln(e^20 - 8 e^10); the
    // period, whose prior is as wide, takes the rest of the step.
    let [mean, sd] = [posterior.mean[effect], posterior.sd[effect]];
    assert!((5.0..20.0).contains(&mean), "{mean}");
    assert!(
        sd > 0.4 * priors.product_effect_sd && sd <= priors.product_effect_sd,
        "{sd}"
    );
    // The information of one row: of the variance of its log rate, 27 a priori, 4 x^2 are the elasticity's.
    assert!(posterior.sd[panel.layout().start(Site::ProductA)] >= 0.6 * priors.product_a_sd);
    let warnings = run.report().warnings;
    assert!(
        warnings.iter().any(|w| w.to_string().contains("upper bound")),
        "{warnings:?}"
    );
    assert!(
        !warnings.iter().any(|w| w.to_string().contains("lower bound")),
        "{warnings:?}"
    );
}

#[test]
fn an_upper_bound_among_the_counts_is_refused() {
    let panel = random_panel(&mut StdRng::seed_from_u64(2), 15, 1, 12, 0.0, 200);
    let mut request = Request::new(Method::Laplace(LaplaceSettings::default()));
    request.priors.clip_high = 5.0;
    let error = GaussianCpu::laplace().start(panel, &request).err().unwrap();
    let told = error.to_string();
    assert!(told.contains("clip_high = 5") && told.contains("nuts"), "{told}");
}

#[test]
fn rates_near_the_lower_bound_are_told() {
    let warnings = |largest| {
        let panel = random_panel(&mut StdRng::seed_from_u64(2), 15, 1, 12, 0.0, largest);
        let method = Method::Laplace(LaplaceSettings::default());
        let mut run = GaussianCpu::laplace()
            .start(panel, &Request::new(method))
            .unwrap();
        while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
        run.report().warnings
    };
    // Without sales rates are as low as the priors allow.
    assert!(
        warnings(0)
            .iter()
            .any(|w| w.to_string().contains("lower bound") && w.to_string().contains("nuts"))
    );
    assert!(warnings(50).is_empty());
}
