//! The iterations of all shards, each on a thread of its own.

use infermark_backend::BackendError;
use infermark_model::guide::Guide;
use infermark_model::{Layout, Shard};
use infermark_svi::{Follower, Iterate, Piece, ShardIterate};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// A shard of this process with its iterations.
type Started = (Shard, Box<dyn ShardIterate>);

/// See the module.
pub(crate) struct ShardedIterations {
    /// Those of this process, in the order of their ranks. A reading of all ranks takes them one at a time.
    shards: Mutex<Vec<Started>>,
    layout: Layout,
}

impl ShardedIterations {
    /// The iterations of shards in the order of their ranks, at least one.
    ///
    /// # Errors
    /// When the system does not start the threads.
    pub(crate) fn new(shards: Vec<Started>, layout: Layout) -> Result<Self, BackendError> {
        let threads = shards.len();
        infermark_threads::check(threads).map_err(|refused| BackendError::request(refused.to_string()))?;
        Ok(ShardedIterations {
            shards: Mutex::new(shards),
            layout,
        })
    }

    /// CPU threads of the shards of this process.
    pub(crate) fn threads(&self) -> usize {
        self.here().iter().map(|(_, shard)| shard.threads()).sum()
    }

    fn here(&self) -> MutexGuard<'_, Vec<Started>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Iterate for ShardedIterations {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let shards = self.shards.get_mut().unwrap_or_else(PoisonError::into_inner);
        let followers: Vec<Follower> = shards[1..].iter().map(|_| piece.follower()).collect();
        let mut shards = shards.iter_mut().map(|(_, shard)| shard);
        let lead = shards.next().expect("there is a shard");
        let mut works: Vec<Box<dyn FnOnce() -> Result<(), BackendError> + Send + '_>> =
            vec![Box::new(move || iterate(&mut **lead, piece))];
        for (shard, mut follower) in shards.zip(followers) {
            works.push(Box::new(move || iterate(&mut **shard, &mut follower.piece())));
        }
        all_of(at_once(works)?).map(drop)
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        let mut here = self.here();
        let ((first, lead), others) = here.split_first_mut().expect("there is a shard");
        let mut guide = lead.guide()?;
        for (shard, iterations) in &*others {
            let of_shard = iterations.guide()?;
            shard.copy_products(&self.layout, &of_shard.loc, &mut guide.loc);
            shard.copy_products(
                &self.layout,
                &of_shard.unconstrained_scale,
                &mut guide.unconstrained_scale,
            );
        }
        let are_elsewhere = lead.communicator().size() > 1 + others.len();
        if are_elsewhere {
            for values in [&mut guide.loc, &mut guide.unconstrained_scale] {
                // The hierarchy is the same on all ranks, and counted once.
                if lead.communicator().rank() > 0 {
                    let all = std::mem::replace(values, vec![0.0; self.layout.latents()]);
                    first.copy_products(&self.layout, &all, values);
                }
                lead.communicator().all_reduce(values)?;
            }
        }
        Ok(guide)
    }
}

/// Iterates a shard. The others learn when it fails, or panics.
fn iterate(shard: &mut dyn ShardIterate, piece: &mut Piece<'_>) -> Result<(), BackendError> {
    let end = catch_unwind(AssertUnwindSafe(|| shard.iterate(piece)));
    if !matches!(end, Ok(Ok(()))) {
        shard.communicator().leave();
    }
    end.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What all ranks have.
///
/// # Errors
/// What made a rank go, rather than that it has gone.
pub(crate) fn all_of<T>(ranks: Vec<Result<T, BackendError>>) -> Result<Vec<T>, BackendError> {
    let failures = || ranks.iter().filter_map(|rank| rank.as_ref().err());
    let is_cause = |error: &&BackendError| !matches!(error, BackendError::Communication(_));
    match failures().find(is_cause) {
        Some(cause) => Err(cause.clone()),
        None => ranks.into_iter().collect(),
    }
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
