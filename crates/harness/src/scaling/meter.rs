//! Ranks whose traffic is seen from outside of the run that has them.

use infermark_communicator::{CommunicationError, Communicator, Traffic, World};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The traffic of a rank, after each of its operations.
type Meter = Arc<Mutex<Traffic>>;

/// A world whose ranks are metered.
#[derive(Debug, Clone)]
pub(super) struct MeteredWorld {
    world: Arc<dyn World>,
    /// Of the ranks that were made last, in their order.
    meters: Arc<Mutex<Vec<Meter>>>,
}

impl MeteredWorld {
    pub(super) fn new(world: impl World + 'static) -> Self {
        MeteredWorld {
            world: Arc::new(world),
            meters: Arc::default(),
        }
    }

    /// What each rank of the run that was started last has sent and waited for.
    pub(super) fn traffic(&self) -> Vec<Traffic> {
        lock(&self.meters).iter().map(|meter| *lock(meter)).collect()
    }
}

impl World for MeteredWorld {
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let mut meters = lock(&self.meters);
        meters.clear();
        let ranks = self.world.ranks(size).into_iter().map(|rank| {
            let meter = Meter::default();
            meters.push(meter.clone());
            Box::new(MeteredRank { rank, meter }) as Box<dyn Communicator>
        });
        ranks.collect()
    }

    fn size(&self) -> Option<usize> {
        self.world.size()
    }

    fn local_rank(&self) -> Option<usize> {
        self.world.local_rank()
    }
}

struct MeteredRank {
    rank: Box<dyn Communicator>,
    meter: Meter,
}

impl MeteredRank {
    fn read(&self) {
        *lock(&self.meter) = self.rank.traffic();
    }
}

impl Communicator for MeteredRank {
    fn rank(&self) -> usize {
        self.rank.rank()
    }

    fn size(&self) -> usize {
        self.rank.size()
    }

    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError> {
        let done = self.rank.all_reduce(buffer);
        self.read();
        done
    }

    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError> {
        let done = self.rank.broadcast(buffer, root);
        self.read();
        done
    }

    fn barrier(&mut self) -> Result<(), CommunicationError> {
        let done = self.rank.barrier();
        self.read();
        done
    }

    fn leave(&mut self) {
        self.rank.leave();
    }

    fn traffic(&self) -> Traffic {
        self.rank.traffic()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_communicator::ThreadWorld;

    #[test]
    fn a_meter_reads_what_its_rank_has_sent() {
        let world = MeteredWorld::new(ThreadWorld);
        let works: Vec<_> = world
            .ranks(3)
            .into_iter()
            .map(|mut rank| {
                move || {
                    let mut sums = [rank.rank() as f64; 10];
                    rank.all_reduce(&mut sums).unwrap();
                    rank.broadcast(&mut sums[..4], 1).unwrap();
                    rank.barrier().unwrap();
                    (sums, rank.traffic())
                }
            })
            .collect();
        let done = infermark_threads::at_once(works).unwrap();
        let read = world.traffic();
        assert_eq!(read.len(), 3);
        for ((sums, told), read) in done.into_iter().zip(read) {
            assert_eq!(sums, [3.0; 10]);
            assert_eq!((read.operations, read.bytes), (3, 8 * 14));
            assert_eq!(read, told);
        }
        // A later run starts from nothing.
        let later = world.ranks(2);
        assert_eq!(world.traffic(), [Traffic::default(); 2]);
        drop(later);
    }
}
