//! The backends that this binary has.

use anyhow::bail;
use infermark_backend::device::DeviceId;
use infermark_backend::{Backend, Method, Precision, Request};
use infermark_cpu_kernels::InstructionSet;
use infermark_cpu_kernels::bare::bare_row_particles_per_second;
use infermark_gaussian::GaussianCpu;
use infermark_gaussian_gpu::LaplaceGpu;
use infermark_model::{Likelihood, Panel};
use infermark_nuts_cpu::NutsCpu;
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_tensor::SviTensor;
use std::sync::Arc;
use std::time::Duration;

/// All backends, in the order of the table.
pub fn all() -> Vec<Arc<dyn Backend>> {
    vec![
        Arc::new(SviCpu::new()),
        Arc::new(SviGpu::new()),
        Arc::new(SviTensor),
        Arc::new(NutsCpu),
        Arc::new(GaussianCpu::laplace()),
        Arc::new(LaplaceGpu::new()),
        Arc::new(GaussianCpu::structured_vi()),
        Arc::new(GaussianCpu::meanfield()),
    ]
}

/// The backend of a name.
pub fn named(name: &str) -> Option<Arc<dyn Backend>> {
    all().into_iter().find(|backend| backend.name() == name)
}

/// The backend for a request's method and devices.
pub fn for_request(request: &Request) -> Arc<dyn Backend> {
    match request.method {
        Method::Svi(_) if request.devices.contains(&DeviceId::CPU) => Arc::new(SviCpu::new()),
        Method::Svi(_) => Arc::new(SviGpu::new()),
        Method::Nuts(_) => Arc::new(NutsCpu),
        Method::Laplace(_) if request.devices.contains(&DeviceId::CPU) => Arc::new(GaussianCpu::laplace()),
        Method::Laplace(_) => Arc::new(LaplaceGpu::new()),
        Method::StructuredVi(_) => Arc::new(GaussianCpu::structured_vi()),
        Method::Meanfield(_) => Arc::new(GaussianCpu::meanfield()),
    }
}

/// A device as the command names it: `gpu` is the first card that `infermark devices` lists. Software that plays a card is
/// far slower than the processors without it, so that nobody gets it who has not named it.
///
/// # Errors
/// When the name is not understood, or `gpu` is asked for where there is no card.
pub fn device(text: &str) -> anyhow::Result<DeviceId> {
    if text != "gpu" {
        return Ok(text.parse()?);
    }
    let here = SviGpu::new().devices();
    if let Some(card) = here.iter().find(|device| !device.software) {
        return Ok(card.id);
    }
    match here.first() {
        Some(software) => bail!(
            "there is no GPU here, only software that plays one (see `infermark devices`); --device {} asks for it",
            software.id
        ),
        None => bail!("there is no GPU here (see `infermark devices`); --device cpu needs none"),
    }
}

/// Refuses a device that `backend` does not have, before any file is read.
///
/// # Errors
/// Names the device and those that there are.
pub fn check_devices(backend: &dyn Backend, request: &Request) -> anyhow::Result<()> {
    let here: Vec<DeviceId> = backend.devices().into_iter().map(|device| device.id).collect();
    for device in &request.devices {
        if !here.contains(device) {
            let known: Vec<String> = here.iter().map(DeviceId::to_string).collect();
            let remedy = match request.method {
                Method::Svi(_) | Method::Laplace(_) => "",
                _ => "; --method svi and laplace run on GPUs",
            };
            bail!(
                "{} cannot run on {device}; devices: {}{remedy}",
                backend.name(),
                known.join(", ")
            );
        }
    }
    Ok(())
}

/// The bare kernel's rate for a request: row-particles a second without noise, priors and optimizer. The processors have
/// one.
pub fn kernel_limit(panel: &Arc<Panel>, request: &Request) -> Option<f64> {
    // The bare kernel is that of Poisson rows.
    if !request.devices.contains(&DeviceId::CPU) || request.likelihood != Likelihood::Poisson {
        return None;
    }
    let (particles, single) = match &request.method {
        Method::Svi(svi) => (svi.particles, svi.precision == Precision::F32),
        _ => (1, false),
    };
    Some(bare_row_particles_per_second(
        InstructionSet::best(),
        single,
        panel,
        particles,
        request.resolved_threads(),
        Duration::from_secs(1),
    ))
}
