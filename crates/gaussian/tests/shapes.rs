//! Counts of few sales, or of few rows for each parameter: the structured Gaussian is found in tens of steps
//! and estimates the shapes well; the joint mode does not, and warns.

use infermark_backend::{Backend, Interrupt, LaplaceSettings, Method, Request};
use infermark_gaussian::variational::{Family, Settings, fit};
use infermark_gaussian::{GaussianCpu, GaussianObjective, ModeSettings, find_mode};
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors, Site};
use infermark_test_support::normal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// A sum of `shape` exponentials, divided by `shape`.
fn gamma_of_mean_one(rng: &mut StdRng, shape: u32) -> f64 {
    let sum: f64 = (0..shape).map(|_| -(1.0 - rng.random::<f64>()).ln()).sum();
    sum / f64::from(shape)
}

fn poisson(rng: &mut StdRng, mean: f64) -> u32 {
    if mean > 50.0 {
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u32;
    }
    let (mut product, mut count) = (1.0 - rng.random::<f64>(), 0);
    while product > (-mean).exp() {
        product *= 1.0 - rng.random::<f64>();
        count += 1;
    }
    count
}

/// Realistic retail: a long tail of products (log mean units `level`, sd 1.5), promotions in one period of
/// five.
fn drawn(products: usize, categories: usize, periods: usize, level: f64, shape: u32) -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut part = PanelPart::new(categories, periods);
    let of_period: Vec<f64> = (0..categories * periods)
        .map(|_| 0.3 * normal(&mut rng))
        .collect();
    for i in 0..products {
        let category = i % categories;
        let (effect, elasticity) = (level + 1.5 * normal(&mut rng), -1.8 + 0.8 * normal(&mut rng));
        let usual = 1.5 + 0.8 * normal(&mut rng);
        let (mut prices, mut units) = (Vec::new(), Vec::new());
        for t in 0..periods {
            let mut x = 0.02 * normal(&mut rng);
            if rng.random_bool(0.2) {
                x += (1.0 - rng.random_range(0.1..0.4f64)).ln();
            }
            let mean = (effect + elasticity * x + of_period[category * periods + t]).exp();
            let varied = mean * gamma_of_mean_one(&mut rng, shape);
            units.push(poisson(&mut rng, varied));
            prices.push((usual + x).exp());
        }
        part.push_product(category, None, &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    let panel = Panel::from_parts(
        numbered(products),
        numbered(categories),
        numbered(periods),
        vec![part],
    );
    Arc::new(panel.unwrap())
}

/// The panel with all log prices moved.
fn at_other_prices(panel: &Panel, by: f64) -> Arc<Panel> {
    let layout = panel.layout();
    let mut part = PanelPart::new(layout.categories, layout.periods);
    for (i, category) in panel.category_of().iter().enumerate() {
        let rows: Vec<_> = panel.product_rows(i).collect();
        let prices: Vec<f64> = rows.iter().map(|row| (row.log_price + by).exp()).collect();
        let units: Vec<u32> = rows.iter().map(|row| row.units).collect();
        part.push_product(*category as usize, None, &prices, &units)
            .unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    let moved = Panel::from_parts(
        numbered(layout.products),
        numbered(layout.categories),
        numbered(layout.periods),
        vec![part],
    );
    Arc::new(moved.unwrap())
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

#[test]
fn structured_fits_of_few_rows_converge_in_tens_of_steps_to_the_shapes() {
    // Without least precisions of the shapes, and with the same fraction for all products, the first two
    // diverge.
    for (case, products, categories, periods, level, shape) in [
        ("10 rows a period", 300, 30, 39, 0.0, 2),
        ("6 periods", 600, 40, 6, 0.0, 1),
        ("small counts", 300, 4, 39, -1.5, 1),
    ] {
        let panel = drawn(products, categories, periods, level, shape);
        let counts = GaussianObjective::new(&panel, &Priors::default(), Likelihood::NegativeBinomial);
        let found = fit(&counts, Family::Structured, &Settings::default()).unwrap();
        let shapes = &found.mean[counts.layout().range(Site::LogShape)];
        println!("{case}: {} steps, log shape {:.3}", found.steps, mean(shapes));
        assert!(
            found.converged && found.steps < 80,
            "{case}: {} steps",
            found.steps
        );
        let mode = find_mode(&counts, &ModeSettings::default()).unwrap();
        let at_mode = mean(&mode.point[counts.layout().range(Site::LogShape)]);
        let truth = f64::from(shape).ln();
        let (off, off_mode) = (mean(shapes) - truth, at_mode - truth);
        assert!(
            off.abs() < 0.3 && off_mode > off.abs() + 0.1,
            "{case}: {off} {off_mode}"
        );
    }
}

/// A panel of which a third of the products never sold, and the same at high prices, where effects without
/// information in the sales have variances of hundreds. With alternating steps of all means and all weights,
/// Poisson counts took 130 and 466 steps, and negative-binomial ones overflowed.
#[test]
fn structured_fits_of_products_without_sales_converge() {
    let panel = drawn(300, 4, 52, -3.5, 50);
    let idle = (0..300).filter(|i| panel.product_rows(*i).all(|row| row.units == 0));
    assert!(idle.count() > 60);
    for (by, likelihood, most) in [
        (0.0, Likelihood::Poisson, 50),
        (4.0, Likelihood::Poisson, 60),
        (0.0, Likelihood::NegativeBinomial, 40),
        // A few products oscillate about their optimum: for how long depends on rounding.
        (4.0, Likelihood::NegativeBinomial, 300),
    ] {
        let counts = GaussianObjective::new(&at_other_prices(&panel, by), &Priors::default(), likelihood);
        let found = fit(&counts, Family::Structured, &Settings::default()).unwrap();
        println!("{likelihood:?} at {by}: {} steps", found.steps);
        assert!(
            found.converged && found.steps < most,
            "{likelihood:?} at {by}: {} steps",
            found.steps
        );
    }
}

#[test]
fn a_joint_mode_far_from_the_shapes_is_named_with_the_method_that_averages() {
    let warnings = |panel: &Arc<Panel>| {
        let request = Request {
            likelihood: Likelihood::NegativeBinomial,
            ..Request::new(Method::Laplace(LaplaceSettings::default()))
        };
        let mut run = GaussianCpu::laplace().start(panel.clone(), &request).unwrap();
        while !run.advance(1, &Interrupt::new()).unwrap().state.is_complete() {}
        run.report().warnings
    };
    let few = warnings(&drawn(300, 30, 39, 0.0, 2));
    assert!(
        few.iter()
            .any(|w| w.to_string().contains("joint mode")
                && w.to_string().contains("the method structured-vi")),
        "{few:?}"
    );
    // 0.03 units per row of a shape of 50: one step from the mode overshoots, and the rates do not depend on the shape.
    let poisson = warnings(&drawn(300, 4, 52, -3.5, 50));
    assert!(
        poisson
            .iter()
            .any(|w| w.to_string().contains("by more than 0.5") && w.to_string().contains("hardly depend")),
        "{poisson:?}"
    );
    // 500 rows per period: a shift of the shape of a hundredth.
    let many = warnings(&drawn(500, 1, 60, 2.0, 2));
    assert!(
        !many.iter().any(|w| w.to_string().contains("joint mode")),
        "{many:?}"
    );
}
