//! Starting threads, and recording refusals.

use std::fmt;
use std::io;
use std::sync::{OnceLock, RwLock};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// The system's reason for first refusing to start a thread.
static REFUSED: OnceLock<String> = OnceLock::new();

/// The system's reason for first refusing a thread; `None` while it has started all that were requested.
pub fn refused() -> Option<&'static str> {
    REFUSED.get().map(String::as_str)
}

pub(crate) fn note(error: &dyn fmt::Display) {
    // The first reason is kept.
    let _ = REFUSED.set(error.to_string());
}

/// Starts `work` on a thread of `scope`.
///
/// # Errors
/// When the system starts none; [`refused`] then returns the reason.
pub fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    start_unnoted(scope, work).inspect_err(|error| note(error))
}

fn start_unnoted<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    #[cfg(test)]
    tests::take_permit()?;
    Builder::new().spawn_scoped(scope, work)
}

/// Starts `work` in the background, for work that no result depends on; `None` if the system starts no
/// thread.
pub fn start_detached<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(work).ok()
}

/// The requested threads are not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoThreads {
    /// The number requested.
    pub asked: usize,
    /// The system's reason.
    pub reason: String,
}

impl fmt::Display for NoThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cannot be started ({}); ask for fewer threads, or raise the limit of processes (`ulimit -u`, or `pids.max` of a \
             container)",
            match self.asked {
                1 => "1 thread".to_owned(),
                n => format!("{n} threads"),
            },
            self.reason
        )
    }
}

impl std::error::Error for NoThreads {}

/// Checks that `threads` threads, including the calling one, can run at once.
///
/// # Errors
/// [`NoThreads`] when one of them cannot be started.
pub fn check(threads: usize) -> Result<(), NoThreads> {
    let gate = RwLock::new(());
    std::thread::scope(|scope| {
        // No thread passes before all have started.
        let shut = gate.write();
        let gate = &gate;
        let started =
            (1..threads).try_for_each(|_| start_unnoted(scope, move || drop(gate.read())).map(drop));
        drop(shut);
        started.map_err(|error| NoThreads {
            asked: threads,
            reason: error.to_string(),
        })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// How many threads a test may still start from this one.
        static PERMITS: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Lets `work` start at most this many threads, as if the system had a limit.
    pub(crate) fn with_permits<T>(permits: usize, work: impl FnOnce() -> T) -> T {
        PERMITS.set(permits);
        let done = work();
        PERMITS.set(usize::MAX);
        done
    }

    pub(super) fn take_permit() -> io::Result<()> {
        match PERMITS.get() {
            0 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            left => {
                PERMITS.set(left - 1);
                Ok(())
            }
        }
    }

    #[test]
    fn threads_are_checked_all_at_once() {
        assert_eq!(check(5), Ok(()));
        // The calling thread is one of them.
        assert_eq!(with_permits(0, || check(1)), Ok(()));
        assert_eq!(with_permits(4, || check(5)), Ok(()));
        let error = with_permits(3, || check(5)).unwrap_err();
        assert_eq!(error.asked, 5);
        let told = error.to_string();
        assert!(told.starts_with("5 threads cannot be started ("), "{told}");
        assert!(told.contains("ulimit -u"), "{told}");
        // Callers of `check` get the error; refusals that callers work around are recorded.
        let started = with_permits(0, || std::thread::scope(|scope| start(scope, || ()).is_ok()));
        assert!(!started);
        assert_eq!(refused(), Some(error.reason.as_str()));
    }
}
