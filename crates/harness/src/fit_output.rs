//! The folder of a fit: `posterior.csv`, `trace.csv`, `draws.parquet`, `coordinates.json`, and `run.json` last.
//!
//! All files are on the disk under temporary names before the first takes its place, and `run.json` comes last with
//! the digests of the others: whatever happens in between, each file is whole, and `run.json` tells which belong to it.

use crate::atomic_file::{FileError, StagedFile, stage};
use crate::draws_parquet::{Coordinates, write_draws_parquet};
use crate::fit_record::{FileDigest, FitRecord, write_json};
use crate::posterior_csv::write_posterior_csv;
use crate::trace_csv::write_trace_csv;
use infermark_backend::report::Detail;
use infermark_backend::{Draws, Posterior};
use infermark_model::Panel;
use std::path::{Path, PathBuf};

/// The posterior.
pub const POSTERIOR_CSV: &str = "posterior.csv";
/// The loss trace of SVI.
pub const TRACE_CSV: &str = "trace.csv";
/// The draws of NUTS.
pub const DRAWS_PARQUET: &str = "draws.parquet";
/// Names along the axes of the draws.
pub const COORDINATES_JSON: &str = "coordinates.json";
/// The record of the run.
pub const RUN_JSON: &str = "run.json";

/// Writes all files of a fit into `folder` and returns their paths, `run.json` last. The posterior is missing where a
/// run was stopped before it had one. Files of an earlier fit in the same folder that this one does not have are removed.
///
/// # Errors
/// When a file cannot be written; the earlier fit's files then stand as they were, or some are replaced and the
/// earlier `run.json` no longer matches them.
pub fn write_fit(
    folder: &Path,
    panel: &Panel,
    posterior: Option<&Posterior>,
    draws: Option<&Draws>,
    mut record: FitRecord,
) -> Result<Vec<PathBuf>, FileError> {
    let at = |name: &str| folder.join(name);
    let mut staged: Vec<StagedFile> = Vec::new();
    if let Some(posterior) = posterior {
        staged.push(stage(&at(POSTERIOR_CSV), |f| {
            write_posterior_csv(f, panel, posterior)
        })?);
    }
    if let Detail::Svi(svi) = &record.report.detail {
        staged.push(stage(&at(TRACE_CSV), |f| write_trace_csv(f, &svi.trace))?);
    }
    if let Some(draws) = draws {
        staged.push(stage(&at(DRAWS_PARQUET), |f| write_draws_parquet(f, draws))?);
        let coordinates = Coordinates::new(panel, draws);
        staged.push(stage(&at(COORDINATES_JSON), |f| write_json(f, &coordinates))?);
    }
    for file in &staged {
        let name = file.path().file_name().expect("a file in the folder");
        record.files.insert(
            name.to_string_lossy().into_owned(),
            FileDigest {
                bytes: file.bytes,
                sha256: file.sha256.clone(),
            },
        );
    }
    staged.push(stage(&at(RUN_JSON), |f| record.write(f))?);
    let mut written = Vec::new();
    for file in staged {
        written.push(file.path().to_owned());
        file.commit()?;
    }
    for name in [POSTERIOR_CSV, TRACE_CSV, DRAWS_PARQUET, COORDINATES_JSON] {
        let stale = at(name);
        if !written.contains(&stale) && stale.exists() {
            std::fs::remove_file(&stale).map_err(|e| FileError::new("remove", &stale, e))?;
        }
    }
    Ok(written)
}
