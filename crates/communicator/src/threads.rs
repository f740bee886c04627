//! Ranks that are threads of this process.

use crate::meeting::Meeting;
use crate::{CommunicationError, Communicator, Operation, Traffic};
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

/// What the ranks share.
#[derive(Debug)]
struct Group {
    meeting: Meeting,
    /// What each rank brings to the operation under way.
    brought: Vec<RwLock<Brought>>,
    /// The part of the sums that each rank has added up.
    summed: Vec<RwLock<Vec<f64>>>,
}

/// What a rank brings to an operation.
#[derive(Debug)]
struct Brought {
    operation: Operation,
    numbers: Vec<f64>,
}

/// A rank that is a thread of this process. The others learn when it is dropped.
#[derive(Debug)]
pub struct ThreadRank {
    rank: usize,
    group: Arc<Group>,
    traffic: Traffic,
}

/// The ranks of a group of `size` threads, in their order.
///
/// # Panics
/// When `size` is 0.
pub fn threads(size: usize) -> Vec<ThreadRank> {
    assert!(size > 0, "a group has at least one rank");
    let brought = || {
        RwLock::new(Brought {
            operation: Operation::Barrier,
            numbers: Vec::new(),
        })
    };
    let group = Arc::new(Group {
        meeting: Meeting::new(size),
        brought: (0..size).map(|_| brought()).collect(),
        summed: (0..size).map(|_| RwLock::default()).collect(),
    });
    (0..size)
        .map(|rank| ThreadRank {
            rank,
            group: group.clone(),
            traffic: Traffic::default(),
        })
        .collect()
}

impl ThreadRank {
    fn wait(&self, operation: Operation) -> Result<(), CommunicationError> {
        self.group
            .meeting
            .wait()
            .map_err(|rank| CommunicationError::Gone {
                rank,
                size: self.size(),
                operation,
                number: self.traffic.operations + 1,
            })
    }

    /// Brings numbers to an operation, and waits until all have, for the same operation on as many.
    fn bring(&self, operation: Operation, numbers: &[f64]) -> Result<(), CommunicationError> {
        {
            let mut brought = self.group.brought[self.rank]
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            brought.operation = operation;
            brought.numbers.clear();
            brought.numbers.extend_from_slice(numbers);
        }
        self.wait(operation)?;
        let expected = self.described(0);
        for rank in 1..self.size() {
            let found = self.described(rank);
            if found != expected {
                self.group.meeting.leave(rank);
                let words = |(operation, numbers): (Operation, usize)| {
                    format!("an operation ({}) on {numbers} numbers", operation.name())
                };
                return Err(CommunicationError::Mismatch {
                    rank,
                    found: words(found),
                    expected: words(expected),
                });
            }
        }
        Ok(())
    }

    fn described(&self, rank: usize) -> (Operation, usize) {
        let brought = self.group.brought[rank]
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        (brought.operation, brought.numbers.len())
    }

    /// The part of `numbers` numbers that `rank` adds up.
    fn part(&self, rank: usize, numbers: usize) -> Range<usize> {
        numbers * rank / self.size()..numbers * (rank + 1) / self.size()
    }
}

impl Communicator for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.group.brought.len()
    }

    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        self.bring(Operation::AllReduce, buffer)?;
        let own = self.part(self.rank, buffer.len());
        {
            let mut sums = self.group.summed[self.rank]
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            sums.clear();
            sums.resize(own.len(), 0.0);
            for brought in &self.group.brought {
                let brought = brought.read().unwrap_or_else(PoisonError::into_inner);
                for (sum, number) in sums.iter_mut().zip(&brought.numbers[own.clone()]) {
                    *sum += number;
                }
            }
        }
        self.wait(Operation::AllReduce)?;
        // Nobody writes here again before all have read: that takes another meeting.
        for (rank, sums) in self.group.summed.iter().enumerate() {
            let sums = sums.read().unwrap_or_else(PoisonError::into_inner);
            let part = self.part(rank, buffer.len());
            buffer[part].copy_from_slice(&sums);
        }
        self.traffic.add(buffer.len(), begin.elapsed());
        Ok(())
    }

    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        self.bring(Operation::Broadcast, buffer)?;
        {
            let brought = self.group.brought[root]
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            buffer.copy_from_slice(&brought.numbers);
        }
        // The root brings nothing new before all have read.
        self.wait(Operation::Broadcast)?;
        self.traffic.add(buffer.len(), begin.elapsed());
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        self.bring(Operation::Barrier, &[])?;
        self.wait(Operation::Barrier)?;
        self.traffic.add(0, begin.elapsed());
        Ok(())
    }

    fn leave(&mut self) {
        self.group.meeting.leave(self.rank);
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl Drop for ThreadRank {
    fn drop(&mut self) {
        self.leave();
    }
}
