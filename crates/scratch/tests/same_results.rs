//! Fits with rows outside of memory against the same fits with rows in memory: the same bits.

#![cfg(unix)]

use infermark::{
    Columns, Coordinates, Detail, LaplaceSettings, Likelihood, MeanfieldSettings, Method, Objective, Panel,
    Parameterization, Precision, Priors, Request, Specification, StructuredViSettings, SviSettings, fit,
    read_panel, registry,
};
use infermark_data::{RowStorage, read_stored_panel};
use infermark_scratch::{ScratchFolder, Window};
use infermark_test_support::random_panel;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The rows of a panel as a CSV file, in a random order if `shuffled`.
fn write(panel: &Panel, file: &Path, shuffled: bool, rng: &mut StdRng) {
    let mut lines = Vec::new();
    for product in 0..panel.layout().products {
        let category = panel.category_of()[product];
        for row in panel.product_rows(product) {
            let price = row.log_price.exp();
            lines.push(format!(
                "p{product:05},c{category:03},{},{price},{}\n",
                row.period, row.units
            ));
        }
    }
    if shuffled {
        lines.shuffle(rng);
    }
    let mut text = String::from("product,category,week,price,units\n");
    lines.iter().for_each(|line| write!(text, "{line}").unwrap());
    fs::write(file, text).unwrap();
}

/// A panel in memory, and the same with its rows in `folder`, of which hardly anything is ever resident.
fn both(file: &Path, folder: &Path) -> [Arc<Panel>; 2] {
    let columns = Columns::default();
    let storage = RowStorage {
        folder: ScratchFolder::new(folder),
        window: Arc::new(Window::new(1 << 14)),
    };
    let stored = read_stored_panel(file, &columns, &storage).unwrap();
    assert!(stored.stored().is_some());
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "files without names");
    [read_panel(file, &columns).unwrap(), stored].map(Arc::new)
}

/// What a panel says of itself, product by product.
fn contents(panel: &Panel) -> String {
    let mut text = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        panel.axes(),
        panel.category_of(),
        panel
            .mean_log_price()
            .iter()
            .map(|m| m.to_bits())
            .collect::<Vec<_>>(),
        panel.sums(),
        panel.presence()
    );
    for product in 0..panel.layout().products {
        assert_eq!(panel.rows_of(product), panel.row_range(product).len());
        for row in panel.product_rows(product) {
            write!(
                text,
                " {} {:x} {}",
                row.period,
                row.log_price.to_bits(),
                row.units
            )
            .unwrap();
        }
    }
    text
}

/// Everything that a fit finds.
fn found(panel: &Arc<Panel>, request: &Request) -> String {
    let run = match fit(panel.clone(), request) {
        Ok(run) => run,
        Err(error) => return format!("refused: {error}"),
    };
    let posterior = run.posterior().unwrap();
    let bits = |of: &[f64]| {
        of.iter()
            .map(|x| format!("{:x} ", x.to_bits()))
            .collect::<String>()
    };
    let losses: Vec<f64> = match run.report().detail {
        Detail::Svi(svi) => svi.trace.iter().map(|point| point.loss).collect(),
        Detail::Gaussian(gaussian) => vec![gaussian.log_joint, gaussian.decrement],
        Detail::Nuts(_) => Vec::new(),
    };
    format!(
        "{} {} {} {:?}",
        bits(&posterior.mean),
        bits(&posterior.sd),
        bits(&losses),
        run.dispersion()
    )
}

fn panels(rng: &mut StdRng) -> Vec<Arc<Panel>> {
    [
        // Products, categories, periods, gaps, largest count.
        (1, 1, 1, 0.0, 3),
        (1, 1, 40, 0.0, 9),
        (7, 7, 19, 0.4, 40),
        (300, 3, 20, 0.0, 300),
        (1_100, 2, 9, 0.2, 30),
        (40, 3, 130, 0.8, 2_000),
    ]
    .map(|(n, c, t, gaps, largest)| random_panel(rng, n, c, t, gaps, largest))
    .into()
}

#[test]
fn a_stored_panel_is_the_one_in_memory() {
    let mut rng = StdRng::seed_from_u64(1);
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    for (k, panel) in panels(&mut rng).iter().enumerate() {
        for shuffled in [false, true] {
            let file = folder.path().join(format!("{k}-{shuffled}.csv"));
            write(panel, &file, shuffled, &mut rng);
            let [held, stored] = both(&file, &scratch);
            assert_eq!(
                contents(&held),
                contents(&stored),
                "panel {k}, shuffled: {shuffled}"
            );
            let relative =
                [held, stored].map(|panel| Specification::Sales.panel(Arc::unwrap_or_clone(panel)).unwrap());
            assert_eq!(
                contents(&relative[0]),
                contents(&relative[1]),
                "panel {k}, relative prices"
            );
            assert_eq!(
                relative[0].constant_price_products(),
                relative[1].constant_price_products()
            );
        }
    }
}

#[test]
fn fits_of_a_stored_panel_are_those_of_the_one_in_memory() {
    let mut rng = StdRng::seed_from_u64(2);
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let svi = |precision, coordinates, objective| {
        Method::Svi(SviSettings {
            iterations: 25,
            precision,
            coordinates,
            objective,
            ..SviSettings::default()
        })
    };
    let renyi = Objective::default();
    let batches = SviSettings {
        iterations: 25,
        objective: Objective::Elbo,
        batch_products: Some(200),
        ..SviSettings::default()
    };
    let methods = [
        svi(Precision::F32, Coordinates::Published, renyi),
        svi(Precision::F64, Coordinates::Published, Objective::Elbo),
        svi(Precision::F32, Coordinates::Orthogonal, renyi),
        Method::Svi(batches),
        Method::Laplace(LaplaceSettings::default()),
        Method::StructuredVi(StructuredViSettings::default()),
        Method::Meanfield(MeanfieldSettings::default()),
    ];
    let narrow = Priors {
        clip_low: -1.0,
        clip_high: 4.0,
        ..Priors::default()
    };
    let (mut fits, mut refused) = (0, 0);
    for (k, panel) in panels(&mut rng).iter().enumerate() {
        let file = folder.path().join(format!("{k}.csv"));
        write(panel, &file, k % 2 == 1, &mut rng);
        let [held, stored] = both(&file, &scratch);
        for method in &methods {
            for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
                for (priors, parameterization, shards) in [
                    (Priors::default(), Parameterization::Centered, 1),
                    (narrow, Parameterization::Centered, 1),
                    (Priors::default(), Parameterization::Learned, 1),
                    (Priors::default(), Parameterization::Centered, 3),
                ] {
                    let request = Request {
                        priors,
                        likelihood,
                        parameterization,
                        shards,
                        threads: Some(2),
                        ..Request::new(method.clone())
                    };
                    if registry().choose(&request).is_err() {
                        continue;
                    }
                    let of_held = found(&held, &request);
                    fits += 1;
                    refused += usize::from(of_held.starts_with("refused"));
                    assert_eq!(
                        of_held,
                        found(&stored, &request),
                        "panel {k}, {method:?}, {likelihood:?}, clip from {}, {parameterization:?}, {shards} shards",
                        priors.clip_low
                    );
                }
            }
        }
    }
    // Where the clip bounds lie among the counts, and where there are more shards than products.
    assert!(
        fits > 150 && refused < fits / 3,
        "{refused} of {fits} fits were refused"
    );
}
