//! Threads that may be refused: a system that starts no more threads (`ulimit -u`, `pids.max`) makes work
//! slower but does not end it. Code whose measurements need a number of threads calls [`check`] first.

mod at_once;
mod parts;
mod pool;
mod start;

pub use at_once::at_once;
pub use parts::run_parts;
pub use pool::{on_pool, pool};
pub use start::{NoThreads, check, refused, start, start_detached};

/// Largest number of CPU threads that may be requested.
pub const MOST_THREADS: usize = 1024;

/// Threads available to this program, at most [`MOST_THREADS`].
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS))
}
