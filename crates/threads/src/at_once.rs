//! Works that wait for one another.

use crate::start::start;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Runs works that wait for one another, the first on this thread and each of the others on its own; the results are in
/// their order.
///
/// # Errors
/// When the system does not start the threads; then none has begun.
///
/// # Panics
/// When a work does, or there is none.
pub fn at_once<T: Send, F: FnOnce() -> T + Send>(works: Vec<F>) -> io::Result<Vec<T>> {
    let mut works = works.into_iter();
    let first = works.next().expect("there is a work");
    std::thread::scope(|scope| {
        let mut gates: Vec<Sender<()>> = Vec::new();
        let mut started = Vec::new();
        for work in works {
            let (gate, opened) = channel();
            started.push(start_gated(scope, work, opened)?);
            gates.push(gate);
        }
        for gate in gates {
            // Whoever waits for it takes it.
            let _ = gate.send(());
        }
        let first = first();
        let others = started.into_iter().map(|thread| {
            let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            done.expect("its gate was opened")
        });
        Ok(std::iter::once(first).chain(others).collect())
    })
}

/// Starts a work that begins once its gate is opened, and never begins when that is dropped.
fn start_gated<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
    opened: Receiver<()>,
) -> io::Result<ScopedJoinHandle<'scope, Option<T>>> {
    start(scope, move || opened.recv().ok().map(|()| work()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::tests::with_permits;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn works_meet_and_come_back_in_their_order() {
        let barrier = Barrier::new(5);
        let works = |i: usize| {
            let barrier = &barrier;
            move || {
                barrier.wait();
                i * i
            }
        };
        assert_eq!(at_once((0..5).map(works).collect()).unwrap(), [0, 1, 4, 9, 16]);
    }

    #[test]
    fn none_begins_unless_all_can() {
        let begun = AtomicUsize::new(0);
        let works = || (0..4).map(|_| || begun.fetch_add(1, Ordering::Relaxed)).collect();
        assert!(with_permits(2, || at_once(works())).is_err());
        assert_eq!(begun.load(Ordering::Relaxed), 0);
        assert!(with_permits(3, || at_once(works())).is_ok());
        assert_eq!(begun.load(Ordering::Relaxed), 4);
    }
}
