//! A run of NUTS that is advanced in pieces.

mod ranks;
mod report;
mod saved;

use crate::NAME;
use crate::chain::{ChainTask, ToNatural, run_chain};
use crate::density::{Density, PanelDensity};
use crate::record::{ChainRecord, Retention};
use crate::scheduler::ChainScheduler;
use crate::summary::summarize;
use crate::whitening::Whitening;
use infermark_backend::{
    BackendError, Checkpoint, Draws, Interrupt, Metric, ModeSearchReport, NutsSettings, Posterior, Progress,
    Report, Request, Run, RunState, SiteDraws, StepUnit,
};
use infermark_communicator::Communicator;
use infermark_model::{Layout, Panel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

pub(crate) use saved::SavedRun;

/// A run under way: its chains' threads wait at the scheduler between calls.
pub(crate) struct NutsRun {
    layout: Layout,
    /// The panel, if the density is that of a panel.
    panel: Option<Arc<Panel>>,
    request: Request,
    settings: NutsSettings,
    retention: Retention,
    threads: usize,
    setup_seconds: f64,
    run_seconds: f64,
    state: RunState,
    /// The search for the mode of the structured metric.
    mode_search: Option<ModeSearchReport>,
    scheduler: Arc<ChainScheduler>,
    records: Vec<Arc<Mutex<ChainRecord>>>,
    workers: Vec<JoinHandle<()>>,
    /// The posterior with its total number of draws, cached because both posterior and report need it.
    summarized: Mutex<Option<(u64, Posterior)>>,
    /// The ranks that share the chains: rank r of n runs the chains r, r + n, ...
    communicator: Mutex<Box<dyn Communicator>>,
    /// Why the chains of other ranks cannot go on.
    of_others: Option<BackendError>,
}

/// What a run is started from.
pub(crate) struct RunSetup<'a> {
    pub layout: Layout,
    pub request: &'a Request,
    pub settings: &'a NutsSettings,
    pub retention: Retention,
    /// Connects the ranks that share the chains.
    pub communicator: Box<dyn Communicator>,
    /// What a checkpoint holds of it.
    pub saved: Option<SavedRun>,
    pub started: Instant,
}

impl NutsRun {
    /// Starts the chains' threads for a checked request, as far as a checkpoint had come.
    pub(crate) fn start(panel: Arc<Panel>, setup: RunSetup<'_>) -> Result<Self, BackendError> {
        let RunSetup {
            layout,
            request,
            settings,
            ..
        } = setup;
        // Before the search for the mode.
        ranks::chains_of(
            setup.communicator.rank(),
            setup.communicator.size(),
            settings.chains,
        )?;
        let priors = request.priors;
        let centredness = request.parameterization.start();
        let to_natural: ToNatural = {
            let panel = panel.clone();
            Arc::new(move |z| centredness.to_natural(z, panel.category_of(), &layout, &priors))
        };
        let (whitening, mode_search) = match settings.metric {
            Metric::Diagonal => (None, None),
            Metric::Structured => {
                let (whitening, search) =
                    Whitening::at_mode(&panel, request.likelihood, &priors, request.resolved_threads())?;
                (Some(whitening), Some(search))
            }
        };
        // Packed once: the chains' densities share the rows.
        let density = PanelDensity::new(&panel, request.likelihood, priors, centredness, 1);
        let mut run = Self::with_densities(setup, to_natural, |threads| {
            density.with_threads(threads, whitening.clone())
        })?;
        run.mode_search = mode_search;
        run.panel = Some(panel);
        Ok(run)
    }

    /// Starts chains on any density; `density` creates that of one chain, given its number of threads.
    pub(crate) fn with_densities<D: Density + Send + 'static>(
        setup: RunSetup<'_>,
        to_natural: ToNatural,
        density: impl Fn(usize) -> D,
    ) -> Result<Self, BackendError> {
        let RunSetup {
            layout,
            request,
            settings,
            retention,
            communicator,
            saved,
            started,
        } = setup;
        let threads = request.resolved_threads();
        let chains = settings.chains;
        let own = ranks::chains_of(communicator.rank(), communicator.size(), chains)?;
        let permits = threads.min(own.len());
        let fresh = (0..chains).map(|_| ChainRecord::new(layout, &retention, settings));
        let (records, run_seconds) = match saved {
            None => (fresh.collect(), 0.0),
            Some(saved) => saved.over(fresh)?,
        };
        let done: Vec<u64> = records.iter().map(ChainRecord::all_draws).collect();
        let scheduler = ChainScheduler::new(&done, permits).without(|chain| !own.contains(&chain));
        let mut run = NutsRun {
            layout,
            panel: None,
            request: request.clone(),
            settings: settings.clone(),
            threads,
            setup_seconds: 0.0,
            run_seconds,
            state: RunState::Running,
            mode_search: None,
            scheduler: Arc::new(scheduler),
            records: records
                .into_iter()
                .map(|record| Arc::new(Mutex::new(record)))
                .collect(),
            retention,
            workers: Vec::with_capacity(own.len()),
            summarized: Mutex::new(None),
            communicator: Mutex::new(communicator),
            of_others: None,
        };
        let mut used = Vec::with_capacity(own.len());
        for (slot, chain) in own.iter().copied().enumerate() {
            let density = density(threads_of_chain(threads, own.len(), slot));
            used.push(density.threads());
            let task = ChainTask {
                chain,
                seed: request.seed,
                settings: settings.clone(),
                density,
                to_natural: to_natural.clone(),
                scheduler: run.scheduler.clone(),
                record: run.records[chain].clone(),
            };
            let worker = std::thread::Builder::new()
                .name(format!("chain {}", chain + 1))
                .spawn(move || run_chain(task))
                .map_err(|error| BackendError::Device {
                    device: "the machine".into(),
                    reason: format!(
                        "no thread for chain {} could be started ({error}); ask for fewer chains, or raise the limit of \
                         processes (`ulimit -u`, or `pids.max` of a container)",
                        chain + 1
                    ),
                })?;
            run.workers.push(worker);
        }
        // Threads of the chains that work at the same time.
        run.threads = used.into_iter().take(permits).sum();
        run.setup_seconds = started.elapsed().as_secs_f64();
        Ok(run)
    }

    /// Draws of one chain, warm-up included.
    fn draws_of_chain(&self) -> u64 {
        self.settings.warmup.saturating_add(self.settings.draws)
    }

    /// The chains' records; no chain works while they are read.
    pub(crate) fn records(&self) -> Vec<MutexGuard<'_, ChainRecord>> {
        self.records
            .iter()
            .map(|r| r.lock().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }

    /// The posterior, from the cache if there is no new draw.
    pub(crate) fn summary(&self) -> Option<Posterior> {
        let records = self.records();
        let draws = records.iter().map(|r| r.report.draws).sum();
        let mut summarized = self.summarized.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, posterior)) = summarized.as_ref()
            && *of == draws
        {
            return Some(posterior.clone());
        }
        let views: Vec<&ChainRecord> = records.iter().map(|r| &**r).collect();
        let posterior = summarize(&views, &self.layout, self.threads)?;
        *summarized = Some((draws, posterior.clone()));
        Some(posterior)
    }

    /// Gradients of all draws, warm-up included.
    pub(crate) fn gradients_of(records: &[MutexGuard<'_, ChainRecord>]) -> u64 {
        records
            .iter()
            .map(|r| r.report.warmup_gradients + r.report.gradients)
            .sum()
    }

    /// Draws after warm-up that every chain has.
    pub(crate) fn common_draws(records: &[MutexGuard<'_, ChainRecord>]) -> usize {
        records
            .iter()
            .map(|r| r.statistics.len())
            .min()
            .expect("at least one chain")
    }
}

/// The number of threads for the gradient of a chain: one, or a fair share if there are more threads than
/// chains.
fn threads_of_chain(threads: usize, chains: usize, chain: usize) -> usize {
    (threads / chains + usize::from(chain < threads % chains)).max(1)
}

impl Run for NutsRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        if let Some(failure) = &self.of_others {
            return Err(failure.clone());
        }
        if steps == 0 && self.state != RunState::Failed {
            return Ok(self.progress());
        }
        let mut is_interrupted = interrupt.is_set();
        if !self.state.is_complete() && self.state != RunState::Failed {
            let started = Instant::now();
            self.scheduler.advance(steps, self.draws_of_chain(), interrupt);
            self.run_seconds += started.elapsed().as_secs_f64();
            is_interrupted = self.exchange(interrupt)?;
        }
        let (done, failure) = self.scheduler.standing();
        if let Some(reason) = failure {
            self.state = RunState::Failed;
            return Err(BackendError::Diverged {
                step: done.iter().sum(),
                reason: reason.into(),
            });
        }
        self.state = if done.iter().all(|d| *d == self.draws_of_chain()) {
            RunState::Finished
        } else if is_interrupted {
            RunState::Interrupted
        } else {
            RunState::Running
        };
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        let (done, _) = self.scheduler.standing();
        let records = self.records();
        let behind = done.iter().copied().min().unwrap_or(0);
        let mut note = if behind < self.settings.warmup {
            format!("warm-up {behind} of {}", self.settings.warmup)
        } else {
            format!(
                "draw {} of {}",
                behind - self.settings.warmup,
                self.settings.draws
            )
        };
        let depth = records.iter().map(|r| f64::from(r.last_depth)).sum::<f64>() / records.len() as f64;
        let divergences: u64 = records.iter().map(|r| r.divergences).sum();
        note.push_str(&format!(", tree depth {depth:.1}, {divergences} divergences"));
        Progress {
            completed: done.iter().sum(),
            total: self.draws_of_chain().saturating_mul(done.len() as u64),
            unit: StepUnit::Draws,
            state: self.state,
            note,
        }
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        self.summary().ok_or_else(|| {
            let warmup = self.settings.warmup;
            BackendError::NoPosterior(
                format!("not every chain has a draw after its warm-up of {warmup} draws").into(),
            )
        })
    }

    fn report(&self) -> Report {
        self.report_of_backend(NAME)
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, BackendError> {
        self.saved()
    }

    fn width(&self) -> u64 {
        self.settings.chains as u64
    }

    fn gradients(&self) -> Option<u64> {
        Some(Self::gradients_of(&self.records()))
    }

    fn draws(&self) -> Option<Draws> {
        let records = self.records();
        let draws = Self::common_draws(&records);
        let sites = self
            .retention
            .sites(&self.layout)
            .iter()
            .map(|site| {
                let mut values = Vec::with_capacity(records.len() * draws * self.layout.len(*site));
                for record in &records {
                    for draw in 0..draws {
                        values.extend_from_slice(record.site_draw(*site, draw).expect("a kept site"));
                    }
                }
                SiteDraws { site: *site, values }
            })
            .collect();
        Some(Draws {
            layout: self.layout,
            chains: records.len(),
            draws,
            sites,
            statistics: records
                .iter()
                .flat_map(|r| r.statistics[..draws].iter().copied())
                .collect(),
        })
    }
}

impl Drop for NutsRun {
    fn drop(&mut self) {
        self.scheduler.shut();
        for worker in self.workers.drain(..) {
            // A panic was caught in the thread and reported as the chain's failure.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out() {
        let shares = |threads, chains| -> Vec<usize> {
            (0..chains)
                .map(|chain| threads_of_chain(threads, chains, chain))
                .collect()
        };
        assert_eq!(shares(8, 3), [3, 3, 2]);
        assert_eq!(shares(2, 4), [1, 1, 1, 1]);
        assert_eq!(shares(5, 1), [5]);
    }
}
