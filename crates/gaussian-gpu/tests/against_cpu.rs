//! The device's passes and fits against the host's, on awkward panels.

use infermark_backend::{
    Backend, BackendError, Detail, DeviceId, GaussianPass, GaussianPoint, Interrupt, LaplaceSettings, Method,
    Posterior, Request, Run, RunState,
};
use infermark_gaussian::GaussianCpu;
use infermark_gaussian_gpu::LaplaceGpu;
use infermark_model::log_joint::LogJoint;
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors, Site};
use infermark_test_support::iterations::AWKWARD_PANELS;
use infermark_test_support::{norm, normal, numbers, posterior, random_panel, small_panel, vectors};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// See [`infermark_test_support::gpu`].
fn device() -> Option<DeviceId> {
    infermark_test_support::gpu(&LaplaceGpu::new().devices())
}

fn request(skewness_correction: bool, priors: Priors) -> Request {
    let settings = LaplaceSettings {
        // Modes that both find are compared: what is left to gain must be less than what separates them.
        tolerance: 1e-12,
        skewness_correction,
        ..LaplaceSettings::default()
    };
    Request {
        priors,
        ..Request::new(Method::Laplace(settings))
    }
}

fn on(device: DeviceId, request: &Request) -> Request {
    Request {
        devices: vec![device],
        ..request.clone()
    }
}

/// Counts in proportion to demand, level and price, as the published process has them: `level` is the log of a product's mean units, `missing`
/// the part of the rows that are not there.
fn market(
    seed: u64,
    products: usize,
    categories: usize,
    periods: usize,
    level: f64,
    missing: f64,
) -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut part = PanelPart::new(categories, periods);
    for i in 0..products {
        let elasticity = -2.0 + 0.7 * normal(&mut rng);
        let own = level + 1.5 * normal(&mut rng);
        let mut price: f64 = rng.random_range(100.0..1000.0);
        let (first, mut at, mut prices, mut units) = (price, Vec::new(), Vec::new(), Vec::new());
        for t in 0..periods {
            if rng.random_bool(0.5) {
                price *= 1.0 + rng.random_range(-0.2..0.2);
            }
            let demand = 0.3 * (t as f64 * 0.2 + (i % categories) as f64).sin();
            let rate = (own + demand + elasticity * (price / first).ln()).exp();
            let count = (rate + rate.sqrt() * normal(&mut rng)).round().clamp(0.0, 1e6);
            if t == 0 || !rng.random_bool(missing) {
                at.push(t as u32);
                prices.push(price);
                units.push(count as u32);
            }
        }
        part.push_product(i % categories, Some(&at), &prices, &units)
            .unwrap();
    }
    let labels = |n| Labels::numbered("x", n);
    let panel = Panel::from_parts(labels(products), labels(categories), labels(periods), vec![part]);
    Arc::new(panel.unwrap())
}

/// Products whose prices never change: only their priors separate slope and level.
fn constant_prices() -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(31);
    let mut part = PanelPart::new(2, 19);
    for i in 0..70 {
        let price = if i % 3 == 0 {
            1.0
        } else {
            rng.random_range(0.5..900.0)
        };
        let units: Vec<u32> = (0..19).map(|_| rng.random_range(0..60)).collect();
        part.push_product(i % 2, None, &[price; 19], &units).unwrap();
    }
    let labels = |n| Labels::numbered("x", n);
    Arc::new(Panel::from_parts(labels(70), labels(2), labels(19), vec![part]).unwrap())
}

/// Panels of odd sizes, around blocks of 64 products, tiles of 64 periods and spans of 16, with gaps, of few and of many sales.
fn panels() -> Vec<(String, Arc<Panel>)> {
    let mut panels: Vec<(String, Arc<Panel>)> = AWKWARD_PANELS
        .into_iter()
        .enumerate()
        .map(|(seed, shape)| {
            let (n, c, t, gaps, largest) = shape;
            let panel = random_panel(&mut StdRng::seed_from_u64(seed as u64), n, c, t, gaps, largest);
            (format!("random {shape:?}"), panel)
        })
        .collect();
    for (seed, n, c, t, level, missing) in [
        (10, 64, 1, 16, 3.0, 0.0),
        (11, 65, 1, 62, 8.0, 0.0),
        (12, 130, 2, 63, 5.0, 0.3),
        (13, 259, 2, 64, 1.0, 0.0),
        (14, 400, 3, 31, -3.0, 0.1),
        (15, 300, 1, 129, 11.0, 0.0),
    ] {
        let of = format!("market of {n} x {t} in {c}, level {level}, missing {missing}");
        panels.push((of, market(seed, n, c, t, level, missing)));
    }
    panels.push(("constant prices".into(), constant_prices()));
    panels
}

fn completed(backend: &dyn Backend, panel: &Arc<Panel>, request: &Request) -> Posterior {
    run(backend, panel, request).posterior().unwrap()
}

/// A run that has come to its end.
fn run(backend: &dyn Backend, panel: &Arc<Panel>, request: &Request) -> Box<dyn Run> {
    let mut run = backend.start(panel.clone(), request).unwrap();
    let mut progress = run.progress();
    while !progress.state.is_complete() {
        progress = run.advance(1, &Interrupt::new()).unwrap();
    }
    assert_eq!(progress.state, RunState::Converged, "{}", backend.name());
    run
}

fn passes(device: DeviceId, panel: &Arc<Panel>, request: &Request, mean: &[f64]) -> [GaussianPass; 2] {
    let at = GaussianPoint {
        mean,
        precision_at: mean,
    };
    let of_device = LaplaceGpu::new().gaussian_pass(panel, &on(device, request), at);
    let of_host = GaussianCpu::laplace().gaussian_pass(panel, request, at);
    [of_device, of_host].map(|pass| pass.unwrap().unwrap())
}

/// Value, gradient, Newton step in all parameters, and all variances, away from the mode.
#[test]
fn a_pass_is_the_hosts() {
    let Some(device) = device() else { return };
    for (case, panel) in panels() {
        let request = request(false, Priors::default());
        let mode = completed(&GaussianCpu::laplace(), &panel, &request);
        let mut rng = StdRng::seed_from_u64(4);
        let off = mode.mean.iter().zip(&mode.sd);
        let point: Vec<f64> = off.map(|(m, sd)| m + sd.min(0.3) * normal(&mut rng)).collect();
        let [found, expected] = passes(device, &panel, &request, &point);
        let units = panel.sums().product.iter().sum::<u64>() as f64;
        assert!(
            (found.value - expected.value).abs() <= 1e-13 * (expected.value.abs() + 10.0 * units),
            "{case}: value {} {}",
            found.value,
            expected.value
        );
        let distance: Vec<f64> = found
            .gradient
            .iter()
            .zip(&expected.gradient)
            .map(|(found, expected)| found - expected)
            .collect();
        assert!(
            norm(&distance) <= 1e-11 * (norm(&expected.gradient) + units),
            "{case}: gradient off by {} of {}",
            norm(&distance),
            norm(&expected.gradient)
        );
        // What the priors alone hold is left over of sums of all rates, of which both have the last digit.
        let rounding = 1e-9_f64.max(1e-16 * units);
        for j in 0..point.len() {
            let sd = expected.variance[j].sqrt();
            assert!(
                (found.variance[j] / expected.variance[j] - 1.0).abs() < rounding,
                "{case}: variance {j}: {} {}",
                found.variance[j],
                expected.variance[j]
            );
            assert!(
                (found.step[j] - expected.step[j]).abs() <= 1e-6 * sd.max(expected.step[j].abs()),
                "{case}: step {j}: {} {} beside {sd}",
                found.step[j],
                expected.step[j]
            );
        }
    }
}

/// Mode and standard deviations of whole runs.
#[test]
fn a_run_finds_the_hosts_posterior() {
    let Some(device) = device() else { return };
    let mut cases: Vec<(String, Arc<Panel>, Priors)> = panels()
        .into_iter()
        .map(|(case, panel)| (case, panel, Priors::default()))
        .collect();
    // Beyond the bounds, which the method leaves out, as a device must.
    let clipped = Priors {
        clip_low: 0.5,
        clip_high: 12.0,
        ..Priors::default()
    };
    cases.push(("clipped".into(), market(20, 90, 2, 40, 1.0, 0.1), clipped));
    // Damped joint steps, in which the device has the products' part.
    let narrow = Priors {
        product_a_sd: 1e-4,
        ..Priors::default()
    };
    cases.push(("narrow".into(), market(21, 90, 2, 40, 2.0, 0.1), narrow));
    // So many products that the host begins with a sample of them, and that the rows are uploaded in two pieces.
    for (case, categories, missing) in [("sampled", 1, 0.0), ("sampled, with gaps", 2, 0.2)] {
        let panel = market(22, 38_000, categories, 7, 3.0, missing);
        cases.push((case.into(), panel, Priors::default()));
    }
    for (case, panel, priors) in cases {
        let request = request(false, priors);
        let expected = completed(&GaussianCpu::laplace(), &panel, &request);
        let found = completed(&LaplaceGpu::new(), &panel, &on(device, &request));
        for j in 0..expected.mean.len() {
            let off = (found.mean[j] - expected.mean[j]).abs() / expected.sd[j];
            assert!(off < 1e-5, "{case}: mean {j} off by {off:e} standard deviations");
            let off = (found.sd[j] / expected.sd[j] - 1.0).abs();
            assert!(off < 1e-6, "{case}: standard deviation {j} off by {off:e}");
        }
    }
}

/// What of the skewness correction is the device's - all variances, and the third derivatives - and what the host makes of the weights that come home
/// for it: marginals of skewed products, effects of periods with few sales, the dispersion.
#[test]
fn a_corrected_posterior_is_the_hosts() {
    let Some(device) = device() else { return };
    let mut panels = panels();
    panels.push(("few sales".into(), market(30, 150, 2, 21, 0.0, 0.2)));
    let mut skewed = 0;
    for (case, panel) in panels {
        let request = request(true, Priors::default());
        let expected = run(&GaussianCpu::laplace(), &panel, &request);
        let found = run(&LaplaceGpu::new(), &panel, &on(device, &request));
        let [found_posterior, expected_posterior] = [&found, &expected].map(|run| run.posterior().unwrap());
        let columns =
            |of: &Posterior| [&of.mean, &of.q025, &of.q05, &of.q95, &of.q975].map(|column| column.to_vec());
        for (found, column) in columns(&found_posterior).iter().zip(columns(&expected_posterior)) {
            for (j, (found, column)) in found.iter().zip(column).enumerate() {
                let off = (found - column).abs() / expected_posterior.sd[j];
                assert!(off < 1e-5, "{case}: {j} off by {off:e} standard deviations");
            }
        }
        let counted = |run: &dyn Run| match run.report().detail {
            Detail::Gaussian(report) => report.skewed_products,
            other => panic!("{other:?}"),
        };
        assert_eq!(counted(&*found), counted(&*expected), "{case}");
        skewed += counted(&*found);
        let [found, expected] = [&found, &expected].map(|run| run.dispersion().unwrap().overall);
        let off = (found.dispersion / expected.dispersion - 1.0).abs();
        assert!(off < 1e-6, "{case}: {found:?} {expected:?}");
        let off = (found.degrees_of_freedom / expected.degrees_of_freedom - 1.0).abs();
        assert!(off < 1e-6, "{case}: {found:?} {expected:?}");
    }
    assert!(skewed > 100, "{skewed} skewed products");
}

/// Few cubes walk what many do on a card: runs of several blocks, of which the last are short.
#[test]
fn cubes_of_several_blocks_leave_the_same() {
    let Some(device) = device() else { return };
    for (seed, n, c, t, missing) in [(60, 700, 3, 21, 0.1), (61, 500, 1, 70, 0.0)] {
        let panel = market(seed, n, c, t, 1.0, missing);
        for (corrected, cubes) in [(false, 1), (false, 5), (true, 1), (true, 5)] {
            let request = request(corrected, Priors::default());
            let expected = completed(&GaussianCpu::laplace(), &panel, &request);
            let found = completed(&LaplaceGpu::with_cubes(cubes), &panel, &on(device, &request));
            for j in 0..expected.mean.len() {
                let off = (found.mean[j] - expected.mean[j]).abs() / expected.sd[j];
                assert!(
                    off < 1e-5,
                    "{cubes} cubes: mean {j} off by {off:e} standard deviations"
                );
                let off = (found.sd[j] / expected.sd[j] - 1.0).abs();
                assert!(off < 1e-6, "{cubes} cubes: standard deviation {j} off by {off:e}");
            }
        }
    }
}

#[test]
fn every_run_gives_the_same_bits() {
    let Some(device) = device() else { return };
    let panel = market(40, 500, 2, 33, 3.0, 0.1);
    let request = on(device, &request(false, Priors::default()));
    let of = |threads| {
        let request = Request {
            threads: Some(threads),
            ..request.clone()
        };
        completed(&LaplaceGpu::new(), &panel, &request)
    };
    let (one, again) = (of(1), of(2));
    assert!(one.mean == again.mean && one.sd == again.sd);
}

/// A step of a run that another's launches come between: both have buffers of their own.
#[test]
fn runs_do_not_disturb_each_other() {
    let Some(device) = device() else { return };
    let (panel, other) = (market(41, 100, 2, 20, 3.0, 0.1), market(42, 80, 1, 30, 2.0, 0.0));
    let request = on(device, &request(false, Priors::default()));
    let alone = completed(&LaplaceGpu::new(), &panel, &request);
    let mut runs = [&panel, &other].map(|panel| LaplaceGpu::new().start(panel.clone(), &request).unwrap());
    let mut done = [false; 2];
    while done != [true; 2] {
        for (run, done) in runs.iter_mut().zip(&mut done) {
            *done = run.advance(1, &Interrupt::new()).unwrap().state.is_complete();
        }
    }
    let beside = runs[0].posterior().unwrap();
    assert!(alone.mean == beside.mean && alone.sd == beside.sd);
}

/// Three points at which no row is beyond the clip bounds, which the method does not know.
#[test]
fn the_log_joint_is_that_of_the_reference_vectors() {
    let Some(device) = device() else { return };
    let panel = small_panel();
    let request = on(device, &request(false, Priors::default()));
    let without_clip = Priors {
        clip_low: -80.0,
        clip_high: 80.0,
        ..Priors::default()
    };
    let mut compared = 0;
    for point in vectors()["centered_log_joint"].as_array().unwrap() {
        let flat = |of: &serde_json::Value| -> Vec<f64> {
            let sites = [
                "global_a",
                "category_a",
                "product_a",
                "product_effect",
                "time_cat_effects",
            ];
            sites.iter().flat_map(|site| numbers(&of[site])).collect()
        };
        let (z, expected) = (flat(&point["z"]), point["log_joint"].as_f64().unwrap());
        let (unclipped, _) = LogJoint::new(&panel, without_clip).natural(&z);
        if (unclipped - expected).abs() > 1e-10 * expected.abs() {
            continue;
        }
        compared += 1;
        let (found, gradient) = LaplaceGpu::new().log_joint(&panel, &request, &z).unwrap();
        assert!(
            (found - expected).abs() <= 1e-10 * expected.abs(),
            "{found} {expected}"
        );
        let expected = flat(&point["grad"]);
        let distance: Vec<f64> = gradient.iter().zip(&expected).map(|(a, b)| a - b).collect();
        assert!(norm(&distance) <= 1e-9 * norm(&expected));
    }
    assert!(compared >= 2, "{compared} points without clipping");
}

/// Against 16,000 draws of NUTS: as close as a normal at the mode is.
#[test]
fn the_posterior_is_that_of_the_reference_draws() {
    let Some(device) = device() else { return };
    let panel = small_panel();
    let found = completed(
        &LaplaceGpu::new(),
        &panel,
        &on(device, &request(true, Priors::default())),
    );
    let of_draws = posterior();
    let mut compared = 0;
    for ((site, key), [mean, sd, _]) in &of_draws {
        if site != "product_a" {
            continue;
        }
        let i = panel
            .products()
            .iter()
            .position(|label| label.to_string() == *key)
            .unwrap();
        let j = panel.layout().start(Site::ProductA) + i;
        assert!(
            (found.mean[j] - mean).abs() < 0.06 * sd,
            "{key}: {} {mean}",
            found.mean[j]
        );
        assert!(
            (found.sd[j] / sd - 1.0).abs() < 0.05,
            "{key}: {} {sd}",
            found.sd[j]
        );
        compared += 1;
    }
    assert_eq!(compared, panel.layout().products);
}

#[test]
fn what_is_not_served_is_refused_in_words() {
    let Some(device) = device() else { return };
    let panel = market(50, 30, 1, 8, 3.0, 0.0);
    let poisson = on(device, &request(false, Priors::default()));
    let refused = |panel: &Arc<Panel>, request: &Request, word: &str| match LaplaceGpu::new()
        .start(panel.clone(), request)
    {
        Err(error @ BackendError::Unsupported { .. }) => {
            assert!(error.to_string().contains(word), "{error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{word}: it was served"),
    };
    let negative_binomial = Request {
        likelihood: Likelihood::NegativeBinomial,
        ..poisson.clone()
    };
    refused(&panel, &negative_binomial, "negative-binomial");
    let mut part = PanelPart::new(1, 3);
    part.push_product(0, None, &[1.0, 2.0, 3.0], &[485_200_000, 3, 4])
        .unwrap();
    part.push_product(0, None, &[1.0, 2.0, 3.0], &[4, 3, 4]).unwrap();
    let labels = |n| Labels::numbered("x", n);
    let at_bound = Arc::new(Panel::from_parts(labels(2), labels(1), labels(3), vec![part]).unwrap());
    refused(&at_bound, &poisson, "upper clip bound");
}
