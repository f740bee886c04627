//! Stopping a long pass, and its progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Asked whether to stop, between pieces of work of well below a second.
pub type StopWhen = Arc<dyn Fn() -> bool + Send + Sync>;

/// Watches over the passes of a walk.
#[derive(Default)]
pub struct Watch {
    stop_when: RwLock<Option<StopWhen>>,
    done: AtomicU64,
    whole: AtomicU64,
}

impl Watch {
    /// Passes end early, with [`FactorError::Stopped`](crate::FactorError::Stopped), when `stop_when` returns
    /// true; partial results are useless.
    pub fn stop_when(&self, stop_when: StopWhen) {
        *self.stop_when.write().unwrap_or_else(PoisonError::into_inner) = Some(stop_when);
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        let stop_when = self.stop_when.read().unwrap_or_else(PoisonError::into_inner);
        stop_when.as_ref().is_some_and(|stop_when| stop_when())
    }

    /// The fraction of the current pass that is done, between 0 and 1.
    pub fn part_done(&self) -> f64 {
        let whole = self.whole.load(Ordering::Relaxed).max(1);
        (self.done.load(Ordering::Relaxed) as f64 / whole as f64).min(1.0)
    }

    /// Begins a pass of this many floating-point operations.
    pub(crate) fn begin(&self, operations: f64) {
        self.done.store(0, Ordering::Relaxed);
        self.whole.store(operations as u64, Ordering::Relaxed);
    }

    /// Adds to the operations done.
    pub(crate) fn add(&self, operations: u64) {
        self.done.fetch_add(operations, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("part_done", &self.part_done())
            .finish()
    }
}
