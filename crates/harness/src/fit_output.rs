//! The folder of a fit: `posterior.csv`, `trace.csv`, `draws.parquet`, `coordinates.json`, a picture, and `run.json` last.
//!
//! All files are on the disk under temporary names before the first takes its place, and `run.json` comes last with
//! the digests of the others: whatever happens in between, each file is whole, and `run.json` tells which belong to it.

use crate::digest_writer::DigestWriter;
use crate::draws_parquet::{Coordinates, write_draws_parquet};
use crate::fit_record::{FitRecord, FitStatus, write_json};
use crate::plots::Picture;
use crate::posterior_csv::write_posterior_csv;
use crate::trace_csv::write_trace_csv;
use infermark_atomic_file::{AtomicFile, FileError, StagedFile, stage};
use infermark_backend::report::Detail;
use infermark_backend::{Draws, Posterior};
use infermark_model::Panel;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The posterior.
pub const POSTERIOR_CSV: &str = "posterior.csv";
/// The loss trace of SVI.
pub const TRACE_CSV: &str = "trace.csv";
/// The draws of NUTS.
pub const DRAWS_PARQUET: &str = "draws.parquet";
/// Names along the axes of the draws.
pub const COORDINATES_JSON: &str = "coordinates.json";
/// The elasticities by category, as pictures.
pub const ELASTICITIES_PICTURES: [&str; 2] = ["elasticities_by_category.svg", "elasticities_by_category.png"];
/// The record of the run.
pub const RUN_JSON: &str = "run.json";

/// What the files are written through.
type Digested<'f> = DigestWriter<&'f mut AtomicFile>;

/// Why a folder does not take a fit.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another fit is there.
    #[error("{} holds a fit already; give another folder, or --force to replace it", .0.display())]
    Taken(PathBuf),
    /// It cannot be written to.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Refuses a folder that holds a fit, unless it is to be replaced. Touches nothing.
///
/// # Errors
/// [`FolderError::Taken`].
pub fn refuse_earlier_fit(folder: &Path, replace: bool) -> Result<(), FolderError> {
    // A run that was stopped before it had a posterior leaves its record alone, which is no fit.
    if !replace && folder.join(RUN_JSON).exists() && folder.join(POSTERIOR_CSV).exists() {
        return Err(FolderError::Taken(folder.to_owned()));
    }
    Ok(())
}

/// Creates `folder` and shows that files can be written in it, so that a run of hours does not end at that.
///
/// # Errors
/// When the folder cannot be created, or no file in it.
pub fn prove_writable(folder: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(|e| FileError::new("create the folder", folder, e))?;
    // Dropped without being put in its place, the file leaves nothing behind.
    AtomicFile::create(&folder.join(RUN_JSON)).map(drop)
}

/// What a run left, as far as it came.
#[derive(Debug, Clone, Default)]
pub struct FitParts<'a> {
    /// The posterior; missing where a run was stopped before it had one.
    pub posterior: Option<&'a Posterior>,
    /// The draws that were kept; they need a posterior beside them.
    pub draws: Option<&'a Draws>,
    /// [`ELASTICITIES_PICTURES`].
    pub pictures: &'a [Picture],
}

/// What became of a fit's files.
#[derive(Debug)]
pub struct Written {
    /// What was written, `run.json` last; empty where a run without a posterior left an earlier fit as it was.
    pub files: Vec<PathBuf>,
    /// Files that could not be written, each with the reason: `run.json` tells them too.
    pub missing: Vec<String>,
}

/// Writes all files of a fit into `folder`. Files of an earlier fit there that this one does not have are removed; a run
/// without a posterior has nothing to put in the place of an earlier fit, and leaves that alone.
///
/// Only `posterior.csv` and `run.json` must be written: where the disk has no room for others, the record says which are
/// missing and is marked unfinished.
///
/// # Errors
/// When one of those two cannot be written; the earlier fit's files then stand as they were, or some are replaced and the
/// earlier `run.json` no longer matches them.
pub fn write_fit(
    folder: &Path,
    panel: &Panel,
    parts: &FitParts<'_>,
    mut record: FitRecord,
) -> Result<Written, FileError> {
    let at = |name: &str| folder.join(name);
    if parts.posterior.is_none() && at(RUN_JSON).exists() {
        return Ok(Written {
            files: Vec::new(),
            missing: Vec::new(),
        });
    }
    let mut staged: Vec<StagedFile> = Vec::new();
    let mut digests = Vec::new();
    let mut add = |name: &str, fill: &dyn Fn(&mut Digested<'_>) -> io::Result<()>| {
        staged.push(stage(&at(name), |file| {
            let mut writer = DigestWriter::new(file);
            fill(&mut writer)?;
            digests.push((name.to_owned(), writer.finish()));
            Ok(())
        })?);
        Ok::<(), FileError>(())
    };
    let mut missing = Vec::new();
    if let Some(posterior) = parts.posterior {
        add(POSTERIOR_CSV, &|f| write_posterior_csv(f, panel, posterior))?;
    }
    // Without paths, of which temporary files append their own: results name no folder.
    let mut miss = |name: &str, error: FileError| {
        let cause = error.cause.to_string();
        let cause = cause.split(" at path ").next().unwrap_or_default();
        missing.push(format!("{name} was not written: {cause}"));
    };
    if let Detail::Svi(svi) = &record.report.detail
        && let Err(e) = add(TRACE_CSV, &|f| write_trace_csv(f, &svi.trace))
    {
        miss(TRACE_CSV, e);
    }
    if let Some(draws) = parts.draws.filter(|_| parts.posterior.is_some()) {
        match add(DRAWS_PARQUET, &|f| write_draws_parquet(f, draws)) {
            Err(e) => miss(DRAWS_PARQUET, e),
            Ok(()) => {
                let coordinates = Coordinates::new(panel, draws);
                if let Err(e) = add(COORDINATES_JSON, &|f| write_json(f, &coordinates)) {
                    miss(COORDINATES_JSON, e);
                }
            }
        }
    }
    for (name, picture) in ELASTICITIES_PICTURES.iter().zip(parts.pictures) {
        if let Err(e) = add(name, &|f| f.write_all(&picture.bytes)) {
            miss(name, e);
        }
    }
    record.files.extend(digests);
    if !missing.is_empty() {
        let told = (record.reason != "none").then(|| record.reason.clone());
        record.reason = told
            .into_iter()
            .chain(missing.iter().cloned())
            .collect::<Vec<_>>()
            .join("; ");
        record.status = FitStatus::Unfinished;
    }
    staged.push(stage(&at(RUN_JSON), |f| record.write(f))?);
    let mut files = Vec::new();
    for file in staged {
        files.push(file.path().to_owned());
        file.commit()?;
    }
    let known = [POSTERIOR_CSV, TRACE_CSV, DRAWS_PARQUET, COORDINATES_JSON];
    for name in known.into_iter().chain(ELASTICITIES_PICTURES) {
        let stale = at(name);
        if !files.contains(&stale) && stale.exists() {
            std::fs::remove_file(&stale).map_err(|e| FileError::new("remove", &stale, e))?;
        }
    }
    Ok(Written { files, missing })
}
