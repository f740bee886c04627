//! A team of threads that advances in lock step through the phases of an iteration.
//!
//! An iteration at 10K products takes half a millisecond, so phases are parted by a spinning barrier (about a
//! microsecond) instead of by sleeping threads. Spinning gives way after a while, so that a machine with fewer free
//! cores than threads still moves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Spins before a waiting thread offers its core to others.
const SPINS_BEFORE_YIELD: u32 = 20_000;

/// A reusable barrier for a fixed number of threads.
#[derive(Debug)]
pub struct Barrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    abandoned: AtomicBool,
}

impl Barrier {
    /// A barrier for `threads` threads.
    ///
    /// # Panics
    /// When `threads` is 0: nobody would be the last to arrive.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a team has at least one thread");
        Barrier {
            threads,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Waits for all threads; exactly one of them, the last to arrive, runs `alone` before any goes on. What any
    /// thread wrote before the barrier is visible to all after it.
    ///
    /// # Panics
    /// When another thread of the team has panicked.
    pub fn wait(&self, alone: impl FnOnce()) {
        let generation = self.generation.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            alone();
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.fetch_add(1, Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            assert!(
                !self.abandoned.load(Ordering::Relaxed),
                "another thread of the team panicked"
            );
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Marks the barrier when its thread unwinds, so that the others do not wait for ever.
struct AbandonOnPanic<'a>(&'a Barrier);

impl Drop for AbandonOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandoned.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `work` on `threads` threads, the caller being one of them, and returns when all are done.
///
/// # Panics
/// When a thread panics or cannot be started.
pub fn run_team(threads: usize, work: impl Fn(&Barrier) + Sync) {
    let barrier = Barrier::new(threads);
    let guarded = || {
        let _guard = AbandonOnPanic(&barrier);
        work(&barrier);
    };
    std::thread::scope(|scope| {
        // Before the first is started: when one cannot be, those that were must not wait for it for ever.
        let _guard = AbandonOnPanic(&barrier);
        for _ in 1..threads {
            scope.spawn(guarded);
        }
        work(&barrier);
    });
}

/// Items that the threads of a team take one by one: each item by one thread, in any order.
#[derive(Debug)]
pub struct Shared<T> {
    items: Vec<RwLock<T>>,
    next: AtomicUsize,
}

impl<T> Shared<T> {
    /// Shares `items`.
    pub fn new(items: Vec<T>) -> Self {
        Shared {
            items: items.into_iter().map(RwLock::new).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Calls `f(index, item)` for the items that this thread gets, until none is left.
    pub fn take_all(&self, mut f: impl FnMut(usize, &mut T)) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.items.get(index) else { return };
            f(index, &mut item.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Makes all items available again; call it between two barriers.
    pub fn rewind(&self) {
        self.next.store(0, Ordering::Relaxed);
    }

    /// Calls `f(index, item)` for every item in order.
    pub fn for_each(&self, mut f: impl FnMut(usize, &mut T)) {
        for (index, item) in self.items.iter().enumerate() {
            f(index, &mut item.write().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// One item, to read.
    pub fn read(&self, index: usize) -> RwLockReadGuard<'_, T> {
        self.items[index].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_do_not_overlap() {
        for threads in [1, 2, 3, 7] {
            let items = Shared::new(vec![0u64; 101]);
            let total = AtomicUsize::new(0);
            run_team(threads, |barrier| {
                for round in 0..200 {
                    items.take_all(|i, item| *item += i as u64 + round);
                    barrier.wait(|| {
                        items.rewind();
                        let mut sum = 0;
                        items.for_each(|_, item| sum += *item as usize);
                        total.store(sum, Ordering::Relaxed);
                    });
                    let expected =
                        (round as usize + 1) * 101 * 50 + 101 * (round as usize * (round as usize + 1)) / 2;
                    assert_eq!(total.load(Ordering::Relaxed), expected);
                    barrier.wait(|| {});
                }
            });
        }
    }

    #[test]
    #[should_panic(expected = "at least one thread")]
    fn a_team_of_nobody_is_refused() {
        run_team(0, |barrier| barrier.wait(|| {}));
    }

    #[test]
    #[should_panic]
    fn a_panic_ends_the_team() {
        run_team(3, |barrier| {
            let mut alone = false;
            barrier.wait(|| alone = true);
            assert!(!alone, "the last to arrive fails");
            barrier.wait(|| {});
        });
    }
}
