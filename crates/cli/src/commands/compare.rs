//! `infermark compare`.

use super::{COLUMN_OPTIONS, load_panel, refuse_given};
use crate::exit::Exit;
use crate::output::{notify, print};
use crate::progress_bar::Bar;
use crate::settings::ColumnArguments;
use anyhow::{bail, ensure};
use clap::{ArgMatches, Args};
use infermark::read_true_elasticities;
use infermark_atomic_file::ClaimedFolder;
use infermark_fit_files::fit_folder::FitFolder;
use infermark_fit_files::panel_description::panel_sha256;
use infermark_report::calibration_output::RUN_JSON;
use infermark_report::comparison::{COMPARISON_CSV, Comparison, check_same_panel};
use std::path::{Path, PathBuf};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Folders of fits of the same data, as `infermark fit --out` wrote them.
    #[arg(required = true, value_name = "FIT_DIR")]
    fits: Vec<PathBuf>,
    /// Folder for comparison.csv and the plots; another comparison there is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// CSV file with true parameters (of `infermark generate`): adds error and coverage.
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Folder of the fit that the others are held against; by default the fit by NUTS, if there is one.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// The sales file of the fits: products are then plotted by their units, otherwise by the reference's standard deviation.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArguments,
}

impl CompareArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if self.data.is_none() {
            refuse_given(given, &COLUMN_OPTIONS, "--data")?;
        }
        ensure!(
            !self.out.join(RUN_JSON).exists(),
            "{} holds a fit or a calibration; give another folder",
            self.out.display()
        );
        let fits = {
            let _spinner = Bar::spinner("reading the fits");
            self.folders()
                .into_iter()
                .map(FitFolder::read)
                .collect::<Result<Vec<_>, _>>()?
        };
        let reference = self.reference_among(&fits)?;
        // Before the data is read, not after it.
        check_same_panel(&fits)?;
        let truth = match &self.truth {
            Some(path) => Some(read_true_elasticities(path, fits[0].products())?),
            None => None,
        };
        let units = match &self.data {
            Some(path) => Some(self.units(path, &fits[0])?),
            None => None,
        };
        let _claimed = ClaimedFolder::claim(&self.out, &[COMPARISON_CSV])?;
        let comparison = Comparison::new(&fits, reference, truth.as_deref(), units.as_deref())?;
        let files = comparison.write(&self.out)?;
        let table = comparison.table();
        print(|out| out.write_all(table.as_bytes()))?;
        for file in files {
            let what = if file.ends_with(COMPARISON_CSV) {
                "table"
            } else {
                "plot"
            };
            notify(format_args!("{what}: {}", file.display()));
        }
        Ok(Exit::Done)
    }

    /// The folders to read: those that were named, and the reference, each once.
    fn folders(&self) -> Vec<&Path> {
        let mut folders: Vec<&Path> = Vec::new();
        for path in self.fits.iter().chain(&self.reference) {
            if !folders.iter().any(|known| is_same_folder(known, path)) {
                folders.push(path);
            }
        }
        folders
    }

    /// The place of the reference: the one that was named, or the only fit by NUTS.
    fn reference_among(&self, fits: &[FitFolder]) -> anyhow::Result<Option<usize>> {
        if let Some(path) = &self.reference {
            return Ok(fits.iter().position(|fit| is_same_folder(&fit.path, path)));
        }
        let nuts: Vec<usize> = (0..fits.len()).filter(|k| fits[*k].is_nuts()).collect();
        match nuts[..] {
            [one] => Ok(Some(one)),
            [] if self.truth.is_some() => Ok(None),
            [] => bail!(
                "none of the fits is by NUTS; name the fit to compare with by --reference, or the truth by --truth"
            ),
            _ => bail!(
                "{} of the fits are by NUTS; name the one to compare with by --reference",
                nuts.len()
            ),
        }
    }

    /// Units of each product in the data of `fit`.
    fn units(&self, path: &Path, fit: &FitFolder) -> anyhow::Result<Vec<u64>> {
        let panel = load_panel(path, &self.columns.clone().into())?;
        let of_fit = &fit.record.panel;
        ensure!(
            panel_sha256(&panel) == of_fit.sha256,
            "{} is not the data of {}: it has {} products and {} rows, where {} had {} and {}; name the file that was fitted, \
             with the same columns",
            path.display(),
            fit.path.display(),
            panel.layout().products,
            panel.rows(),
            of_fit.source,
            of_fit.products,
            of_fit.rows,
        );
        Ok(panel.sums().product.clone())
    }
}

/// Whether two paths lead to the same folder or, if either does not exist, are spelled the same.
fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
