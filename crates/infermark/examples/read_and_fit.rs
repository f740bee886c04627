//! Reads a sales file, fits it, and prints each product's price elasticity with its 90% interval.
//!
//! `cargo run --release --example read_and_fit -- sales.csv`; without a file it reads a small one of this
//! repository.

use infermark::prelude::*;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).map(PathBuf::from);
    fit(&file.unwrap_or_else(own_file))
}

/// Forty products in categories, over weeks with gaps.
fn own_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../test-support/data/panel.csv")
}

fn fit(file: &std::path::Path) -> Result<(), Box<dyn Error>> {
    // Columns::default() are product, category, week, price and units; a defect in the file is reported with
    // its row.
    let sales = read_panel(file, &Columns::default())?;

    // Prices count relative to each product's usual price, so that dollars and cents give the same posterior.
    let model = Specification::Sales;
    let panel = Arc::new(model.panel(sales)?);
    let request = Request {
        priors: model.priors(&panel),
        ..Request::new(MethodKind::StructuredVi.default_method())
    };
    let run = infermark::fit(panel.clone(), &request)?;

    let posterior = run.posterior()?;
    let elasticities = posterior.layout.range(Site::ProductA);
    for (product, name) in elasticities.zip(panel.products().iter()) {
        println!(
            "{name}: {:.2} [{:.2}, {:.2}]",
            posterior.mean[product], posterior.q05[product], posterior.q95[product]
        );
    }
    // What a reader of these intervals must know.
    for warning in run.report().warnings {
        println!("{warning}");
    }
    if let Some(dispersion) = run.dispersion() {
        println!(
            "The counts vary {:.1} times as much as Poisson counts.",
            dispersion.overall.dispersion
        );
    }
    Ok(())
}

#[test]
fn it_runs() {
    fit(&own_file()).unwrap();
}
