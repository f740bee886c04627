//! Texts for people other than the table of a benchmark: comparisons, the summary of a fit, and notes on it.

use crate::synthetic::{gaussian_report, records, svi_report, system};
use infermark_atomic_file::ClaimedFolder;
use infermark_backend::{
    ChainDiagnostics, Detail, LaplaceSettings, Method, Metric, NutsReport, NutsSettings, Posterior, Report,
    Request, RunState, SviSettings,
};
use infermark_fit_files::fit_folder::FitFolder;
use infermark_fit_files::fit_output::{FILES, FitParts, write_fit};
use infermark_fit_files::fit_record::{FitRecord, FitStatus};
use infermark_fit_files::panel_description::PanelDescription;
use infermark_model::{Panel, Priors, Site, Specification};
use infermark_report::baseline::{Baseline, BaselineComparison};
use infermark_report::comparison::Comparison;
use infermark_report::fit_notes::{below_lower_bound, constant_prices};
use infermark_report::fit_summary::fit_summary;
use infermark_report::table::baseline::section;
use infermark_test_support::panel_with_gaps;
use insta::assert_snapshot;
use std::path::Path;

/// A posterior whose means are off by `distance` of its standard deviations, which are `width` times as wide.
fn posterior(panel: &Panel, distance: f64, width: f64) -> Posterior {
    let layout = panel.layout();
    // The same on every machine, which a sine is not to the last digit.
    let wave = |latent: usize| (37 * latent % 19) as f64 / 9.5 - 1.0;
    let sd: Vec<f64> = (0..layout.latents()).map(|i| 0.2 + 0.1 * wave(i)).collect();
    let mean = (0..layout.latents())
        .map(|i| wave(i + 50) - 1.0 + distance * sd[i])
        .collect();
    Posterior::normal(layout, mean, sd.iter().map(|sd| width * sd).collect())
}

fn nuts_report() -> Report {
    Report {
        backend: "nuts-cpu".into(),
        run_seconds: 12.5,
        state: RunState::Finished,
        detail: Detail::Nuts(NutsReport {
            metric: Metric::Structured,
            mode_search: None,
            gradients: 90_000,
            gradients_per_second: 7_200.0,
            divergences: 0,
            saturated_trees: 0,
            tree_depths: vec![0, 0, 4_000],
            max_rhat: Some(1.004),
            min_ess_bulk: Some(812.4),
            min_ess_tail: Some(640.2),
            every_draw_kept: true,
            chains: Vec::new(),
        }),
        ..svi_report(0)
    }
}

fn record(panel: &Panel, method: Method, report: Report) -> FitRecord {
    FitRecord::new(
        FitStatus::Finished,
        None,
        Request::new(method),
        report,
        PanelDescription::new(panel, "sales.csv"),
        system(),
    )
}

#[test]
fn fits_side_by_side() {
    let panel = panel_with_gaps(6);
    let base = tempfile::tempdir().unwrap();
    let fit = |name: &str, posterior: &Posterior, record: FitRecord| {
        let folder = base.path().join(name);
        let claimed = ClaimedFolder::claim(&folder, &FILES).unwrap();
        let parts = FitParts {
            posterior: Some(posterior),
            ..FitParts::default()
        };
        write_fit(&claimed, &panel, &parts, record).unwrap();
        drop(claimed);
        FitFolder::read(&folder).unwrap()
    };
    let reference = posterior(&panel, 0.0, 1.0);
    let truth = reference.site_mean(Site::ProductA).to_vec();
    let (nuts, laplace) = (NutsSettings::default(), LaplaceSettings::default());
    let fits = [
        fit(
            "nuts",
            &reference,
            record(&panel, Method::Nuts(nuts), nuts_report()),
        ),
        fit(
            "laplace",
            &posterior(&panel, 0.1, 0.95),
            record(&panel, Method::Laplace(laplace), gaussian_report(true)),
        ),
        fit(
            "svi",
            &posterior(&panel, 0.5, 0.1),
            record(&panel, Method::Svi(SviSettings::default()), svi_report(40)),
        ),
    ];
    let comparison = Comparison::new(&fits, Some(0), Some(&truth), None).unwrap();
    assert_snapshot!("fits_side_by_side", comparison.table());
    let mut csv = Vec::new();
    comparison.write_csv(&mut csv).unwrap();
    assert_snapshot!("fits_side_by_side_csv", String::from_utf8(csv).unwrap());
}

#[test]
fn the_summary_of_a_fit() {
    let panel = panel_with_gaps(6);
    let summary = |posterior: &Posterior, record: &FitRecord| {
        fit_summary(record, &panel, posterior, Path::new("fits/mine"))
    };
    let svi = Method::Svi(SviSettings::default());
    let mean_field = posterior(&panel, 0.0, 0.1);
    assert_snapshot!(
        "summary_svi",
        summary(&mean_field, &record(&panel, svi, svi_report(40)))
    );

    let laplace = record(
        &panel,
        Method::Laplace(LaplaceSettings::default()),
        gaussian_report(false),
    );
    let mut unfinished = laplace.clone();
    unfinished.model = Specification::Sales;
    unfinished.status = FitStatus::Unfinished;
    unfinished.reason = "interrupted".into();
    assert_snapshot!(
        "summary_unfinished",
        summary(&posterior(&panel, 0.0, 1.0), &unfinished)
    );

    let mut chains = posterior(&panel, 0.0, 1.0);
    let latents = chains.layout.latents();
    let worst = |at: usize, value: f64, other: f64| {
        let mut values = vec![other; latents];
        values[at] = value;
        values
    };
    chains.diagnostics = Some(ChainDiagnostics {
        mcse_mean: vec![0.01; latents],
        ess_bulk: worst(5, 812.4, 4_000.0),
        ess_tail: worst(0, 640.2, f64::NAN),
        rhat: worst(20, 1.004, 1.0),
    });
    let nuts = record(&panel, Method::Nuts(NutsSettings::default()), nuts_report());
    assert_snapshot!("summary_nuts", summary(&chains, &nuts));
}

#[test]
fn what_is_remarked_of_a_fit() {
    let models = [Specification::Published, Specification::Sales];
    let names: Vec<String> = (0..14).map(|i| format!("product {i}")).collect();
    let mut remarks: Vec<String> = models
        .into_iter()
        .flat_map(|model| {
            [
                below_lower_bound(model, &Priors::default(), 0.378),
                constant_prices(model, &names[..1], 300),
                constant_prices(model, &names, 300),
            ]
        })
        .map(|cause| cause.unwrap().to_string())
        .collect();
    let deep = Priors {
        clip_low: -20.0,
        ..Priors::default()
    };
    remarks.extend(below_lower_bound(Specification::Sales, &deep, 0.06).map(|cause| cause.to_string()));
    assert_snapshot!("fit_notes", remarks.join("\n"));
}

#[test]
fn a_run_beside_an_earlier_one() {
    let mut here = records();
    for repeat in &mut here[0].repeats {
        repeat.seconds /= 1.3;
    }
    for repeat in &mut here[8].repeats {
        repeat.seconds *= 1.3;
    }
    here[1].repeats.truncate(2);
    here[6].panel.sha256 = "5".repeat(64);
    here[7].threads = 4;
    here[9].device = "64-core AMD EPYC, AVX-512".into();
    for record in &mut here {
        record.busy_share = Some(0.31);
        record.system.program.git_tree = "dirty".into();
        record.system.program.rustc = "rustc 1.96.0".into();
    }
    let comparison = BaselineComparison::new(&here, &Baseline::of(records())).unwrap();
    assert_snapshot!("beside_a_baseline", section(&comparison));
    let mut csv = Vec::new();
    comparison.write_csv(&mut csv).unwrap();
    assert_snapshot!("beside_a_baseline_csv", String::from_utf8(csv).unwrap());
}
