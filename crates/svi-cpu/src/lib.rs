//! Stochastic variational inference on the CPU: the published algorithm, fused.
//!
//! Guide, objective, optimizer and schedule are those of the model crate; an iteration is one pass over the panel
//! that stores nothing a row. Results do not depend on the number of threads, to the bit: chunks of products are
//! taken by whichever thread is free, and their sums are added in a fixed order.

mod block;
mod convergence;
mod iterate;
mod noise_source;
mod phases;
mod run;
mod state;

use crate::run::SviRun;
use crate::state::State;
use infermark_backend::device::{Device, DeviceId};
use infermark_backend::{Backend, BackendError, Method, Precision, Request, Run, SviSettings};
use infermark_cpu_kernels::simd::Simd;
use infermark_cpu_kernels::{ForSimd, InstructionSet, device_name};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::objective::Objective;
use infermark_model::panel::Panel;
use infermark_model::parameterization::Parameterization;
use infermark_model::svi::LossAndGradient;
use std::sync::Arc;
use std::time::Instant;

pub use noise_source::{NoiseSource, Recording};
pub use run::GuidedRun;

/// The backend's name.
pub const NAME: &str = "svi-cpu";

/// The backend. Its instruction set is the processor's best unless one is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct SviCpu {
    instruction_set: Option<InstructionSet>,
}

impl SviCpu {
    /// The backend with the processor's best instruction set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend with a stated instruction set, which the processor must have.
    pub fn with_instruction_set(set: InstructionSet) -> Self {
        SviCpu {
            instruction_set: Some(set),
        }
    }

    /// Starts a run at the parameters of `guide` with noise from `noise`: to follow another implementation step by
    /// step. [`Backend::start`] starts at [`Guide::start`] with the noise of the request's seed.
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
        let settings = check(&panel, request)?.clone();
        let begin = Instant::now();
        let threads = request.resolved_threads();
        let placed = Placed {
            panel,
            request,
            settings,
            guide,
            noise,
        };
        Ok(self.run(
            &placed.settings.precision.clone(),
            Start {
                placed,
                threads,
                begin,
            },
        ))
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
        let settings = check(panel, request)?.clone();
        let precision = settings.precision;
        let threads = request.resolved_threads();
        let placed = Placed {
            panel: panel.clone(),
            request,
            settings,
            guide,
            noise,
        };
        Ok(self.run(
            &precision,
            Evaluate {
                placed,
                threads,
                iteration,
            },
        ))
    }

    fn run<W: ForSimd>(&self, precision: &Precision, work: W) -> W::Output {
        let set = self.instruction_set.unwrap_or_else(InstructionSet::best);
        match precision {
            Precision::F32 => set.run_f32(work),
            Precision::F64 => set.run_f64(work),
        }
    }
}

/// Checks what this backend needs of a request and returns its settings.
fn check<'r>(panel: &Panel, request: &'r Request) -> Result<&'r SviSettings, BackendError> {
    request.validate()?;
    let unsupported = |what: String| BackendError::Unsupported { backend: NAME, what };
    if let Some(device) = request.devices.iter().find(|d| **d != DeviceId::CPU) {
        return Err(unsupported(format!("device {device}")));
    }
    if u32::try_from(panel.layout().latents()).is_err() {
        return Err(unsupported(format!(
            "{} latents; the limit is {}",
            panel.layout().latents(),
            u32::MAX
        )));
    }
    match &request.method {
        Method::Svi(settings) => Ok(settings),
        Method::Nuts(_) => Err(unsupported("method nuts".into())),
    }
}

struct Placed<'a> {
    panel: Arc<Panel>,
    request: &'a Request,
    settings: SviSettings,
    guide: &'a Guide,
    noise: NoiseSource,
}

impl Placed<'_> {
    fn state<I: Simd>(self, isa: I) -> State<I> {
        let Request {
            priors,
            parameterization,
            ..
        } = *self.request;
        State::new(
            isa,
            self.panel,
            priors,
            parameterization,
            self.settings,
            self.guide,
            self.noise,
        )
    }
}

struct Start<'a> {
    placed: Placed<'a>,
    threads: usize,
    begin: Instant,
}

impl ForSimd for Start<'_> {
    type Output = Box<dyn GuidedRun>;

    fn run<I: Simd>(self, isa: I) -> Box<dyn GuidedRun> {
        let state = self.placed.state(isa);
        state.place_first();
        Box::new(SviRun::new(
            state,
            self.threads,
            self.begin.elapsed().as_secs_f64(),
        ))
    }
}

struct Evaluate<'a> {
    placed: Placed<'a>,
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

    fn devices(&self) -> Vec<Device> {
        let set = self.instruction_set.unwrap_or_else(InstructionSet::best);
        vec![Device {
            id: DeviceId::CPU,
            name: device_name(),
            memory_bytes: None,
            driver: Some(set.to_string()),
        }]
    }

    /// One particle without noise: the log-weight is then the log joint plus the guide's known constant.
    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        let mut request = request.clone();
        request.parameterization = Parameterization::Centered;
        if let Method::Svi(settings) = &mut request.method {
            settings.particles = 1;
            settings.objective = Objective::Elbo;
        }
        let latents = panel.layout().latents();
        if point.len() != latents {
            return Err(BackendError::Request(format!(
                "the point has {} numbers; this panel has {latents} latents",
                point.len()
            )));
        }
        let mut guide = Guide::start(&panel.layout(), Parameterization::Centered, 0);
        guide.loc.copy_from_slice(point);
        let noise = NoiseSource::recorded(vec![vec![vec![0.0; latents]]]);
        let result = self.loss_and_gradient_under(panel, &request, &guide, noise, 0)?;
        let ln_sigma = infermark_model::guide::START_SCALE.ln();
        let minus_ln_q = latents as f64 * (ln_sigma + 0.5 * (2.0 * std::f64::consts::PI).ln());
        let gradient = result.gradient.loc.iter().map(|g| -g).collect();
        Ok((result.log_weights[0] - minus_ln_q, gradient))
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
        let guide = Guide::start(&panel.layout(), request.parameterization, request.seed);
        let noise = NoiseSource::Philox { seed: request.seed };
        let run: Box<dyn Run> = self.start_from(panel, request, &guide, noise)?;
        Ok(run)
    }
}
