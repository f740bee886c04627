//! A worker's process with its three streams.
//!
//! Each stream has a thread of its own, so that no full pipe holds the other side up: requests are written, replies and what
//! goes to standard error are read, while this side waits with a limit.

use crate::process_group::ProcessGroup;
use crate::protocol::{Question, Reply};
use infermark_backend::Interrupt;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// Bytes of standard error that are kept: its end.
const KEPT_OF_STDERR: usize = 4 << 10;
/// Bytes of a reply without numbers, at most.
const SHORT_REPLY: u64 = 1 << 20;
/// Bytes of a number in a reply with what separates it from the next, at most.
const BYTES_PER_NUMBER: u64 = 32;
/// How often a wait looks whether it is interrupted.
const INTERRUPT_POLL: Duration = Duration::from_millis(50);
/// How long a process is waited for that has closed its standard output.
const ENDING: Duration = Duration::from_secs(2);

/// Why a worker gave no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The program behind it, or the worker itself, is not installed.
    #[error("{0}")]
    Unavailable(String),
    /// It does not serve what it was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// It died, hung, or said what is no answer.
    #[error("{0}")]
    Failed(String),
}

/// A worker under way. It and all that it started end when this is dropped.
pub(crate) struct Process {
    group: ProcessGroup,
    requests: Sender<Vec<u8>>,
    replies: Receiver<io::Result<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_reader: Option<JoinHandle<()>>,
    patience: Duration,
}

impl Process {
    /// Starts `command`, a program with its arguments, whose replies hold up to `numbers` numbers and each of which is waited
    /// for as long as `patience` lasts.
    ///
    /// # Errors
    /// [`Trouble::Unavailable`] when there is no such program.
    pub(crate) fn start(command: &[String], numbers: usize, patience: Duration) -> Result<Self, Trouble> {
        let [program, arguments @ ..] = command else {
            return Err(Trouble::Unavailable("its command is empty".into()));
        };
        let mut prepared = Command::new(program);
        prepared
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // In a group of its own Ctrl-C does not reach it, and the run ends in order.
        let mut group = ProcessGroup::start(&mut prepared).map_err(|error| {
            let reason = format!("{program} does not start: {error}");
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Trouble::Unavailable(reason),
                _ => Trouble::Failed(reason),
            }
        })?;
        let worker = group.leader();
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (worker.stdin.take(), worker.stdout.take(), worker.stderr.take())
        else {
            unreachable!("all three streams are pipes");
        };
        let (requests, to_write) = channel();
        let (read, replies) = sync_channel(1);
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut process = Process {
            group,
            requests,
            replies,
            stderr: kept.clone(),
            stderr_reader: None,
            patience,
        };
        let longest = SHORT_REPLY + BYTES_PER_NUMBER * numbers as u64;
        let writer =
            infermark_threads::start_detached("peer-stdin", move || write_requests(stdin, &to_write));
        let reader =
            infermark_threads::start_detached("peer-stdout", move || read_replies(stdout, longest, &read));
        process.stderr_reader =
            infermark_threads::start_detached("peer-stderr", move || keep_end(stderr, &kept));
        if writer.is_none() || reader.is_none() || process.stderr_reader.is_none() {
            return Err(Trouble::Failed(
                "the system starts no threads for its streams".into(),
            ));
        }
        Ok(process)
    }

    /// The reply to `question`.
    ///
    /// # Errors
    /// What the worker says instead of an answer; or that it died, hung, or said what is no reply. After the latter it is not to be asked again.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, question: &Question<'_>) -> Result<T, Trouble> {
        self.ask_until(question, &Interrupt::new())
    }

    /// The same, for as long as `interrupt` is not set.
    ///
    /// # Errors
    /// See [`Process::ask`]; and when it is set.
    pub(crate) fn ask_until<T: DeserializeOwned>(
        &mut self,
        question: &Question<'_>,
        interrupt: &Interrupt,
    ) -> Result<T, Trouble> {
        let mut line = serde_json::to_vec(question)
            .map_err(|error| Trouble::Failed(format!("its request cannot be written: {error}")))?;
        line.push(b'\n');
        // If the writer is gone, so is the worker, and the missing reply below shows it.
        let _ = self.requests.send(line);
        let clock = Instant::now();
        let received = loop {
            let left = self.patience.saturating_sub(clock.elapsed());
            match self.replies.recv_timeout(left.min(INTERRUPT_POLL)) {
                Err(RecvTimeoutError::Timeout) if interrupt.is_set() => {
                    return Err(self.failed("the wait for its reply was interrupted".into()));
                }
                Err(RecvTimeoutError::Timeout) if left > INTERRUPT_POLL => {}
                received => break received,
            }
        };
        let reply = match received {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(self.failed(format!("its reply cannot be read: {error}"))),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.patience.as_secs_f64();
                return Err(self.failed(format!("it gave no reply for {seconds} s")));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let how = self.ending();
                return Err(self.failed(how));
            }
        };
        match serde_json::from_slice(&reply) {
            Ok(Reply::Ok(answer)) => Ok(answer),
            Ok(Reply::Unavailable(what)) => Err(Trouble::Unavailable(what)),
            Ok(Reply::Unsupported(what)) => Err(Trouble::Unsupported(what)),
            Ok(Reply::Failed(how)) => Err(self.failed(how)),
            Err(error) => {
                let start = String::from_utf8_lossy(&reply[..reply.len().min(200)]);
                Err(self.failed(format!("what it said is no reply ({error}): {start}")))
            }
        }
    }

    /// How the process ended, whose standard output has.
    fn ending(&mut self) -> String {
        let clock = Instant::now();
        loop {
            match self.group.leader().try_wait() {
                Ok(Some(status)) => return format!("it ended with {status}"),
                Ok(None) if clock.elapsed() < ENDING => sleep(Duration::from_millis(10)),
                _ => return "it closed its standard output".into(),
            }
        }
    }

    /// The trouble with the end of standard error. The worker is ended: its stream is whole then.
    fn failed(&mut self, how: String) -> Trouble {
        self.group.end();
        if let Some(reader) = self.stderr_reader.take() {
            // What left the group may hold the stream open.
            let clock = Instant::now();
            while !reader.is_finished() && clock.elapsed() < ENDING {
                sleep(Duration::from_millis(5));
            }
        }
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&kept);
        Trouble::Failed(match said.trim() {
            "" => how,
            said => format!("{how}; it wrote: {said}"),
        })
    }
}

/// Writes what comes, until nobody sends any more or nobody reads.
fn write_requests(mut stdin: ChildStdin, requests: &Receiver<Vec<u8>>) {
    while let Ok(line) = requests.recv() {
        if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Hands on line after line, each of up to `longest` bytes, until the stream ends.
fn read_replies(stdout: ChildStdout, longest: u64, replies: &SyncSender<io::Result<Vec<u8>>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = stdout.by_ref().take(longest).read_until(b'\n', &mut line);
        let reply = match read {
            Ok(0) => return,
            Ok(_) if line.last() != Some(&b'\n') && line.len() as u64 == longest => {
                Err(io::Error::other(format!("a line of more than {longest} bytes")))
            }
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        };
        let is_last = reply.is_err();
        if replies.send(reply).is_err() || is_last {
            return;
        }
    }
}

/// Keeps the end of the stream.
fn keep_end(mut stderr: ChildStderr, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(KEPT_OF_STDERR);
        kept.drain(..surplus);
    }
}
