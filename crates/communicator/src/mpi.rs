//! Ranks that are processes, connected by MPI.
//!
//! MPI reports neither which rank is late nor that one has gone, and none of its operations can be abandoned. So every operation is
//! non-blocking and waited for with a deadline; a rank that has waited for a while says so to all others, and at the deadline
//! those that have not are the ones that the others wait for. As long as these give signs of life they work, and are waited for; a rank
//! that gives none for as long as the deadline has gone. Then the run is ended, on all ranks.

mod pulse;

use crate::{CommunicationError, Communicator, Operation, Traffic, World, launch};
use mpi::collective::CommunicatorCollectives;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, Source};
use mpi::request::{LocalScope, Request};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::{Rank, Threading};
use pulse::{Pulse, Silence};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a rank waits before it says so to the others.
const NOTICE: Duration = Duration::from_millis(500);

/// How long a waiting rank spins before it leaves its core to others from time to time.
const SPIN: Duration = Duration::from_millis(2);

/// How long it then sleeps at a time.
const NAP: Duration = Duration::from_micros(50);

/// The most that counts as waited between two looks.
const LONGEST_STEP: Duration = Duration::from_millis(100);

/// How long MPI has to end all processes, before this one ends itself.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// How many times the deadline a rank may work that gives signs of life, and which may hang all the same.
const LONGEST_WORK: u32 = 60;

/// The tag of notices; other messages of this module are collective and have none.
const TAG: i32 = 17;

/// Operations of this process so far, of all its communicators: MPI has one order for them all.
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

/// The number of the latest operation that each rank has said to be waiting in.
static WAITING_AT: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// The signs of life of the other ranks, where MPI allows calls of several threads.
static SILENCE: OnceLock<Silence> = OnceLock::new();

/// Says why the run ends, before it does.
pub type GiveUp = fn(&CommunicationError);

/// MPI, from its start to its end when this is dropped.
pub struct Mpi {
    /// Ends before MPI does.
    pulse: Option<Pulse>,
    _universe: Universe,
    world: MpiWorld,
}

impl Mpi {
    /// Ends all processes, with the exit status `code`, because this one does not go on and the others may wait for it.
    pub fn abort(code: i32) -> ! {
        end_after(LAST_GRACE);
        SimpleCommunicator::world().abort(code)
    }
}

impl Drop for Mpi {
    /// The end of MPI waits for the other ranks as well, which may still work, but not for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            Mpi::abort(1);
        }
        self.world.communicator().sum(Operation::End, &mut [0.0]);
        let MpiWorld {
            size,
            deadline,
            give_up,
            ..
        } = self.world;
        let number = OPERATIONS.load(Ordering::Relaxed);
        let _ = std::thread::Builder::new().spawn(move || {
            std::thread::sleep(deadline);
            end_after(LAST_GRACE);
            give_up(&CommunicationError::Silent {
                ranks: Vec::new(),
                size,
                operation: Operation::End,
                number,
                seconds: deadline.as_secs(),
            });
            std::process::abort();
        });
        self.pulse = None;
    }
}

/// Why MPI cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MpiError {
    /// It was started before.
    #[error("MPI was started before in this process")]
    Started,
    /// Its library allows calls from no thread but the first.
    #[error(
        "this MPI library was built without support of threads; use one that supports MPI_THREAD_FUNNELED"
    )]
    Threads,
}

impl Mpi {
    /// Starts MPI, once in a process, from the thread that will drive the run. A rank that gives no sign of life for `deadline` while others wait for it
    /// ends the run on all ranks after a call of `give_up`; so does an operation that takes longer, where MPI allows calls of one thread only.
    ///
    /// # Errors
    /// When it was started before or does not support threads.
    pub fn start(deadline: Duration, give_up: GiveUp) -> Result<Self, MpiError> {
        let (universe, provided) =
            mpi::initialize_with_threading(Threading::Multiple).ok_or(MpiError::Started)?;
        if provided < Threading::Funneled {
            return Err(MpiError::Threads);
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let pulse = match provided {
            Threading::Multiple if size > 1 => Pulse::start(rank, size),
            _ => None,
        };
        if let Some(pulse) = &pulse {
            let _ = SILENCE.set(pulse.silence());
        }
        Ok(Mpi {
            world: MpiWorld {
                rank,
                size,
                deadline,
                give_up,
            },
            pulse,
            _universe: universe,
        })
    }

    /// The ranks.
    pub fn world(&self) -> MpiWorld {
        self.world
    }
}

/// The processes that were started together, one rank each.
#[derive(Debug, Clone, Copy)]
pub struct MpiWorld {
    rank: usize,
    size: usize,
    deadline: Duration,
    give_up: GiveUp,
}

impl MpiWorld {
    /// The rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// This process as a rank.
    fn communicator(&self) -> MpiRank {
        MpiRank {
            world: *self,
            sent: Vec::new(),
            received: Vec::new(),
            sums: Vec::new(),
            traffic: Traffic::default(),
        }
    }
}

impl World for MpiWorld {
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        assert_eq!(size, self.size, "each process is one rank");
        vec![Box::new(self.communicator())]
    }

    fn size(&self) -> Option<usize> {
        Some(self.size)
    }

    fn local_rank(&self) -> Option<usize> {
        launch().ok().flatten()?.local_rank
    }
}

/// This process as a rank.
#[derive(Debug)]
pub struct MpiRank {
    world: MpiWorld,
    sent: Vec<f64>,
    received: Vec<f64>,
    sums: Vec<f64>,
    traffic: Traffic,
}

impl MpiRank {
    /// Waits for the request that `begin` makes of the buffers.
    fn carry_out<'s, D: ?Sized + 's>(waiting: &mut Waiting, mut request: Request<'s, D, &LocalScope<'s>>) {
        let (mut waited, mut last) = (Duration::ZERO, Instant::now());
        loop {
            match request.test() {
                Ok(_) => return,
                Err(pending) => request = pending,
            }
            let now = Instant::now();
            // A process that was stopped itself has not waited.
            waited += (now - last).min(LONGEST_STEP);
            last = now;
            if waited < SPIN {
                std::hint::spin_loop();
                continue;
            }
            waiting.look(waited);
            std::thread::sleep(NAP);
        }
    }

    /// Replaces the buffer by its sum over the ranks. Each gets its part of every buffer, adds the parts up in the order of the ranks, and sends the sums to all: as many
    /// bytes as MPI's own ring, whose order is not promised.
    fn sum(&mut self, operation: Operation, buffer: &mut [f64]) {
        let begin = Instant::now();
        let size = self.world.size;
        let part = buffer.len().div_ceil(size);
        let (mut waiting, [sent, received, sums]) = self.waiting(operation);
        sent.clear();
        sent.extend_from_slice(buffer);
        sent.resize(part * size, 0.0);
        received.resize(part * size, 0.0);
        sums.clear();
        sums.resize(part, 0.0);
        let all = SimpleCommunicator::world();
        mpi::request::scope(|scope| {
            Self::carry_out(
                &mut waiting,
                all.immediate_all_to_all_into(scope, &sent[..], &mut received[..]),
            );
        });
        for of_rank in received.chunks_exact(part.max(1)) {
            for (sum, number) in sums.iter_mut().zip(of_rank) {
                *sum += number;
            }
        }
        mpi::request::scope(|scope| {
            Self::carry_out(
                &mut waiting,
                all.immediate_all_gather_into(scope, &sums[..], &mut sent[..]),
            );
        });
        buffer.copy_from_slice(&sent[..buffer.len()]);
        self.traffic.add(buffer.len(), begin.elapsed());
    }

    fn waiting(&mut self, operation: Operation) -> (Waiting, [&mut Vec<f64>; 3]) {
        let MpiRank {
            world,
            sent,
            received,
            sums,
            traffic: _,
        } = self;
        let waiting = Waiting {
            world: *world,
            operation,
            number: OPERATIONS.fetch_add(1, Ordering::Relaxed) + 1,
            is_announced: false,
        };
        (waiting, [sent, received, sums])
    }
}

/// Ends this process after that time: what ends the others, or says why, may hang as well.
fn end_after(grace: Duration) {
    // Without the thread it may do so for ever.
    let _ = std::thread::Builder::new().spawn(move || {
        std::thread::sleep(grace);
        std::process::abort();
    });
}

/// An operation that this rank waits in.
struct Waiting {
    world: MpiWorld,
    operation: Operation,
    /// From 1.
    number: u64,
    is_announced: bool,
}

impl Waiting {
    /// What there is to do after having waited that long.
    fn look(&mut self, waited: Duration) {
        if waited < NOTICE {
            return;
        }
        let all = SimpleCommunicator::world();
        if !self.is_announced {
            self.is_announced = true;
            for rank in (0..self.world.size).filter(|rank| *rank != self.world.rank) {
                // So short a message is on its way at once, whether or not the other is alive.
                all.process_at_rank(rank as Rank).send_with_tag(&self.number, TAG);
            }
        }
        let mut waiting_at = WAITING_AT.lock().unwrap_or_else(PoisonError::into_inner);
        waiting_at.resize(self.world.size, 0);
        while let Some((message, status)) = all.any_process().immediate_matched_probe_with_tag(TAG) {
            let (number, _) = message.matched_receive::<u64>();
            let rank = status.source_rank() as usize;
            waiting_at[rank] = waiting_at[rank].max(number);
        }
        let MpiWorld {
            rank: own, deadline, ..
        } = self.world;
        if waited >= deadline {
            let others = || (0..self.world.size).filter(|rank| *rank != own);
            let late: Vec<usize> = others().filter(|rank| waiting_at[*rank] < self.number).collect();
            let gone: Vec<usize> = match SILENCE.get() {
                Some(silence) => others().filter(|rank| silence.lasts(*rank, deadline)).collect(),
                None => late.clone(),
            };
            if gone.is_empty() && !late.is_empty() && waited < deadline * LONGEST_WORK {
                return;
            }
            let error = CommunicationError::Silent {
                ranks: if gone.is_empty() { late } else { gone },
                size: self.world.size,
                operation: self.operation,
                number: self.number,
                seconds: waited.as_secs(),
            };
            end_after(LAST_GRACE);
            (self.world.give_up)(&error);
            all.abort(1);
        }
    }
}

impl Communicator for MpiRank {
    fn rank(&self) -> usize {
        self.world.rank
    }

    fn size(&self) -> usize {
        self.world.size
    }

    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError> {
        self.sum(Operation::AllReduce, buffer);
        Ok(())
    }

    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        let (mut waiting, _) = self.waiting(Operation::Broadcast);
        let all = SimpleCommunicator::world();
        let root = all.process_at_rank(root as Rank);
        mpi::request::scope(|scope| {
            Self::carry_out(
                &mut waiting,
                mpi::collective::Root::immediate_broadcast_into(&root, scope, &mut buffer[..]),
            );
        });
        self.traffic.add(buffer.len(), begin.elapsed());
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CommunicationError> {
        // An operation on nothing need not wait for anybody.
        self.all_reduce(&mut [0.0])
    }

    /// The others learn at their deadline, or from the launcher as soon as this process ends.
    fn leave(&mut self) {}

    fn traffic(&self) -> Traffic {
        self.traffic
    }
}
