//! The point at which the threads of a run wait for one another.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread spins before it sleeps: a few times what putting a thread to sleep and waking it costs.
const SPIN: Duration = Duration::from_micros(100);

/// Spins between two looks at the clock.
const SPINS_PER_LOOK: u32 = 32;

/// No rank has gone.
const NONE: usize = usize::MAX;

/// A barrier that a thread can leave for good, which ends it for the others.
#[derive(Debug)]
pub(crate) struct Meeting {
    size: usize,
    /// Whether every thread can have a core of its own; otherwise none spins, because it would hold up the one that it waits for.
    spins: bool,
    arrived: AtomicUsize,
    /// Meetings that have taken place.
    met: AtomicU64,
    /// The first rank that has gone.
    gone: AtomicUsize,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

impl Meeting {
    /// A meeting point of `size` threads.
    pub(crate) fn new(size: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Meeting {
            size,
            spins: size <= cores,
            arrived: AtomicUsize::new(0),
            met: AtomicU64::new(0),
            gone: AtomicUsize::new(NONE),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        }
    }

    /// Waits for all others. What any thread wrote before is visible to every thread after.
    ///
    /// # Errors
    /// The rank that has gone.
    pub(crate) fn wait(&self) -> Result<(), usize> {
        // Whoever has gone never arrives, and nobody arrives twice.
        match self.gone.load(Ordering::SeqCst) {
            NONE => {}
            gone => return Err(gone),
        }
        let meeting = self.met.load(Ordering::SeqCst);
        if self.arrived.fetch_add(1, Ordering::SeqCst) + 1 == self.size {
            self.arrived.store(0, Ordering::SeqCst);
            self.met.store(meeting + 1, Ordering::SeqCst);
            self.wake_all();
            return Ok(());
        }
        if self.spins && self.spin(meeting) {
            return Ok(());
        }
        let mut sleepers = self.sleepers.lock().unwrap_or_else(PoisonError::into_inner);
        *sleepers += 1;
        loop {
            // One that has met all others may be gone already.
            let met = self.met.load(Ordering::SeqCst) != meeting;
            let gone = self.gone.load(Ordering::SeqCst);
            if met || gone != NONE {
                *sleepers -= 1;
                return if met { Ok(()) } else { Err(gone) };
            }
            sleepers = self.wake.wait(sleepers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Leaves for good.
    pub(crate) fn leave(&self, rank: usize) {
        // The first one is named.
        let _ = self
            .gone
            .compare_exchange(NONE, rank, Ordering::SeqCst, Ordering::SeqCst);
        self.wake_all();
    }

    /// Spins for a while; whether all have met.
    fn spin(&self, meeting: u64) -> bool {
        let begin = Instant::now();
        loop {
            for _ in 0..SPINS_PER_LOOK {
                if self.met.load(Ordering::SeqCst) != meeting {
                    return true;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() > SPIN {
                return false;
            }
        }
    }

    fn wake_all(&self) {
        // Whoever is about to sleep holds the lock while it looks.
        if *self.sleepers.lock().unwrap_or_else(PoisonError::into_inner) > 0 {
            self.wake.notify_all();
        }
    }
}
