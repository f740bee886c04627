//! `infermark report`.

use crate::exit::Exit;
use crate::output::{notify, print};
use clap::Args;
use infermark_report::baseline::Baseline;
use infermark_report::redraw::redraw;
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of a benchmark's results.
    dir: PathBuf,
    /// Folder of an earlier benchmark's results, to compare the speeds with: adds a section to the table, and baseline.csv. By default the
    /// one that they were compared with before, if any.
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
}

impl ReportArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let drawn = redraw(&self.dir, baseline.as_ref())?;
        print(|out| out.write_all(drawn.table.as_bytes()))?;
        for plot in drawn.plots {
            notify(plot.display());
        }
        Ok(Exit::Done)
    }
}
