//! Checkpoints of a fit: when they are written, and from which one it goes on.

use crate::output::notify;
use crate::ranks::Ranks;
use anyhow::{Context, bail};
use clap::Args;
use infermark::{Backend, Checkpoint, Request, Run, StepUnit};
use infermark_atomic_file::FileError;
use infermark_fit_files::checkpoint_file::{
    CHECKPOINT_BIN, CheckpointError, FitIdentity, read_checkpoint, write_checkpoint,
};
use infermark_fit_files::fit_output::{is_partial_fit, refuse_earlier_fit};
use infermark_model::Panel;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Options of `fit` for going on later.
#[derive(Debug, Args)]
pub(super) struct CheckpointArguments {
    /// Write checkpoint.bin to --out every DURATION (30s, 10m or 1h), on SIGUSR1, and when the fit is interrupted; it is removed
    /// when the fit is finished.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    checkpoint_every: Option<Duration>,
    /// Go on from the checkpoint in --out, which a fit of the same data and options wrote; --threads, --shards and --device may
    /// be others. Partial results there are replaced.
    #[arg(long)]
    resume: bool,
}

/// Listens to SIGUSR1, which asks for a checkpoint, from here on; the flag says that it has come.
pub(super) fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, asked.clone())
        .context("SIGUSR1 cannot be listened to")?;
    Ok(asked)
}

/// There is the checkpoint of a fit that was not finished.
#[derive(Debug, thiserror::Error)]
#[error("{} is the checkpoint of an unfinished fit; go on from it, or replace it", .0.display())]
pub(crate) struct CheckpointInTheWay(PathBuf);

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a whole number with its unit, as 30s, 10m or 1h".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match count.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

impl CheckpointArguments {
    /// Whether the fit writes checkpoints.
    pub(super) fn are_written(&self) -> bool {
        self.resume || self.checkpoint_every.is_some()
    }

    /// Refuses a folder with another fit or its checkpoint, unless it is to be replaced, and one without the checkpoint to go on
    /// from. Touches nothing.
    pub(super) fn refuse_earlier_fit(&self, folder: &Path, replace: bool) -> anyhow::Result<()> {
        let path = folder.join(CHECKPOINT_BIN);
        if self.resume {
            if !path.exists() {
                return Err(CheckpointError::Missing(path).into());
            }
            return Ok(refuse_earlier_fit(folder, replace || is_partial_fit(folder))?);
        }
        if path.exists() && !replace {
            return Err(CheckpointInTheWay(path).into());
        }
        Ok(refuse_earlier_fit(folder, replace)?)
    }

    /// Starts the run of a fit, or goes on with it. The checkpoints to be written are returned, if there are to be any.
    pub(super) fn start(
        &self,
        backend: &dyn Backend,
        panel: Arc<Panel>,
        folder: &Path,
        identity: impl FnOnce() -> FitIdentity,
        request: &Request,
        ranks: &Ranks,
    ) -> anyhow::Result<(Box<dyn Run>, Option<Checkpoints>)> {
        if !self.are_written() {
            return Ok((backend.start(panel, request)?, None));
        }
        let checkpoints = Checkpoints::new(
            folder.join(CHECKPOINT_BIN),
            identity(),
            self.checkpoint_every,
            ranks.is_first(),
        );
        let run = if self.resume {
            let checkpoint = read_checkpoint(&checkpoints.path, &checkpoints.identity)?;
            ranks.check_same("checkpoint", &checkpoint.state)?;
            let run = backend.resume(panel, request, &checkpoint)?;
            notify(going_on(&checkpoint, &*run));
            run
        } else {
            let run = backend.start(panel, request)?;
            // Before the hours of the run, not after them.
            if run.checkpoint()?.is_none() {
                let backend = backend.name();
                bail!(
                    "the backend {backend} writes no checkpoints of such a fit; leave out --checkpoint-every"
                );
            }
            run
        };
        Ok((run, Some(checkpoints)))
    }
}

fn going_on(checkpoint: &Checkpoint, run: &dyn Run) -> String {
    let progress = run.progress();
    format!(
        "going on from the checkpoint of {}, after {} of {} {}",
        checkpoint.backend,
        progress.completed,
        progress.total,
        match progress.unit {
            StepUnit::Iterations => "iterations",
            StepUnit::Draws => "draws",
            StepUnit::Steps => "steps",
        }
    )
}

/// The checkpoints of a fit under way.
pub(super) struct Checkpoints {
    path: PathBuf,
    identity: FitIdentity,
    every: Option<Duration>,
    last: Instant,
    /// Whether this is the first rank, which writes what all of them give.
    is_first: bool,
}

impl Checkpoints {
    /// None are written yet.
    fn new(path: PathBuf, identity: FitIdentity, every: Option<Duration>, is_first: bool) -> Self {
        Checkpoints {
            path,
            identity,
            every,
            last: Instant::now(),
            is_first,
        }
    }

    /// Whether it is time for one.
    pub(super) fn are_due(&self) -> bool {
        self.every.is_some_and(|every| self.last.elapsed() >= every)
    }

    /// Writes one and returns whether it is written. What goes wrong ends no fit.
    pub(super) fn write(&mut self, run: &dyn Run) -> bool {
        let written = self.try_write(run);
        if let Err(error) = &written {
            notify(format_args!("warning: no checkpoint was written: {error:#}"));
        }
        self.last = Instant::now();
        written.is_ok()
    }

    fn try_write(&self, run: &dyn Run) -> anyhow::Result<()> {
        let checkpoint = run.checkpoint()?.context("the run gives none")?;
        if !self.is_first {
            return Ok(());
        }
        Ok(write_checkpoint(&self.path, &self.identity, &checkpoint)?)
    }
}

/// Removes the checkpoint of a fit that is finished.
pub(super) fn remove(folder: &Path) {
    let path = folder.join(CHECKPOINT_BIN);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            notify(format_args!(
                "warning: {}",
                FileError::new("remove", &path, error)
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "m",
            "10",
            "0s",
            "-1m",
            "1.5h",
            "10 m",
            "1d",
            "10µ",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
