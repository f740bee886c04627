//! Pools of threads for work that is divided dynamically.

use crate::MOST_THREADS;
use crate::start::note;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::Duration;

/// A pool of `threads` threads, or of as many as the system starts; `None` if it starts none.
pub fn pool(threads: usize) -> Option<ThreadPool> {
    let mut threads = threads.clamp(1, MOST_THREADS);
    loop {
        match ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => return Some(pool),
            Err(error) => {
                note(&error);
                if threads == 1 {
                    return None;
                }
                threads /= 2;
                // The threads that were started are about to end, and count until then.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Runs `work`, whose parallel iterators are on `threads` threads: as many as the machine has when 0, and
/// only the calling one if the system starts no other. If `RAYON_NUM_THREADS` is set, it replaces the
/// machine's number.
pub fn on_pool<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let threads = if threads == 0 { of_machine() } else { threads };
    if let Some(pool) = pool(threads) {
        return pool.install(work);
    }
    let alone = ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread()
        .build();
    match alone {
        Ok(pool) => {
            let done = pool.install(work);
            // The calling thread stays in the pool as long as it lives.
            std::mem::forget(pool);
            done
        }
        // It is in a pool already, which does the work.
        Err(_) => work(),
    }
}

fn of_machine() -> usize {
    std::env::var("RAYON_NUM_THREADS")
        .ok()
        .and_then(|given| given.parse().ok())
        .filter(|threads| *threads > 0)
        .unwrap_or_else(crate::available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    #[test]
    fn a_pool_has_the_threads_that_were_asked_for() {
        assert_eq!(on_pool(3, rayon::current_num_threads), 3);
        assert!(on_pool(0, rayon::current_num_threads) >= 1);
        let most = pool(usize::MAX).map(|pool| pool.current_num_threads());
        assert!(most.is_none_or(|threads| threads <= MOST_THREADS));
    }

    #[test]
    fn the_calling_thread_does_the_work_where_it_is_in_a_pool_of_its_own() {
        // As where the system starts no thread.
        let alone = || {
            let pool = ThreadPoolBuilder::new()
                .num_threads(1)
                .use_current_thread()
                .build();
            std::mem::forget(pool.unwrap());
            let here = std::thread::current().id();
            let sum: u64 = (0..1000_u64)
                .into_par_iter()
                .inspect(|_| assert_eq!(std::thread::current().id(), here))
                .sum();
            let (a, b) = rayon::join(|| 1, || 2);
            sum + a + b
        };
        assert_eq!(std::thread::spawn(alone).join().unwrap(), 499_503);
    }
}
