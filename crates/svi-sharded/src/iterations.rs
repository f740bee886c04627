//! The iterations of all shards, each on a thread of its own.

use infermark_backend::BackendError;
use infermark_communicator::Traffic;
use infermark_model::guide::Guide;
use infermark_model::{Cut, Layout, Shard};
use infermark_svi::{Follower, GuideState, Iterate, Piece, ShardIterate};
use infermark_threads::at_once;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A shard of this process with its iterations.
type Started = (Shard, Box<dyn ShardIterate>);

/// See the module.
pub(crate) struct ShardedIterations {
    /// Those of this process, in the order of their ranks. A reading of all ranks takes them one at a time.
    shards: Mutex<Vec<Started>>,
    cut: Cut,
    layout: Layout,
    /// What the first rank of this process has exchanged in iterations.
    crossed: Traffic,
}

impl ShardedIterations {
    /// The iterations of shards in the order of their ranks, at least one.
    ///
    /// # Errors
    /// When the system does not start the threads.
    pub(crate) fn new(shards: Vec<Started>, cut: Cut, layout: Layout) -> Result<Self, BackendError> {
        let threads = shards.len();
        infermark_threads::check(threads).map_err(|refused| BackendError::request(refused.to_string()))?;
        Ok(ShardedIterations {
            shards: Mutex::new(shards),
            cut,
            layout,
            crossed: Traffic::default(),
        })
    }

    /// CPU threads of the shards of this process.
    pub(crate) fn threads(&self) -> usize {
        self.here().iter().map(|(_, shard)| shard.threads()).sum()
    }

    fn here(&self) -> MutexGuard<'_, Vec<Started>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guides with the products of all ranks, from those that `of_shard` finds of one; `None` if it finds none.
    fn gather<const N: usize>(
        &self,
        mut of_shard: impl FnMut(&dyn ShardIterate) -> Result<Option<[Guide; N]>, BackendError>,
    ) -> Result<Option<[Guide; N]>, BackendError> {
        let mut here = self.here();
        let ((first, lead), others) = here.split_first_mut().expect("there is a shard");
        let Some(mut all) = of_shard(&**lead)? else {
            return Ok(None);
        };
        if self.cut == Cut::Row {
            // Every rank has all of it.
            return Ok(Some(all));
        }
        for (shard, iterations) in &*others {
            let Some(own) = of_shard(&**iterations)? else {
                return Ok(None);
            };
            for (from, to) in own.iter().zip(&mut all) {
                shard.copy_products(&self.layout, &from.loc, &mut to.loc);
                shard.copy_products(
                    &self.layout,
                    &from.unconstrained_scale,
                    &mut to.unconstrained_scale,
                );
            }
        }
        let are_elsewhere = lead.communicator().size() > 1 + others.len();
        if are_elsewhere {
            for values in all
                .iter_mut()
                .flat_map(|guide| [&mut guide.loc, &mut guide.unconstrained_scale])
            {
                // The hierarchy is the same on all ranks, and counted once.
                if lead.communicator().rank() > 0 {
                    let whole = std::mem::replace(values, vec![0.0; self.layout.latents()]);
                    first.copy_products(&self.layout, &whole, values);
                }
                lead.communicator().all_reduce(values)?;
            }
        }
        Ok(Some(all))
    }
}

impl Iterate for ShardedIterations {
    fn iterate(&mut self, piece: &mut Piece<'_>) -> Result<(), BackendError> {
        let shards = self.shards.get_mut().unwrap_or_else(PoisonError::into_inner);
        let before = traffic_of(shards);
        let followers: Vec<Follower> = shards[1..].iter().map(|_| piece.follower()).collect();
        let mut shards = shards.iter_mut().map(|(_, shard)| shard);
        let lead = shards.next().expect("there is a shard");
        let mut works: Vec<Box<dyn FnOnce() -> Result<(), BackendError> + Send + '_>> =
            vec![Box::new(move || iterate(&mut **lead, piece))];
        for (shard, mut follower) in shards.zip(followers) {
            works.push(Box::new(move || iterate(&mut **shard, &mut follower.piece())));
        }
        let ends = at_once(works).map_err(|error| BackendError::short_of_threads(&error))?;
        let shards = self.shards.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.crossed += traffic_of(shards) - before;
        BackendError::first_cause(&ends)
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        let gathered = self.gather(|shard| Ok(Some([shard.guide()?])))?;
        let [guide] = gathered.expect("every shard has a guide");
        Ok(guide)
    }

    fn state(&self) -> Result<Option<GuideState>, BackendError> {
        let mut transforms = None;
        let gathered = self.gather(|shard| {
            Ok(shard.state()?.map(|state| {
                let (parts, own) = state.into_parts();
                transforms.get_or_insert(own);
                parts
            }))
        })?;
        Ok(gathered.map(|parts| GuideState::of_parts(parts, transforms.unwrap_or_default())))
    }

    fn restore(&mut self, state: &GuideState, completed: u64) -> Result<bool, BackendError> {
        let shards = self.shards.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, iterations) in shards {
            if !iterations.restore(state, completed)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn crossed(&self) -> Option<(usize, Traffic)> {
        let ranks = self.here().first_mut()?.1.communicator().size();
        Some((ranks, self.crossed))
    }
}

/// What the first of some shards has exchanged so far.
fn traffic_of(shards: &mut [Started]) -> Traffic {
    let (_, lead) = shards.first_mut().expect("there is a shard");
    lead.communicator().traffic()
}

/// Iterates a shard. The others learn when it fails, or panics.
fn iterate(shard: &mut dyn ShardIterate, piece: &mut Piece<'_>) -> Result<(), BackendError> {
    let end = catch_unwind(AssertUnwindSafe(|| shard.iterate(piece)));
    if !matches!(end, Ok(Ok(()))) {
        shard.communicator().leave();
    }
    end.unwrap_or_else(|panic| resume_unwind(panic))
}
