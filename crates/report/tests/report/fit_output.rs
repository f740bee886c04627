//! The folder of a fit: what is written is what is read back.

use crate::synthetic::{svi_report, system};
use arrow_array::{Array, FixedSizeListArray, Float64Array, Int32Array};
use infermark_atomic_file::ClaimedFolder;
use infermark_backend::{
    ChainDiagnostics, Detail, DrawStatistics, Draws, Method, Posterior, Request, SiteDraws, SviSettings,
    TracePoint,
};
use infermark_fit_files::draws_parquet::{DrawLabels, write_draws_parquet};
use infermark_fit_files::fit_output::{
    ELASTICITIES_PICTURES, FILES, FitParts, refuse_earlier_fit, write_fit,
};
use infermark_fit_files::fit_record::{FitRecord, FitStatus, SCHEMA_VERSION};
use infermark_fit_files::panel_description::{PanelDescription, panel_sha256};
use infermark_fit_files::posterior_csv::write_posterior_csv;
use infermark_model::{Labels, Layout, Panel, PanelPart, Site};
use infermark_test_support::panel_with_gaps as panel;
use std::path::Path;

fn awkward_panel() -> Panel {
    let mut part = PanelPart::new(2, 2);
    part.push_product(0, None, &[1.5, 2.5], &[3, 4]).unwrap();
    part.push_product(1, None, &[1.5, 2.5], &[3, 4]).unwrap();
    Panel::from_parts(
        Labels::Text(vec!["a, b".into(), "say \"x\"\nplease".into()]),
        Labels::Integer(vec![-3, 7]),
        Labels::Date(vec![0, 19_782]),
        vec![part],
    )
    .unwrap()
}

fn posterior(layout: Layout) -> Posterior {
    let n = layout.latents();
    let mean: Vec<f64> = (0..n)
        .map(|i| 0.1 + (i as f64).sin() * 10f64.powi(i as i32 % 40 - 20))
        .collect();
    let sd: Vec<f64> = (0..n).map(|i| 1.0 / (3.0 + i as f64)).collect();
    Posterior::normal(layout, mean, sd)
}

#[test]
fn posterior_csv_reads_back_bit_for_bit_with_awkward_labels() {
    let panel = awkward_panel();
    let mut posterior = posterior(panel.layout());
    let mut bytes = Vec::new();
    write_posterior_csv(&mut bytes, &panel, &posterior, 2).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    assert_eq!(
        reader.headers().unwrap(),
        vec!["site", "key", "mean", "sd", "q05", "q95"]
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let keys: Vec<(&str, &str)> = rows.iter().map(|r| (&r[0], &r[1])).collect();
    assert_eq!(
        keys,
        [
            ("global_a", ""),
            ("category_a", "-3"),
            ("category_a", "7"),
            ("product_a", "a, b"),
            ("product_a", "say \"x\"\nplease"),
            ("product_effect", "a, b"),
            ("product_effect", "say \"x\"\nplease"),
            ("time_cat_effects", "-3@1970-01-01"),
            ("time_cat_effects", "-3@2024-02-29"),
            ("time_cat_effects", "7@1970-01-01"),
            ("time_cat_effects", "7@2024-02-29"),
        ]
    );
    for (latent, row) in rows.iter().enumerate() {
        let columns = [&posterior.mean, &posterior.sd, &posterior.q05, &posterior.q95];
        for (k, column) in columns.into_iter().enumerate() {
            assert_eq!(
                row[2 + k].parse::<f64>().unwrap().to_bits(),
                column[latent].to_bits()
            );
        }
    }

    let n = panel.layout().latents();
    posterior.diagnostics = Some(ChainDiagnostics {
        mcse_mean: vec![0.01; n],
        ess_bulk: vec![f64::NAN; n],
        ess_tail: vec![300.5; n],
        rhat: vec![1.0001; n],
    });
    let mut bytes = Vec::new();
    write_posterior_csv(&mut bytes, &panel, &posterior, 2).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let first = reader.records().next().unwrap().unwrap();
    assert_eq!(
        first.iter().skip(6).collect::<Vec<_>>(),
        ["0.01", "NaN", "300.5", "1.0001"]
    );
}

fn draws(layout: Layout) -> Draws {
    let (chains, count) = (2, 3);
    let sites = [Site::GlobalA, Site::CategoryA]
        .map(|site| SiteDraws {
            site,
            values: (0..chains * count * layout.len(site))
                .map(|i| i as f64 + 0.25)
                .collect(),
        })
        .to_vec();
    Draws {
        layout,
        chains,
        draws: count,
        sites,
        statistics: (0..chains * count)
            .map(|i| DrawStatistics {
                diverging: i == 4,
                tree_depth: i as u32,
                leapfrog_steps: 1 << i,
                acceptance: 0.75,
                step_size: 0.5,
                energy: -1.5 * i as f64,
                log_joint: 1.5 * i as f64,
            })
            .collect(),
    }
}

#[test]
fn draws_read_back_from_parquet() {
    let panel = awkward_panel();
    let draws = draws(panel.layout());
    let file = tempfile::tempfile().unwrap();
    write_draws_parquet(&file, &draws).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 1024).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(
        names,
        [
            "chain",
            "draw",
            "global_a",
            "category_a",
            "diverging",
            "tree_depth",
            "n_steps",
            "acceptance_rate",
            "step_size",
            "energy",
            "lp"
        ]
    );
    let column = |name: &str| batch.column_by_name(name).unwrap().clone();
    let whole = |name: &str| {
        let column = column(name);
        column
            .as_any()
            .downcast_ref::<Int32Array>()
            .unwrap()
            .values()
            .to_vec()
    };
    assert_eq!(whole("chain"), [0, 0, 0, 1, 1, 1]);
    assert_eq!(whole("draw"), [0, 1, 2, 0, 1, 2]);
    assert_eq!(whole("n_steps"), [1, 2, 4, 8, 16, 32]);
    let categories = column("category_a");
    let categories = categories.as_any().downcast_ref::<FixedSizeListArray>().unwrap();
    assert_eq!(categories.value_length(), 2);
    // Chain 1, draw 1 is row 4: values 8 and 9 of the site.
    let values = categories.value(4);
    let values = values.as_any().downcast_ref::<Float64Array>().unwrap();
    assert_eq!(values.values(), &[8.25, 9.25]);

    let coordinates = DrawLabels::new(&panel, &draws);
    assert_eq!(coordinates.category, ["-3", "7"]);
    assert_eq!(coordinates.period, ["1970-01-01", "2024-02-29"]);
    assert_eq!((coordinates.chains, coordinates.draws), (2, 3));
}

#[test]
fn many_draws_are_written_in_batches() {
    let layout = Layout::new(1, 1, 1);
    let mut draws = draws(layout);
    draws.chains = 2;
    draws.draws = 70_000;
    for site in &mut draws.sites {
        site.values = (0..140_000).map(f64::from).collect();
    }
    draws.statistics = vec![draws.statistics[0]; 140_000];
    let file = tempfile::tempfile().unwrap();
    write_draws_parquet(&file, &draws).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 50_000).unwrap();
    let values: Vec<f64> = reader
        .flat_map(|b| {
            let column = b.unwrap().column_by_name("global_a").unwrap().clone();
            column
                .as_any()
                .downcast_ref::<Float64Array>()
                .unwrap()
                .values()
                .to_vec()
        })
        .collect();
    assert_eq!(values, (0..140_000).map(f64::from).collect::<Vec<_>>());
}

fn record(panel: &Panel, status: FitStatus) -> FitRecord {
    let mut report = svi_report(40);
    if let Detail::Svi(svi) = &mut report.detail {
        svi.trace.push(TracePoint {
            loss: f64::INFINITY,
            ..svi.trace[0]
        });
    }
    FitRecord::new(
        status,
        (status == FitStatus::Unfinished).then(|| "interrupted".to_owned()),
        Request::new(Method::Svi(SviSettings::default())),
        report,
        PanelDescription::new(panel, "sales.csv"),
        system(),
    )
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_fit_is_written_whole_and_replaces_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let panel = panel(5);
    let posterior = posterior(panel.layout());
    let pictures = ELASTICITIES_PICTURES.map(|name| name.as_bytes().to_vec());
    refuse_earlier_fit(folder.path(), false).unwrap();
    let claimed = ClaimedFolder::claim(folder.path(), &FILES).unwrap();
    let draws = draws(panel.layout());
    let parts = FitParts {
        posterior: Some(&posterior),
        draws: Some(&draws),
        pictures: &pictures,
    };
    let written = write_fit(&claimed, &panel, &parts, record(&panel, FitStatus::Finished)).unwrap();
    assert!(written.missing.is_empty());
    let files = written.files;
    let names: Vec<&str> = files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "posterior.csv",
            "trace.csv",
            "draws.parquet",
            "coordinates.json",
            "elasticities_by_category.svg",
            "elasticities_by_category.png",
            "run.json"
        ]
    );
    let run: FitRecord = serde_json::from_slice(&read(folder.path(), "run.json")).unwrap();
    assert_eq!((run.status, run.reason.as_str()), (FitStatus::Finished, "none"));
    assert_eq!(run.files.len(), 6);
    for (name, digest) in &run.files {
        assert_eq!(digest.bytes, read(folder.path(), name).len() as u64, "{name}");
        assert_eq!(digest.sha256.len(), 64);
    }
    let Detail::Svi(svi) = &run.report.detail else {
        panic!("an SVI report");
    };
    assert!(svi.trace.len() == 40, "the entry that is not finite is left out");
    let trace = String::from_utf8(read(folder.path(), "trace.csv")).unwrap();
    assert!(trace.starts_with("iteration,seconds,loss,effective_particles,learning_rate\n"));
    assert_eq!(trace.lines().count(), 41);

    let error = refuse_earlier_fit(folder.path(), false).unwrap_err().to_string();
    assert!(error.contains("or replace them"), "{error}");
    refuse_earlier_fit(folder.path(), true).unwrap();

    // A run that was stopped before it had a posterior replaces nothing.
    let earlier = read(folder.path(), "run.json");
    let nothing = FitParts::default();
    let unfinished = || record(&panel, FitStatus::Unfinished);
    let written = write_fit(&claimed, &panel, &nothing, unfinished()).unwrap();
    assert!(written.files.is_empty());
    assert_eq!(earlier, read(folder.path(), "run.json"));

    // The next fit has no draws and no pictures: those of the last must not remain.
    let parts = FitParts {
        posterior: Some(&posterior),
        ..FitParts::default()
    };
    write_fit(&claimed, &panel, &parts, unfinished()).unwrap();
    drop(claimed);
    let mut left: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["posterior.csv", "run.json", "trace.csv"]);
    let run: serde_json::Value = serde_json::from_slice(&read(folder.path(), "run.json")).unwrap();
    assert_eq!(run["status"], "unfinished");
    assert_eq!(run["reason"], "interrupted");
    assert_eq!(run["schema_version"], SCHEMA_VERSION);
}

#[test]
fn the_fingerprint_is_of_the_contents() {
    let build = |price: f64, units: u32, label: &str| {
        let mut part = PanelPart::new(1, 2);
        part.push_product(0, Some(&[1]), &[price], &[units]).unwrap();
        let panel = Panel::from_parts(
            Labels::Text(vec![label.into()]),
            Labels::numbered("c", 1),
            Labels::numbered("t", 2),
            vec![part],
        );
        panel_sha256(&panel.unwrap())
    };
    let base = build(2.5, 3, "x");
    assert_eq!(base, build(2.5, 3, "x"));
    assert_eq!(base.len(), 64);
    for other in [build(2.500_001, 3, "x"), build(2.5, 4, "x"), build(2.5, 3, "y")] {
        assert_ne!(base, other);
    }
}
