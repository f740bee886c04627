//! The backends that this binary has.

use anyhow::bail;
use infermark_backend::device::DeviceId;
use infermark_backend::{Backend, Method, Precision, Request};
use infermark_cpu_kernels::InstructionSet;
use infermark_cpu_kernels::bare::bare_row_particles_per_second;
use infermark_model::Panel;
use infermark_nuts_cpu::NutsCpu;
use infermark_svi_cpu::SviCpu;
use std::sync::Arc;
use std::time::Duration;

/// All backends, in the order of the table.
pub fn all() -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(SviCpu::new()), Arc::new(NutsCpu)]
}

/// The backend of a name.
pub fn named(name: &str) -> Option<Arc<dyn Backend>> {
    all().into_iter().find(|backend| backend.name() == name)
}

/// The backend for a request's method on the CPU.
pub fn for_method(method: &Method) -> Arc<dyn Backend> {
    match method {
        Method::Svi(_) => Arc::new(SviCpu::new()),
        Method::Nuts(_) => Arc::new(NutsCpu),
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
            bail!(
                "{} cannot run on {device}; devices: {}",
                backend.name(),
                known.join(", ")
            );
        }
    }
    Ok(())
}

/// The bare kernel's rate for a request: row-particles a second without noise, priors and optimizer.
pub fn kernel_limit(panel: &Arc<Panel>, request: &Request) -> Option<f64> {
    let (particles, single) = match &request.method {
        Method::Svi(svi) => (svi.particles, svi.precision == Precision::F32),
        Method::Nuts(_) => (1, false),
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
