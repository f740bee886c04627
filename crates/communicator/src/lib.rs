//! Sums over the ranks of a run.
//!
//! A run whose panel is cut by product needs little of the other ranks: one buffer of sums an iteration. A
//! [`Communicator`] adds such buffers up. [`Local`] is a run of one rank; [`threads`] connects threads of this process.
//!
//! # Contract
//!
//! - Every rank calls the same operations in the same order, with buffers of the same length.
//! - Every rank gets the same bits, and the same ranks with the same buffers get them again: sums are in the order of the ranks.
//! - An operation that fails, fails on every rank, within the deadline of its communicator; no operation succeeds after it.

mod meeting;
mod threads;

use std::time::Duration;

pub use threads::{ThreadRank, threads};

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
    pub(crate) fn add(&mut self, numbers: usize, time: Duration) {
        self.operations += 1;
        self.bytes += (numbers * size_of::<f64>()) as u64;
        self.time += time;
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
}

impl Operation {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::AllReduce => "all-reduce",
            Operation::Broadcast => "broadcast",
            Operation::Barrier => "barrier",
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
