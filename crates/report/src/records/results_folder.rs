//! The folder of a benchmark: dated, never overwritten, every file whole.
//!
//! `runs/*.json` hold one case each, `results.csv` the flat table, `table.md` the table to read, `plots/` the pictures. Of scaling
//! `scaling/*.json` hold one point each and `collectives/*.json` timed all-reduces, with `scaling.csv` and `scaling.md`.

use crate::records::case_record::CaseRecord;
use crate::records::scaling_record::{CollectiveRecord, ScalingRecord};
use infermark_atomic_file::{FileError, LOCK, write_atomically};
use infermark_fit_files::file_name::in_file_name;
use infermark_fit_files::fit_record::{SCHEMA_VERSION, finite_report, write_json};
use infermark_fit_files::json_file::{MOST_RECORD_BYTES, RecordFault, parse_record, read_text};
use infermark_machine::host_name;
use infermark_model::civil_from_days;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The flat table.
pub const RESULTS_CSV: &str = "results.csv";
/// The table to read.
pub const TABLE_MD: &str = "table.md";
/// Folder of the cases' JSON files.
pub const RUNS: &str = "runs";
/// Folder of the JSON files of measured scaling, one a point.
pub const SCALING: &str = "scaling";
/// Folder of the JSON files of timed all-reduces.
pub const COLLECTIVES: &str = "collectives";
/// The flat table of scaling.
pub const SCALING_CSV: &str = "scaling.csv";
/// The table of scaling to read.
pub const SCALING_MD: &str = "scaling.md";
/// A projection.
pub const PROJECTION_JSON: &str = "projection.json";
/// A projection's table to read.
pub const PROJECTION_MD: &str = "projection.md";
/// Folder of the pictures.
pub const PLOTS: &str = "plots";

/// A folder that takes the results of one run.
#[derive(Debug, Clone)]
pub struct ResultsFolder {
    path: PathBuf,
}

/// Why a folder's results cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not the JSON of a case, or of another record in the folder.
    #[error("{}: {error}; remove the file, or measure again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        error: serde_json::Error,
    },
    /// A file of a later version of this program.
    #[error("{} has schema version {found}, and this program reads up to {SCHEMA_VERSION}; use a newer one", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// There is nothing to read.
    #[error("{} holds no results: there is no {RUNS}/*.json or {SCALING}/*.json in it; give the folder that a benchmark wrote", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

impl ResultsFolder {
    /// Creates `path`, or `path-2`, `path-3` .. next to it if it is not empty.
    ///
    /// # Errors
    /// When no folder can be created there.
    pub fn create(path: &Path) -> Result<Self, FileError> {
        // From its components, since a number after a slash at the end would name something inside.
        let path: PathBuf = path.components().collect();
        let mut candidate = path.clone();
        let mut number = 1;
        while is_taken(&candidate) {
            let Some(name) = path.file_name() else {
                let e = io::Error::new(io::ErrorKind::AlreadyExists, "there is something in it");
                return Err(FileError::new("use the folder", &path, e));
            };
            number += 1;
            let mut name = name.to_owned();
            name.push(format!("-{number}"));
            candidate = path.with_file_name(name);
        }
        std::fs::create_dir_all(&candidate)
            .map_err(|e| FileError::new("create the folder", &candidate, e))?;
        Ok(ResultsFolder { path: candidate })
    }

    /// Creates `<date>-<host>` in `base`; `host` may be given instead of the machine's name.
    ///
    /// # Errors
    /// When no folder can be created there.
    pub fn dated(base: &Path, host: Option<&str>) -> Result<Self, FileError> {
        let date = &now_utc()[..10];
        Self::create(&base.join(format!("{date}-{}", host_for_folder(host))))
    }

    /// A folder that was written before.
    pub fn existing(path: &Path) -> Self {
        ResultsFolder {
            path: path.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the pictures are.
    pub fn plots(&self) -> PathBuf {
        self.path.join(PLOTS)
    }

    /// Writes one case.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_case(&self, record: &CaseRecord) -> Result<PathBuf, FileError> {
        let path = self.path.join(RUNS).join(format!("{}.json", record.file_stem()));
        let mut record = record.clone();
        record.report = record.report.map(finite_report);
        write_atomically(&path, |f| write_json(f, &record))?;
        Ok(path)
    }

    /// Writes one point of scaling.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_scaling(&self, record: &ScalingRecord) -> Result<PathBuf, FileError> {
        let name = format!("{}.json", record.file_stem());
        let path = self.path.join(SCALING).join(name);
        write_atomically(&path, |f| write_json(f, record))?;
        Ok(path)
    }

    /// Writes timed all-reduces of one size.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_collective(&self, record: &CollectiveRecord) -> Result<PathBuf, FileError> {
        let name = format!("{}.json", record.file_stem());
        let path = self.path.join(COLLECTIVES).join(name);
        write_atomically(&path, |f| write_json(f, record))?;
        Ok(path)
    }

    /// Reads all cases back, in the order in which they were measured.
    ///
    /// # Errors
    /// [`ResultsError`] names the file that cannot be read.
    pub fn read_cases(&self) -> Result<Vec<CaseRecord>, ResultsError> {
        let mut records: Vec<CaseRecord> = self.read_records(RUNS)?;
        self.refuse_empty(&records)?;
        records.sort_by_key(|r| r.sequence);
        Ok(records)
    }

    /// Reads all points of scaling back, in the order in which they were measured.
    ///
    /// # Errors
    /// [`ResultsError`] names the file that cannot be read.
    pub fn read_scaling(&self) -> Result<Vec<ScalingRecord>, ResultsError> {
        let mut records: Vec<ScalingRecord> = self.read_records(SCALING)?;
        self.refuse_empty(&records)?;
        records.sort_by_key(|r| r.sequence);
        Ok(records)
    }

    /// Reads all timed all-reduces back, in the order in which they were measured; none where there are none.
    ///
    /// # Errors
    /// [`ResultsError`] names the file that cannot be read.
    pub fn read_collectives(&self) -> Result<Vec<CollectiveRecord>, ResultsError> {
        let mut records: Vec<CollectiveRecord> = self.read_records(COLLECTIVES)?;
        records.sort_by_key(|r| r.sequence);
        Ok(records)
    }

    /// Whether there are points of scaling.
    pub fn has_scaling(&self) -> bool {
        self.path.join(SCALING).is_dir()
    }

    /// Whether there are cases.
    pub fn has_cases(&self) -> bool {
        self.path.join(RUNS).is_dir()
    }

    fn refuse_empty<T>(&self, records: &[T]) -> Result<(), ResultsError> {
        match records {
            [] => Err(ResultsError::Empty {
                path: self.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The records in one of the folders; none where it is not there.
    fn read_records<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, ResultsError> {
        let folder = self.path.join(name);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(FileError::new("read", &folder, e).into()),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| FileError::new("read", &folder, e))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                records.push(read_json(&path)?);
            }
        }
        Ok(records)
    }
}

/// Reads a record of a results folder.
///
/// # Errors
/// [`ResultsError`] says what is wrong with it.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ResultsError> {
    let text = read_text(path, MOST_RECORD_BYTES).map_err(|e| FileError::new("read", path, e))?;
    let path = path.to_owned();
    parse_record(&text).map_err(|fault| match fault {
        RecordFault::Newer(found) => ResultsError::Schema { path, found },
        RecordFault::Json(error) => ResultsError::Json { path, error },
    })
}

fn is_taken(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        // The lock of a run that died before it had a result does not count as content.
        Ok(mut entries) => entries.any(|entry| entry.map_or(true, |entry| entry.file_name() != LOCK)),
        Err(e) => e.kind() != io::ErrorKind::NotFound,
    }
}

/// Now, `YYYY-MM-DDThh:mm:ssZ`.
pub fn now_utc() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let (year, month, day) = civil_from_days((seconds / 86_400) as i32);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The host's name, made fit for a folder's name; `host` where it has none. Only the results folder carries it.
fn host_for_folder(given: Option<&str>) -> String {
    let host = given.map(str::to_owned).or_else(host_name).unwrap_or_default();
    let clean = in_file_name(&host);
    let clean = clean.trim_matches('-');
    if clean.is_empty() {
        "host".into()
    } else {
        clean.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_fit_for_a_folder() {
        assert_eq!(host_for_folder(Some("my host.local/x")), "my-host-local-x");
        assert_eq!(host_for_folder(Some("//")), "host");
        assert!(!host_for_folder(None).is_empty());
    }

    #[test]
    fn a_folder_with_results_is_never_taken_again() {
        let base = tempfile::tempdir().unwrap();
        let first = ResultsFolder::dated(base.path(), Some("box")).unwrap();
        let name = first.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.len() == 14 && name.ends_with("-box"), "{name}");
        // Empty: it may be used.
        assert_eq!(
            ResultsFolder::dated(base.path(), Some("box")).unwrap().path(),
            first.path()
        );
        std::fs::write(first.path().join("x"), b"").unwrap();
        let second = ResultsFolder::create(first.path()).unwrap();
        assert!(second.path().to_str().unwrap().ends_with("-box-2"));
        std::fs::write(second.path().join("x"), b"").unwrap();
        let third = ResultsFolder::create(first.path()).unwrap();
        assert!(third.path().to_str().unwrap().ends_with("-box-3"));
        // A slash at the end is the same folder, not one inside.
        let mut with_slash = first.path().as_os_str().to_owned();
        with_slash.push("/");
        let again = ResultsFolder::create(Path::new(&with_slash)).unwrap();
        assert_eq!(again.path(), third.path());
        let nameless = base.path().join("x/..");
        std::fs::create_dir(base.path().join("x")).unwrap();
        assert!(ResultsFolder::create(&nameless).is_err());
    }

    #[test]
    fn a_folder_without_results_says_so() {
        let base = tempfile::tempdir().unwrap();
        let folder = ResultsFolder::existing(base.path());
        assert!(matches!(folder.read_cases(), Err(ResultsError::Empty { .. })));
        std::fs::create_dir(base.path().join(RUNS)).unwrap();
        let file = base.path().join(RUNS).join("a.json");
        std::fs::write(&file, b"{\"schema_version\": 99}").unwrap();
        assert!(matches!(
            folder.read_cases(),
            Err(ResultsError::Schema { found: 99, .. })
        ));
        std::fs::write(&file, b"{\"schema_version\": 1,\n x").unwrap();
        let error = folder.read_cases().unwrap_err().to_string();
        assert!(error.contains("a.json") && error.contains("line 2"), "{error}");
    }
}
