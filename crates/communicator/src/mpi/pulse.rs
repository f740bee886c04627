//! Signs of life of ranks that work, so that they are told apart from those that have gone.

use mpi::Rank;
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time between two signs.
const BEAT: Duration = Duration::from_secs(1);

/// Their tag.
const TAG: i32 = 18;

/// A thread that gives signs of life of this process to the others, and takes theirs. A process that is stopped gives none.
#[derive(Debug)]
pub(super) struct Pulse {
    silence: Silence,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long each rank has given no sign.
#[derive(Debug, Clone)]
pub(super) struct Silence(Arc<[AtomicU32]>);

impl Silence {
    /// Whether a rank has given no sign for that long, in time that this process was not stopped itself.
    pub(super) fn lasts(&self, rank: usize, time: Duration) -> bool {
        BEAT * self.0[rank].load(Ordering::Relaxed) >= time
    }
}

impl Pulse {
    /// Begins, in a process that is `rank` of `size`; MPI must allow calls of several threads. `None` where no thread can be started.
    pub(super) fn start(rank: usize, size: usize) -> Option<Self> {
        let silence = Silence((0..size).map(|_| AtomicU32::new(0)).collect());
        let ends = Arc::new(AtomicBool::new(false));
        let (heard_by_all, asked) = (silence.clone(), ends.clone());
        let beats = move || {
            let all = SimpleCommunicator::world();
            while !asked.load(Ordering::Relaxed) {
                for other in (0..size).filter(|other| *other != rank) {
                    // So short a message is on its way at once, whether or not the other is alive.
                    all.process_at_rank(other as Rank).send_with_tag(&0u8, TAG);
                }
                let next = Instant::now() + BEAT;
                while let Some(left) = next.checked_duration_since(Instant::now()) {
                    if asked.load(Ordering::Relaxed) {
                        return;
                    }
                    std::thread::park_timeout(left);
                }
                // A beat at most, however long this process was stopped.
                for beats in heard_by_all.0.iter() {
                    beats.fetch_add(1, Ordering::Relaxed);
                }
                while let Some((message, status)) = all.any_process().immediate_matched_probe_with_tag(TAG) {
                    message.matched_receive::<u8>();
                    heard_by_all.0[status.source_rank() as usize].store(0, Ordering::Relaxed);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("pulse".into())
            .spawn(beats)
            .ok()?;
        Some(Pulse {
            silence,
            ends,
            thread: Some(thread),
        })
    }

    /// What it hears.
    pub(super) fn silence(&self) -> Silence {
        self.silence.clone()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
