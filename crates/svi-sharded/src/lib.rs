//! Stochastic variational inference on a panel that is cut into several shards, each iterated by a rank of its own.
//!
//! The shards are iterated by an engine ([`ShardEngine`]), the code of an unsharded backend on its kinds of devices: on one device
//! they are logical shards, and several devices have as many each. Where the panel is cut by product, products keep their latents, their optimizer's state and their
//! rows; one buffer of sums crosses in an iteration, and every rank computes the hierarchy above the products from it alike. Noise
//! is counted by latent, so any number of shards follows the same trace up to the order of sums, and a given cut gives the same
//! bits again. Where it is cut by row, as in the published code, every rank has all parameters, and the whole gradient crosses.

mod iterations;
mod placement;

use crate::iterations::ShardedIterations;
use infermark_backend::{
    Backend, BackendError, BenchmarkSettings, Capabilities, Checkpoint, Device, DeviceKind, MethodKind,
    Request, Run, check_ranks,
};
use infermark_communicator::{ThreadWorld, World};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Cut, Panel, Shard};
use infermark_processor::InstructionSet;
use infermark_svi::{
    Chart, GuidedRun, NoiseSource, RunSetup, SavedRun, ShardEngine, ShardSetup, SviRun, log_joint_of,
};
use infermark_threads::at_once;
use std::sync::Arc;
use std::time::Instant;

/// The backend's name.
pub const NAME: &str = "svi-sharded";

/// The backend, over the engines that iterate its shards, each on its kinds of devices.
#[derive(Clone)]
pub struct SviSharded {
    engines: Vec<Arc<dyn ShardEngine>>,
    capabilities: Capabilities,
    world: Arc<dyn World>,
}

impl SviSharded {
    /// The backend over an engine.
    pub fn over(engine: impl ShardEngine + 'static) -> Self {
        SviSharded {
            capabilities: placement::sharded(&engine),
            engines: vec![Arc::new(engine)],
            world: Arc::new(ThreadWorld),
        }
    }

    /// The backend over one more engine, for kinds of devices that those before do not serve.
    #[must_use]
    pub fn and(mut self, engine: impl ShardEngine + 'static) -> Self {
        self.capabilities =
            placement::capabilities([self.capabilities, placement::sharded(&engine)].into_iter());
        self.engines.push(Arc::new(engine));
        self
    }

    /// Starts a run at `guide` with noise from `noise`, to follow another implementation step by step.
    ///
    /// # Errors
    /// As [`Backend::start`].
    pub fn start_from(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        self.begin(panel, request, Some(guide), noise, None)
    }

    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: Option<&Guide>,
        noise: NoiseSource,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        let begin = Instant::now();
        let (engine, devices) = self.placed(request)?;
        let cut = Cuts::of(&panel, request)?;
        if self.world.size().is_some() {
            let hardware = match devices[0].id.kind {
                DeviceKind::Cpu => InstructionSet::from_environment()?.name().to_owned(),
                _ => devices[0].name.clone(),
            };
            for mut communicator in self.world.ranks(request.shards) {
                check_ranks(&mut *communicator, &panel, request, &hardware)?;
            }
        }
        let chart = Chart::of(&panel, request);
        let guide = match guide {
            Some(guide) => guide,
            None => &chart.start(&panel, request),
        };
        let own_device = self.world.size().and(self.world.local_rank());
        let requests = placement::requests(request, self.shards_here(request), own_device);
        let started = setups(&*self.world, &cut, &requests, &chart, guide, &noise)
            .map(|setup| {
                let setup = setup?;
                let shard = setup.shard.clone();
                engine.start_shard(setup).map(|iterations| (shard, iterations))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let layout = panel.layout_for(request.likelihood);
        let iterations = ShardedIterations::new(started, request.cut, layout)?;
        let setup = RunSetup {
            backend: NAME,
            device: match self.world.size() {
                Some(size) => format!("{}, {size} processes", devices[0].name),
                None => placement::in_words(&devices, request.shards),
            },
            threads: iterations.threads(),
            panel,
            request: request.clone(),
            chart,
            setup_seconds: begin.elapsed().as_secs_f64(),
        };
        let run = SviRun::new(iterations, setup);
        Ok(Box::new(match saved {
            Some(saved) => run.gone_on_from(saved)?,
            None => run,
        }))
    }

    /// Loss and gradient of `guide` under one recorded noise, from all shards.
    fn loss_and_gradient_under(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        let (engine, _) = self.placed(request)?;
        let cut = Cuts::of(panel, request)?;
        let chart = Chart::of(panel, request);
        let requests = placement::requests(request, request.shards, None);
        let layout = panel.layout_for(request.likelihood);
        // For checks, which are made within one process.
        let setups = setups(&ThreadWorld, &cut, &requests, &chart, guide, &noise)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let works: Vec<_> = setups
            .map(|setup| || engine.shard_loss_and_gradient(setup, iteration))
            .collect();
        let found = at_once(works).map_err(|error| BackendError::short_of_threads(&error))?;
        BackendError::first_cause(&found)?;
        let mut found = found.into_iter().flatten();
        let mut all = found.next().expect("there is a shard");
        let Cuts::Products(shards) = &cut else {
            // The gradient of each is that of all.
            return Ok(all);
        };
        for (shard, of_shard) in shards[1..].iter().zip(found) {
            let of_shard = of_shard.gradient;
            shard.copy_products(&layout, &of_shard.loc, &mut all.gradient.loc);
            shard.copy_products(
                &layout,
                &of_shard.unconstrained_scale,
                &mut all.gradient.unconstrained_scale,
            );
        }
        Ok(all)
    }

    /// The shards of a request that this process iterates.
    fn shards_here(&self, request: &Request) -> usize {
        match self.world.size() {
            Some(_) => 1,
            None => request.shards,
        }
    }
}

/// A panel that is cut into shards.
enum Cuts<'a> {
    /// By product.
    Products(Vec<Shard>),
    /// By row: a shard is made where it is iterated, since it has rows of its own.
    Rows(&'a Panel, usize),
}

impl<'a> Cuts<'a> {
    fn of(panel: &'a Arc<Panel>, request: &Request) -> Result<Self, BackendError> {
        Ok(match request.cut {
            Cut::Product => Cuts::Products(Shard::cut(panel, request.shards)?),
            Cut::Row => Cuts::Rows(panel, request.shards),
        })
    }

    fn shard(&self, rank: usize) -> Result<Shard, BackendError> {
        Ok(match self {
            Cuts::Products(shards) => shards[rank].clone(),
            Cuts::Rows(panel, shards) => Shard::of_rows(panel, rank, *shards)?,
        })
    }
}

/// What the shards of this process start from.
fn setups<'a>(
    world: &dyn World,
    cut: &'a Cuts<'a>,
    requests: &'a [Request],
    chart: &'a Chart,
    guide: &'a Guide,
    noise: &'a NoiseSource,
) -> impl Iterator<Item = Result<ShardSetup<'a>, BackendError>> {
    world.ranks(requests.len()).into_iter().map(move |communicator| {
        let rank = communicator.rank();
        Ok(ShardSetup {
            shard: cut.shard(rank)?,
            request: &requests[rank],
            chart,
            guide,
            noise: noise.clone(),
            communicator,
            shards_on_device: match world.size() {
                // Each process has a device of its own.
                Some(_) => 1,
                None => requests
                    .iter()
                    .filter(|other| other.devices == requests[rank].devices)
                    .count(),
            },
        })
    })
}

impl Backend for SviSharded {
    fn name(&self) -> &'static str {
        NAME
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn devices(&self) -> Vec<Device> {
        self.engines.iter().flat_map(|engine| engine.devices()).collect()
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.placed(request).map(drop)
    }

    fn benchmark_settings(&self) -> Vec<BenchmarkSettings> {
        // The first of the first engine's, in two shards: what the cut costs.
        let whole = self.engines[0].benchmark_settings().into_iter().next();
        let sharded = whole.map(|whole| BenchmarkSettings {
            by_threads: false,
            shards: 2,
            ..whole
        });
        sharded.into_iter().collect()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        log_joint_of(panel, request, point, |request, guide, noise| {
            self.loss_and_gradient_under(panel, request, guide, noise, 0)
        })
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        let noise = NoiseSource::Philox { seed: stream.seed };
        self.loss_and_gradient_under(panel, request, guide, noise, stream.iteration)
            .map(Some)
    }

    fn among(&self, world: Arc<dyn World>) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(SviSharded {
            world,
            ..self.clone()
        }))
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let noise = NoiseSource::Philox { seed: request.seed };
        let run: Box<dyn Run> = self.begin(panel, request, None, noise, None)?;
        Ok(run)
    }

    fn resume(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Box<dyn Run>, BackendError> {
        self.supports(request)?;
        let saved = SavedRun::read(checkpoint, NAME, &panel, request)?;
        let guide = saved.guide().clone();
        let noise = NoiseSource::Philox { seed: request.seed };
        let run: Box<dyn Run> = self.begin(panel, request, Some(&guide), noise, Some(saved))?;
        Ok(run)
    }
}
