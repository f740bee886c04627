//! The verdict on the counts' dispersion: none for Poisson counts of any kind, and correct for over-dispersed
//! ones.
//!
//! This is a small version of the larger table made by
//! `cargo run --release -p infermark-gaussian --example dispersion`.

mod methods;
mod panels;

use infermark_backend::{Backend, Interrupt, Request, RunState};
use infermark_model::dispersion::Dispersion;
use infermark_model::{Labels, Panel, PanelPart, Priors};
use methods::methods;
use panels::{Kind, OVER_DISPERSED, POISSON};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::sync::Arc;

fn dispersion(kind: &Kind, seed: u64, method: usize) -> Dispersion {
    dispersion_of(kind.panel(seed), kind.priors(), method, kind.name)
}

fn dispersion_of(panel: Arc<Panel>, priors: Priors, method: usize, name: &str) -> Dispersion {
    let (backend, method) = methods()[method].clone();
    let request = Request {
        priors,
        threads: Some(2),
        ..Request::new(method)
    };
    let mut run = backend.start(panel, &request).unwrap();
    let progress = run.advance(u64::MAX, &Interrupt::new()).unwrap();
    assert_eq!(progress.state, RunState::Converged, "{name}");
    run.dispersion().unwrap()
}

#[test]
fn poisson_counts_are_never_refuted() {
    for (k, kind) in POISSON.iter().enumerate() {
        // Each kind twice, by two methods; the large ones once.
        let rows = kind.products * kind.periods;
        for seed in 0..if rows > 30_000 { 1 } else { 2 } {
            let found = dispersion(kind, seed, (k + seed as usize) % 2);
            assert!(!found.overall.refutes_poisson(), "{}: {found:?}", kind.name);
            // Level and slope explain two rows completely, and rates near the bound do not count.
            let has_level = kind.periods > 2 && kind.clip_low < -10.0;
            assert!(!has_level || found.overall.excess.is_some(), "{}", kind.name);
            assert!(
                found.by_category.iter().all(|of| !of.refutes_poisson()),
                "{}: {:?}",
                kind.name,
                found.by_category
            );
        }
    }
}

#[test]
fn the_figure_of_poisson_counts_is_about_one() {
    // If all parameters that could be determined were counted, these would be 1.31 and 1.09, and Poisson
    // refuted.
    for (kind, most) in [(&POISSON[0], 0.05), (&POISSON[1], 0.03)] {
        for method in 0..2 {
            let found = dispersion(kind, 3, method).overall;
            assert!((found.dispersion - 1.0).abs() < most, "{}: {found:?}", kind.name);
            assert!(found.excess.is_some(), "{}", kind.name);
        }
    }
}

#[test]
fn over_dispersed_counts_are_refuted_by_every_method() {
    for kind in &OVER_DISPERSED {
        for method in 0..3 {
            let found = dispersion(kind, 1, method);
            assert!(
                found.overall.refutes_poisson(),
                "{}: {:?}",
                kind.name,
                found.overall
            );
        }
    }
}

/// Two products of a first category and all of a third are above the upper clip bound: their counts vary
/// about the bound, not about the fit.
#[test]
fn products_at_the_upper_bound_are_left_out() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut normal = move || {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
    };
    let priors = Priors {
        clip_high: 20_000f64.ln(),
        ..Priors::default()
    };
    let mut part = PanelPart::new(3, 12);
    for i in 0..45 {
        let category = i / 15;
        let is_high = i < 2 || category == 2;
        let level = if is_high { 11.5 } else { 4.0 + normal() };
        let (mut prices, mut units) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            let log_price = 0.2 * normal();
            let rate = (level - 2.0 * log_price).min(priors.clip_high).exp();
            prices.push(f64::exp(log_price));
            units.push((rate + rate.sqrt() * normal()).round().max(0.0) as u32);
        }
        part.push_product(category, None, &prices, &units).unwrap();
    }
    let numbered = |n| Labels::numbered("x", n);
    let panel = Arc::new(Panel::from_parts(numbered(45), numbered(3), numbered(12), vec![part]).unwrap());
    for method in 0..3 {
        let found = dispersion_of(panel.clone(), priors, method, "at the bound");
        // 28 products are left, two parameters each, and effects of two categories' periods.
        assert!(
            (found.overall.dispersion - 1.0).abs() < 0.25,
            "{method}: {found:?}"
        );
        let freedom = 28.0 * 12.0 - 28.0 * 2.0 - 2.0 * 11.0;
        assert!(
            (found.overall.degrees_of_freedom - freedom).abs() < 25.0,
            "{method}: {found:?}"
        );
        assert_eq!(found.overall.excess.unwrap().products, 28, "{method}");
        assert!(!found.overall.refutes_poisson());
        assert_eq!(found.by_category[2].dispersion, 0.0);
        assert_eq!(found.by_category[2].excess, None);
    }
}
