//! The backend: what it serves, and how a run is started.

use crate::fused::engine::{Engine, Machine, Start};
use crate::fused::layout::DeviceLimits;
use crate::fused::limits;
use crate::profile::Profile;
use crate::run::Batches;
use infermark_backend::{
    Backend, BackendError, Capabilities, Checkpoint, Device, DeviceKind, Limits, Method, MethodKind, Request,
    Run, SviSettings,
};
use infermark_gpu_devices::{self as devices, DeviceRuntime};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Shard};
use infermark_svi::{Chart, GuidedRun, NoiseSource, RunSetup, SavedRun, SviRun, log_joint_of};
use std::sync::Arc;
use std::time::Instant;

/// Most particles: a thread keeps every particle's sums in registers.
const MOST_PARTICLES: usize = 16;

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct SviGpu {
    variant: Variant,
}

/// Variants of a kernel that are otherwise chosen for the device; the tests run each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Variant {
    /// The device's own exponential for the rows, instead of the polynomial.
    pub native_exp2: Option<bool>,
    /// How many cubes share the products.
    pub cubes: Option<usize>,
}

/// What a machine starts from.
pub(crate) struct MachineSetup<'a> {
    /// The products.
    pub(crate) shard: Shard,
    pub(crate) request: &'a Request,
    pub(crate) chart: &'a Chart,
    /// For all latents of the panel.
    pub(crate) guide: &'a Guide,
    pub(crate) noise: NoiseSource,
    /// The first iteration.
    pub(crate) iteration: u32,
    /// Shards that share the device's memory.
    pub(crate) shards_on_device: usize,
}

impl<'a> MachineSetup<'a> {
    /// All products, from the first iteration on.
    pub(crate) fn whole(
        panel: &Arc<Panel>,
        request: &'a Request,
        chart: &'a Chart,
        guide: &'a Guide,
        noise: NoiseSource,
    ) -> Self {
        MachineSetup {
            shard: Shard::whole(panel.clone()),
            request,
            chart,
            guide,
            noise,
            iteration: 0,
            shards_on_device: 1,
        }
    }
}

impl SviGpu {
    /// The backend, with the variant that suits each device.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend with a stated variant.
    pub fn with_variant(variant: Variant) -> Self {
        SviGpu { variant }
    }

    /// Starts a run at the parameters of `guide` with noise from `noise`: to follow another implementation step by
    /// step. [`Backend::start`] starts at [`Chart::start`] with the noise of the request's seed.
    ///
    /// # Errors
    /// When the request is out of range, asks for what is not served, or does not fit the device.
    pub fn start_from(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        self.begin(panel, request, Some(guide), noise, None)
    }

    /// Starts a run at `guide`, or at its chart's start, as far as `saved` had come.
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: Option<&Guide>,
        noise: NoiseSource,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        let begin = Instant::now();
        self.supports(request)?;
        let chart = Chart::of(&panel, request);
        let guide = match guide {
            Some(guide) => guide,
            None => &chart.start(&panel, request),
        };
        let mut machine = self.machine(MachineSetup::whole(&panel, request, &chart, guide, noise))?;
        // The first launches compile the kernels: that is set-up, not iteration.
        machine.prepare(guide)?;
        let device = devices::named(request.devices[0], crate::NAME)?
            .device
            .name
            .clone();
        let setup = RunSetup {
            backend: crate::NAME,
            device,
            threads: 1,
            panel,
            request: request.clone(),
            chart,
            setup_seconds: begin.elapsed().as_secs_f64(),
        };
        let run = SviRun::new(Batches::new(machine), setup);
        Ok(Box::new(match saved {
            Some(saved) => run.gone_on_from(saved)?,
            None => run,
        }))
    }

    /// Loss and gradient of `guide` under one recorded noise.
    ///
    /// # Errors
    /// As [`SviGpu::start_from`].
    pub fn loss_and_gradient_under(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        noise: NoiseSource,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        self.supports(request)?;
        let chart = Chart::of(panel, request);
        let mut machine = self.machine(MachineSetup {
            iteration,
            ..MachineSetup::whole(panel, request, &chart, guide, noise)
        })?;
        machine.evaluate(None)
    }

    /// Where an iteration's time goes, on a run of its own from the start values.
    ///
    /// # Errors
    /// As [`SviGpu::start_from`].
    pub fn profile(&self, panel: &Arc<Panel>, request: &Request) -> Result<Profile, BackendError> {
        self.supports(request)?;
        let limits = self
            .limits(request)?
            .ok_or_else(|| unsupported("limits of this device".into()))?;
        let chart = Chart::of(panel, request);
        let guide = chart.start(panel, request);
        let noise = NoiseSource::Philox { seed: request.seed };
        let mut machine = self.machine(MachineSetup::whole(panel, request, &chart, &guide, noise))?;
        machine.prepare(&guide)?;
        let (launches, batches) = machine.profile()?;
        Ok(Profile {
            limits,
            launches,
            batches,
        })
    }

    /// The iterations that a run drives.
    pub(crate) fn machine(&self, setup: MachineSetup<'_>) -> Result<Box<dyn Machine>, BackendError> {
        let MachineSetup {
            shard,
            request,
            chart,
            guide,
            noise,
            iteration,
            shards_on_device,
        } = setup;
        let found = devices::named(request.devices[0], crate::NAME)?;
        let settings = settings_of(request);
        let start = Start {
            shard,
            priors: request.priors,
            chart: chart.clone(),
            settings,
            guide,
            noise,
            iteration,
            native_exp2: self.variant.native_exp2.unwrap_or_else(|| has_good_exp2(found)),
            cubes: self.variant.cubes,
        };
        let mut limits = device_limits(found);
        limits.memory_bytes = limits.memory_bytes.map(|bytes| bytes / shards_on_device as u64);
        match &found.runtime {
            #[cfg(feature = "cuda")]
            DeviceRuntime::Cuda(index) => {
                use cubecl::Runtime;
                let client = cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice::new(*index));
                Ok(Box::new(Engine::new(client, limits, false, start)?))
            }
            #[cfg(feature = "wgpu")]
            DeviceRuntime::Wgpu(adapter, instance) => {
                use cubecl::Runtime;
                let device = devices::open_wgpu(found.device.id, adapter, instance)?;
                let client = cubecl::wgpu::WgpuRuntime::client(&device);
                Ok(Box::new(Engine::new(client, limits, true, start)?))
            }
            // Another crate of the same build may have a runtime that this one was built without.
            #[allow(unreachable_patterns)]
            _ => Err(unsupported(format!("{}: built without it", found.device.id))),
        }
    }
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported {
        backend: crate::NAME,
        what: what.into(),
    }
}

fn device_limits(found: &devices::GpuDevice) -> DeviceLimits {
    DeviceLimits {
        device: found.device.id.to_string(),
        memory_bytes: found.device.memory_bytes,
        largest_buffer: found.largest_buffer,
    }
}

/// Whether the device's own exponential is as good as the polynomial: CUDA's is, to 2 units in the last
/// place, and runs on a separate unit in parallel with the arithmetic; Vulkan allows an error that grows with
/// the exponent.
fn has_good_exp2(found: &devices::GpuDevice) -> bool {
    found.device.id.kind == DeviceKind::Cuda
}

/// The settings of a request that was checked.
fn settings_of(request: &Request) -> &SviSettings {
    match &request.method {
        Method::Svi(settings) => settings,
        other => unreachable!("{} was refused", other.name()),
    }
}

impl Backend for SviGpu {
    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn method(&self) -> MethodKind {
        MethodKind::Svi
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::GPU
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(crate::NAME, self.method(), request)?;
        let particles = request.method.particles();
        if particles > MOST_PARTICLES {
            return Err(unsupported(format!(
                "{particles} particles; the limit is {MOST_PARTICLES}"
            )));
        }
        devices::named(request.devices[0], crate::NAME).map(|_| ())
    }

    fn devices(&self) -> Vec<Device> {
        devices::found().iter().map(|f| f.device.clone()).collect()
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

    fn limits(&self, request: &Request) -> Result<Option<Limits>, BackendError> {
        self.supports(request)?;
        let found = devices::named(request.devices[0], crate::NAME)?;
        let (particles, limits) = (request.method.particles(), device_limits(found));
        let measured: Result<Limits, String> = match &found.runtime {
            #[cfg(feature = "cuda")]
            DeviceRuntime::Cuda(index) => {
                use cubecl::Runtime;
                let client = cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice::new(*index));
                limits::measure(&client, particles, &limits)
            }
            #[cfg(feature = "wgpu")]
            DeviceRuntime::Wgpu(adapter, instance) => {
                use cubecl::Runtime;
                let device = devices::open_wgpu(found.device.id, adapter, instance)?;
                let client = cubecl::wgpu::WgpuRuntime::client(&device);
                limits::measure(&client, particles, &limits)
            }
            // Another crate of the same build may have a runtime that this one was built without.
            #[allow(unreachable_patterns)]
            _ => return Err(unsupported(format!("{}: built without it", found.device.id))),
        };
        measured.map(Some).map_err(|reason| BackendError::Device {
            device: found.device.id.to_string(),
            reason,
        })
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
        let saved = SavedRun::read(checkpoint, crate::NAME, &panel, request)?;
        let guide = saved.guide().clone();
        let noise = NoiseSource::Philox { seed: request.seed };
        let run: Box<dyn Run> = self.begin(panel, request, Some(&guide), noise, Some(saved))?;
        Ok(run)
    }
}
