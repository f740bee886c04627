//! The iterations of all shards, each on a thread of its own.

use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_model::{Layout, Shard};
use infermark_svi::{Follower, Iterate, Piece, ShardIterate};
use infermark_threads::at_once;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// See the module.
pub(crate) struct ShardedIterations {
    shards: Vec<(Shard, Box<dyn ShardIterate>)>,
    layout: Layout,
}

impl ShardedIterations {
    /// The iterations of shards in the order of their ranks, at least one.
    ///
    /// # Errors
    /// When the system does not start the threads.
    pub(crate) fn new(
        shards: Vec<(Shard, Box<dyn ShardIterate>)>,
        layout: Layout,
    ) -> Result<Self, BackendError> {
        let threads = shards.len();
        infermark_threads::check(threads).map_err(|refused| BackendError::request(refused.to_string()))?;
        Ok(ShardedIterations { shards, layout })
    }

    /// CPU threads of all shards.
    pub(crate) fn threads(&self) -> usize {
        self.shards.iter().map(|(_, shard)| shard.threads()).sum()
    }
}

impl Iterate for ShardedIterations {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let followers: Vec<Follower> = self.shards[1..].iter().map(|_| piece.follower()).collect();
        let mut shards = self.shards.iter_mut().map(|(_, shard)| shard);
        let lead = shards.next().expect("there is a shard");
        let mut works: Vec<Box<dyn FnOnce() -> Result<(), BackendError> + Send + '_>> =
            vec![Box::new(move || iterate(&mut **lead, piece))];
        for (shard, mut follower) in shards.zip(followers) {
            works.push(Box::new(move || iterate(&mut **shard, &mut follower.piece())));
        }
        let ends = at_once(works).map_err(|error| BackendError::short_of_threads(&error))?;
        BackendError::first_cause(&ends)
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        let ((_, first), others) = self.shards.split_first().expect("there is a shard");
        let mut guide = first.guide()?;
        for (shard, iterations) in others {
            let of_shard = iterations.guide()?;
            shard.copy_products(&self.layout, &of_shard.loc, &mut guide.loc);
            shard.copy_products(
                &self.layout,
                &of_shard.unconstrained_scale,
                &mut guide.unconstrained_scale,
            );
        }
        Ok(guide)
    }
}

/// Iterates a shard. The others learn when it fails, or panics.
fn iterate(shard: &mut dyn ShardIterate, piece: &mut Piece<'_>) -> Result<(), BackendError> {
    let end = catch_unwind(AssertUnwindSafe(|| shard.iterate(piece)));
    if !matches!(end, Ok(Ok(()))) {
        shard.leave();
    }
    end.unwrap_or_else(|panic| resume_unwind(panic))
}
