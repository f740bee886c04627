//! The folder of a fit: `posterior.csv`, `trace.csv`, `draws.parquet`, `coordinates.json`, a picture, and `run.json` last.
//!
//! All files are on the disk under temporary names before the first gets its final name; `run.json` comes
//! last, with the digests of the others. An earlier fit is replaced as a whole, by exchanging folders.

use crate::checkpoint_file::CHECKPOINT_BIN;
use crate::digest_writer::DigestWriter;
use crate::draws_parquet::{DrawLabels, write_draws_parquet};
use crate::fit_record::{FitRecord, FitStatus, write_json};
use crate::json_file::{MOST_RECORD_BYTES, read_text};
use crate::posterior_csv::write_posterior_csv;
use crate::trace_csv::write_trace_csv;
use infermark_atomic_file::{AtomicFile, ClaimedFolder, FileError, StagedFile, stage};
use infermark_backend::{Detail, Draws, Posterior};
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

/// The writer that the files go through.
type Digested<'f> = DigestWriter<&'f mut AtomicFile>;

/// All files of a fit.
pub const FILES: [&str; 7] = [
    RUN_JSON,
    POSTERIOR_CSV,
    TRACE_CSV,
    DRAWS_PARQUET,
    COORDINATES_JSON,
    ELASTICITIES_PICTURES[0],
    ELASTICITIES_PICTURES[1],
];

/// There is another fit in a folder.
#[derive(Debug, thiserror::Error)]
#[error("{} holds a fit already, or files of the names that a fit has; give another folder, or replace them", .0.display())]
pub struct Taken(PathBuf);

/// Refuses a folder that holds a fit or a file of the name of one of its files, unless it is to be replaced. Touches nothing.
///
/// # Errors
/// When it holds one.
pub fn refuse_earlier_fit(folder: &Path, replace: bool) -> Result<(), Taken> {
    let record = folder.join(RUN_JSON);
    let mut others = FILES.iter().filter(|name| **name != RUN_JSON);
    let taken = others.any(|name| folder.join(name).exists()) || (record.exists() && !is_unfinished(&record));
    if !replace && taken {
        return Err(Taken(folder.to_owned()));
    }
    Ok(())
}

/// Whether a folder holds what a run left that was stopped.
pub fn is_partial_fit(folder: &Path) -> bool {
    is_unfinished(&folder.join(RUN_JSON))
}

/// Whether a file is the record of a run that was stopped: without its posterior it is not a fit.
fn is_unfinished(record: &Path) -> bool {
    let text = read_text(record, MOST_RECORD_BYTES).unwrap_or_default();
    serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|record| record["status"] == "unfinished")
}

/// The results of a run, possibly partial.
#[derive(Debug, Clone, Default)]
pub struct FitParts<'a> {
    /// The posterior; missing if a run was stopped before it had one.
    pub posterior: Option<&'a Posterior>,
    /// The kept draws; they require a posterior.
    pub draws: Option<&'a Draws>,
    /// The contents of [`ELASTICITIES_PICTURES`], in their order.
    pub pictures: &'a [Vec<u8>],
}

/// The outcome for a fit's files.
#[derive(Debug)]
pub struct WrittenFiles {
    /// The files written, `run.json` last; empty if a run without a posterior left an earlier fit unchanged.
    pub files: Vec<PathBuf>,
    /// Files that could not be written, each with the reason; `run.json` lists them too.
    pub missing: Vec<String>,
}

/// Writes all files of a fit into `folder`. An earlier fit there is replaced as a whole: at any moment the
/// files are those of the one or of the other. A run without a posterior has nothing to replace an earlier
/// fit with, and leaves it unchanged.
///
/// Only `posterior.csv` and `run.json` must be written: if the disk has no room for others, the record lists
/// the missing ones and is marked unfinished.
///
/// # Errors
/// When one of those two cannot be written; the earlier fit is then unchanged.
pub fn write_fit(
    folder: &ClaimedFolder,
    panel: &Panel,
    parts: &FitParts<'_>,
    record: FitRecord,
) -> Result<WrittenFiles, FileError> {
    let is_new = !folder.path().join(RUN_JSON).exists();
    // A finished fit takes the place of its checkpoint, so that no moment has both.
    let checkpoint = folder.path().join(CHECKPOINT_BIN);
    let ends_checkpoint = record.status == FitStatus::Finished && checkpoint.exists();
    if is_new && !ends_checkpoint {
        return write_into(folder.path(), panel, parts, record);
    }
    if parts.posterior.is_none() {
        return Ok(WrittenFiles {
            files: Vec::new(),
            missing: Vec::new(),
        });
    }
    let known: Vec<&str> = FILES
        .into_iter()
        .chain(ends_checkpoint.then_some(CHECKPOINT_BIN))
        .collect();
    let mut written = folder.replace(&known, |into| {
        let written = write_into(into, panel, parts, record)?;
        if ends_checkpoint && !written.missing.is_empty() {
            // What is missing can be written by going on from it.
            let kept = into.join(CHECKPOINT_BIN);
            if kept != checkpoint {
                std::fs::copy(&checkpoint, &kept).map_err(|error| FileError::new("write", &kept, error))?;
            }
        }
        Ok::<_, FileError>(written)
    })?;
    for file in &mut written.files {
        if let Some(name) = file.file_name() {
            *file = folder.path().join(name);
        }
    }
    Ok(written)
}

/// The files on the disk under temporary names.
struct Staging<'a> {
    into: &'a Path,
    files: Vec<(&'static str, StagedFile)>,
    record: FitRecord,
    missing: Vec<String>,
}

impl Staging<'_> {
    fn add(
        &mut self,
        name: &'static str,
        fill: &dyn Fn(&mut Digested<'_>) -> io::Result<()>,
    ) -> Result<(), FileError> {
        let mut digest = None;
        let staged = stage(&self.into.join(name), |file| {
            let mut writer = DigestWriter::new(file);
            fill(&mut writer)?;
            digest = Some(writer.finish());
            Ok(())
        })?;
        self.files.push((name, staged));
        self.record
            .files
            .extend(digest.map(|digest| (name.to_owned(), digest)));
        Ok(())
    }

    /// Writes an optional file; returns whether it was written.
    fn add_if_possible(
        &mut self,
        name: &'static str,
        fill: &dyn Fn(&mut Digested<'_>) -> io::Result<()>,
    ) -> bool {
        let added = self.add(name, fill);
        if let Err(error) = &added {
            self.miss(name, &error.cause);
        }
        added.is_ok()
    }

    fn miss(&mut self, name: &str, cause: &io::Error) {
        // Without paths, of which temporary files append their own: results name no folder.
        let cause = cause.to_string();
        let cause = cause.split(" at path ").next().unwrap_or_default();
        self.missing.push(format!("{name} was not written: {cause}"));
    }

    /// Writes the record; if there is no room for it, removes the optional files one by one, the last written
    /// first.
    fn add_record(&mut self) -> Result<StagedFile, FileError> {
        loop {
            let record = self.record_with_what_is_missing();
            let error = match stage(&self.into.join(RUN_JSON), |f| record.write(f)) {
                Ok(staged) => return Ok(staged),
                Err(error) => error,
            };
            match self.files.pop() {
                Some((name, file)) if name != POSTERIOR_CSV => {
                    drop(file);
                    self.record.files.remove(name);
                    self.miss(name, &error.cause);
                }
                _ => return Err(error),
            }
        }
    }

    fn record_with_what_is_missing(&self) -> FitRecord {
        let mut record = self.record.clone();
        if !self.missing.is_empty() {
            let told = (record.reason != "none").then(|| record.reason.clone());
            let reasons: Vec<String> = told.into_iter().chain(self.missing.iter().cloned()).collect();
            record.reason = reasons.join("; ");
            record.status = FitStatus::Unfinished;
        }
        record
    }
}

/// Writes all files into a folder, `run.json` last.
fn write_into(
    into: &Path,
    panel: &Panel,
    parts: &FitParts<'_>,
    record: FitRecord,
) -> Result<WrittenFiles, FileError> {
    let trace = match &record.report.detail {
        Detail::Svi(svi) => Some(svi.trace.clone()),
        _ => None,
    };
    let mut staging = Staging {
        into,
        files: Vec::new(),
        record,
        missing: Vec::new(),
    };
    if let Some(posterior) = parts.posterior {
        let threads = staging.record.request.resolved_threads();
        staging.add(POSTERIOR_CSV, &|f| {
            write_posterior_csv(f, panel, posterior, threads)
        })?;
    }
    if let Some(trace) = trace {
        staging.add_if_possible(TRACE_CSV, &|f| write_trace_csv(f, &trace));
    }
    if let Some(draws) = parts.draws.filter(|_| parts.posterior.is_some())
        && staging.add_if_possible(DRAWS_PARQUET, &|f| write_draws_parquet(f, draws))
    {
        let coordinates = DrawLabels::new(panel, draws);
        staging.add_if_possible(COORDINATES_JSON, &|f| write_json(f, &coordinates));
    }
    for (name, picture) in ELASTICITIES_PICTURES.into_iter().zip(parts.pictures) {
        staging.add_if_possible(name, &|f| f.write_all(picture));
    }
    let run = staging.add_record()?;
    let mut files = Vec::new();
    for file in staging.files.into_iter().map(|(_, file)| file).chain([run]) {
        files.push(file.path().to_owned());
        file.commit()?;
    }
    Ok(WrittenFiles {
        files,
        missing: staging.missing,
    })
}
