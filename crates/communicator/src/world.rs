//! Where the ranks of a run are.

use crate::{Communicator, threads};

/// The ranks of a run: all in this process, or one of them.
pub trait World: std::fmt::Debug + Send + Sync {
    /// The communicators of the ranks of `size` that this process runs, in their order.
    ///
    /// # Panics
    /// When `size` is not the number of processes of a world that has one rank in each.
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>>;

    /// How many ranks there are, where that is given.
    fn size(&self) -> Option<usize>;

    /// Where each process is one rank: its rank among those on this machine, where it is known.
    fn local_rank(&self) -> Option<usize> {
        None
    }
}

/// All ranks are threads of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadWorld;

impl World for ThreadWorld {
    fn ranks(&self, size: usize) -> Vec<Box<dyn Communicator>> {
        let boxed = |rank| Box::new(rank) as Box<dyn Communicator>;
        threads(size).into_iter().map(boxed).collect()
    }

    fn size(&self) -> Option<usize> {
        None
    }
}
