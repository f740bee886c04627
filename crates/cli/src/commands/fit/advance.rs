//! A run, advanced to its end.

use super::checkpoints::Checkpoints;
use crate::output::notify;
use crate::progress_bar::Bar;
use crate::ranks::Ranks;
use infermark::{BackendError, Interrupt, Run, RunState, StepPacer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Duration of a piece of a run, and thus how often the bar moves; longer for a sampler with long draws.
const PIECE: Duration = Duration::from_millis(200);

/// Advances a run to its end in pieces of about [`PIECE`], or until it is interrupted, with checkpoints between pieces and then.
/// Returns why it failed.
pub(super) fn advance(
    run: &mut dyn Run,
    interrupt: &Interrupt,
    ranks: &Ranks,
    mut checkpoints: Option<&mut Checkpoints>,
    asked_for_checkpoint: &AtomicBool,
) -> Option<BackendError> {
    let bar = Bar::for_run(&run.progress());
    let _following = run.within_step().map(|part_done| bar.follow(part_done));
    let mut pacer = StepPacer::of(run, PIECE);
    // One of several processes takes the others along to its end: they may not have been interrupted.
    while !interrupt.is_set() || ranks.are_processes() {
        let asked = asked_for_checkpoint.swap(false, Ordering::Relaxed);
        if asked && checkpoints.is_none() {
            notify("this fit writes no checkpoints; begin it with --checkpoint-every");
        }
        let due = checkpoints
            .as_ref()
            .is_some_and(|checkpoints| asked || checkpoints.are_due());
        let (steps, due) = match ranks.agree_on(pacer.steps(), due) {
            Ok(agreed) => agreed,
            Err(error) => return Some(error.into()),
        };
        if let Some(checkpoints) = &mut checkpoints
            && due
        {
            checkpoints.write(run);
        }
        let clock = Instant::now();
        let progress = match run.advance(steps, interrupt) {
            Ok(progress) => progress,
            Err(error) => return Some(error),
        };
        pacer.took(clock.elapsed());
        bar.show(&progress);
        if progress.state.is_complete() {
            return None;
        }
        if progress.state != RunState::Running {
            break;
        }
    }
    if checkpoints.is_some_and(|checkpoints| checkpoints.write(run)) {
        notify("a checkpoint is written; --resume goes on from it");
    }
    None
}
