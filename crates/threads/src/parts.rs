//! Independent parts of one task, each on its own thread if possible.

use crate::start::start;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

/// Runs every part and returns the results in order. The last part runs on the calling thread, the others on
/// their own threads; parts for which the system starts none run on the calling thread too.
///
/// # Panics
/// When a part does.
pub fn run_parts<T: Send, F: FnOnce() -> T + Send>(parts: impl IntoIterator<Item = F>) -> Vec<T> {
    // A part whose thread is not started must not be lost with it.
    let parts: Vec<Mutex<Option<F>>> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    let run = |part: &Mutex<Option<F>>| {
        let part = part.lock().unwrap_or_else(PoisonError::into_inner).take();
        part.map(|part| part())
    };
    let on_threads = parts.len().saturating_sub(1);
    std::thread::scope(|scope| {
        let run = &run;
        let mut started: Vec<_> = parts[..on_threads]
            .iter()
            .map_while(|part| start(scope, move || run(part)).ok())
            .collect();
        let here: Vec<Option<T>> = parts[started.len()..].iter().map(run).collect();
        let there = started
            .drain(..)
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        there.chain(here).flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::tests::with_permits;

    #[test]
    fn parts_come_back_in_their_order_on_any_number_of_threads() {
        let expected: Vec<usize> = (0..7).map(|i| i * i).collect();
        for permits in [0, 1, 3, 6, 100] {
            let run = || run_parts((0..7).map(|i| move || i * i));
            assert_eq!(with_permits(permits, run), expected, "{permits} threads");
        }
        assert!(run_parts(Vec::<fn() -> u8>::new()).is_empty());
    }

    #[test]
    fn no_more_threads_than_are_given_take_part() {
        let threads = || {
            let mut ids = run_parts((0..5).map(|_| || std::thread::current().id()));
            ids.dedup();
            ids.len()
        };
        assert_eq!(with_permits(0, threads), 1);
        assert_eq!(with_permits(2, threads), 3);
        assert_eq!(threads(), 5);
    }

    #[test]
    #[should_panic(expected = "a part fails")]
    fn a_panic_of_a_part_is_the_callers() {
        run_parts((0..3).map(|i| move || assert!(i != 1, "a part fails")));
    }
}
