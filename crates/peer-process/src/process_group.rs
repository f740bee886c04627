//! A child process with all that it starts.

use std::io;
use std::process::{Child, Command, ExitStatus};

/// A child process that leads a process group of its own: Ctrl-C in a terminal reaches this program alone, and what the child starts
/// ends with it. All of it ends when this is dropped. Systems without process groups end the child alone.
#[derive(Debug)]
pub struct ProcessGroup {
    leader: Child,
    /// Its id may be another's by now.
    ended: bool,
}

impl ProcessGroup {
    /// Starts `command` as the leader of a new group.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        Ok(ProcessGroup {
            leader: command.spawn()?,
            ended: false,
        })
    }

    /// The child itself.
    pub fn leader(&mut self) -> &mut Child {
        &mut self.leader
    }

    /// Waits for the child to end by itself. What it may have started and left is not ended any more.
    ///
    /// # Errors
    /// When the system does not say how it ended.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.leader.wait()?;
        self.ended = true;
        Ok(status)
    }

    /// Asks the child to end, by SIGTERM; where there are no signals, ends it.
    pub fn terminate(&mut self) {
        #[cfg(unix)]
        if let Some(leader) = rustix::process::Pid::from_raw(self.leader.id() as i32) {
            let _ = rustix::process::kill_process(leader, rustix::process::Signal::TERM);
        }
        #[cfg(not(unix))]
        let _ = self.leader.kill();
    }

    /// Ends the child and what it started, at once.
    pub fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        kill_group(self.leader.id());
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.end();
    }
}

/// Kills the group that the process with the id `leader` leads: for a thread that does not own the [`ProcessGroup`].
pub fn kill_group(leader: u32) {
    #[cfg(unix)]
    if let Some(group) = rustix::process::Pid::from_raw(leader as i32) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = leader;
}
