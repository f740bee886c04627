//! What is said of the counts' dispersion: nothing of Poisson counts of whatever kind, and the truth of over-dispersed ones.
//!
//! The larger table that this stands for is made by `cargo run --release -p infermark-gaussian --example dispersion`.

mod panels;

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, Request, RunState, VariationalSettings,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::dispersion::Dispersion;
use panels::{Kind, OVER_DISPERSED, POISSON};

fn dispersion(kind: &Kind, seed: u64, method: usize) -> Dispersion {
    let (backend, method) = match method {
        0 => (
            GaussianCpu::laplace(),
            Method::Laplace(LaplaceSettings::default()),
        ),
        1 => (
            GaussianCpu::structured_vi(),
            Method::StructuredVi(VariationalSettings::default()),
        ),
        _ => (
            GaussianCpu::meanfield(),
            Method::Meanfield(VariationalSettings::default()),
        ),
    };
    let request = Request {
        priors: kind.priors(),
        threads: Some(2),
        ..Request::new(method)
    };
    let mut run = backend.start(kind.panel(seed), &request).unwrap();
    let progress = run.advance(u64::MAX, &Interrupt::new()).unwrap();
    assert_eq!(progress.state, RunState::Converged, "{}", kind.name);
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
    // With all parameters counted that could be determined these were 1.31 and 1.09, and refuted.
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
