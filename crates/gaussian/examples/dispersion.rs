//! How often Poisson counts and over-dispersed counts refute Poisson: a table as CSV on stdout.
//!
//! `cargo run --release -p infermark-gaussian --example dispersion > dispersion.csv`

#[path = "../tests/panels/mod.rs"]
mod panels;

use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, Method, Request, RunState, StructuredViSettings,
};
use infermark_gaussian::GaussianCpu;
use panels::{OVER_DISPERSED, POISSON};

/// Panels of each kind.
const SEEDS: u64 = 10;

fn main() {
    println!(
        "kind,counts,seed,method,converged,rows,dispersion,degrees_of_freedom,excess,excess_limit,excess_products,refuted,\
         categories_refuted"
    );
    let (mut panels, mut alarms, mut missed) = (0, 0, 0);
    for (kind, counts) in POISSON
        .iter()
        .map(|kind| (kind, "poisson"))
        .chain(OVER_DISPERSED.iter().map(|kind| (kind, "over-dispersed")))
    {
        for seed in 0..SEEDS {
            let panel = kind.panel(1000 + seed);
            panels += usize::from(counts == "poisson");
            for (backend, method) in [
                (
                    GaussianCpu::laplace(),
                    Method::Laplace(LaplaceSettings::default()),
                ),
                (
                    GaussianCpu::structured_vi(),
                    Method::StructuredVi(StructuredViSettings::default()),
                ),
            ] {
                let request = Request {
                    priors: kind.priors(),
                    ..Request::new(method)
                };
                let mut run = backend.start(panel.clone(), &request).expect("it starts");
                let progress = run.advance(u64::MAX, &Interrupt::new()).expect("it ends");
                let found = run.dispersion().expect("there is a fit");
                let (value, limit, products) =
                    found
                        .overall
                        .excess
                        .map_or((String::new(), String::new(), 0), |excess| {
                            (
                                format!("{:.6}", excess.value),
                                format!("{:.6}", excess.limit),
                                excess.products,
                            )
                        });
                let refuted = found.overall.refutes_poisson();
                let categories = found.by_category.iter().filter(|of| of.refutes_poisson()).count();
                match counts {
                    "poisson" => alarms += usize::from(refuted) + categories,
                    _ => missed += usize::from(!refuted),
                }
                println!(
                    "\"{}\",{counts},{seed},{},{},{},{:.6},{:.3},{value},{limit},{products},{refuted},{categories}",
                    kind.name,
                    request.method.name(),
                    progress.state == RunState::Converged,
                    panel.rows(),
                    found.overall.dispersion,
                    found.overall.degrees_of_freedom,
                );
            }
        }
    }
    eprintln!(
        "{panels} Poisson panels by two methods: {alarms} false alarms, in all or by category; over-dispersed ones: {missed} missed"
    );
}
