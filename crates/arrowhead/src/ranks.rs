//! The ranks that share a panel, each with the products of its shard.
//!
//! Every rank makes the same passes in the same order. What a pass sums over products is added up over the ranks, in one buffer, and
//! an error of one rank is the result on all of them. So every rank holds the same bits of all that is above the products, and none
//! goes on alone.

use crate::error::FactorError;
use infermark_communicator::{Communicator, Traffic};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connects the walk over a shard with those of the other ranks.
pub struct Ranks {
    communicator: Mutex<Box<dyn Communicator>>,
    rank: usize,
    size: usize,
}

impl Ranks {
    /// The ranks of a communicator.
    pub fn new(communicator: Box<dyn Communicator>) -> Self {
        Ranks {
            rank: communicator.rank(),
            size: communicator.size(),
            communicator: Mutex::new(communicator),
        }
    }

    /// Replaces `numbers` by their sums over the ranks, unless a rank has an error: then the first rank's is the result of all.
    ///
    /// Behind the numbers crosses one more for each rank, which stands for its error.
    ///
    /// # Errors
    /// That of a rank, or [`FactorError::Communication`].
    pub(crate) fn sum(
        &self,
        numbers: &mut Vec<f64>,
        own: Result<(), FactorError>,
    ) -> Result<(), FactorError> {
        let own = match own {
            // The others learn of it by their own operations.
            Err(FactorError::Communication(error)) => return Err(error.into()),
            own => own.err(),
        };
        let count = numbers.len();
        numbers.resize(count + self.size, 0.0);
        numbers[count + self.rank] = own.as_ref().map_or(NONE, code);
        self.lock().all_reduce(numbers)?;
        let errors = numbers.split_off(count);
        let first = errors.into_iter().enumerate().find(|(_, code)| *code != NONE);
        match first {
            None => Ok(()),
            Some((rank, _)) if rank == self.rank => Err(own.expect("it has the code")),
            Some((rank, code)) => Err(error_of(code, rank)),
        }
    }

    /// The numbers of every rank, in the order of the ranks, each as many as `own`.
    ///
    /// # Errors
    /// [`FactorError::Communication`].
    pub fn gather(&self, own: &[f64]) -> Result<Vec<f64>, FactorError> {
        let mut all = vec![0.0; own.len() * self.size];
        all[own.len() * self.rank..][..own.len()].copy_from_slice(own);
        self.lock().all_reduce(&mut all)?;
        Ok(all)
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Tells the other ranks that this one does not go on: their passes fail from now on.
    pub fn leave(&self) {
        self.lock().leave();
    }

    /// What this rank has sent and waited for so far.
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic()
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Communicator>> {
        self.communicator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranks")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The number that stands for no error.
const NONE: f64 = 0.0;
/// The number of a stopped pass; products count up from the next, categories down from the one before.
const STOPPED: f64 = 1.0;
/// The number of a device that failed.
const DEVICE: f64 = -1.0;

/// The number that stands for an error.
fn code(error: &FactorError) -> f64 {
    match error {
        FactorError::Stopped => STOPPED,
        FactorError::Product(product) => STOPPED + 1.0 + *product as f64,
        FactorError::Category(category) => DEVICE - 1.0 - *category as f64,
        FactorError::Device(_) | FactorError::Storage(_) | FactorError::Communication(_) => DEVICE,
    }
}

/// The inverse of [`code`], on another rank.
fn error_of(code: f64, rank: usize) -> FactorError {
    if code == STOPPED {
        FactorError::Stopped
    } else if code == DEVICE {
        FactorError::Device(format!("the device of rank {rank} failed"))
    } else if code > STOPPED {
        FactorError::Product((code - STOPPED - 1.0) as usize)
    } else {
        FactorError::Category((DEVICE - 1.0 - code) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_communicator::threads;

    /// The results of the ranks, each with its error.
    fn sums(errors: &[Option<FactorError>]) -> Vec<Result<Vec<f64>, FactorError>> {
        std::thread::scope(|scope| {
            let ranks = threads(errors.len()).into_iter().zip(errors);
            let started: Vec<_> = ranks
                .map(|(rank, error)| {
                    scope.spawn(move || {
                        let ranks = Ranks::new(Box::new(rank));
                        let mut numbers = vec![1.0 + ranks.rank as f64, 0.5];
                        let own = error.clone().map_or(Ok(()), Err);
                        ranks.sum(&mut numbers, own).map(|()| numbers)
                    })
                })
                .collect();
            started.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn numbers_are_summed_unless_a_rank_has_an_error() {
        assert_eq!(sums(&[None, None, None]), vec![Ok(vec![6.0, 1.5]); 3]);
        for error in [
            FactorError::Stopped,
            FactorError::Product(0),
            FactorError::Product(123_456_789),
            FactorError::Category(0),
            FactorError::Category(7),
        ] {
            let found = sums(&[None, Some(error.clone()), Some(FactorError::Product(3))]);
            assert_eq!(found, vec![Err(error.clone()); 3], "the first one's");
        }
        let device = FactorError::Device("it fell off the bus".into());
        let found = sums(&[None, Some(device.clone())]);
        assert_eq!(found[1], Err(device));
        assert_eq!(
            found[0],
            Err(FactorError::Device("the device of rank 1 failed".into()))
        );
    }
}
