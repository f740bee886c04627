//! Defects of a file: where, which value, and what to do about it.

use super::compression::Compression;
use super::remedy::DefectRemedy;
use super::shown::{quoted, shortened};
use infermark_memory::Shortage;
use infermark_scratch::ScratchError;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many defects an error shows; the rest are counted.
pub const SHOWN_DEFECTS: usize = 10;

/// One defect in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// Line of a CSV file (the header is line 1) or row of a Parquet file (from 1); `None` for the whole
    /// file.
    pub row: Option<u64>,
    /// Name of the column; empty if the defect concerns the whole row or file.
    pub column: String,
    /// The value as in the file.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: DefectRemedy,
    row_word: &'static str,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = Vec::new();
        place.extend(self.row.map(|row| format!("{} {row}", self.row_word)));
        if !self.column.is_empty() {
            place.push(format!("column {}", quoted(&self.column)));
        }
        place.extend(self.value.as_ref().map(|v| format!("value {}", quoted(v))));
        if !place.is_empty() {
            write!(f, "{}: ", place.join(", "))?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{}: {cause}; check the path and its permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error; it is part of the message and therefore not also a `source()`.
        cause: std::io::Error,
    },
    /// The path is a directory.
    #[error("{} is a folder; {remedy}", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What it contains, and how to turn that into one file.
        remedy: String,
    },
    /// A Parquet file is read from a pipe.
    #[error("{}: Parquet is read from its end, which a pipe has not; save it as a file first and name that", path.display())]
    ParquetPipe {
        /// The pipe.
        path: PathBuf,
    },
    /// Neither the extension nor the content shows what the file is.
    #[error("{}: neither .csv nor .parquet by its name, and not Parquet by its content; rename it or convert it", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// The file is compressed as a whole.
    #[error("{}: {}", path.display(), by.told(path, *regular))]
    Compressed {
        /// The file.
        path: PathBuf,
        /// What compressed it.
        by: Compression,
        /// Whether it is a file rather than a pipe.
        regular: bool,
    },
    /// The rows, or the panel built from them, do not fit in memory; they are refused before it is allocated.
    #[error("{}: {shortage}; give it more memory, check that category and period are the right columns, or split the file by category", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// What does not fit, with figures.
        shortage: Shortage,
    },
    /// The rows of a panel that is larger than memory cannot be stored.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A pipe was to be read by several processes.
    #[error(
        "{}: several processes each read their own part of the file, in two passes, and a pipe is read once; save it as a file first and name that",
        path.display()
    )]
    PipeInParts {
        /// The pipe.
        path: PathBuf,
    },
    /// The file was not the same in both passes over it.
    #[error("{}: the file changed while it was read; read it again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file was read and has defects.
    #[error("{}", listed(path, defects, *total))]
    Defects {
        /// The file.
        path: PathBuf,
        /// The first defects, at most [`SHOWN_DEFECTS`], in the order of the file.
        defects: Vec<Defect>,
        /// How many there are.
        total: u64,
    },
}

impl ReadError {
    /// The defects shown; empty when the file could not be read at all.
    pub fn defects(&self) -> &[Defect] {
        match self {
            ReadError::Defects { defects, .. } => defects,
            _ => &[],
        }
    }
}

fn listed(path: &Path, defects: &[Defect], total: u64) -> String {
    let count = if total == 1 {
        "1 defect".into()
    } else {
        format!("{total} defects")
    };
    let mut text = format!("{}: {count}", path.display());
    for defect in defects {
        text += &format!("\n  {defect}");
    }
    if total > defects.len() as u64 {
        text += &format!("\n  and {} more", total - defects.len() as u64);
    }
    text
}

/// The place of a finding, before rows are converted into the numbers that the user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The file as a whole, or its header.
    File,
    /// A byte of the file.
    Byte(u64),
    /// A row of data, from 0.
    Row(u64),
}

impl Place {
    /// The row from 1, not counting a header.
    pub(crate) fn data_row(&self) -> Option<u64> {
        match self {
            Place::Row(row) => Some(row + 1),
            Place::File | Place::Byte(_) => None,
        }
    }
}

/// The places of a product and a period among the labels.
pub(crate) type Pair = [usize; 2];

#[derive(Debug)]
struct Finding {
    place: Place,
    /// A second row, which is named at the end of the problem text.
    other: Option<Place>,
    /// The product and period that both rows have, by their places among the labels.
    repeated: Option<Pair>,
    column: String,
    value: Option<String>,
    problem: String,
    remedy: DefectRemedy,
}

/// Collects findings: the first in file order are kept, all are counted.
#[derive(Debug, Default)]
pub(crate) struct Defects {
    kept: Vec<Finding>,
    total: u64,
}

impl Defects {
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Records a defect; `value` and `texts`, which returns problem and remedy, are called only if the defect
    /// is kept.
    pub(crate) fn push(
        &mut self,
        place: Place,
        column: &str,
        value: Option<&dyn Fn() -> String>,
        texts: impl FnOnce() -> (String, String),
    ) {
        self.push_pair(place, None, column, value, texts);
    }

    /// Records a defect whose problem text ends by naming the row `other`.
    pub(crate) fn push_pair(
        &mut self,
        place: Place,
        other: Option<Place>,
        column: &str,
        value: Option<&dyn Fn() -> String>,
        texts: impl FnOnce() -> (String, String),
    ) {
        if !self.admit(place) {
            return;
        }
        let (problem, remedy) = texts();
        self.kept.push(Finding {
            place,
            other,
            repeated: None,
            column: column.to_owned(),
            value: value.map(|value| shortened(value())),
            problem,
            remedy: remedy.into(),
        });
    }

    /// Records that the file's columns are not named as they are; `column` is the name concerned, empty for several.
    pub(crate) fn push_misnamed(&mut self, column: &str, problem: String, remedy: DefectRemedy) {
        if self.admit(Place::File) {
            self.kept.push(Finding {
                place: Place::File,
                other: None,
                repeated: None,
                column: column.to_owned(),
                value: None,
                problem,
                remedy,
            });
        }
    }

    /// Records that `place` repeats the product and period `pair` of the row `other`.
    pub(crate) fn push_repeated(
        &mut self,
        place: Place,
        other: Place,
        pair: Pair,
        column: &str,
        value: &dyn Fn() -> String,
        problem: impl FnOnce() -> String,
    ) {
        if self.admit(place) {
            self.kept.push(Finding {
                place,
                other: Some(other),
                repeated: Some(pair),
                column: column.to_owned(),
                value: Some(shortened(value())),
                problem: problem(),
                remedy: REPEATED_REMEDY.to_owned().into(),
            });
        }
    }

    /// The two rows and the remedy of every kept finding of a repeated product and period.
    pub(crate) fn repeated(&mut self) -> impl Iterator<Item = (Place, Place, &mut DefectRemedy)> {
        self.kept
            .iter_mut()
            .filter(|f| f.repeated.is_some())
            .filter_map(|f| Some((f.place, f.other?, &mut f.remedy)))
    }

    /// How many were found.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The kept findings of a repeated product and period: the two rows, and the pair.
    pub(crate) fn repeated_rows(&self) -> impl Iterator<Item = (Place, Place, Pair)> {
        let rows = |f: &Finding| Some((f.place, f.other?, f.repeated?));
        self.kept.iter().filter_map(rows)
    }

    /// Counts findings that were made elsewhere, and are not kept.
    pub(crate) fn count_unkept(&mut self, findings: u64) {
        self.total += findings;
    }

    /// Counts a defect at `place` and makes room for it, if it is to be kept.
    fn admit(&mut self, place: Place) -> bool {
        self.total += 1;
        // Later passes may find defects in earlier rows, which then replace the last of the kept ones.
        if self.kept.len() == SHOWN_DEFECTS {
            let latest = self
                .kept
                .iter()
                .enumerate()
                .max_by_key(|(i, f)| (f.place, *i))
                .map(|(i, _)| i);
            match latest {
                Some(latest) if self.kept[latest].place > place => drop(self.kept.remove(latest)),
                _ => return false,
            }
        }
        true
    }

    /// Adds the findings of another collector.
    pub(crate) fn absorb(&mut self, other: Defects) {
        let uncounted = other.total - other.kept.len() as u64;
        for finding in other.kept {
            if self.admit(finding.place) {
                self.kept.push(finding);
            }
        }
        self.total += uncounted;
    }

    /// Discards all findings, because a later one makes them meaningless.
    pub(crate) fn clear(&mut self) {
        *self = Defects::default();
    }

    /// The error that the user sees. `locate` returns the number of every place.
    pub(crate) fn into_error(
        mut self,
        path: &Path,
        row_word: &'static str,
        locate: impl FnOnce(&[Place]) -> Result<Vec<Option<u64>>, ReadError>,
    ) -> Result<ReadError, ReadError> {
        self.kept.sort_by_key(|f| f.place);
        let places: Vec<Place> = self
            .kept
            .iter()
            .flat_map(|f| [f.place, f.other.unwrap_or(Place::File)])
            .collect();
        let numbers = locate(&places)?;
        let defects = self
            .kept
            .into_iter()
            .zip(numbers.chunks(2))
            .map(|(f, numbers)| Defect {
                row: numbers[0],
                column: f.column,
                value: f.value,
                problem: match numbers[1] {
                    Some(other) => format!("{} {row_word} {other}", f.problem),
                    None => f.problem,
                },
                remedy: f.remedy,
                row_word,
            });
        Ok(ReadError::Defects {
            path: path.to_owned(),
            defects: defects.collect(),
            total: self.total,
        })
    }
}

/// What to do about two rows of one product and period when their other columns are not known.
const REPEATED_REMEDY: &str = "keep one of the two rows, or, where another column (a year, a store) tells them apart, \
                               make it a part of the period or the product";
