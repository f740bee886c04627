//! `infermark report`.

use crate::exit::Exit;
use crate::output::{notify, print};
use clap::Args;
use infermark_report::baseline::Baseline;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::redraw::{redraw, redraw_scaling};
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of a benchmark's results, or of measured scaling.
    dir: PathBuf,
    /// Folder of an earlier benchmark's results, to compare the speeds with: adds a section to the table, and baseline.csv. By default the
    /// one that they were compared with before, if any.
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
}

impl ReportArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let folder = ResultsFolder::existing(&self.dir);
        let mut drawn = Vec::new();
        if folder.has_scaling() {
            let scaling = redraw_scaling(&self.dir)?;
            drawn.push((scaling.table, scaling.plots));
        }
        // A folder with neither is refused.
        if folder.has_cases() || !folder.has_scaling() {
            let cases = redraw(&self.dir, baseline.as_ref())?;
            drawn.push((cases.table, cases.plots));
        }
        for (table, plots) in drawn {
            print(|out| out.write_all(table.as_bytes()))?;
            for plot in plots {
                notify(plot.display());
            }
        }
        Ok(Exit::Done)
    }
}
