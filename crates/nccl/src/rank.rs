//! A rank: sums in the order of the ranks, of what NCCL gathers.

use crate::NcclError;
use crate::card::{Card, Work};
use crate::library::Clique;
use crate::watchdog::Watchdog;
use infermark_communicator::{CommunicationError, Communicator, Operation, Traffic};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a waiting rank spins before it leaves its core to others from time to time.
const SPIN: Duration = Duration::from_millis(2);

/// How long it then sleeps at a time.
const NAP: Duration = Duration::from_micros(50);

/// A rank's connection to the others, from its start to the end of the run.
pub(crate) struct Connection {
    rank: usize,
    size: usize,
    /// There until the end.
    parts: Option<(Clique, Card, Watchdog)>,
    /// A rank of this process that does not go on.
    gone: Arc<OnceLock<usize>>,
    operations: u64,
    failure: Option<CommunicationError>,
}

impl Connection {
    /// The connection of a rank. Those of one process share `gone`.
    pub(crate) fn new(
        rank: usize,
        size: usize,
        parts: (Clique, Card, Watchdog),
        gone: Arc<OnceLock<usize>>,
    ) -> Self {
        Connection {
            rank,
            size,
            parts: Some(parts),
            gone,
            operations: 0,
            failure: None,
        }
    }

    /// Gathers `numbers` of every rank, and gives all of them to `f`, rank after rank.
    fn gather<R>(
        &mut self,
        operation: Operation,
        numbers: &[f64],
        f: impl FnOnce(&[f64]) -> R,
    ) -> Result<R, CommunicationError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.operations += 1;
        let (clique, card, watchdog) = self.parts.as_mut().expect("it is there until the drop");
        let (number, size, gone) = (self.operations, self.size, &*self.gone);
        let done = watchdog.over(operation, number, || {
            carry_out(clique, card, gone, numbers, size).map_err(|end| match end {
                End::Gone(rank) => CommunicationError::Gone {
                    rank,
                    size,
                    operation,
                    number,
                },
                End::Refused(error) => CommunicationError::Failed {
                    operation,
                    number,
                    reason: error.to_string(),
                },
            })
        });
        match done {
            Ok(()) => Ok(f(card.gathered(numbers.len(), size))),
            Err(failure) => {
                self.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }
}

/// Why an operation is not carried out.
enum End {
    /// This rank, of the same process, does not go on.
    Gone(usize),
    Refused(NcclError),
}

impl From<NcclError> for End {
    fn from(error: NcclError) -> Self {
        End::Refused(error)
    }
}

fn carry_out(
    clique: &mut Clique,
    card: &mut Card,
    gone: &OnceLock<usize>,
    numbers: &[f64],
    size: usize,
) -> Result<(), End> {
    if let Some(rank) = gone.get() {
        return Err(End::Gone(*rank));
    }
    card.begin_gather(clique, numbers, size)?;
    let begin = Instant::now();
    while let Work::UnderWay = card.work()? {
        if begin.elapsed() < SPIN {
            std::hint::spin_loop();
            continue;
        }
        clique.failure()?;
        if let Some(rank) = gone.get() {
            return Err(End::Gone(*rank));
        }
        std::thread::sleep(NAP);
    }
    Ok(clique.failure()?)
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((clique, card, watchdog)) = self.parts.take() else {
            return;
        };
        if self.failure.is_some() || self.gone.get().is_some() {
            // To end what has failed may take for ever, and so may the end of the process.
            std::mem::forget(watchdog);
            return;
        }
        let ended = watchdog.over_start(|| {
            card.make_current()?;
            clique.end();
            card.close();
            Ok::<_, NcclError>(())
        });
        if ended.is_err() {
            std::mem::forget(watchdog);
        }
    }
}

/// A card as a rank. Clones of its connection are one rank, whose operations are in one order.
pub struct NcclRank {
    connection: Arc<Mutex<Connection>>,
    rank: usize,
    size: usize,
    traffic: Traffic,
}

impl NcclRank {
    pub(crate) fn new(connection: Arc<Mutex<Connection>>) -> Self {
        let (rank, size) = {
            let connection = lock(&connection);
            (connection.rank, connection.size)
        };
        NcclRank {
            connection,
            rank,
            size,
            traffic: Traffic::default(),
        }
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Communicator for NcclRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&mut self, buffer: &mut [f64]) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        let sums = lock(&self.connection).gather(Operation::AllReduce, buffer, |all| {
            let mut sums = vec![0.0; buffer.len()];
            for of_rank in all.chunks_exact(buffer.len().max(1)) {
                for (sum, number) in sums.iter_mut().zip(of_rank) {
                    *sum += number;
                }
            }
            sums
        })?;
        buffer.copy_from_slice(&sums);
        self.traffic.add(buffer.len(), begin.elapsed());
        Ok(())
    }

    fn broadcast(&mut self, buffer: &mut [f64], root: usize) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        let numbers = buffer.len();
        let of_root = lock(&self.connection).gather(Operation::Broadcast, buffer, |all| {
            all[root * numbers..][..numbers].to_vec()
        })?;
        buffer.copy_from_slice(&of_root);
        self.traffic.add(numbers, begin.elapsed());
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), CommunicationError> {
        let begin = Instant::now();
        lock(&self.connection).gather(Operation::Barrier, &[0.0], |_| ())?;
        self.traffic.add(0, begin.elapsed());
        Ok(())
    }

    /// Those of other processes learn at their deadline, or from the launcher as soon as this process ends.
    fn leave(&mut self) {
        // The first that leaves is the cause.
        let _ = lock(&self.connection).gone.set(self.rank);
    }

    fn traffic(&self) -> Traffic {
        self.traffic
    }
}
