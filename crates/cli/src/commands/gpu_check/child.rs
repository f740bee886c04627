//! A program that runs as a child: in a group of its own, for a limited time, with what it writes in a file.

use infermark::Interrupt;
use infermark_peer_process::{ProcessGroup, kill_group};
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often a child is looked at.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// How long a child may take to end by itself once it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// How a child ended, and when.
#[derive(Debug)]
pub(super) struct Ended {
    /// How.
    pub(super) how: How,
    /// Time from its start.
    pub(super) after: Duration,
}

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum How {
    /// With exit status 0.
    Passed,
    /// With another status or a signal, or it did not start: `exit status 101`, `signal 11 (SIGSEGV)`.
    Failed(String),
    /// By this program, when its time was over.
    CutShort,
}

/// The check is to stop.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interrupted;

/// Starts children, one at a time, and ends them early where it has to.
#[derive(Debug, Default)]
pub(super) struct Children {
    interrupt: Interrupt,
    running: RunningChild,
}

/// The id of the child that runs now, if any; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct RunningChild(Arc<Mutex<Option<u32>>>);

impl RunningChild {
    /// Kills the child and what it started.
    pub(super) fn kill(&self) {
        if let Some(id) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            kill_group(id);
        }
    }

    fn set(&self, id: Option<u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

impl Children {
    /// Children that end when `interrupt` is set.
    pub(super) fn new(interrupt: Interrupt, running: RunningChild) -> Self {
        Children { interrupt, running }
    }

    /// Refuses to go on once the check is interrupted.
    pub(super) fn check(&self) -> Result<(), Interrupted> {
        match self.interrupt.is_set() {
            true => Err(Interrupted),
            false => Ok(()),
        }
    }

    /// Runs `command` for at most `limit`, with both its streams in `output`. It has ended, with all of its group, when this returns.
    /// When the check is interrupted, `keep` is called before the child is waited for: there may be no time for more.
    pub(super) fn run(
        &self,
        command: &mut Command,
        output: File,
        limit: Duration,
        keep: impl FnOnce(),
    ) -> Result<Ended, Interrupted> {
        self.check()?;
        let clock = Instant::now();
        let mut group = match start(command, output) {
            Ok(group) => group,
            Err(error) => {
                return Ok(Ended {
                    how: How::Failed(format!("the error '{error}' at its start")),
                    after: clock.elapsed(),
                });
            }
        };
        self.running.set(Some(group.leader().id()));
        let how = self.watch(&mut group, clock, limit, keep);
        // What it may have left running.
        group.end();
        self.running.set(None);
        Ok(Ended {
            how: how?,
            after: clock.elapsed(),
        })
    }

    fn watch(
        &self,
        group: &mut ProcessGroup,
        clock: Instant,
        limit: Duration,
        keep: impl FnOnce(),
    ) -> Result<How, Interrupted> {
        loop {
            if let Some(how) = ending(group) {
                return Ok(how);
            }
            if self.interrupt.is_set() {
                keep();
                end_in_order(group);
                return Err(Interrupted);
            }
            if clock.elapsed() >= limit {
                end_in_order(group);
                return Ok(How::CutShort);
            }
            sleep(BETWEEN_LOOKS);
        }
    }
}

fn start(command: &mut Command, output: File) -> io::Result<ProcessGroup> {
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    ProcessGroup::start(command)
}

/// How the child ended; `None` while it runs.
fn ending(group: &mut ProcessGroup) -> Option<How> {
    match group.leader().try_wait() {
        Ok(None) => None,
        Ok(Some(status)) if status.success() => Some(How::Passed),
        Ok(Some(status)) => Some(How::Failed(status.to_string().replace(": ", " "))),
        Err(error) => Some(How::Failed(format!(
            "the error '{error}' while it was waited for"
        ))),
    }
}

/// Lets the child write what it has before it ends.
fn end_in_order(group: &mut ProcessGroup) {
    let clock = Instant::now();
    group.terminate();
    while ending(group).is_none() && clock.elapsed() < GRACE {
        sleep(BETWEEN_LOOKS);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::path::Path;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// What becomes of a script with a limit of so many milliseconds, and what it writes to `log`.
    fn outcome(script: &str, milliseconds: u64, log: &Path) -> How {
        let limit = Duration::from_millis(milliseconds);
        let children = Children::default();
        let ended = children.run(&mut shell(script), File::create(log).unwrap(), limit, || {});
        ended.unwrap().how
    }

    #[test]
    fn a_child_ends_with_its_status_and_its_output_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let of = |script| outcome(script, 60_000, &log);
        assert_eq!(of("echo out; echo err >&2"), How::Passed);
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
        assert_eq!(of("exit 7"), How::Failed("exit status 7".into()));
        let How::Failed(killed) = of("kill -9 $$") else {
            panic!("it was killed")
        };
        assert!(killed.starts_with("signal 9"), "{killed}");
        let mut absent = Command::new(folder.path().join("absent"));
        let output = File::create(&log).unwrap();
        let ended = Children::default().run(&mut absent, output, GRACE, || {});
        assert!(matches!(ended.unwrap().how, How::Failed(why) if why.contains("at its start")));
    }

    #[test]
    fn a_child_past_its_limit_is_asked_to_end_and_its_group_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // The second process neither hears SIGTERM nor is waited for.
        let script =
            "(trap '' TERM; sleep 600 & echo $!; wait) & trap 'echo saved; exit 0' TERM; sleep 600 & wait";
        let clock = Instant::now();
        assert_eq!(outcome(script, 500, &log), How::CutShort);
        assert!(clock.elapsed() < Duration::from_secs(30), "{:?}", clock.elapsed());
        let written = std::fs::read_to_string(&log).unwrap();
        let (id, rest) = written.split_once('\n').unwrap();
        assert_eq!(rest, "saved\n");
        let alive = || {
            shell(&format!(
                "kill -0 {id} 2>/dev/null && ! grep -q '^State:.Z' /proc/{id}/status"
            ))
            .status()
        };
        while alive().unwrap().success() {
            assert!(clock.elapsed() < Duration::from_secs(60), "{id} is left");
            sleep(BETWEEN_LOOKS);
        }
    }

    #[test]
    fn an_interrupt_keeps_what_there_is_before_the_child_ends() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let children = Children::default();
        let interrupt = children.interrupt.clone();
        let setter = std::thread::spawn(move || {
            sleep(Duration::from_millis(300));
            interrupt.set();
        });
        let mut kept = None;
        let mut child = shell("trap 'echo ended; exit 0' TERM; sleep 600 & wait");
        let output = File::create(&log).unwrap();
        let ended = children.run(&mut child, output, Duration::from_secs(600), || {
            kept = Some(std::fs::read_to_string(&log).unwrap());
        });
        setter.join().unwrap();
        assert_eq!(ended.unwrap_err(), Interrupted);
        assert_eq!(kept.as_deref(), Some(""));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "ended\n");
        assert_eq!(children.check(), Err(Interrupted));
    }
}
