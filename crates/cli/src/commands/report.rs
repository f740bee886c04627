//! `infermark report`.

use crate::answer::{answer, say};
use crate::exit::Exit;
use clap::Args;
use infermark_report::redraw::redraw;
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
        answer(|out| out.write_all(drawn.table.as_bytes()))?;
        for plot in drawn.plots {
            say(plot.display());
        }
        Ok(Exit::Done)
    }
}
