//! Draws tables and pictures from the cases of a folder, without measuring anything.

use crate::baseline::{Baseline, BaselineComparison};
use crate::plots::{PlotError, draw_all};
use crate::records::case_record::CaseRecord;
use crate::records::results_folder::{RESULTS_CSV, ResultsError, ResultsFolder, TABLE_MD};
use crate::results_csv::write_results_csv;
use crate::table::baseline::section;
use crate::table::table;
use infermark_atomic_file::{FileError, write_atomically};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was drawn.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The cases.
    pub records: Vec<CaseRecord>,
    /// The table, as in `table.md`.
    pub table: String,
    /// The pictures.
    pub plots: Vec<PathBuf>,
}

/// Why a folder could not be drawn again.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Its results cannot be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Something cannot be written.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

impl From<FileError> for ReportError {
    fn from(e: FileError) -> Self {
        ReportError::Plot(PlotError::File(e))
    }
}

/// Reads the cases in `folder` and writes `results.csv`, `table.md` and the pictures again, compared with
/// `baseline` or, if none is given, with the baseline of the earlier comparison.
///
/// # Errors
/// When a case or the earlier comparison cannot be read, or a file not be written.
pub fn redraw(folder: &Path, baseline: Option<&Baseline>) -> Result<Drawing, ReportError> {
    let folder = ResultsFolder::existing(folder);
    let records = folder.read_cases()?;
    let comparison = match baseline {
        Some(baseline) => BaselineComparison::new(&records, baseline),
        None => BaselineComparison::kept_in(&folder)?,
    };
    let mut drawn = draw(&folder, &records)?;
    if let Some(comparison) = comparison {
        draw_beside(&folder, &comparison, &mut drawn.table)?;
    }
    Ok(drawn)
}

/// Writes the files of a comparison, and `table.md` once more with its section, which is appended to `table`.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_beside(
    folder: &ResultsFolder,
    comparison: &BaselineComparison,
    table: &mut String,
) -> Result<(), FileError> {
    comparison.write(folder)?;
    table.push('\n');
    table.push_str(&section(comparison));
    write_atomically(&folder.path().join(TABLE_MD), |f| f.write_all(table.as_bytes()))
}

/// Writes `results.csv`, `table.md` and the pictures of `records`.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(folder: &ResultsFolder, records: &[CaseRecord]) -> Result<Drawing, PlotError> {
    write_atomically(&folder.path().join(RESULTS_CSV), |f| {
        write_results_csv(f, records)
    })?;
    let table = table(records);
    write_atomically(&folder.path().join(TABLE_MD), |f| f.write_all(table.as_bytes()))?;
    let plots = draw_all(&folder.plots(), records)?;
    Ok(Drawing {
        records: records.to_vec(),
        table,
        plots,
    })
}
