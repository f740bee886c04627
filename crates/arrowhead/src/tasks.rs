//! Threads that take pieces of work from a list.

use infermark_threads::start;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `work` on every task, on this many threads, and returns the results in the order of the tasks.
/// `scratch` is created once per thread.
pub(crate) fn run<T: Send, S, R: Send>(
    threads: usize,
    tasks: Vec<T>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.clamp(1, tasks.len().max(1));
    if threads == 1 {
        let mut scratch = scratch();
        return tasks.into_iter().map(|task| work(&mut scratch, task)).collect();
    }
    let slots: Vec<Mutex<(Option<T>, Option<R>)>> = tasks
        .into_iter()
        .map(|task| Mutex::new((Some(task), None)))
        .collect();
    let next = AtomicUsize::new(0);
    let take = || {
        let mut scratch = scratch();
        // Each task belongs to one thread, so nobody waits for a slot.
        while let Some(slot) = slots.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = slot.0.take() {
                slot.1 = Some(work(&mut scratch, task));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // The threads that did start take the tasks.
            if start(scope, take).is_err() {
                break;
            }
        }
        take();
    });
    slots
        .into_iter()
        .map(|slot| {
            let (_, result) = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            result.expect("every task was taken")
        })
        .collect()
}
