//! Runs over a panel that is cut by product: every rank makes the run of its shard, and all make the same steps.
//!
//! A rank walks the products of its shard. What its passes sum over products is added up over the ranks
//! ([`infermark_arrowhead::Ranks`]), so that categories and top have the same bits on every rank, and with them every decision of the
//! search. At the end the ranks exchange the products' marginals: each has the whole posterior.

use crate::cost::cost;
use crate::objective::GaussianObjective;
use crate::run::{GaussianRun, SavedRun, counts_of};
use infermark_arrowhead::Ranks;
use infermark_backend::{
    BackendError, Checkpoint, Interrupt, Posterior, Progress, Report, Request, Run, check_ranks,
};
use infermark_communicator::{Communicator, World};
use infermark_model::dispersion::Dispersion;
use infermark_model::{Panel, Shard};
use infermark_processor::InstructionSet;
use infermark_threads::at_once;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A run of several ranks: those of this process.
pub(crate) struct ShardedRun {
    ranks: Vec<Mutex<GaussianRun>>,
}

impl ShardedRun {
    /// Cuts the panel, and starts the run of each shard.
    ///
    /// # Errors
    /// When the panel has too few products, the upper clip bound lies among the counts, or the system does not start the threads.
    pub(crate) fn start(
        name: &'static str,
        world: &dyn World,
        panel: &Arc<Panel>,
        request: &Request,
        bytes: u64,
        started: Instant,
    ) -> Result<Self, BackendError> {
        let whole = counts_of(panel, request)?;
        let mut cost = cost(&whole, request, bytes);
        let mut ranks = ranks_here(world, panel, request.shards)?;
        if world.size().is_some() {
            for (_, communicator) in &mut ranks {
                check_ranks(
                    &mut **communicator,
                    panel,
                    request,
                    InstructionSet::from_environment()?.name(),
                )?;
                // By the measured speed of a process, which decides what is done when: the first one's counts on all of them.
                let mut is_told = [f64::from(u8::from(cost.is_some()))];
                communicator.broadcast(&mut is_told, 0)?;
                cost = (is_told[0] > 0.0).then(|| cost.take().unwrap_or_default());
            }
        }
        let requests = request.of_shards(ranks.len());
        let objectives = objectives(&whole, ranks);
        let runs = objectives.into_iter().zip(&requests).map(|(counts, request)| {
            Mutex::new(GaussianRun::of_counts(
                name,
                counts,
                request,
                cost.clone(),
                None,
                started,
            ))
        });
        Ok(ShardedRun {
            ranks: runs.collect(),
        })
    }

    /// The same run from the point of `saved` on.
    pub(crate) fn gone_on_from(self, saved: &SavedRun) -> Self {
        let ranks = self.ranks.into_iter().map(|rank| {
            let run = rank.into_inner().unwrap_or_else(PoisonError::into_inner);
            Mutex::new(run.gone_on_from(saved))
        });
        ShardedRun {
            ranks: ranks.collect(),
        }
    }

    fn objectives(&self) -> Vec<GaussianObjective> {
        self.ranks
            .iter()
            .map(|rank| lock(rank).counts().clone())
            .collect()
    }

    /// The first rank's run: what is above the products, and what was gathered, is that of all.
    fn first(&self) -> MutexGuard<'_, GaussianRun> {
        lock(&self.ranks[0])
    }
}

fn lock(rank: &Mutex<GaussianRun>) -> MutexGuard<'_, GaussianRun> {
    rank.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shard with its rank.
type Ranked = (Shard, Box<dyn Communicator>);

/// The shards of a panel that this process has, each with its rank in `world`.
///
/// # Errors
/// When the panel has fewer products, or the system does not start the threads.
pub(crate) fn ranks_here(
    world: &dyn World,
    panel: &Arc<Panel>,
    shards: usize,
) -> Result<Vec<Ranked>, BackendError> {
    let cut = Shard::cut(panel, shards)?;
    let ranks = world.ranks(shards);
    infermark_threads::check(ranks.len()).map_err(|refused| BackendError::request(refused.to_string()))?;
    let own = |communicator: Box<dyn Communicator>| (cut[communicator.rank()].clone(), communicator);
    Ok(ranks.into_iter().map(own).collect())
}

/// The objectives of shards, each connected with the others.
pub(crate) fn objectives(whole: &GaussianObjective, shards: Vec<Ranked>) -> Vec<GaussianObjective> {
    let of_shard = |(shard, communicator)| whole.over_shard(&shard, Arc::new(Ranks::new(communicator)));
    shards.into_iter().map(of_shard).collect()
}

/// Lets every rank do its part, each on a thread of its own; the first one's result. A rank that fails or panics leaves the others.
///
/// # Errors
/// Why the first rank failed.
pub(crate) fn on_every_rank<T: Send>(
    objectives: &[GaussianObjective],
    part: impl Fn(usize, &GaussianObjective) -> Result<T, BackendError> + Sync,
) -> Result<T, BackendError> {
    let works: Vec<_> = objectives
        .iter()
        .enumerate()
        .map(|(rank, counts)| {
            let part = &part;
            move || unless_it_leaves(counts, || part(rank, counts))
        })
        .collect();
    let mut ends = at_once(works).map_err(|error| BackendError::short_of_threads(&error))?;
    BackendError::first_cause(&ends)?;
    ends.swap_remove(0)
}

/// The result of a rank's work. The others learn when it fails, or panics.
fn unless_it_leaves<T>(
    counts: &GaussianObjective,
    work: impl FnOnce() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let end = catch_unwind(AssertUnwindSafe(work));
    if !matches!(end, Ok(Ok(_))) {
        let ranks = counts.partition().ranks();
        ranks.expect("it is one of several").leave();
    }
    end.unwrap_or_else(|panic| resume_unwind(panic))
}

impl Run for ShardedRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        on_every_rank(&self.objectives(), |rank, _| {
            lock(&self.ranks[rank]).advance(steps, interrupt)
        })
    }

    fn progress(&self) -> Progress {
        self.first().progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        self.first().posterior()
    }

    fn report(&self) -> Report {
        let threads = self.ranks.iter().map(|rank| lock(rank).report().threads).sum();
        Report {
            threads,
            ..self.first().report()
        }
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackendError> {
        on_every_rank(&self.objectives(), |rank, _| lock(&self.ranks[rank]).checkpoint())
    }

    fn within_step(&self) -> Option<Box<dyn Fn() -> f64 + Send + Sync>> {
        self.first().within_step()
    }

    fn dispersion(&self) -> Option<Dispersion> {
        let found = on_every_rank(&self.objectives(), |rank, _| {
            Ok(lock(&self.ranks[rank]).dispersion())
        });
        found.ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::averaging::Averaging;
    use crate::profile::profiled;
    use infermark_arrowhead::FactorError;
    use infermark_backend::MethodKind;
    use infermark_communicator::ThreadWorld;
    use infermark_model::Likelihood;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    fn whole(panel: &Arc<Panel>, likelihood: Likelihood) -> GaussianObjective {
        GaussianObjective::new(panel, &Default::default(), likelihood)
    }

    /// Operations and numbers of a rank in a piece of work.
    fn crossed<T>(
        counts: &GaussianObjective,
        work: impl FnOnce() -> Result<T, FactorError>,
    ) -> Result<(T, [usize; 2]), BackendError> {
        let traffic = || counts.partition().ranks().unwrap().traffic();
        let before = traffic();
        let found = work().map_err(|error| BackendError::request(error.to_string()))?;
        let after = traffic();
        let numbers = (after.bytes - before.bytes) / 8;
        Ok((
            found,
            [after.operations - before.operations, numbers].map(|of| of as usize),
        ))
    }

    /// By the formulas of `docs/exact.md`, in numbers of 8 bytes.
    #[test]
    fn as_many_bytes_cross_as_the_formulas_say() {
        let (c, t, r) = (3, 11, 4);
        let panel = random_panel(&mut StdRng::seed_from_u64(2), 40, c, t, 0.2, 30);
        for likelihood in [Likelihood::Poisson, Likelihood::NegativeBinomial] {
            let objectives = objectives(
                &whole(&panel, likelihood),
                ranks_here(&ThreadWorld, &panel, r).unwrap(),
            );
            on_every_rank(&objectives, |_, counts| {
                let (point, _) = crossed(counts, || counts.start())?;
                let is_poisson = likelihood == Likelihood::Poisson;
                let (border, of_shape) = if is_poisson { (t + 1, 0) } else { (t + 2, t + 3) };
                let sums = c * (2 + 2 * t + of_shape + (border + 1) * (border + 2) / 2) + 1;
                let factor = sums + 2 + c;
                let at =
                    |averaging, before| crossed(counts, || counts.evaluate(&point, averaging, before, 1));
                let (found, numbers) = at(Averaging::Point, None)?;
                assert_eq!(numbers, [3, factor + 3 * r], "{likelihood:?}");
                let (_, numbers) = at(Averaging::STRUCTURED, Some(found.found.factor))?;
                assert_eq!(numbers, [4, factor + 4 * r], "{likelihood:?}");
                if is_poisson {
                    let mut pairs = counts.partition().blocks(&point);
                    let (_, numbers) = crossed(counts, || profiled(counts, &point, &mut pairs, 1))?;
                    assert_eq!(numbers, [1, 2 + c * (t + 1) + r]);
                }
                let (_, numbers) = crossed(counts, || counts.sums_over_latents(|_| [1.0, 2.0]))?;
                assert_eq!(numbers, [1, 2 + r]);
                let mut columns = [point.clone(), point.clone()];
                let [first, second] = &mut columns;
                let (_, numbers) = crossed(counts, || counts.gather_products(&mut [first, second]))?;
                assert_eq!(numbers, [1, 2 * 2 * 40 + r]);
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn a_rank_that_leaves_ends_the_others() {
        let panel = random_panel(&mut StdRng::seed_from_u64(4), 20, 2, 7, 0.0, 20);
        for (method, likelihood) in [
            (MethodKind::Laplace, Likelihood::Poisson),
            (MethodKind::StructuredVi, Likelihood::NegativeBinomial),
        ] {
            let request = Request {
                likelihood,
                shards: 3,
                ..Request::new(method.default_method())
            };
            for at in 0..3 {
                let run =
                    ShardedRun::start("test", &ThreadWorld, &panel, &request, 0, Instant::now()).unwrap();
                let ends = at_once(
                    run.ranks
                        .iter()
                        .enumerate()
                        .map(|(rank, own)| {
                            move || {
                                let mut own = lock(own);
                                for _ in 0..at {
                                    own.advance(1, &Interrupt::new()).unwrap();
                                }
                                if rank == 1 {
                                    own.counts().partition().ranks().unwrap().leave();
                                    return None;
                                }
                                let failure = own.advance(1, &Interrupt::new()).unwrap_err();
                                assert_eq!(own.advance(1, &Interrupt::new()), Err(failure.clone()));
                                Some(failure)
                            }
                        })
                        .collect(),
                )
                .unwrap();
                for end in ends.into_iter().flatten() {
                    assert!(matches!(&end, BackendError::Communication(_)), "{end:?}");
                    assert!(end.to_string().contains("rank 1 of 3 has gone"), "{end}");
                }
            }
        }
    }

    /// A rank that panics takes the others with it, and the panic is the caller's.
    #[test]
    #[should_panic(expected = "a rank fails")]
    fn a_panic_of_a_rank_is_the_callers() {
        let panel = random_panel(&mut StdRng::seed_from_u64(4), 20, 2, 7, 0.0, 20);
        let objectives = objectives(
            &whole(&panel, Likelihood::Poisson),
            ranks_here(&ThreadWorld, &panel, 3).unwrap(),
        );
        let _ = on_every_rank(&objectives, |rank, counts| {
            assert!(rank != 1, "a rank fails");
            let walk = counts.partition();
            walk.agreed(Ok(()))
                .map_err(|error| BackendError::request(error.to_string()))
        });
    }
}
