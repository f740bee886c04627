//! The iterations that a run drives.

use crate::state::State;
use infermark_backend::BackendError;
use infermark_communicator::Communicator;
use infermark_cpu_kernels::Simd;
use infermark_model::guide::Guide;
use infermark_svi::{GuideState, Iterate, Link, Piece, ReplicaLink, ShardIterate};

/// The iterations of a state, on a team of threads.
pub(crate) struct Iterations<I: Simd> {
    /// Its first iteration is placed.
    pub(crate) state: State<I>,
    /// Threads that it can use.
    pub(crate) threads: usize,
}

impl<I: Simd> Iterate for Iterations<I> {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        self.state.iterate(self.threads, None, piece)
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        Ok(self.state.guide())
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        Ok(Some(self.state.saved()))
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        // Noise is counted by iterations in 32 bits, as in a run that was never interrupted.
        self.state.restore(state, completed as u32);
        Ok(true)
    }
}

/// The connection of a shard to the others.
pub(crate) enum Connection {
    /// Of a panel that is cut by product.
    Sums(Link),
    /// Of one that is cut by row.
    Gradient(ReplicaLink),
}

/// The iterations of one of several shards.
pub(crate) struct ShardIterations<I: Simd> {
    pub(crate) iterations: Iterations<I>,
    /// The connection to the others.
    pub(crate) connection: Connection,
}

impl<I: Simd> Iterate for ShardIterations<I> {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let Iterations { state, threads } = &self.iterations;
        match &mut self.connection {
            Connection::Sums(link) => state.iterate(*threads, Some(link), piece),
            Connection::Gradient(link) => state.iterate_replica(*threads, link, piece),
        }
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        self.iterations.guide()
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        self.iterations.state()
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        self.iterations.restore(state, completed)
    }
}

impl<I: Simd> ShardIterate for ShardIterations<I> {
    fn threads(&self) -> usize {
        self.iterations.threads
    }

    fn communicator(&mut self) -> &mut dyn Communicator {
        match &mut self.connection {
            Connection::Sums(link) => link.communicator(),
            Connection::Gradient(link) => link.communicator(),
        }
    }
}
