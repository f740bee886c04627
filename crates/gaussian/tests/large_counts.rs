//! Counts so large that only rounding remains: the searches end where they should.

use infermark_gaussian::variational::{Family, Settings, fit};
use infermark_gaussian::{GaussianObjective, ModeSettings, find_mode};
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// Products that sell about `level` units per period, at prices of about a hundred.
fn panel(seed: u64, products: usize, periods: usize, level: f64) -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut part = PanelPart::new(2, periods);
    for i in 0..products {
        let own: f64 = rng.random_range(0.5..2.0);
        let elasticity: f64 = rng.random_range(-2.5..-0.5);
        let prices: Vec<f64> = (0..periods)
            .map(|_| 400.0 * rng.random_range(0.7..1.4f64))
            .collect();
        let units: Vec<u32> = prices
            .iter()
            .map(|p| (level * own * (p / 400.0).powf(elasticity) * rng.random_range(0.9..1.1)) as u32)
            .collect();
        part.push_product(i % 2, None, &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    let panel = Panel::from_parts(numbered(products), numbered(2), numbered(periods), vec![part]);
    Arc::new(panel.unwrap())
}

fn unclipped() -> Priors {
    Priors {
        clip_high: 80.0,
        ..Priors::default()
    }
}

#[test]
fn mean_field_converges_to_the_mode_at_counts_of_200_million() {
    for (products, periods) in [(30, 24), (12, 156)] {
        let counts = GaussianObjective::new(
            &panel(1, products, periods, 2e8),
            &unclipped(),
            Likelihood::Poisson,
        );
        let mode = find_mode(&counts, &ModeSettings::default()).unwrap();
        assert!(mode.converged);
        let exact: Vec<f64> = mode
            .factor
            .marginals()
            .variance
            .iter()
            .map(|v| v.sqrt())
            .collect();
        let found = fit(&counts, Family::MeanField, &Settings::default()).unwrap();
        assert!(found.converged, "{products} x {periods}: {} steps", found.steps);
        assert!(found.steps < 50, "{}", found.steps);
        for j in 0..exact.len() {
            // At such counts means and mode are the same; 1e-9 nats are 4e-5 sd.
            assert!(
                (found.mean[j] - mode.point[j]).abs() < 1e-3 * exact[j],
                "{j}: {} {} {}",
                found.mean[j],
                mode.point[j],
                exact[j]
            );
        }
    }
}

#[test]
fn no_step_is_halved_where_only_rounding_speaks_against_it() {
    for seed in 0..6 {
        let counts = GaussianObjective::new(&panel(seed, 60, 52, 2e8), &unclipped(), Likelihood::Poisson);
        // To the rounding of the sums and beyond: the log joint is 1e12 and its last digit 1e-4, what is to
        // be gained 1e-11. Judged by the value alone, 12 steps take 43 to 111 points; by the slope, until its
        // own rounding is reached, 13 to 15.
        let settings = ModeSettings {
            tolerance: 1e-18,
            steps: 12,
            ..ModeSettings::default()
        };
        let mode = find_mode(&counts, &settings).unwrap();
        assert!(
            mode.evaluations <= mode.steps + 5,
            "seed {seed}: {} points, {} steps",
            mode.evaluations,
            mode.steps
        );
    }
}
