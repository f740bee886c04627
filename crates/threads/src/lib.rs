//! Threads that are asked for, not assumed: a system that starts none more (`ulimit -u`, `pids.max`) makes work slower, it
//! does not end it. Who needs a number of threads for what it measures asks by [`check`] first.

mod parts;
mod pool;
mod start;

pub use parts::run_parts;
pub use pool::{on_pool, pool};
pub use start::{NoThreads, check, refused, start, start_detached};

/// Largest number of processor threads that may be asked for.
pub const MOST_THREADS: usize = 1024;

/// Threads that the machine has for this program, [`MOST_THREADS`] at most.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS))
}
