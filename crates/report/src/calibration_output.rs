//! The folder of a calibration: `calibration.csv`, `summary.csv`, `run.json`, and the pictures.

use crate::number_format::three_digits;
use crate::plots::calibration as pictures;
use crate::table::grid::Grid;
use infermark_atomic_file::{ClaimedFolder, FileError, StagedFile, stage};
use infermark_backend::Request;
use infermark_calibration::{Calibration, Design, Latents, MethodVerdict, Sensitivity};
use infermark_fit_files::digest_writer::DigestWriter;
use infermark_fit_files::fit_record::{FileDigest, FitStatus, SCHEMA_VERSION, write_json};
use infermark_machine::System;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// One row per replication, method and quantity.
pub const CALIBRATION_CSV: &str = "calibration.csv";
/// One row per method and quantity.
pub const SUMMARY_CSV: &str = "summary.csv";
/// The record of the run.
pub const RUN_JSON: &str = "run.json";
/// Stem of the histograms' picture.
const HISTOGRAMS: &str = "pit_histograms";
/// Stem of the picture of distribution functions.
const ECDF: &str = "ecdf_difference";
/// Stem of the picture of the coverage.
const COVERAGE: &str = "coverage";

/// Columns of [`CALIBRATION_CSV`]: `pit` is the posterior's distribution function at the truth; `rank` counts the draws below
/// the truth among `draws`, thinned from `effective_draws`, and `rhat` is that of all draws; these four are empty where a posterior
/// is known by its moments. `mean_score` and `sd_score` are means over the `latents` of the quantity's site.
pub const CALIBRATION_COLUMNS: [&str; 15] = [
    "replication",
    "method",
    "quantity",
    "key",
    "truth",
    "mean",
    "sd",
    "pit",
    "rank",
    "draws",
    "effective_draws",
    "rhat",
    "latents",
    "mean_score",
    "sd_score",
];

/// The request to a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibratedMethod {
    /// Its name.
    pub name: String,
    /// The backend that fitted.
    pub backend: String,
    /// The request; seeds are the replications' own.
    pub request: Request,
    /// Fits that gave no posterior: they ended with an error, did not converge, or never mixed.
    pub failed_fits: usize,
    /// Whether the method passed.
    pub passes: bool,
    /// By quantity, the errors that the completed replications find at the level.
    #[serde(default)]
    pub sensitivity: BTreeMap<String, Sensitivity>,
}

/// The contents of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationRecord {
    /// [`SCHEMA_VERSION`] when it was written.
    pub schema_version: u32,
    /// Unfinished when it was interrupted: fewer replications than were asked for.
    pub status: FitStatus,
    /// What was drawn.
    pub design: Design,
    /// Replications done.
    pub replications_done: usize,
    /// Probability that a calibrated method fails.
    pub level: f64,
    /// Seconds that all took.
    pub seconds: f64,
    /// The methods.
    pub methods: Vec<CalibratedMethod>,
    /// Fits that gave no posterior: replication, method and reason.
    pub failures: Vec<String>,
    /// The system.
    pub system: System,
    /// The tables written with it.
    pub files: BTreeMap<String, FileDigest>,
}

impl CalibrationRecord {
    /// A record without files.
    pub fn new(
        design: Design,
        calibration: &Calibration,
        level: f64,
        seconds: f64,
        methods: Vec<CalibratedMethod>,
        system: System,
    ) -> Self {
        CalibrationRecord {
            schema_version: SCHEMA_VERSION,
            status: if calibration.is_complete() {
                FitStatus::Finished
            } else {
                FitStatus::Unfinished
            },
            design,
            replications_done: calibration.done,
            level,
            seconds,
            methods,
            failures: calibration
                .failures
                .iter()
                .map(|f| {
                    let method = &calibration.methods[f.method];
                    format!("replication {}, {method}: {}", f.replication, f.reason)
                })
                .collect(),
            system,
            files: BTreeMap::new(),
        }
    }
}

/// All files of a calibration.
pub const FILES: [&str; 9] = [
    RUN_JSON,
    CALIBRATION_CSV,
    SUMMARY_CSV,
    "pit_histograms.svg",
    "pit_histograms.png",
    "ecdf_difference.svg",
    "ecdf_difference.png",
    "coverage.svg",
    "coverage.png",
];

/// The outcome for a calibration's files.
#[derive(Debug)]
pub struct CalibrationWritten {
    /// Pictures that could not be drawn or written, with the reasons.
    pub missing: Vec<String>,
}

/// Writes tables and pictures into `folder`: first the tables, with `run.json` after them, then the pictures, without which
/// nothing is lost. An earlier calibration there is replaced as a whole.
///
/// # Errors
/// When a table or the record cannot be written; an earlier calibration then stands as it was.
pub fn write_calibration(
    folder: &ClaimedFolder,
    calibration: &Calibration,
    verdicts: &[MethodVerdict],
    record: CalibrationRecord,
) -> Result<CalibrationWritten, FileError> {
    if folder.path().join(RUN_JSON).exists() {
        folder.replace(&FILES, |into| write_into(into, calibration, verdicts, record))
    } else {
        write_into(folder.path(), calibration, verdicts, record)
    }
}

fn write_into(
    folder: &Path,
    calibration: &Calibration,
    verdicts: &[MethodVerdict],
    mut record: CalibrationRecord,
) -> Result<CalibrationWritten, FileError> {
    let mut staged: Vec<StagedFile> = Vec::new();
    let mut add = |name: &str, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>| {
        staged.push(stage(&folder.join(name), |file| {
            let mut writer = DigestWriter::new(file);
            fill(&mut writer)?;
            record.files.insert(name.to_owned(), writer.finish());
            Ok(())
        })?);
        Ok::<(), FileError>(())
    };
    add(CALIBRATION_CSV, &|out| write_placements(out, calibration))?;
    add(SUMMARY_CSV, &|out| write_summary(out, verdicts))?;
    staged.push(stage(&folder.join(RUN_JSON), |f| write_json(f, &record))?);
    for file in staged {
        file.commit()?;
    }
    let pictured = pictures::CalibrationPicture {
        calibration,
        verdicts,
        level: record.level,
        subtitle: &subtitle(&record),
    };
    let mut missing = Vec::new();
    for drawn in [
        pictures::draw_histograms(&folder.join(HISTOGRAMS), &pictured),
        pictures::draw_ecdf(&folder.join(ECDF), &pictured),
        pictures::draw_coverage(&folder.join(COVERAGE), &pictured),
    ] {
        missing.extend(drawn.err().map(|error| error.to_string()));
    }
    Ok(CalibrationWritten { missing })
}

fn subtitle(record: &CalibrationRecord) -> String {
    let design = &record.design;
    let unfinished = match record.status {
        FitStatus::Finished => String::new(),
        FitStatus::Unfinished => format!(", interrupted: {} were asked for", design.replications),
    };
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    format!(
        "{}{unfinished}, of {}, {} and {}.",
        count(record.replications_done, "replication", "replications"),
        count(design.products, "product", "products"),
        count(design.periods, "period", "periods"),
        count(design.categories, "category", "categories"),
    )
}

fn write_placements(out: &mut dyn Write, calibration: &Calibration) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(CALIBRATION_COLUMNS)?;
    for placed in &calibration.placed {
        let p = &placed.statistic;
        let [rank, draws, effective, rhat] = match p.rank {
            Some(rank) => [
                rank.below.to_string(),
                rank.draws.to_string(),
                format!("{:.1}", rank.effective_draws),
                format!("{:.4}", rank.rhat),
            ],
            None => Default::default(),
        };
        csv.write_record([
            placed.replication.to_string(),
            calibration.methods[placed.method].clone(),
            placed.quantity.name().to_owned(),
            placed.key.clone(),
            format!("{:?}", p.truth),
            format!("{:?}", p.mean),
            format!("{:?}", p.sd),
            format!("{:?}", p.pit),
            rank,
            draws,
            effective,
            rhat,
            placed.scores.latents.to_string(),
            format!("{:?}", placed.scores.means[0]),
            format!("{:?}", placed.scores.means[1]),
        ])?;
    }
    csv.flush()
}

fn write_summary(out: &mut dyn Write, verdicts: &[MethodVerdict]) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let mut header: Vec<String> = [
        "method",
        "quantity",
        "replications",
        "failed_fits",
        "mean_rank_draws",
        "statistic",
        "p_uniformity",
        "mean_error",
        "mean_error_se",
        "p_mean",
        "sd_error",
        "sd_error_se",
        "p_sd",
        "p_value",
        "p_adjusted",
        "passes",
        "latents_worth",
        "mean_error_found",
        "sd_error_found",
        "power_sd_5_percent",
    ]
    .map(str::to_owned)
    .to_vec();
    for nominal in infermark_calibration::NOMINAL {
        let percent = (100.0 * nominal).round();
        header.push(format!("coverage_{percent}"));
        header.push(format!("coverage_{percent}_se"));
    }
    csv.write_record(&header)?;
    for verdict in verdicts {
        // A method without any posterior has a row too: nothing is left out silently.
        if verdict.quantities.is_empty() {
            let mut row = vec![String::new(); header.len()];
            row[0].clone_from(&verdict.method);
            row[2] = "0".to_owned();
            row[3] = verdict.failed_fits.to_string();
            if let Some(passes) = header.iter().position(|column| column == "passes") {
                row[passes] = verdict.passes.to_string();
            }
            csv.write_record(&row)?;
        }
        for quantity in &verdict.quantities {
            let sensitivity = quantity.sensitivity();
            let found = |error: Option<f64>| error.map_or(String::new(), |e| format!("{e:.5}"));
            let mut row = vec![
                verdict.method.clone(),
                quantity.quantity.name().to_owned(),
                quantity.replications.to_string(),
                verdict.failed_fits.to_string(),
                quantity
                    .mean_rank_draws
                    .map_or(String::new(), |d| format!("{d:.1}")),
                format!("{:?}", quantity.statistic),
                format!("{:?}", quantity.p_uniformity),
            ];
            for estimate in [quantity.mean_error, quantity.sd_error] {
                row.push(format!("{:?}", estimate.error));
                row.push(format!("{:?}", estimate.standard_error));
                row.push(format!("{:?}", estimate.p_value));
            }
            row.extend([
                format!("{:?}", quantity.p_value),
                format!("{:?}", quantity.p_adjusted),
                quantity.passes.to_string(),
                match quantity.power.latents {
                    Latents::Single => "1".to_owned(),
                    Latents::Several(worth) => format!("{worth:.3}"),
                },
                found(sensitivity.mean_error_found),
                found(sensitivity.sd_error_found),
                format!("{:.5}", sensitivity.power_sd_5_percent),
            ]);
            for coverage in quantity.coverage {
                row.push(format!("{:?}", coverage.actual));
                row.push(format!("{:?}", coverage.standard_error));
            }
            csv.write_record(&row)?;
        }
    }
    csv.flush()
}

/// Markdown of the verdicts: estimated errors of means (in standard deviations) and of standard deviations with their standard errors,
/// and of the standard deviations the smallest error that the replications find with a probability of 90%.
pub fn calibration_table(verdicts: &[MethodVerdict]) -> String {
    let mut grid = Grid::new(&[
        ("method", false),
        ("quantity", false),
        ("replications", true),
        ("failed fits", true),
        ("90% cover", true),
        ("mean off by, sd", true),
        ("sd off by", true),
        ("sd errors found", true),
        ("p", true),
        ("p, Holm", true),
        ("passes", false),
    ]);
    for verdict in verdicts {
        if verdict.quantities.is_empty() {
            let mut row = vec![verdict.method.clone(), "none".to_owned(), "0".to_owned()];
            row.push(verdict.failed_fits.to_string());
            row.resize(grid.columns() - 1, String::new());
            row.push("NO".to_owned());
            grid.push(row);
        }
        for quantity in &verdict.quantities {
            let mut row = vec![
                verdict.method.clone(),
                quantity.quantity.name().to_owned(),
                quantity.replications.to_string(),
                verdict.failed_fits.to_string(),
            ];
            let coverage = quantity.coverage[1];
            let (mean, sd) = (quantity.mean_error, quantity.sd_error);
            row.extend([
                format!(
                    "{:.1} ± {:.1}%",
                    100.0 * coverage.actual,
                    100.0 * coverage.standard_error
                ),
                // One replication gives no spread.
                if quantity.replications > 1 {
                    format!("{:+.3} ± {:.3}", mean.error, mean.standard_error)
                } else {
                    format!("{:+.3}", mean.error)
                },
                if quantity.replications > 1 {
                    format!("{:+.1} ± {:.1}%", 100.0 * sd.error, 100.0 * sd.standard_error)
                } else {
                    format!("{:+.1}%", 100.0 * sd.error)
                },
                quantity
                    .sensitivity()
                    .sd_error_found
                    .map_or("none".to_owned(), |e| format!("{:.1}%", 100.0 * e)),
            ]);
            row.push(probability(quantity.p_value));
            row.push(probability(quantity.p_adjusted));
            row.push(if quantity.passes { "yes" } else { "NO" }.to_owned());
            grid.push(row);
        }
    }
    grid.render()
}

/// A p-value as people read it.
fn probability(p: f64) -> String {
    if p < 1e-300 {
        return "< 1e-300".into();
    }
    if p < 1e-4 {
        return format!("{p:.0e}");
    }
    three_digits(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_without_any_posterior_is_a_row_and_fails() {
        let verdict = MethodVerdict {
            method: "laplace".into(),
            quantities: Vec::new(),
            failed_fits: 2,
            passes: false,
        };
        let table = calibration_table(std::slice::from_ref(&verdict));
        let row = table.lines().last().unwrap();
        assert!(row.contains("laplace") && row.contains("NO"), "{table}");
        let mut summary = Vec::new();
        write_summary(&mut summary, &[verdict]).unwrap();
        let summary = String::from_utf8(summary).unwrap();
        let mut lines = summary.lines().map(|line| line.split(',').count());
        let header = lines.next().unwrap();
        assert!(lines.all(|cells| cells == header), "{summary}");
    }
}
