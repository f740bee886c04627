//! `infermark report`.

use crate::exit::Exit;
use clap::Args;
use infermark_harness::report::redraw;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Folder of a benchmark's results.
    dir: PathBuf,
}

impl ReportArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let drawn = redraw(&self.dir)?;
        write!(std::io::stdout(), "{}", drawn.table)?;
        for plot in drawn.plots {
            eprintln!("{}", plot.display());
        }
        Ok(Exit::Done)
    }
}
