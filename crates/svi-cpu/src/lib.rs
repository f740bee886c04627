//! Stochastic variational inference on the CPU: the published algorithm, fused.
//!
//! Guide, objective, optimizer and schedule are those of the model crate; an iteration is one pass over the
//! panel that stores nothing per row. Results are bit-identical for any number of threads: chunks of products
//! are taken by whichever thread is free, and their sums are added in a fixed order.

mod block;
mod contrasts;
mod iterate;
mod memory;
mod phases;
mod run;
mod state;

use crate::run::Iterations;
use crate::state::State;
use infermark_backend::{
    Backend, BackendError, Capabilities, Cause, Choice, Device, Method, MethodKind, Precision, Remedy,
    Request, Run, Setting, SviSettings,
};
use infermark_cpu_kernels::bare;
use infermark_cpu_kernels::{ForSimd, Simd, SimdDispatch};
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_processor::{InstructionSet, processor_name};
use infermark_svi::{Chart, GuidedRun, NoiseSource, RunSetup, SviRun, log_joint_of};
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
        self.begin(panel, request, Some(guide), noise)
    }

    /// Starts a run at `guide`, or at its chart's start.
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: Option<&Guide>,
        noise: NoiseSource,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        let (set, settings) = self.check(&panel, request)?;
        let needed = memory::bytes(&panel, request.likelihood, &settings);
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
        )?;
        let begin = Instant::now();
        let threads = request.resolved_threads();
        let chart = Chart::of(&panel, request);
        let guide = match guide {
            Some(guide) => guide,
            None => &chart.start(&panel, request),
        };
        let placed = PlacedGuide {
            panel,
            request,
            settings,
            chart,
            guide,
            noise,
        };
        let precision = placed.settings.precision;
        let start = Start {
            placed,
            threads,
            begin,
        };
        Ok(run_on(set, precision, start))
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
            panel: panel.clone(),
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
        };
        Ok(run_on(set, precision, evaluate))
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

fn run_on<W: ForSimd>(set: InstructionSet, precision: Precision, work: W) -> W::Output {
    match precision {
        Precision::F32 => set.run_f32(work),
        Precision::F64 => set.run_f64(work),
    }
}

struct PlacedGuide<'a> {
    panel: Arc<Panel>,
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
            self.panel,
            likelihood,
            priors,
            self.chart,
            self.settings,
            self.guide,
            self.noise,
        )
    }
}

struct Start<'a> {
    placed: PlacedGuide<'a>,
    threads: usize,
    begin: Instant,
}

impl ForSimd for Start<'_> {
    type Output = Box<dyn GuidedRun>;

    fn run<I: Simd>(self, isa: I) -> Box<dyn GuidedRun> {
        let (panel, request) = (self.placed.panel.clone(), self.placed.request.clone());
        let chart = self.placed.chart.clone();
        let state = self.placed.state(isa);
        state.place_first();
        let threads = state.useful_threads(self.threads);
        let setup = RunSetup {
            backend: NAME,
            device: processor_name(),
            threads,
            panel,
            request,
            chart,
            setup_seconds: self.begin.elapsed().as_secs_f64(),
        };
        Box::new(SviRun::new(Iterations { state, threads }, setup))
    }
}

struct Evaluate<'a> {
    placed: PlacedGuide<'a>,
    threads: usize,
    iteration: u32,
}

impl ForSimd for Evaluate<'_> {
    type Output = LossAndGradient;

    fn run<I: Simd>(self, isa: I) -> LossAndGradient {
        let state = self.placed.state(isa);
        state
            .frame
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iteration = self.iteration;
        state.place_first();
        state.loss_and_gradient(self.threads)
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
        let run: Box<dyn Run> = self.begin(panel, request, None, noise)?;
        Ok(run)
    }
}
