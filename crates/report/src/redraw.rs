//! Draws tables and pictures from the cases of a folder, without measuring anything.

use crate::baseline::{Baseline, BaselineComparison};
use crate::plots::{PlotError, draw_all, scaling as scaling_plots};
use crate::records::case_record::CaseRecord;
use crate::records::projection_record::ProjectionRecord;
use crate::records::results_folder::{
    PROJECTION_JSON, PROJECTION_MD, RESULTS_CSV, ResultsError, ResultsFolder, SCALING_CSV, SCALING_MD,
    TABLE_MD,
};
use crate::records::scaling_record::{CollectiveRecord, ScalingRecord};
use crate::results_csv::write_results_csv;
use crate::scaling_csv::write_scaling_csv;
use crate::table::baseline::section;
use crate::table::projection::projection_table;
use crate::table::scaling::scaling_table;
use crate::table::table;
use infermark_atomic_file::{FileError, write_atomically};
use infermark_fit_files::fit_record::write_json;
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

/// What was drawn of scaling, or of a projection: the table, and the pictures.
#[derive(Debug, Clone)]
pub struct ScalingDrawing {
    /// The table, as in its file.
    pub table: String,
    /// The pictures.
    pub plots: Vec<PathBuf>,
}

/// Reads the points of scaling in `folder` and writes `scaling.csv`, `scaling.md` and the pictures again.
///
/// # Errors
/// When a record cannot be read, or a file not be written.
pub fn redraw_scaling(folder: &Path) -> Result<ScalingDrawing, ReportError> {
    let folder = ResultsFolder::existing(folder);
    Ok(draw_scaling(
        &folder,
        &folder.read_scaling()?,
        &folder.read_collectives()?,
    )?)
}

/// Writes `scaling.csv`, `scaling.md` and the pictures.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_scaling(
    folder: &ResultsFolder,
    records: &[ScalingRecord],
    collectives: &[CollectiveRecord],
) -> Result<ScalingDrawing, PlotError> {
    write_atomically(&folder.path().join(SCALING_CSV), |f| {
        write_scaling_csv(f, records)
    })?;
    let table = scaling_table(records, collectives);
    write_atomically(&folder.path().join(SCALING_MD), |f| f.write_all(table.as_bytes()))?;
    let plots = scaling_plots::draw(&folder.plots(), records)?;
    Ok(ScalingDrawing { table, plots })
}

/// Writes `projection.json`, `projection.md` and the picture.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_projection(
    folder: &ResultsFolder,
    record: &ProjectionRecord,
) -> Result<ScalingDrawing, PlotError> {
    write_atomically(&folder.path().join(PROJECTION_JSON), |f| write_json(f, record))?;
    let table = projection_table(record);
    write_atomically(&folder.path().join(PROJECTION_MD), |f| {
        f.write_all(table.as_bytes())
    })?;
    let plots = scaling_plots::draw_projection(&folder.plots(), record)?;
    Ok(ScalingDrawing { table, plots })
}
