//! How many steps and passes the search for the mode takes: the same for all panels of one process; no bit
//! depends on the number of threads.

use infermark_gaussian::{GaussianObjective, ModeSettings, find_mode};
use infermark_model::{Labels, Likelihood, Panel, PanelPart, Priors};
use infermark_test_support::normal;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

/// Products of `categories` categories as the published process draws them: demand that grows by category,
/// prices that move by up to a fifth, levels that differ by orders of magnitude; `missing` is the fraction of
/// missing rows.
fn panel(seed: u64, products: usize, categories: usize, periods: usize, missing: f64) -> Arc<Panel> {
    let mut rng = StdRng::seed_from_u64(seed);
    let demand: Vec<Vec<f64>> = (0..categories)
        .map(|_| {
            let base = rng.random_range(1e3..1e4);
            let (trend, volatility) = (rng.random_range(0.0..0.01), rng.random_range(0.01..0.05));
            let mut path: f64 = 1.0;
            (0..periods)
                .map(|_| {
                    path = (path + trend + volatility * normal(&mut rng)).max(0.1);
                    base * path
                })
                .collect()
        })
        .collect();
    let mut part = PanelPart::new(categories, periods);
    for i in 0..products {
        let category = if i < categories {
            i
        } else {
            rng.random_range(0..categories)
        };
        let elasticity = (-2.0 + 0.7 * normal(&mut rng)).clamp(-5.0, -0.1);
        let level = (3.0 + 0.5 * normal(&mut rng)).exp();
        let mut price: f64 = rng.random_range(100.0..1000.0);
        let (mut at, mut prices, mut units) = (Vec::new(), Vec::new(), Vec::new());
        for t in 0..periods {
            if rng.random_bool(0.5) {
                price *= 1.0 + rng.random_range(-0.2..0.2);
            }
            let noise = 1.0 + rng.random_range(-0.05..0.05);
            let rate = demand[category][t] * level * noise * price.powf(elasticity);
            let count = (rate + rate.sqrt() * normal(&mut rng)).round().max(0.0);
            if t == 0 || !rng.random_bool(missing) {
                at.push(t as u32);
                prices.push((100.0 * price).round().max(1.0) / 100.0);
                units.push(count.min(1e6) as u32);
            }
        }
        part.push_product(category, Some(&at), &prices, &units).unwrap();
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

fn poisson(panel: &Arc<Panel>) -> GaussianObjective {
    GaussianObjective::new(panel, &Priors::default(), Likelihood::Poisson)
}

#[test]
fn every_seed_takes_the_same_number_of_steps_within_one_and_no_step_is_halved() {
    for (products, categories, missing) in [(1_500, 2, 0.0), (1_500, 2, 0.2)] {
        let found: Vec<(usize, usize)> = (0..10)
            .map(|seed| {
                let panel = panel(seed, products, categories, 156, missing);
                let mode = find_mode(&poisson(&panel), &ModeSettings::default()).unwrap();
                assert!(mode.converged, "{seed}: {}", mode.decrement);
                (mode.steps, mode.evaluations)
            })
            .collect();
        for (steps, evaluations) in &found {
            assert_eq!(*evaluations, steps + 1, "{found:?}");
        }
        let steps = || found.iter().map(|(steps, _)| *steps);
        let (least, most) = (steps().min().unwrap(), steps().max().unwrap());
        assert!(most <= least + 1, "{found:?}");
    }
}

#[test]
fn the_mode_does_not_depend_on_the_number_of_threads() {
    // So many products per category that the first rounds use only some of them.
    for missing in [0.0, 0.2] {
        let panel = panel(3, 1_500, 2, 20, missing);
        let mode = |threads| {
            let settings = ModeSettings {
                threads,
                ..ModeSettings::default()
            };
            find_mode(&poisson(&panel), &settings).unwrap()
        };
        let one = mode(1);
        for threads in [2, 5] {
            let other = mode(threads);
            assert_eq!(one.point, other.point);
            assert_eq!(one.log_joint.to_bits(), other.log_joint.to_bits());
            assert_eq!(one.steps, other.steps);
        }
    }
}
