//! The backend: what it serves, and how a run is started.

use crate::engine::Engine;
use crate::plan::DeviceLimits;
use cubecl::prelude::*;
use infermark_backend::{Backend, BackendError, Device, DeviceId, GaussianPass, GaussianPoint, Request, Run};
use infermark_gaussian::{Counts, Elsewhere, RowWalker};
use infermark_gpu_devices::{self as devices, Found, Way};
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use std::sync::Arc;
use std::time::Instant;

/// The Laplace approximation whose rows are walked on a GPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaplaceGpu {
    cubes: Option<usize>,
}

fn unsupported(what: String) -> BackendError {
    BackendError::Unsupported {
        backend: crate::NAME,
        what,
    }
}

impl LaplaceGpu {
    /// The backend.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend with launches whose products about so many cubes share: the tests have small panels walked as large ones are.
    pub fn with_cubes(cubes: usize) -> Self {
        LaplaceGpu { cubes: Some(cubes) }
    }

    /// Checks what this backend needs of a request, and finds its device.
    fn check(request: &Request) -> Result<&'static Found, BackendError> {
        request.validate()?;
        let [device] = request.devices[..] else {
            return Err(unsupported(format!(
                "{} devices at once; give one",
                request.devices.len()
            )));
        };
        if device == DeviceId::CPU {
            return Err(unsupported("the device cpu; laplace-cpu does".into()));
        }
        let found = devices::named(device, crate::NAME)?;
        if !found.has_doubles {
            return Err(unsupported(format!(
                "the device {device}, which has no double precision; --device cpu does"
            )));
        }
        Ok(found)
    }

    /// The counts, and who walks their rows.
    fn opened(&self, panel: &Arc<Panel>, request: &Request) -> Result<(Counts, Elsewhere), BackendError> {
        let found = Self::check(request)?;
        let counts = Elsewhere::counts(crate::NAME, panel, request)?;
        let limits = DeviceLimits {
            device: found.device.id.to_string(),
            memory_bytes: found.device.memory_bytes,
            largest_buffer: found.largest_buffer,
        };
        let walker: Arc<dyn RowWalker> = match &found.way {
            #[cfg(feature = "cuda")]
            Way::Cuda(index) => {
                let client = cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice::new(*index));
                Arc::new(Engine::new(client, limits, &counts, self.cubes)?)
            }
            #[cfg(feature = "wgpu")]
            Way::Wgpu(adapter, instance) => {
                let device = devices::open_wgpu(found.device.id, adapter, instance)?;
                let client = cubecl::wgpu::WgpuRuntime::client(&device);
                Arc::new(Engine::new(client, limits, &counts, self.cubes)?)
            }
            // Another crate of the same build may know a way that this one was built without.
            #[allow(unreachable_patterns)]
            _ => return Err(unsupported(format!("{}: built without it", found.device.id))),
        };
        let elsewhere = Elsewhere {
            name: crate::NAME,
            device: [found.device.id.to_string(), found.device.name.clone()],
            walker,
        };
        Ok((counts, elsewhere))
    }
}

impl Backend for LaplaceGpu {
    fn name(&self) -> &'static str {
        crate::NAME
    }

    /// Those that compute in double precision.
    fn devices(&self) -> Vec<Device> {
        let with_doubles = devices::found().iter().filter(|found| found.has_doubles);
        with_doubles.map(|found| found.device.clone()).collect()
    }

    /// The log joint without its clip, by the pass of a run.
    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        let (counts, elsewhere) = self.opened(panel, request)?;
        elsewhere.log_joint(counts, request, point)
    }

    fn gaussian_pass(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        at: GaussianPoint<'_>,
    ) -> Result<Option<GaussianPass>, BackendError> {
        let (counts, elsewhere) = self.opened(panel, request)?;
        elsewhere.pass(counts, request, at.mean).map(Some)
    }

    fn loss_and_gradient(
        &self,
        _panel: &Arc<Panel>,
        request: &Request,
        _guide: &Guide,
        _stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        Self::check(request)?;
        Ok(None)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let started = Instant::now();
        let (counts, elsewhere) = self.opened(&panel, request)?;
        elsewhere.start(counts, request, started)
    }
}
