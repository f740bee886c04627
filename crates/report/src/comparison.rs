//! Fits of one panel side by side: time, distance from the truth, and distance from a reference fit.

use crate::fit_summary::model_in_words;
use crate::number_format::{count, duration, three_digits};
use crate::plots::agreement::AgreementRow;
use crate::plots::coverage::CoverageLine;
use crate::plots::quality_against_time::{QualityLine, QualityPoint, QualityReference};
use crate::plots::{PlotError, agreement, coverage, quality_against_time};
use crate::quality::agreement::{Agreement, Reference};
use crate::quality::coverage::LEVELS;
use crate::quality::truth::TruthQuality;
use crate::results_csv::NOT_APPLICABLE;
use crate::table::agreement::{SITE_COLUMNS, in_words, site_rows};
use crate::table::grid::Grid;
use infermark_atomic_file::{FileError, write_atomically};
use infermark_backend::Detail;
use infermark_fit_files::fit_folder::{FitFolder, FitFolderError};
use infermark_fit_files::fit_record::FitStatus;
use infermark_model::{Likelihood, Site, Specification};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The flat table of a comparison.
pub const COMPARISON_CSV: &str = "comparison.csv";
/// The picture of what intervals cover, without extension.
const COVERAGE: &str = "coverage";
/// The picture of the fits compared with the reference, without extension.
const BESIDE_REFERENCE: &str = "beside_reference";
const QUALITY_AGAINST_TIME: &str = "quality_against_time";

/// Reasons for not comparing fits.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    /// Two fits are of different data.
    #[error("{} is a fit of another panel ({other_source}, {other_rows} rows) than {} ({source_name}, {rows} rows); compare fits of the same data", other.display(), path.display())]
    Panel {
        /// A fit.
        path: PathBuf,
        /// Its data.
        source_name: String,
        /// Its rows.
        rows: usize,
        /// The other fit.
        other: PathBuf,
        /// The other's data.
        other_source: String,
        /// The other's rows.
        other_rows: usize,
    },
    /// Two fits are of different models, whose latents have different meanings.
    #[error(
        "{} is a fit of the {} model, and {} of the {} model, under which effects and priors mean something else; compare fits of \
         one model: fit the data of {} again with the {} model",
        other.display(), other_model.name(), path.display(), model.name(), other.display(), model.name()
    )]
    Model {
        /// A fit.
        path: PathBuf,
        /// Its model.
        model: Specification,
        /// The other fit.
        other: PathBuf,
        /// The other's model.
        other_model: Specification,
    },
    /// Two fits have different keys.
    #[error("{} has the key '{other_key}' where {} has '{key}'; compare fits of the same data", other.display(), path.display())]
    Key {
        /// A fit.
        path: PathBuf,
        /// Its key.
        key: String,
        /// The other fit.
        other: PathBuf,
        /// The other's key.
        other_key: String,
    },
    /// A fit cannot be read.
    #[error(transparent)]
    Fit(#[from] FitFolderError),
}

/// One fit in a comparison.
#[derive(Debug, Clone)]
pub struct ComparedFit {
    /// What it is called here: its folder's name.
    pub name: String,
    /// The method in words.
    pub method: &'static str,
    /// The backend's name.
    pub backend: String,
    /// The likelihood of the counts.
    pub likelihood: Likelihood,
    /// The sites of its posterior.
    pub sites: &'static [Site],
    /// Seconds that it took, set-up included.
    pub seconds: f64,
    /// How it ended.
    pub status: FitStatus,
    /// Distance from the truth, if known.
    pub truth: Option<TruthQuality>,
    /// Distance from the reference, if there is one and this is another fit.
    pub agreement: Option<Agreement>,
}

/// Fits of one panel side by side.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The fits, in the order in which they were given.
    pub fits: Vec<ComparedFit>,
    /// The reference's name.
    pub reference: Option<String>,
    /// The data: its source, products and rows.
    pub panel: (String, usize, usize),
    /// The model of all fits.
    pub model: Specification,
}

impl Comparison {
    /// Compares `fits`, at least one: with the true elasticities, one per product, and with the fit at place `reference`. `units`
    /// are each product's in the whole panel, where that is at hand.
    ///
    /// # Errors
    /// When the fits are not of the same panel and model, or draws cannot be read.
    ///
    /// # Panics
    /// When there is no fit, or `reference` is not the place of one.
    pub fn new(
        fits: &[FitFolder],
        reference: Option<usize>,
        truth: Option<&[f64]>,
        units: Option<&[u64]>,
    ) -> Result<Self, ComparisonError> {
        check_same_panel(fits)?;
        let names = names(fits);
        let reference = reference.map(|place| {
            let (max_rhat, min_ess_bulk) = match &fits[place].record.report.detail {
                Detail::Nuts(nuts) => (nuts.max_rhat, nuts.min_ess_bulk),
                _ => (None, None),
            };
            let told = Reference {
                name: names[place].clone(),
                max_rhat,
                min_ess_bulk,
            };
            (place, told)
        });
        let mut compared = Vec::with_capacity(fits.len());
        for (place, (fit, name)) in fits.iter().zip(&names).enumerate() {
            let seconds = fit.seconds();
            let truth = match truth {
                Some(truth) => {
                    let draws = fit.elasticity_draws()?;
                    TruthQuality::new(&fit.posterior, draws.as_ref(), truth, 0, seconds)
                }
                None => None,
            };
            let agreement = reference
                .as_ref()
                .filter(|r| r.0 != place)
                .map(|(of, told)| Agreement::new(&fit.posterior, &fits[*of].posterior, told.clone(), units));
            compared.push(ComparedFit {
                name: name.clone(),
                method: fit.record.request.method.words(),
                backend: fit.record.report.backend.clone(),
                likelihood: fit.posterior.layout.likelihood,
                sites: fit.posterior.layout.sites(),
                seconds,
                status: fit.record.status,
                truth,
                agreement,
            });
        }
        let panel = &fits[0].record.panel;
        Ok(Comparison {
            fits: compared,
            reference: reference.map(|r| r.1.name),
            panel: (panel.source.clone(), panel.products, panel.rows),
            model: fits[0].record.model,
        })
    }

    /// The comparison in Markdown, to be read.
    pub fn table(&self) -> String {
        let mut sections = vec![format!("{}\n", self.subtitle())];
        let mut fits = Grid::new(&[
            ("fit", false),
            ("method", false),
            ("time", true),
            ("ended", false),
            ("mean absolute error", true),
            ("90% intervals cover", true),
            ("95% intervals cover", true),
        ]);
        for fit in &self.fits {
            let of_truth = |cell: &dyn Fn(&TruthQuality) -> Option<String>| {
                let cell = fit.truth.as_ref().and_then(cell);
                cell.unwrap_or_else(|| NOT_APPLICABLE.to_owned())
            };
            let cover = |level| of_truth(&|t| Some(format!("{:.1}%", 100.0 * at_level(t, level)?)));
            fits.push(vec![
                fit.name.clone(),
                match fit.likelihood {
                    usual if usual == Likelihood::default() => format!("{} ({})", fit.method, fit.backend),
                    other => format!("{}, {} ({})", fit.method, other.name(), fit.backend),
                },
                duration(fit.seconds),
                ended(fit.status).to_owned(),
                of_truth(&|t| Some(three_digits(t.product_a_mae))),
                cover(0.9),
                cover(0.95),
            ]);
        }
        sections.push(fits.render());
        if self.fits.iter().any(|fit| fit.truth.is_some()) {
            sections.push(
                "What intervals cover: of draws where they were kept; otherwise those of 90% are the fit's own, the others those of the \
                 normal distribution of its mean and standard deviation.\n"
                    .to_owned(),
            );
        }
        let mut sites = Grid::new(&[&[("fit", false)][..], &SITE_COLUMNS].concat());
        let beside = || self.fits.iter().filter_map(|f| Some((f, f.agreement.as_ref()?)));
        for (fit, agreement) in beside() {
            for row in site_rows(agreement) {
                sites.push(std::iter::once(fit.name.clone()).chain(row).collect());
            }
        }
        if let Some((_, agreement)) = beside().next() {
            sections.push(format!(
                "Means: in standard deviations of the reference; standard deviations: over the reference's. {}\n",
                in_words(&agreement.reference)
            ));
            sections.push(sites.render());
        }
        sections.join("\n")
    }

    /// Writes one row per fit and site. Nothing is blank: what a row has not is `not applicable`.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write_csv(&self, out: impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        let mut header: Vec<String> = [
            "fit",
            "method",
            "backend",
            "model",
            "likelihood",
            "seconds",
            "status",
            "reference",
            "site",
            "latents",
            "mean_difference_median",
            "mean_difference_largest",
            "sd_ratio_median",
            "sd_ratio_smallest",
            "sd_ratio_largest",
            "mae",
        ]
        .map(str::to_owned)
        .to_vec();
        header.extend(LEVELS.iter().map(|l| format!("coverage_{:.0}", 100.0 * l)));
        csv.write_record(&header)?;
        let number =
            |value: Option<f64>| value.map_or_else(|| NOT_APPLICABLE.to_owned(), |v| format!("{v:?}"));
        for fit in &self.fits {
            for site in fit.sites.iter().copied() {
                let beside = fit.agreement.as_ref().and_then(|a| a.site(site));
                let truth = fit.truth.as_ref().filter(|_| site == Site::ProductA);
                let mut row = vec![
                    fit.name.clone(),
                    fit.method.to_owned(),
                    fit.backend.clone(),
                    self.model.name().to_owned(),
                    fit.likelihood.name().to_owned(),
                    format!("{:?}", fit.seconds),
                    ended(fit.status).to_owned(),
                    self.reference.clone().unwrap_or_else(|| "none".to_owned()),
                    site.name().to_owned(),
                    beside.map_or_else(|| NOT_APPLICABLE.to_owned(), |s| s.latents.to_string()),
                ];
                row.extend(
                    [
                        beside.map(|s| s.mean_difference_median),
                        beside.map(|s| s.mean_difference_largest),
                        beside.map(|s| s.sd_ratio_median),
                        beside.map(|s| s.sd_ratio_smallest),
                        beside.map(|s| s.sd_ratio_largest),
                        truth.map(|t| t.product_a_mae),
                    ]
                    .map(number),
                );
                row.extend(LEVELS.map(|level| number(truth.and_then(|t| at_level(t, level)))));
                csv.write_record(&row)?;
            }
        }
        csv.flush()
    }

    /// Writes [`COMPARISON_CSV`] and the pictures into `folder`, replacing those of another comparison;
    /// returns the files.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, PlotError> {
        let table = folder.join(COMPARISON_CSV);
        write_atomically(&table, |f| self.write_csv(f))?;
        let mut files = vec![table];
        let lines: Vec<CoverageLine<'_>> = self
            .fits
            .iter()
            .filter_map(|fit| {
                Some(CoverageLine {
                    name: format!("{}: {}", fit.name, fit.method),
                    points: &fit.truth.as_ref()?.coverage,
                })
            })
            .collect();
        let stem = folder.join(COVERAGE);
        let drawn = coverage::draw(&stem, &lines, &self.subtitle())?;
        forget_others(&stem, &drawn)?;
        files.extend(drawn);
        let rows: Vec<AgreementRow<'_>> = self
            .fits
            .iter()
            .filter_map(|fit| {
                Some(AgreementRow {
                    name: format!("{}: {}", fit.name, fit.method),
                    agreement: fit.agreement.as_ref()?,
                })
            })
            .collect();
        let stem = folder.join(BESIDE_REFERENCE);
        let drawn = agreement::draw(&stem, &rows, &self.subtitle())?;
        forget_others(&stem, &drawn)?;
        files.extend(drawn);
        let stem = folder.join(QUALITY_AGAINST_TIME);
        let drawn = match self.quality_reference() {
            Some(reference) => {
                quality_against_time::draw(&stem, &self.quality_lines(), &reference, &self.subtitle())?
            }
            None => Vec::new(),
        };
        forget_others(&stem, &drawn)?;
        files.extend(drawn);
        Ok(files)
    }

    fn quality_reference(&self) -> Option<QualityReference> {
        let name = self.reference.as_ref()?;
        let fit = self.fits.iter().find(|fit| fit.name == *name)?;
        Some(QualityReference {
            name: format!("{name}, {}", fit.method),
            coverage_95: coverage_95(fit),
        })
    }

    /// The fits by method, each by its seconds. For the reference only coverage is shown.
    fn quality_lines(&self) -> Vec<QualityLine> {
        let mut lines: Vec<QualityLine> = Vec::new();
        for fit in &self.fits {
            let products = fit.agreement.as_ref().and_then(|agreement| {
                let mut sites = agreement.sites.iter();
                sites.find(|site| site.site == Site::ProductA)
            });
            let point = QualityPoint {
                seconds: fit.seconds,
                sd_ratio: products.map(|p| p.sd_ratio_median),
                mean_difference: products.map(|p| p.mean_difference_median),
                coverage_95: coverage_95(fit),
            };
            match lines.iter_mut().find(|line| line.name == fit.method) {
                Some(line) => line.points.push(point),
                None => lines.push(QualityLine {
                    name: fit.method.to_owned(),
                    points: vec![point],
                }),
            }
        }
        for line in &mut lines {
            line.points.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        }
        lines
    }

    fn subtitle(&self) -> String {
        let (source, products, rows) = &self.panel;
        format!(
            "{source}: {} products, {} rows. {}.",
            count(*products as u64),
            count(*rows as u64),
            model_in_words(self.model)
        )
    }
}

fn coverage_95(fit: &ComparedFit) -> Option<f64> {
    at_level(fit.truth.as_ref()?, 0.95)
}

fn at_level(truth: &TruthQuality, level: f64) -> Option<f64> {
    truth
        .coverage
        .iter()
        .find(|p| p.nominal == level)
        .map(|p| p.actual)
}

/// Removes the pictures of `stem` that were not `drawn` now: they belong to another comparison.
fn forget_others(stem: &Path, drawn: &[PathBuf]) -> Result<(), PlotError> {
    for extension in ["svg", "png"] {
        let path = stem.with_extension(extension);
        if !drawn.contains(&path) && path.exists() {
            std::fs::remove_file(&path).map_err(|e| FileError::new("remove", &path, e))?;
        }
    }
    Ok(())
}

const fn ended(status: FitStatus) -> &'static str {
    match status {
        FitStatus::Finished => "finished",
        FitStatus::Unfinished => "unfinished",
    }
}

/// Refuses fits that are not all of the first one's data and model.
///
/// # Errors
/// [`ComparisonError::Panel`], [`ComparisonError::Model`] or [`ComparisonError::Key`] name the two fits and in what they differ.
pub fn check_same_panel(fits: &[FitFolder]) -> Result<(), ComparisonError> {
    let Some((fit, others)) = fits.split_first() else {
        return Ok(());
    };
    let panel = &fit.record.panel;
    for other in others {
        let its = &other.record.panel;
        if panel.sha256 != its.sha256 {
            return Err(ComparisonError::Panel {
                path: fit.path.clone(),
                source_name: panel.source.clone(),
                rows: panel.rows,
                other: other.path.clone(),
                other_source: its.source.clone(),
                other_rows: its.rows,
            });
        }
        if fit.record.model != other.record.model {
            return Err(ComparisonError::Model {
                path: fit.path.clone(),
                model: fit.record.model,
                other: other.path.clone(),
                other_model: other.record.model,
            });
        }
        let mut pairs = fit.keys.iter().zip(&other.keys);
        if let Some((key, other_key)) = pairs.find(|(a, b)| a != b) {
            return Err(ComparisonError::Key {
                path: fit.path.clone(),
                key: key.clone(),
                other: other.path.clone(),
                other_key: other_key.clone(),
            });
        }
    }
    Ok(())
}

/// The folders' own names; the given paths if two are the same.
fn names(fits: &[FitFolder]) -> Vec<String> {
    let own = |fit: &FitFolder| {
        let name = fit.path.file_name().unwrap_or(fit.path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let names: Vec<String> = fits.iter().map(own).collect();
    let is_unique = |name: &String| names.iter().filter(|n| *n == name).count() == 1;
    if names.iter().all(is_unique) {
        return names;
    }
    fits.iter().map(|f| f.path.display().to_string()).collect()
}
