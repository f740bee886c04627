//! A thread that ends the process when an operation takes too long: whatever it waits in cannot be interrupted.

use crate::{GiveUp, NcclError};
use infermark_communicator::{CommunicationError, Operation};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long it sleeps between two looks.
const TICK: Duration = Duration::from_millis(100);

/// How long it waits for the message to be out.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Watchdog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// What is under way, with its number.
    watched: Option<(Operation, u64)>,
    has_ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchdog {
    /// A watchdog over operations between `size` ranks.
    ///
    /// # Errors
    /// When the system does not start the thread.
    pub(crate) fn start(size: usize, deadline: Duration, give_up: GiveUp) -> Result<Self, NcclError> {
        Self::with_end(size, deadline, move |error| {
            say(give_up, error);
            end();
        })
    }

    fn with_end(
        size: usize,
        deadline: Duration,
        end: impl Fn(CommunicationError) + Send + 'static,
    ) -> Result<Self, NcclError> {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("nccl watchdog".to_owned())
            .spawn(move || watch(&of_thread, size, deadline, &end))
            .map_err(|error| NcclError::Watchdog(error.to_string()))?;
        Ok(Watchdog(shared))
    }

    /// Carries out an operation. Where it has failed, the watch goes on: the end of the process may wait for the card for ever.
    pub(crate) fn over<R, E>(
        &self,
        operation: Operation,
        number: u64,
        work: impl FnOnce() -> Result<R, E>,
    ) -> Result<R, E> {
        self.0.state().watched = Some((operation, number));
        let result = work();
        if result.is_ok() {
            self.0.state().watched = None;
        }
        result
    }

    /// Carries out the start, in which all ranks meet.
    pub(crate) fn over_start<R, E>(&self, work: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        self.over(Operation::Barrier, 0, work)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.ended.notify_all();
    }
}

fn watch(shared: &Shared, size: usize, deadline: Duration, end: &dyn Fn(CommunicationError)) {
    let (mut seen, mut waited, mut last) = (None, Duration::ZERO, Instant::now());
    let mut state = shared.state();
    while !state.has_ended {
        let waiting = shared.ended.wait_timeout(state, TICK);
        state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        let now = Instant::now();
        if state.watched.is_some() && state.watched == seen {
            // A process that was stopped itself has not waited.
            waited += (now - last).min(2 * TICK);
        } else {
            (seen, waited) = (state.watched, Duration::ZERO);
        }
        last = now;
        if waited >= deadline
            && let Some((operation, number)) = state.watched
        {
            return end(CommunicationError::Silent {
                ranks: Vec::new(),
                size,
                operation,
                number,
                seconds: waited.as_secs(),
            });
        }
    }
}

/// Says why, for as long as there is someone to read it.
fn say(give_up: GiveUp, error: CommunicationError) {
    let (done, is_done) = channel();
    let said = std::thread::Builder::new().spawn(move || {
        give_up(&error);
        let _ = done.send(());
    });
    if said.is_ok() {
        let _ = is_done.recv_timeout(LAST_GRACE);
    }
}

/// Ends the process at once. Handlers at the exit would wait for the card, which waits for the others.
fn end() {
    // SAFETY: ends the process, and returns to nobody.
    unsafe { libc::_exit(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::RecvTimeoutError;
    use std::thread::sleep;

    #[test]
    fn an_operation_that_takes_too_long_ends_the_process_by_name() {
        let (sent, ends) = channel();
        let deadline = Duration::from_secs(1);
        let watchdog = Watchdog::with_end(4, deadline, move |error| sent.send(error).unwrap()).unwrap();
        // Each within its time, however many.
        for number in 1..=20 {
            let work = || {
                sleep(Duration::from_millis(80));
                Ok::<_, ()>(())
            };
            watchdog.over(Operation::AllReduce, number, work).unwrap();
        }
        assert_eq!(ends.try_recv().ok(), None);
        let begin = Instant::now();
        // Failed, and not left.
        watchdog
            .over(Operation::Broadcast, 21, || Err::<(), ()>(()))
            .unwrap_err();
        let error = ends.recv().unwrap();
        assert!(begin.elapsed() >= deadline && begin.elapsed() < 10 * deadline);
        assert_eq!(
            error.to_string(),
            "messages between the 4 ranks do not arrive in 1 s; operation 21 (broadcast) cannot be completed"
        );
    }

    #[test]
    fn what_is_idle_or_dropped_ends_nothing() {
        let (sent, ends) = channel();
        let deadline = Duration::from_millis(200);
        let watchdog = Watchdog::with_end(2, deadline, move |error| sent.send(error).unwrap()).unwrap();
        watchdog.over_start(|| Ok::<_, ()>(())).unwrap();
        assert_eq!(ends.recv_timeout(4 * deadline), Err(RecvTimeoutError::Timeout));
        drop(watchdog);
        assert_eq!(ends.recv(), Err(std::sync::mpsc::RecvError));
    }
}
