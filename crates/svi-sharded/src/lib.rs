//! Stochastic variational inference on a panel that is cut by product: several shards, each iterated by a rank of its own.
//!
//! The shards are iterated by an engine ([`ShardEngine`]), the code of an unsharded backend on its device. Products keep their
//! latents, their optimizer's state and their rows; one buffer of sums crosses in an iteration, and every rank computes the
//! hierarchy above the products from it alike. Noise is counted by latent, so any number of shards follows the same trace up to
//! the order of sums, and a given cut gives the same bits again.

mod iterations;

use crate::iterations::ShardedIterations;
use infermark_backend::{
    Backend, BackendError, BenchmarkSettings, Capabilities, Cause, Checkpoint, Device, MOST_SHARDS,
    MethodKind, Remedy, Request, Run, Setting,
};
use infermark_communicator::{Communicator, threads};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Shard};
use infermark_svi::{
    Chart, GuidedRun, NoiseSource, RunSetup, SavedRun, ShardEngine, ShardSetup, SviRun, log_joint_of,
};
use std::sync::Arc;
use std::time::Instant;

/// The backend's name.
pub const NAME: &str = "svi-sharded";

/// The backend, over the engine that iterates its shards.
#[derive(Clone)]
pub struct SviSharded {
    engine: Arc<dyn ShardEngine>,
}

impl SviSharded {
    /// The backend over an engine.
    pub fn over(engine: impl ShardEngine + 'static) -> Self {
        SviSharded {
            engine: Arc::new(engine),
        }
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
        self.supports(request)?;
        let begin = Instant::now();
        let shards = cut(&panel, request)?;
        let chart = Chart::of(&panel, request);
        let guide = match guide {
            Some(guide) => guide,
            None => &chart.start(&panel, request),
        };
        let requests = self.requests(request);
        let started = setups(&shards, &requests, &chart, guide, &noise)
            .map(|setup| {
                let shard = setup.shard.clone();
                self.engine
                    .start_shard(setup)
                    .map(|iterations| (shard, iterations))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let layout = panel.layout_for(request.likelihood);
        let iterations = ShardedIterations::new(started, layout)?;
        let setup = RunSetup {
            backend: NAME,
            device: self.device_in_words(request),
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
        self.supports(request)?;
        let shards = cut(panel, request)?;
        let chart = Chart::of(panel, request);
        let requests = self.requests(request);
        let layout = panel.layout_for(request.likelihood);
        let works: Vec<_> = setups(&shards, &requests, &chart, guide, &noise)
            .map(|setup| || self.engine.shard_loss_and_gradient(setup, iteration))
            .collect();
        let mut found = iterations::at_once(works)?;
        let mut all = found.remove(0)?;
        for (shard, of_shard) in shards[1..].iter().zip(found) {
            let of_shard = of_shard?.gradient;
            shard.copy_products(&layout, &of_shard.loc, &mut all.gradient.loc);
            shard.copy_products(
                &layout,
                &of_shard.unconstrained_scale,
                &mut all.gradient.unconstrained_scale,
            );
        }
        Ok(all)
    }

    /// The requests of the shards: each with its threads and without the others.
    fn requests(&self, request: &Request) -> Vec<Request> {
        let threads = request.resolved_threads();
        (0..request.shards)
            .map(|rank| {
                // The first ones take what is over.
                let own = threads / request.shards + usize::from(rank < threads % request.shards);
                Request {
                    shards: 1,
                    threads: Some(own.max(1)),
                    ..request.clone()
                }
            })
            .collect()
    }

    fn device_in_words(&self, request: &Request) -> String {
        let device = self
            .engine
            .devices()
            .into_iter()
            .find(|device| request.devices.contains(&device.id))
            .map_or_else(|| request.devices[0].to_string(), |device| device.name);
        format!("{device}, {} logical shards", request.shards)
    }
}

/// Cuts a panel into the shards of a request.
fn cut(panel: &Arc<Panel>, request: &Request) -> Result<Vec<Shard>, BackendError> {
    Shard::cut(panel, request.shards).map_err(|error| {
        BackendError::request(Cause::new(
            format!(
                "{} products cannot be cut into {} shards",
                error.products, error.shards
            ),
            [Remedy::Lower(Setting::Shards)],
        ))
    })
}

/// What each shard starts from.
fn setups<'a>(
    shards: &'a [Shard],
    requests: &'a [Request],
    chart: &'a Chart,
    guide: &'a Guide,
    noise: &'a NoiseSource,
) -> impl Iterator<Item = ShardSetup<'a>> {
    let ranks = threads(shards.len());
    let parts = shards.iter().zip(requests).zip(ranks);
    parts.map(move |((shard, request), rank)| ShardSetup {
        shard: shard.clone(),
        request,
        chart,
        guide,
        noise: noise.clone(),
        communicator: Box::new(rank) as Box<dyn Communicator>,
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
        Capabilities {
            shards: 2..=MOST_SHARDS,
            ..self.engine.capabilities()
        }
    }

    fn devices(&self) -> Vec<Device> {
        self.engine.devices()
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(NAME, self.method(), request)?;
        self.engine.supports(&Request {
            shards: 1,
            ..request.clone()
        })
    }

    fn benchmark_settings(&self) -> Vec<BenchmarkSettings> {
        // The first of the engine's, in two shards: what the cut costs.
        let whole = self.engine.benchmark_settings().into_iter().next();
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
