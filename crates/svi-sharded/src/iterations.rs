//! The iterations of all shards, each on a thread of its own.

use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_model::{Layout, Shard};
use infermark_svi::{Follower, GuideState, Iterate, Piece, ShardIterate};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

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

    /// Copies the entries of a shard's products.
    fn add_products(&self, shard: &Shard, from: &Guide, to: &mut Guide) {
        shard.copy_products(&self.layout, &from.loc, &mut to.loc);
        shard.copy_products(
            &self.layout,
            &from.unconstrained_scale,
            &mut to.unconstrained_scale,
        );
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
        let ends = at_once(works)?;
        let failures = || ends.iter().filter_map(|end| end.as_ref().err());
        // What made a rank go, rather than that it has gone.
        let is_cause = |error: &&BackendError| !matches!(error, BackendError::Communication(_));
        match failures().find(is_cause).or_else(|| failures().next()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        let ((_, first), others) = self.shards.split_first().expect("there is a shard");
        let mut guide = first.guide()?;
        for (shard, iterations) in others {
            self.add_products(shard, &iterations.guide()?, &mut guide);
        }
        Ok(guide)
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        let ((_, first), others) = self.shards.split_first().expect("there is a shard");
        let Some(mut state) = first.state()? else {
            return Ok(None);
        };
        for (shard, iterations) in others {
            let Some(of_shard) = iterations.state()? else {
                return Ok(None);
            };
            for (from, to) in of_shard.parts().into_iter().zip(state.parts_mut()) {
                self.add_products(shard, from, to);
            }
        }
        Ok(Some(state))
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        for (_, iterations) in &mut self.shards {
            if !iterations.restore(state, completed)? {
                return Ok(false);
            }
        }
        Ok(true)
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

/// Runs works that wait for one another, the first on this thread and each of the others on its own; the results are in
/// their order.
///
/// # Errors
/// When the system does not start the threads; then none has begun.
///
/// # Panics
/// When a work does.
pub(crate) fn at_once<T: Send, F: FnOnce() -> T + Send>(works: Vec<F>) -> Result<Vec<T>, BackendError> {
    let mut works = works.into_iter();
    let first = works.next().expect("there is a work");
    std::thread::scope(|scope| {
        let mut gates: Vec<Sender<()>> = Vec::new();
        let mut started = Vec::new();
        for work in works {
            let (gate, opened) = channel();
            started.push(start_gated(scope, work, opened)?);
            gates.push(gate);
        }
        for gate in gates {
            // Whoever waits for it takes it.
            let _ = gate.send(());
        }
        let first = first();
        let others = started.into_iter().map(|thread| {
            let done = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            done.expect("its gate was opened")
        });
        Ok(std::iter::once(first).chain(others).collect())
    })
}

/// Starts a work that begins once its gate is opened, and never begins when that is dropped.
fn start_gated<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
    opened: Receiver<()>,
) -> Result<std::thread::ScopedJoinHandle<'scope, Option<T>>, BackendError> {
    infermark_threads::start(scope, move || opened.recv().ok().map(|()| work())).map_err(|error| {
        BackendError::request(format!(
            "a thread for each shard cannot be started ({error}); ask for fewer shards, or raise the limit of processes"
        ))
    })
}
