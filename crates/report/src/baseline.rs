//! The speeds of a run compared with those of an earlier one, case by case: faster, slower, no difference
//! beyond noise, or not comparable and why.
//!
//! A case is compared with the earlier one of the same backend, machine, panel, settings and threads
//! ([`pairing`]). The rule that separates a difference from noise is in [`ratio`].

pub mod pairing;
pub mod ratio;

use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit, QUIET, Status};
use crate::records::results_folder::{ResultsError, ResultsFolder, read_json};
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use infermark_atomic_file::{FileError, write_atomically};
use infermark_fit_files::fit_record::{SCHEMA_VERSION, write_json};
use pairing::{Counterpart, counterpart, differing_runs};
use ratio::{CONFIDENCE, Direction, Ratio};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::Path;

/// The flat table of a comparison with a baseline.
pub const BASELINE_CSV: &str = "baseline.csv";
/// The complete comparison, from which its table can be redrawn.
pub const BASELINE_JSON: &str = "baseline.json";

/// An earlier run, to compare with.
#[derive(Debug, Clone)]
pub struct Baseline {
    records: Vec<CaseRecord>,
}

impl Baseline {
    /// Reads the cases in `folder`.
    ///
    /// # Errors
    /// [`ResultsError`] names the file that cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ResultsError> {
        let records = ResultsFolder::existing(folder).read_cases()?;
        Ok(Baseline { records })
    }

    /// The cases of an earlier run.
    pub fn of(records: Vec<CaseRecord>) -> Self {
        Baseline { records }
    }
}

/// The verdict of the repeats of two runs on one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Faster than in the baseline.
    Faster,
    /// Slower than in the baseline.
    Slower,
    /// The repeats show no difference.
    NoDifference,
    /// There is nothing to compare with, or one side has no speed; the reason is given.
    NotComparable,
}

impl Verdict {
    /// The words in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Faster => "faster",
            Verdict::Slower => "slower",
            Verdict::NoDifference => "no difference beyond noise",
            Verdict::NotComparable => "not comparable",
        }
    }
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Whether the case may be relied on.
    pub status: Status,
    /// Median rate, in iterations, gradients or fits per second; `None` where it has no speed.
    pub rate: Option<f64>,
    /// Repeats that were timed.
    pub repeats: usize,
    /// Share of the machine that other programs used just before the timing, 0 to 1, if the system reports
    /// it.
    pub busy_share: Option<f64>,
}

impl Side {
    fn of(record: &CaseRecord) -> Self {
        Side {
            status: record.status,
            rate: record.iterations_per_second().map(|rate| rate.median),
            repeats: record.repeats.len(),
            busy_share: record.busy_share,
        }
    }
}

/// One case compared with that of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineCase {
    /// The backend's name.
    pub backend: String,
    /// The device, in plain words.
    pub device: String,
    /// The settings that a speed depends on, in words.
    pub settings: String,
    /// What an iteration is.
    pub unit: IterationUnit,
    /// Products of the panel.
    pub products: usize,
    /// Rows of the panel.
    pub rows: usize,
    /// SHA-256 of the panel's columns.
    pub sha256: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not comparable, or remarks on either side; otherwise `none`.
    pub reason: String,
    /// The rate here divided by that of the baseline, if both are known.
    pub ratio: Option<Ratio>,
    /// This run.
    pub here: Side,
    /// The baseline; `None` where it has no such case.
    pub baseline: Option<Side>,
}

/// The date and program version of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStamp {
    /// When its first case was measured, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub measured_at: String,
    /// The commit that the program was built from.
    pub git_commit: String,
    /// Whether tracked files differed from it: `clean`, `dirty` or `unknown`.
    pub git_tree: String,
}

impl RunStamp {
    fn of(record: &CaseRecord) -> Self {
        RunStamp {
            measured_at: record.measured_at.clone(),
            git_commit: record.system.program.git_commit.clone(),
            git_tree: record.system.program.git_tree.clone(),
        }
    }

    /// `commit 0123456789ab (clean), measured 2026-11-22T12:00:00Z`.
    pub fn in_words(&self) -> String {
        format!(
            "commit {} ({}), measured {}",
            self.git_commit.get(..12).unwrap_or(&self.git_commit),
            self.git_tree,
            self.measured_at
        )
    }
}

/// A run compared with an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaselineComparison {
    /// Version of the schema, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// This run.
    pub here: RunStamp,
    /// The earlier run.
    pub baseline: RunStamp,
    /// Differences between the machines or programs of the two runs, in sentences without their full stop.
    pub remarks: Vec<String>,
    /// The cases of this run, in its order.
    pub cases: Vec<BaselineCase>,
}

impl BaselineComparison {
    /// Compares the speeds among `records` with those of `baseline`; `None` where either has no case.
    pub fn new(records: &[CaseRecord], baseline: &Baseline) -> Option<Self> {
        let (here, earlier) = (records.first()?, baseline.records.first()?);
        let is_speed = |record: &&CaseRecord| record.kind == CaseKind::Speed;
        let earlier_speeds: Vec<&CaseRecord> = baseline.records.iter().filter(is_speed).collect();
        let cases = records
            .iter()
            .filter(is_speed)
            .map(|record| compared(record, &earlier_speeds))
            .collect();
        let mut remarks = differing_runs(&here.system, &earlier.system);
        remarks.extend(busy(records, "this run"));
        remarks.extend(busy(&baseline.records, "the baseline"));
        Some(BaselineComparison {
            schema_version: SCHEMA_VERSION,
            here: RunStamp::of(here),
            baseline: RunStamp::of(earlier),
            remarks,
            cases,
        })
    }

    /// The comparison stored in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// [`ResultsError`] says why it cannot be read.
    pub fn kept_in(folder: &ResultsFolder) -> Result<Option<Self>, ResultsError> {
        let path = folder.path().join(BASELINE_JSON);
        path.exists().then(|| read_json(&path)).transpose()
    }

    /// Cases with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cases.iter().filter(|case| case.verdict == verdict).count()
    }

    /// Writes one row per case. Nothing is blank.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_csv(&self, out: impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(COLUMNS)?;
        for case in &self.cases {
            csv.write_record(self.row(case))?;
        }
        csv.flush()
    }

    fn row(&self, case: &BaselineCase) -> [String; COLUMNS.len()] {
        let number = |value: Option<f64>, absent: &str| match value {
            Some(value) if value.is_finite() => format!("{value:?}"),
            _ => absent.to_owned(),
        };
        let ratio = |of: fn(&Ratio) -> f64| number(case.ratio.as_ref().map(of), NOT_APPLICABLE);
        let baseline = case.baseline.as_ref();
        // A case that is not in the baseline has no figures.
        let absent = if baseline.is_some() {
            NOT_MEASURED
        } else {
            NOT_APPLICABLE
        };
        let in_baseline = |text: Option<String>| text.unwrap_or_else(|| NOT_APPLICABLE.to_owned());
        [
            case.backend.clone(),
            case.device.clone(),
            case.settings.clone(),
            case.products.to_string(),
            case.rows.to_string(),
            case.sha256.clone(),
            case.verdict.name().to_owned(),
            ratio(|r| r.of_medians),
            ratio(|r| r.low),
            ratio(|r| r.high),
            ratio(|r| r.confidence),
            case.unit.plural().to_owned(),
            number(case.here.rate, NOT_MEASURED),
            number(baseline.and_then(|b| b.rate), absent),
            case.here.repeats.to_string(),
            in_baseline(baseline.map(|b| b.repeats.to_string())),
            number(case.here.busy_share, NOT_MEASURED),
            number(baseline.and_then(|b| b.busy_share), absent),
            case.here.status.name().to_owned(),
            in_baseline(baseline.map(|b| b.status.name().to_owned())),
            self.here.git_commit.clone(),
            self.baseline.git_commit.clone(),
            self.here.measured_at.clone(),
            self.baseline.measured_at.clone(),
            case.reason.clone(),
        ]
    }

    /// Writes [`BASELINE_JSON`] and [`BASELINE_CSV`] into the folder of this run.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &ResultsFolder) -> Result<(), FileError> {
        write_atomically(&folder.path().join(BASELINE_JSON), |f| write_json(f, self))?;
        write_atomically(&folder.path().join(BASELINE_CSV), |f| self.write_csv(f))?;
        Ok(())
    }
}

/// The columns of [`BASELINE_CSV`], in order.
pub const COLUMNS: [&str; 25] = [
    "backend",
    "device",
    "settings",
    "products",
    "rows",
    "data_sha256",
    "verdict",
    "ratio",
    "ratio_low",
    "ratio_high",
    "confidence",
    "a_second",
    "rate",
    "baseline_rate",
    "repeats",
    "baseline_repeats",
    "busy_share",
    "baseline_busy_share",
    "status",
    "baseline_status",
    "git_commit",
    "baseline_git_commit",
    "measured_at",
    "baseline_measured_at",
    "reason",
];

/// One case compared with the baseline's.
fn compared(record: &CaseRecord, earlier: &[&CaseRecord]) -> BaselineCase {
    let found = counterpart(record, earlier);
    let (verdict, ratio, reason) = match &found {
        Counterpart::Missing => (
            Verdict::NotComparable,
            None,
            format!("the baseline has no case of {}", record.backend),
        ),
        Counterpart::Other { differences, .. } => (Verdict::NotComparable, None, differences.join("; ")),
        Counterpart::Same(other) => by_repeats(record, other),
    };
    BaselineCase {
        backend: record.backend.clone(),
        device: record.device.clone(),
        settings: record.settings(),
        unit: record.unit,
        products: record.panel.products,
        rows: record.panel.rows,
        sha256: record.panel.sha256.clone(),
        verdict,
        reason,
        ratio,
        here: Side::of(record),
        baseline: match found {
            Counterpart::Same(other) | Counterpart::Other { record: other, .. } => Some(Side::of(other)),
            Counterpart::Missing => None,
        },
    }
}

/// The verdict of the repeats of a case and of its counterpart.
fn by_repeats(record: &CaseRecord, other: &CaseRecord) -> (Verdict, Option<Ratio>, String) {
    for (side, which) in [(record, "here"), (other, "in the baseline")] {
        if !side.has_speed() {
            let reason = format!("no speed {which}: {}: {}", side.status.name(), side.reason);
            return (Verdict::NotComparable, None, reason);
        }
    }
    let rates = |record: &CaseRecord| -> Vec<f64> { record.repeats.iter().map(|s| s.rate()).collect() };
    let Some(ratio) = Ratio::of(&rates(record), &rates(other)) else {
        let reason = format!(
            "{} and {} repeats are too few, or too short to be timed, to tell a difference from noise with a confidence of {:.0}%; \
             five of each are enough",
            record.repeats.len(),
            other.repeats.len(),
            100.0 * CONFIDENCE
        );
        return (Verdict::NotComparable, None, reason);
    };
    let verdict = match ratio.direction() {
        Direction::Above => Verdict::Faster,
        Direction::Below => Verdict::Slower,
        Direction::Neither => Verdict::NoDifference,
    };
    let told: Vec<String> = [(record, "here"), (other, "baseline")]
        .into_iter()
        .filter(|(side, _)| side.status != Status::Ok)
        .map(|(side, which)| format!("{which}: {}", side.reason))
        .collect();
    let reason = if told.is_empty() {
        "none".to_owned()
    } else {
        told.join("; ")
    };
    (verdict, Some(ratio), reason)
}

/// A remark if other programs used the machine when `run` was timed.
fn busy(records: &[CaseRecord], run: &str) -> Option<String> {
    let shares = records.iter().filter_map(|r| r.busy_share);
    let most = shares.max_by(f64::total_cmp).filter(|share| *share > QUIET)?;
    Some(format!(
        "Other programs used up to {:.0}% of the machine before the timing of {run}",
        100.0 * most
    ))
}
