//! The backend: what it serves, and how a run is started.

use crate::engine::Engine;
use crate::plan::DeviceLimits;
use cubecl::prelude::*;
use infermark_backend::{
    Backend, BackendError, Capabilities, Device, GaussianPass, GaussianPoint, MethodKind, Precision, Request,
    Run,
};
use infermark_gaussian::{Elsewhere, GaussianObjective, RowWalker};
use infermark_gpu_devices::{self as devices, DeviceRuntime};
use infermark_model::Panel;
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
        what: what.into(),
    }
}

impl LaplaceGpu {
    /// The backend.
    pub fn new() -> Self {
        Self::default()
    }

    /// The backend with launches of about this many cubes: in the tests small panels are walked like large
    /// ones.
    pub fn with_cubes(cubes: usize) -> Self {
        LaplaceGpu { cubes: Some(cubes) }
    }

    /// The counts, and who walks their rows.
    fn opened(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
    ) -> Result<(GaussianObjective, Elsewhere), BackendError> {
        self.supports(request)?;
        let found = devices::named(request.devices[0], crate::NAME)?;
        let counts = Elsewhere::counts(crate::NAME, panel, request)?;
        let limits = DeviceLimits {
            device: found.device.id.to_string(),
            memory_bytes: found.device.memory_bytes,
            largest_buffer: found.largest_buffer,
        };
        let walker: Arc<dyn RowWalker> = match &found.runtime {
            #[cfg(feature = "cuda")]
            DeviceRuntime::Cuda(index) => {
                let client = cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice::new(*index));
                Arc::new(Engine::new(client, limits, &counts, self.cubes)?)
            }
            #[cfg(feature = "wgpu")]
            DeviceRuntime::Wgpu(adapter, instance) => {
                let device = devices::open_wgpu(found.device.id, adapter, instance)?;
                let client = cubecl::wgpu::WgpuRuntime::client(&device);
                Arc::new(Engine::new(client, limits, &counts, self.cubes)?)
            }
            // Another crate of the same build may have a runtime that this one was built without.
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

    fn method(&self) -> MethodKind {
        MethodKind::Laplace
    }

    /// The host factors the borders, on the threads that it was given.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            precisions: &[Precision::F64],
            uses_threads: true,
            ..Capabilities::GPU
        }
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(crate::NAME, self.method(), request)?;
        let device = request.devices[0];
        if !devices::named(device, crate::NAME)?.has_doubles {
            return Err(unsupported(format!(
                "the device {device}, which has no double precision"
            )));
        }
        Ok(())
    }

    /// The devices that compute in double precision.
    fn devices(&self) -> Vec<Device> {
        let with_doubles = devices::found().iter().filter(|found| found.has_doubles);
        with_doubles.map(|found| found.device.clone()).collect()
    }

    /// The log joint without its clip, from the pass of a run.
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

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        let started = Instant::now();
        let (counts, elsewhere) = self.opened(&panel, request)?;
        elsewhere.start(counts, request, started)
    }
}
