//! Ranks that are CUDA devices, connected by NCCL: one process for each card, or one with all of them.
//!
//! NCCL's own all-reduce adds up in an order that depends on its algorithm. The contract of a [`Communicator`] is the order of the
//! ranks, so buffers are gathered by NCCL ([`NcclRank`]) and added up on every rank alike: the bits are those of threads and of MPI.
//! The library is loaded when it is asked for; a build needs nothing of it.
//!
//! No operation of NCCL has a deadline, and to abort one may hang as well. A watchdog thread ends the process when an operation takes
//! too long. NCCL does not say which rank is late, so neither does the message.

mod card;
mod library;
mod rank;
mod rendezvous;
mod watchdog;

use crate::card::Card;
use crate::library::Library;
use crate::rank::Connection;
use crate::watchdog::Watchdog;
use infermark_communicator::{CommunicationError, Communicator, World};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use rank::NcclRank;

/// Says why the process ends, before it does.
pub type GiveUp = fn(&CommunicationError);

/// Why NCCL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    /// The library is not here.
    #[error(
        "NCCL (libnccl.so.2) is not here: {0}; pip install nvidia-nccl-cu13, or install your system's package libnccl2, and set LD_LIBRARY_PATH to its \
         folder"
    )]
    Library(String),
    /// CUDA's driver is not here.
    #[error("CUDA's driver (libcuda.so.1) is not here")]
    Driver,
    /// The driver refuses something.
    #[error("the card cuda:{card} cannot be opened for NCCL: {reason}")]
    Card {
        /// Its number.
        card: usize,
        /// The driver's message.
        reason: String,
    },
    /// NCCL refuses something.
    #[error("NCCL {what}: {reason}")]
    Refused {
        /// What it was to do.
        what: &'static str,
        /// Its message.
        reason: String,
    },
    /// The file by which processes find each other cannot be written or read.
    #[error("processes find each other by {}: {reason}", path.display())]
    Rendezvous {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
    /// The system starts no thread.
    #[error("the thread that watches over NCCL cannot be started: {0}")]
    Watchdog(String),
}

/// The place of a process among those of a run, one card each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The rank of this process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// Its rank among those on its machine, where it is known.
    pub local_rank: Option<usize>,
}

/// The ranks that NCCL connects: all in this process, or one of them.
pub struct NcclWorld {
    connections: Vec<Arc<Mutex<Connection>>>,
    /// That of this process, where there are several.
    place: Option<Place>,
    version: String,
}

impl NcclWorld {
    /// The ranks of one process, one on each of the CUDA devices with these numbers.
    ///
    /// # Errors
    /// When the library or the driver is not here, or refuses.
    ///
    /// # Panics
    /// When there is no card.
    pub fn of_cards(cards: &[usize], deadline: Duration, give_up: GiveUp) -> Result<Self, NcclError> {
        assert!(!cards.is_empty(), "a rank has a card");
        let library = Library::load()?;
        let size = cards.len();
        let opened = cards
            .iter()
            .map(|card| Card::open(*card))
            .collect::<Result<Vec<_>, _>>()?;
        let watchdog = Watchdog::start(size, deadline, give_up)?;
        let cliques = watchdog.over_start(|| library.start_all(cards))?;
        drop(watchdog);
        let gone = Arc::default();
        let connections = cliques.into_iter().zip(opened).enumerate();
        let connections = connections
            .map(|(rank, (clique, card))| {
                let watchdog = Watchdog::start(size, deadline, give_up)?;
                let parts = (clique, card, watchdog);
                let connection = Connection::new(rank, size, parts, Arc::clone(&gone));
                Ok(Arc::new(Mutex::new(connection)))
            })
            .collect::<Result<_, NcclError>>()?;
        Ok(NcclWorld {
            connections,
            place: None,
            version: library.version(),
        })
    }

    /// This process as one of several, with the CUDA device `card`. The first process writes a file that all can read, `rendezvous`, which
    /// must not be there before, and removes it once all have found each other.
    ///
    /// # Errors
    /// When the library or the driver is not here, or refuses; when the file cannot be written, or is not there in time.
    pub fn of_processes(
        place: Place,
        card: usize,
        rendezvous: &Path,
        deadline: Duration,
        give_up: GiveUp,
    ) -> Result<Self, NcclError> {
        let Place { rank, size, .. } = place;
        let library = Library::load()?;
        let card = Card::open(card)?;
        let id = match rank {
            0 => {
                let id = library.new_id()?;
                rendezvous::write(rendezvous, &id)?;
                id
            }
            _ => rendezvous::read(rendezvous, deadline)?,
        };
        let watchdog = Watchdog::start(size, deadline, give_up)?;
        let clique = watchdog.over_start(|| {
            card.make_current()?;
            library.start(id, rank, size)
        })?;
        let connection = Connection::new(rank, size, (clique, card, watchdog), Arc::default());
        if rank == 0 {
            // All have read it: none starts before all have.
            rendezvous::remove(rendezvous);
        }
        Ok(NcclWorld {
            connections: vec![Arc::new(Mutex::new(connection))],
            place: Some(place),
            version: library.version(),
        })
    }

    /// NCCL's version, as `2.28.3`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl std::fmt::Debug for NcclWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NcclWorld")
            .field("cards", &self.connections.len())
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl World for NcclWorld {
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let ranks = self.place.map_or(self.connections.len(), |place| place.size);
        assert_eq!(size, ranks, "each card is one rank");
        let rank = |connection: &Arc<Mutex<Connection>>| {
            Box::new(NcclRank::new(connection.clone())) as Box<dyn Communicator>
        };
        self.connections.iter().map(rank).collect()
    }

    fn size(&self) -> Option<usize> {
        self.place.map(|place| place.size)
    }

    fn local_rank(&self) -> Option<usize> {
        self.place?.local_rank
    }
}
