//! Stochastic variational inference on the CPU: the published algorithm, fused.
//!
//! Guide, objective, optimizer and schedule are those of the model crate; an iteration is one pass over the
//! panel that stores nothing per row. Results are bit-identical for any number of threads: chunks of products
//! are taken by whichever thread is free, and their sums are added in a fixed order.

mod batches;
mod block;
mod category_sums;
mod contrasts;
mod iterate;
mod memory;
mod phases;
mod replica;
mod run;
mod saved;
mod state;

use crate::run::{Connection, Iterations, ShardIterations};
use crate::state::{Exchange, State};
use infermark_backend::{
    Backend, BackendError, Capabilities, Cause, Checkpoint, Choice, Device, Method, MethodKind, Precision,
    Remedy, Request, Run, Setting, SviSettings,
};
use infermark_cpu_kernels::bare;
use infermark_cpu_kernels::{ForSimd, Simd, SimdDispatch};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Cut, Panel, Shard};
use infermark_processor::{InstructionSet, processor_name};
use infermark_svi::{
    Chart, GuidedRun, Link, NoiseSource, ReplicaLink, RunSetup, SavedRun, ShardEngine, ShardIterate,
    ShardSetup, Sums, SviRun, log_joint_of,
};
use std::sync::Arc;
use std::time::Instant;

/// The backend's name.
pub const NAME: &str = "svi-cpu";

/// Largest `clip_high` in single precision: AdamW squares gradients, and `exp(40)` squared leaves sums over rows a factor
/// of 6,000 to the largest `f32`.
const CLIP_HIGH_LIMIT_F32: f64 = 40.0;

/// The backend. It uses the CPU's best instruction set unless one is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct SviCpu {
    instruction_set: Option<InstructionSet>,
}

impl SviCpu {
    /// The backend with the CPU's best instruction set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend with a given instruction set, which the CPU must have.
    pub fn with_instruction_set(set: InstructionSet) -> Self {
        SviCpu {
            instruction_set: Some(set),
        }
    }

    /// Starts a run at the parameters of `guide` with noise from `noise`: to follow another implementation step by
    /// step. [`Backend::start`] starts at [`Chart::start`] with the noise of the request's seed.
    ///
    /// # Errors
    /// When the request is out of range or asks for another method or device.
    pub fn start_from(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        self.begin(panel, request, Some(guide), noise, None)
    }

    /// Starts a run at `guide`, or at its chart's start; as far as `saved` had come, if that is given.
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: Option<&Guide>,
        noise: NoiseSource,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        let (set, settings) = self.check(&panel, request)?;
        let shard = Shard::whole(panel.clone());
        check_memory(&shard, request, &settings)?;
        let begin = Instant::now();
        let threads = request.resolved_threads();
        let chart = Chart::of(&panel, request);
        let guide = match guide {
            Some(guide) => guide,
            None => &chart.start(&panel, request),
        };
        let precision = settings.precision;
        let placed = PlacedGuide {
            shard,
            exchange: Exchange::Nothing,
            request,
            settings,
            chart: chart.clone(),
            guide,
            noise,
        };
        let start = Start {
            placed,
            panel,
            chart,
            threads,
            begin,
            saved,
        };
        run_on(set, precision, start)
    }

    /// Loss and gradient of `guide` under one recorded noise.
    ///
    /// # Errors
    /// As [`SviCpu::start_from`].
    pub fn loss_and_gradient_under(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        let (set, settings) = self.check(panel, request)?;
        let precision = settings.precision;
        let threads = request.resolved_threads();
        let placed = PlacedGuide {
            shard: Shard::whole(panel.clone()),
            exchange: Exchange::Nothing,
            request,
            settings,
            chart: Chart::of(panel, request),
            guide,
            noise,
        };
        let evaluate = Evaluate {
            placed,
            threads,
            iteration,
            connection: None,
        };
        run_on(set, precision, evaluate)
    }

    /// What a shard's run starts from, on which instruction set and with which connection.
    fn placed_shard<'a>(
        &self,
        setup: ShardSetup<'a>,
    ) -> Result<(InstructionSet, PlacedGuide<'a>, Connection), BackendError> {
        let ShardSetup {
            shard,
            request,
            chart,
            guide,
            noise,
            communicator,
            ..
        } = setup;
        let (set, settings) = self.check(shard.panel(), request)?;
        check_memory(&shard, request, &settings)?;
        let layout = shard.layout_for(request.likelihood);
        let has_priors = communicator.rank() == 0;
        let (exchange, connection) = match request.cut {
            Cut::Product => {
                let sums = Sums::new(&layout, chart, settings.particles);
                (Exchange::Sums, Connection::Sums(Link::new(communicator, sums)))
            }
            Cut::Row => (
                Exchange::Gradient { has_priors },
                Connection::Gradient(ReplicaLink::new(communicator, settings.particles)),
            ),
        };
        let placed = PlacedGuide {
            shard,
            exchange,
            request,
            settings,
            chart: chart.clone(),
            guide,
            noise,
        };
        Ok((set, placed, connection))
    }

    /// Checks what this backend needs of a request and returns the instruction set and the request's settings.
    fn check(&self, panel: &Panel, request: &Request) -> Result<(InstructionSet, SviSettings), BackendError> {
        self.supports(request)?;
        let set = match self.instruction_set {
            Some(set) => set,
            None => InstructionSet::from_environment()?,
        };
        let latents = panel.layout_for(request.likelihood).latents();
        if u32::try_from(latents).is_err() {
            return Err(BackendError::Unsupported {
                backend: NAME,
                what: format!("{latents} latents; the limit is {}", u32::MAX).into(),
            });
        }
        let Method::Svi(settings) = &request.method else {
            unreachable!("another method was refused")
        };
        Ok((set, settings.clone()))
    }
}

/// Checks that there is memory for the run of a shard.
fn check_memory(shard: &Shard, request: &Request, settings: &SviSettings) -> Result<(), BackendError> {
    let threads = request.resolved_threads();
    let needed = memory::bytes(shard, request.cut, request.likelihood, settings, threads);
    infermark_memory::check(format!("SVI with {} particles", settings.particles), needed).map_err(
        |shortage| {
            BackendError::short_of_memory(
                shortage,
                [
                    Remedy::GiveMemory,
                    Remedy::Lower(Setting::Particles),
                    Remedy::FitFewer("products"),
                ],
            )
        },
    )
}

fn run_on<W: ForSimd>(set: InstructionSet, precision: Precision, work: W) -> W::Output {
    match precision {
        Precision::F32 => set.run_f32(work),
        Precision::F64 => set.run_f64(work),
    }
}

struct PlacedGuide<'a> {
    shard: Shard,
    exchange: Exchange,
    request: &'a Request,
    settings: SviSettings,
    chart: Chart,
    guide: &'a Guide,
    noise: NoiseSource,
}

impl PlacedGuide<'_> {
    fn state<I: Simd>(self, isa: I) -> State<I> {
        let Request {
            priors, likelihood, ..
        } = *self.request;
        State::new(
            isa,
            &self.shard,
            self.exchange,
            likelihood,
            priors,
            self.chart,
            self.settings,
            self.guide,
            self.noise,
        )
    }

    /// The iterations on at most `threads` threads, of which the first is placed.
    fn iterations<I: Simd>(self, isa: I, threads: usize) -> Iterations<I> {
        let state = self.state(isa);
        state.place_first();
        let threads = state.useful_threads(threads);
        Iterations { state, threads }
    }
}

struct Start<'a> {
    placed: PlacedGuide<'a>,
    panel: Arc<Panel>,
    chart: Chart,
    threads: usize,
    begin: Instant,
    saved: Option<SavedRun>,
}

impl ForSimd for Start<'_> {
    type Output = Result<Box<dyn GuidedRun>, BackendError>;

    fn run<I: Simd>(self, isa: I) -> Self::Output {
        let request = self.placed.request.clone();
        let iterations = self.placed.iterations(isa, self.threads);
        let setup = RunSetup {
            backend: NAME,
            device: processor_name(),
            threads: iterations.threads,
            panel: self.panel,
            request,
            chart: self.chart,
            setup_seconds: self.begin.elapsed().as_secs_f64(),
        };
        let run = SviRun::new(iterations, setup);
        Ok(Box::new(match self.saved {
            Some(saved) => run.gone_on_from(saved)?,
            None => run,
        }))
    }
}

struct StartShard<'a> {
    placed: PlacedGuide<'a>,
    threads: usize,
    connection: Connection,
}

impl ForSimd for StartShard<'_> {
    type Output = Box<dyn ShardIterate>;

    fn run<I: Simd>(self, isa: I) -> Box<dyn ShardIterate> {
        Box::new(ShardIterations {
            iterations: self.placed.iterations(isa, self.threads),
            connection: self.connection,
        })
    }
}

struct Evaluate<'a> {
    placed: PlacedGuide<'a>,
    threads: usize,
    iteration: u32,
    /// The connection of one of several shards.
    connection: Option<Connection>,
}

impl ForSimd for Evaluate<'_> {
    type Output = Result<LossAndGradient, BackendError>;

    fn run<I: Simd>(mut self, isa: I) -> Self::Output {
        let state = self.placed.state(isa);
        state
            .frame
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iteration = self.iteration;
        state.place_first();
        match &mut self.connection {
            None => state.loss_and_gradient(self.threads, None),
            Some(Connection::Sums(link)) => state.loss_and_gradient(self.threads, Some(link)),
            Some(Connection::Gradient(link)) => state.loss_and_gradient_of_replica(self.threads, link),
        }
    }
}

impl Backend for SviCpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            precisions: &[Precision::F32, Precision::F64],
            mini_batches: true,
            ..Capabilities::CPU
        }
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(NAME, self.method(), request)?;
        let high = request.priors.clip_high;
        if request.method.precision() == Precision::F32 && high > CLIP_HIGH_LIMIT_F32 {
            return Err(BackendError::request(Cause::new(
                format!(
                    "clip_high is {high}; squares of gradients of such rates overflow single precision, whose limit is \
                     {CLIP_HIGH_LIMIT_F32}"
                ),
                [
                    Remedy::Lower(Setting::ClipHigh),
                    Remedy::Choose(Choice::Precision(Precision::F64)),
                ],
            )));
        }
        Ok(())
    }

    fn kernel_limit(&self, panel: &Arc<Panel>, request: &Request) -> Option<f64> {
        let set = self.instruction_set.unwrap_or_else(InstructionSet::best);
        let single_precision = request.method.precision() == Precision::F32;
        bare::kernel_limit(
            set,
            request.likelihood,
            single_precision,
            panel,
            request.method.particles(),
            request.resolved_threads(),
        )
    }

    fn devices(&self) -> Vec<Device> {
        let set = self.instruction_set.unwrap_or_else(InstructionSet::best);
        vec![Device::cpu(set)]
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

impl ShardEngine for SviCpu {
    fn cuts(&self) -> &'static [Cut] {
        &Cut::ALL
    }

    fn start_shard(&self, setup: ShardSetup<'_>) -> Result<Box<dyn ShardIterate>, BackendError> {
        let (set, placed, connection) = self.placed_shard(setup)?;
        let (precision, threads) = (placed.settings.precision, placed.request.resolved_threads());
        let start = StartShard {
            placed,
            threads,
            connection,
        };
        Ok(run_on(set, precision, start))
    }

    fn shard_loss_and_gradient(
        &self,
        setup: ShardSetup<'_>,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        let (set, placed, connection) = self.placed_shard(setup)?;
        let (precision, threads) = (placed.settings.precision, placed.request.resolved_threads());
        let evaluate = Evaluate {
            placed,
            threads,
            iteration,
            connection: Some(connection),
        };
        run_on(set, precision, evaluate)
    }
}
