//! Sums over the ranks of a run.
//!
//! A run whose panel is cut by product needs little of the other ranks: one buffer of sums an iteration. A
//! [`Communicator`] adds such buffers up. [`Local`] is a run of one rank, [`threads`] connects threads of this process, and with the
//! feature `mpi` `MpiRank` connects processes. A [`World`] says where the ranks are, [`launch`] who has started them.
//!
//! # Contract
//!
//! - Every rank calls the same operations in the same order, with buffers of the same length.
//! - Every rank gets the same bits, and the same ranks with the same buffers get them again: sums are in the order of the ranks.
//! - An operation that fails, fails on every rank, within the deadline of its communicator; no operation succeeds after it.

mod launch;
mod meeting;
#[cfg(feature = "mpi")]
mod mpi;
mod threads;
mod world;

use std::time::Duration;

pub use launch::{LAUNCHERS, Launch, LaunchError, Launcher, launch};
#[cfg(feature = "mpi")]
pub use mpi::{GiveUp, Mpi, MpiError, MpiRank, MpiWorld};
pub use threads::{ThreadRank, threads};
pub use world::{ThreadWorld, World};

/// Connects the ranks of a run; see the [crate] for the contract.
pub trait Communicator: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Replaces the buffer by its sum over the ranks.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError>;

    /// Replaces the buffer by that of `root`.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// When a rank has gone or does not answer.
    fn barrier(&mut self) -> Result<(), CommunicationError>;

    /// Tells the other ranks that this one does not go on: their operations fail from now on, as they do when it is dropped.
    fn leave(&mut self);

    /// What this rank has sent and waited for so far.
    fn traffic(&self) -> Traffic;
}

/// What a rank has sent and waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Operations.
    pub operations: u64,
    /// Bytes of the buffers, whatever an algorithm sends of them: what NCCL's tests call the size.
    pub bytes: u64,
    /// Time within operations, which includes waiting for slower ranks.
    pub time: Duration,
}

impl Traffic {
    /// Counts an operation on `numbers` numbers that took `time`.
    pub fn add(&mut self, numbers: usize, time: Duration) {
        self.operations += 1;
        self.bytes += (numbers * size_of::<f64>()) as u64;
        self.time += time;
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.operations += more.operations;
        self.bytes += more.bytes;
        self.time += more.time;
    }
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;

    /// What has come since `earlier`.
    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            operations: self.operations - earlier.operations,
            bytes: self.bytes - earlier.bytes,
            time: self.time - earlier.time,
        }
    }
}

/// The operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`Communicator::all_reduce`].
    AllReduce,
    /// [`Communicator::broadcast`].
    Broadcast,
    /// [`Communicator::barrier`].
    Barrier,
    /// The end of all processes.
    End,
}

impl Operation {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::AllReduce => "all-reduce",
            Operation::Broadcast => "broadcast",
            Operation::Barrier => "barrier",
            Operation::End => "end",
        }
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommunicationError {
    /// A rank has ended before the others.
    #[error("rank {rank} of {size} has gone; operation {number} ({}) cannot be completed", operation.name())]
    Gone {
        /// The rank that has gone.
        rank: usize,
        /// The number of ranks.
        size: usize,
        /// What the others wanted of it.
        operation: Operation,
        /// The number of the operation, from 1.
        number: u64,
    },
    /// Ranks do not come.
    #[error("{} in {seconds} s; operation {number} ({}) cannot be completed", silence_in_words(ranks, *size), operation.name())]
    Silent {
        /// The ranks that do not come; none where all have and messages do not.
        ranks: Vec<usize>,
        /// The number of ranks.
        size: usize,
        /// What the others wait in.
        operation: Operation,
        /// The number of the operation, from 1.
        number: u64,
        /// How long this rank has waited.
        seconds: u64,
    },
    /// What connects the ranks has failed.
    #[error("operation {number} ({}) has failed: {reason}", operation.name())]
    Failed {
        /// What was under way.
        operation: Operation,
        /// The number of the operation, from 1.
        number: u64,
        /// What is said of it.
        reason: String,
    },
    /// A rank has not what the others have.
    #[error(
        "rank {rank} has another {what} than rank 0; start the same program with the same options and data on every rank, and on machines alike"
    )]
    Differs {
        /// The rank.
        rank: usize,
        /// What it has another of.
        what: &'static str,
    },
    /// Ranks do not do the same.
    #[error(
        "rank {rank} is at {found}, and rank 0 at {expected}: the ranks do not run the same program on the same data"
    )]
    Mismatch {
        /// The rank that differs.
        rank: usize,
        /// What it does.
        found: String,
        /// What rank 0 does.
        expected: String,
    },
}

/// Who is silent: `rank 2 of 4 does not answer`.
fn silence_in_words(ranks: &[usize], size: usize) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match ranks {
        [] => format!("messages between the {size} ranks do not arrive"),
        [rank] => format!("rank {rank} of {size} does not answer"),
        _ => format!("ranks {} of {size} do not answer", numbers.join(", ")),
    }
}

/// Checks, before the hours of a run, that all ranks answer, that sums arrive as they should, and that the ranks have the same of
/// everything in `facts`: what it is, and a digest of it.
///
/// # Errors
/// [`CommunicationError::Differs`] with the first rank that has something else, and what.
pub fn preflight(
    communicator: &mut dyn Communicator,
    facts: &[(&'static str, u64)],
) -> Result<(), CommunicationError> {
    let (rank, size) = (communicator.rank(), communicator.size());
    // Halves of digests are whole numbers that a sum with zeros leaves as they are.
    let halves = facts
        .iter()
        .flat_map(|(_, digest)| [digest >> 32, digest & 0xffff_ffff]);
    let own: Vec<f64> = std::iter::once(rank as u64 + 1)
        .chain(halves)
        .map(|half| half as f64)
        .collect();
    let mut all = vec![0.0; size * own.len()];
    all[rank * own.len()..][..own.len()].copy_from_slice(&own);
    communicator.all_reduce(&mut all)?;
    let of_first = &all[1..own.len()];
    for (rank, found) in all.chunks_exact(own.len()).enumerate() {
        if found[0] != rank as f64 + 1.0 {
            let what = "sum";
            return Err(CommunicationError::Differs { rank, what });
        }
        if let Some(at) = found[1..].iter().zip(of_first).position(|(a, b)| a != b) {
            let (what, _) = facts[at / 2];
            return Err(CommunicationError::Differs { rank, what });
        }
    }
    Ok(())
}

/// A run of one rank.
#[derive(Debug, Clone, Default)]
pub struct Local {
    traffic: Traffic,
}

impl Communicator for Local {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError> {
        self.traffic.add(buffer.len(), Duration::ZERO);
        Ok(())
    }

    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError> {
        assert_eq!(root, 0, "there is one rank");
        self.traffic.add(buffer.len(), Duration::ZERO);
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CommunicationError> {
        self.traffic.add(0, Duration::ZERO);
        Ok(())
    }

    fn leave(&mut self) {}

    fn traffic(&self) -> Traffic {
        self.traffic
    }
}
