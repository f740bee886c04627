//! Reads the folder of a fit back: `run.json`, `posterior.csv`, and the elasticities' draws if there are any.

use crate::digest_writer::DigestWriter;
use crate::draws_parquet::read_elasticity_draws;
use crate::fit_output::{DRAWS_PARQUET, POSTERIOR_CSV, RUN_JSON};
use crate::fit_record::{FitRecord, SCHEMA_VERSION};
use crate::json_file::{MOST_RECORD_BYTES, RecordFault, parse_record, read_text};
use crate::posterior_csv::COLUMNS;
use infermark_atomic_file::FileError;
use infermark_backend::{Method, Posterior, SiteDraws};
use infermark_model::{Layout, Site};
use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

/// A fit that was read back.
#[derive(Debug, Clone)]
pub struct FitFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Its record.
    pub record: FitRecord,
    /// Its posterior: mean, standard deviation, 5% and 95% quantiles as in the file, which has no other
    /// quantiles; the others are those of the normal.
    pub posterior: Posterior,
    /// The key of every latent, in the order of the posterior.
    pub keys: Vec<String>,
}

/// Reasons for not reading a folder as a fit.
#[derive(Debug, thiserror::Error)]
pub enum FitFolderError {
    /// There is no fit.
    #[error("{} holds no fit: there is no {RUN_JSON} in it; give the folder that a fit was written to", .0.display())]
    NoFit(PathBuf),
    /// The fit ended before it had a posterior.
    #[error("the fit in {} has no posterior ({reason}); fit again", path.display())]
    NoPosterior {
        /// The folder.
        path: PathBuf,
        /// Why it is unfinished.
        reason: String,
    },
    /// A file belongs to another run.
    #[error("{} is not the file that {RUN_JSON} beside it was written with; fit again", .0.display())]
    Replaced(PathBuf),
    /// `run.json` is not the record of a fit.
    #[error("{}: {error}; fit again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        error: serde_json::Error,
    },
    /// It was written by a later version of this program.
    #[error("{} has schema version {found}, and this program reads up to {SCHEMA_VERSION}; use a newer one", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// `posterior.csv` is invalid.
    #[error("{} line {line}: {what}; fit again", path.display())]
    Posterior {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl FitFolder {
    /// Reads the fit in `path`; draws are not read.
    ///
    /// # Errors
    /// [`FitFolderError`] names the file, what is wrong with it and what to do.
    pub fn read(path: &Path) -> Result<Self, FitFolderError> {
        let record = read_record(path)?;
        let file = path.join(POSTERIOR_CSV);
        let Some(digest) = record.files.get(POSTERIOR_CSV) else {
            return Err(FitFolderError::NoPosterior {
                path: path.to_owned(),
                reason: record.reason,
            });
        };
        let bytes = std::fs::read(&file).map_err(|e| FileError::new("read", &file, e))?;
        let mut sink = DigestWriter::new(io::sink());
        io::copy(&mut bytes.as_slice(), &mut sink).map_err(|e| FileError::new("read", &file, e))?;
        if sink.finish() != *digest {
            return Err(FitFolderError::Replaced(file));
        }
        let layout = Layout::new(
            record.panel.products,
            record.panel.categories,
            record.panel.periods,
        )
        .with_likelihood(record.request.likelihood);
        let (posterior, keys) =
            parse_posterior(&bytes, layout).map_err(|(line, what)| FitFolderError::Posterior {
                path: file,
                line,
                what,
            })?;
        Ok(FitFolder {
            path: path.to_owned(),
            record,
            posterior,
            keys,
        })
    }

    /// The draws of the elasticities, where the fit kept some.
    ///
    /// # Errors
    /// When they cannot be read, or are of another run.
    pub fn elasticity_draws(&self) -> Result<Option<SiteDraws>, FitFolderError> {
        let Some(digest) = self.record.files.get(DRAWS_PARQUET) else {
            return Ok(None);
        };
        let path = self.path.join(DRAWS_PARQUET);
        let failed = |e| FileError::new("read", &path, e);
        let mut file = File::open(&path).map_err(failed)?;
        let mut sink = DigestWriter::new(io::sink());
        io::copy(&mut file, &mut sink).map_err(failed)?;
        if sink.finish() != *digest {
            return Err(FitFolderError::Replaced(path));
        }
        file.rewind().map_err(failed)?;
        Ok(read_elasticity_draws(file, self.posterior.layout.products).map_err(failed)?)
    }

    /// The products' labels, as files write them, in the order of the posterior.
    pub fn products(&self) -> &[String] {
        &self.keys[self.posterior.layout.range(Site::ProductA)]
    }

    /// Seconds that the fit took, set-up included.
    pub fn seconds(&self) -> f64 {
        self.record.report.setup_seconds + self.record.report.run_seconds
    }

    /// Whether it is of NUTS.
    pub fn is_nuts(&self) -> bool {
        matches!(self.record.request.method, Method::Nuts(_))
    }
}

fn read_record(folder: &Path) -> Result<FitRecord, FitFolderError> {
    let path = folder.join(RUN_JSON);
    let text = match read_text(&path, MOST_RECORD_BYTES) {
        Ok(text) => text,
        Err(e) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&e.kind()) => {
            return Err(FitFolderError::NoFit(folder.to_owned()));
        }
        Err(e) => return Err(FileError::new("read", &path, e).into()),
    };
    parse_record(&text).map_err(|fault| match fault {
        RecordFault::Newer(found) => FitFolderError::Schema { path, found },
        RecordFault::Json(error) => FitFolderError::Json { path, error },
    })
}

/// The posterior in `bytes`, with its keys; otherwise the line, from 1, and what is wrong there.
fn parse_posterior(bytes: &[u8], layout: Layout) -> Result<(Posterior, Vec<String>), (usize, String)> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|e| (1, e.to_string()))?;
    if header.iter().take(COLUMNS.len()).ne(COLUMNS) {
        return Err((1, format!("the columns do not begin with {}", COLUMNS.join(","))));
    }
    // Checked before allocating, because the sizes come from another file.
    let rows = bytes.iter().filter(|b| **b == b'\n').count();
    let ends_early = |found: usize, latents: Option<usize>| {
        let latents = latents.map_or("more than any file has".to_owned(), |latents| latents.to_string());
        let what = format!("it ends after {found} of {latents} rows, as many as {RUN_JSON} tells of");
        (found + 1, what)
    };
    let claimed = layout.checked_latents();
    let Some(latents) = claimed.filter(|latents| *latents <= rows) else {
        return Err(ends_early(rows.saturating_sub(1), claimed));
    };
    let mut keys = Vec::with_capacity(latents);
    let mut columns: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::with_capacity(latents));
    let mut row = csv::StringRecord::new();
    loop {
        // Keys hold no line feeds, so that a row is a line.
        let line = keys.len() + 2;
        if !reader.read_record(&mut row).map_err(|e| (line, e.to_string()))? {
            break;
        }
        let site = row.get(0).unwrap_or_default();
        if keys.len() >= latents || layout.site_of(keys.len()).name() != site {
            return Err((
                line,
                format!("a row of '{site}' does not stand here in a panel of this size"),
            ));
        }
        keys.push(row.get(1).unwrap_or_default().to_owned());
        for (place, column) in columns.iter_mut().enumerate() {
            let cell = row.get(2 + place).unwrap_or_default();
            let value = cell
                .parse()
                .map_err(|_| (line, format!("{} is '{cell}', not a number", COLUMNS[2 + place])))?;
            column.push(value);
        }
    }
    if keys.len() < latents {
        return Err(ends_early(keys.len(), claimed));
    }
    let [mean, sd, q05, q95] = columns;
    let normal = Posterior::normal(layout, mean, sd);
    Ok((Posterior { q05, q95, ..normal }, keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;

    const LAYOUT: Layout = Layout::new(1, 1, 1);
    const FILE: &str = "site,key,mean,sd,q05,q95\nglobal_a,,-2,1,-3.5,-0.5\ncategory_a,c,-1,1,-2.5,0.5\n\
        product_a,\"a, b\",-1,0.5,-2,0\nproduct_effect,\"a, b\",3,1,1,5\ntime_cat_effects,c@1,0,3,-5,5\n";

    #[test]
    fn a_posterior_is_read_with_its_keys() {
        let (posterior, keys) = parse_posterior(FILE.as_bytes(), LAYOUT).unwrap();
        assert_eq!(keys, ["", "c", "a, b", "a, b", "c@1"]);
        assert_eq!(posterior.mean, [-2.0, -1.0, -1.0, 3.0, 0.0]);
        assert_eq!((posterior.q05[2], posterior.q95[2]), (-2.0, 0.0));
        assert!((posterior.q975[2] - (-1.0 + 0.5 * 1.959_963_984_540_054)).abs() < 1e-12);
    }

    #[test]
    fn sizes_that_are_only_claimed_take_no_memory() {
        for layout in [
            Layout::new(4_000_000_000, 1, 1),
            Layout::new(1, usize::MAX, usize::MAX),
            Layout::new(usize::MAX, 1, 1).with_likelihood(Likelihood::NegativeBinomial),
        ] {
            let (line, what) = parse_posterior(FILE.as_bytes(), layout).unwrap_err();
            assert!(line == 6 && what.starts_with("it ends after 5 of "), "{what}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (from, to, line, word) in [
            ("q95", "q99", 1, "columns"),
            ("category_a", "categories", 3, "'categories'"),
            ("0.5,-2", "x,-2", 4, "sd is 'x'"),
            ("time_cat_effects,c@1,0,3,-5,5\n", "", 5, "4 of 5"),
            (
                "c@1,0,3,-5,5\n",
                "c@1,0,3,-5,5\nglobal_a,,1,1,1,1\n",
                7,
                "global_a",
            ),
            ("c@1,0,3,-5,5", "c@1,0,3", 6, "record"),
        ] {
            let (found, what) = parse_posterior(FILE.replace(from, to).as_bytes(), LAYOUT).unwrap_err();
            assert_eq!(found, line, "{what}");
            assert!(what.contains(word), "{what}");
        }
    }
}
