//! The backend: what it serves, and how a run is started.

use crate::descent::{Descend, Descent, Noise, Start};
use crate::run::Descents;
use burn_autodiff::Autodiff;
use burn_tensor::backend::Backend as _;
use infermark_backend::{
    Backend, BackendError, Capabilities, Device, DeviceId, Method, MethodKind, Remedy, Request, Run,
    SviSettings,
};
use infermark_gpu_devices::{self as devices, DeviceRuntime, GpuDevice};
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::{LossAndGradient, draw_noise};
use infermark_svi::{Chart, GuidedRun, NoiseSource, Recording, RunSetup, SviRun, log_joint_of};
use std::sync::Arc;
use std::time::Instant;

/// Tensors of K x N x T numbers that are alive at once, at most, in the backward pass: nine that the forward pass left and
/// three that are being made: counted, not measured.
const LIVE_TENSORS: u64 = 12;

#[cfg(feature = "cuda")]
type Cuda = Autodiff<burn_cuda::Cuda<f32, i32>>;
/// Booleans of four bytes: not every card stores single bytes.
#[cfg(feature = "wgpu")]
type Graphics = Autodiff<burn_wgpu::Wgpu<f32, i32, u32>>;

/// The backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct SviTensor;

impl SviTensor {
    /// Starts a run at the parameters of `guide` with recorded noise: to follow another implementation step by step.
    /// [`Backend::start`] starts at [`Chart::start`] with noise from the device's own generator.
    ///
    /// # Errors
    /// When the request is out of range, asks for what is not served, or does not fit the device.
    pub fn start_from(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        guide: &Guide,
        record: Recording,
    ) -> Result<Box<dyn GuidedRun>, BackendError> {
        start(panel, request, Some(guide), Noise::Recorded(record))
    }

    /// Loss and gradient of `guide` under the record's noise for `iteration`.
    ///
    /// # Errors
    /// As [`SviTensor::start_from`].
    pub fn loss_and_gradient_under(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        record: Recording,
        iteration: u32,
    ) -> Result<LossAndGradient, BackendError> {
        let (settings, found) = check(panel, request)?;
        let mut descent = descent(
            Start {
                panel,
                request,
                chart: &Chart::of(panel, request),
                settings,
                guide,
                noise: Noise::Recorded(record),
                iteration,
            },
            found,
        )?;
        descent.evaluate()
    }
}

/// Starts a run at `guide`, or where its chart starts.
fn start(
    panel: Arc<Panel>,
    request: &Request,
    guide: Option<&Guide>,
    noise: Noise,
) -> Result<Box<dyn GuidedRun>, BackendError> {
    let begin = Instant::now();
    let (settings, found) = check(&panel, request)?;
    let chart = Chart::of(&panel, request);
    let guide = match guide {
        Some(guide) => guide,
        None => &chart.start(&panel, request),
    };
    let mut descent = descent(
        Start {
            panel: &panel,
            request,
            chart: &chart,
            settings,
            guide,
            noise,
            iteration: 0,
        },
        found,
    )?;
    // The first pass compiles the library's kernels: that is set-up, not iteration.
    descent.evaluate()?;
    let setup = RunSetup {
        backend: crate::NAME,
        device: found.device.name.clone(),
        threads: 1,
        panel,
        request: request.clone(),
        chart,
        setup_seconds: begin.elapsed().as_secs_f64(),
    };
    Ok(Box::new(SviRun::new(Descents(descent), setup)))
}

fn descent(start: Start<'_>, found: &GpuDevice) -> Result<Box<dyn Descend>, BackendError> {
    let seed = start.request.seed;
    match &found.runtime {
        #[cfg(feature = "cuda")]
        DeviceRuntime::Cuda(index) => {
            let device = burn_cuda::CudaDevice::new(*index);
            Cuda::seed(&device, seed);
            Ok(Box::new(Descent::<Cuda>::new(start, device)))
        }
        #[cfg(feature = "wgpu")]
        DeviceRuntime::Wgpu(adapter, instance) => {
            let device = devices::open_wgpu(found.device.id, adapter, instance)?;
            Graphics::seed(&device, seed);
            Ok(Box::new(Descent::<Graphics>::new(start, device)))
        }
        // Another crate of the same build may have a runtime that this one was built without.
        #[allow(unreachable_patterns)]
        _ => Err(unsupported(format!("{}: built without it", found.device.id))),
    }
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported {
        backend: crate::NAME,
        what: what.into(),
    }
}

/// The settings and the device of a request that this backend serves, on a panel that fits.
fn check<'r>(
    panel: &Panel,
    request: &'r Request,
) -> Result<(&'r SviSettings, &'static GpuDevice), BackendError> {
    SviTensor.supports(request)?;
    let device = request.devices[0];
    let found = devices::named(device, crate::NAME)?;
    let Method::Svi(settings) = &request.method else {
        unreachable!("another method was refused")
    };
    let layout = panel.layout();
    let tensor = 4 * (settings.particles * layout.products * layout.periods) as u64;
    check_memory(device, tensor, found.largest_buffer, found.device.memory_bytes)?;
    Ok((settings, found))
}

/// Refuses tensors of particles and rows that do not fit the device, of whose memory a twentieth is left to the driver and
/// the screen.
fn check_memory(
    device: DeviceId,
    tensor_bytes: u64,
    largest_buffer: u64,
    memory_bytes: Option<u64>,
) -> Result<(), BackendError> {
    let refuse = |what: &str, needed_bytes: u64, available_bytes: u64| BackendError::Memory {
        what: what.to_owned(),
        device: device.to_string(),
        needed_bytes,
        available_bytes,
        remedies: vec![Remedy::UseBackend("svi-gpu")],
    };
    if tensor_bytes > largest_buffer {
        return Err(refuse(
            "one tensor of particles and rows",
            tensor_bytes,
            largest_buffer,
        ));
    }
    match memory_bytes.map(|memory| memory / 20 * 19) {
        Some(available) if LIVE_TENSORS * tensor_bytes > available => Err(refuse(
            "the tensors of an iteration, a twentieth of the memory left to the driver",
            LIVE_TENSORS * tensor_bytes,
            available,
        )),
        _ => Ok(()),
    }
}

impl Backend for SviTensor {
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
        devices::named(request.devices[0], crate::NAME).map(|_| ())
    }

    /// It exists only for comparison with the fused kernels, and is slower.
    fn is_reference(&self) -> bool {
        true
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
            let NoiseSource::Recorded(record) = noise else {
                unreachable!("the noise is zero, on record")
            };
            self.loss_and_gradient_under(panel, request, guide, record, 0)
        })
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        let (settings, _) = check(panel, request)?;
        let record = Recording {
            noise: vec![draw_noise(&panel.layout(), settings.particles, stream)],
            learning_rates: Vec::new(),
        };
        self.loss_and_gradient_under(panel, request, guide, record, 0)
            .map(Some)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let run: Box<dyn Run> = start(panel, request, None, Noise::Device)?;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let check = |tensor, largest, memory| check_memory(DeviceId::CPU, tensor, largest, memory);
        // 95% of 1200 are 1140, twelve tensors of 95.
        assert_eq!(check(95, 100, Some(1200)), Ok(()));
        assert_eq!(check(100, 100, None), Ok(()));
        let one = check(101, 100, None).unwrap_err().to_string();
        assert!(one.contains("101") && one.contains("svi-gpu"), "{one}");
        let all = check(96, 200, Some(1200)).unwrap_err().to_string();
        assert!(all.contains("1152") && all.contains("1140"), "{all}");
    }
}
