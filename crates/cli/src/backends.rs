//! The backends that this binary has.

use anyhow::bail;
use infermark_backend::{DeviceId, Registry};
use infermark_gaussian::GaussianCpu;
use infermark_gaussian_gpu::LaplaceGpu;
use infermark_nuts_cpu::NutsCpu;
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_tensor::SviTensor;
use std::sync::LazyLock;

/// All backends, in the order of the table.
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        Registry::new()
            .with(SviCpu::new())
            .with(SviGpu::new())
            .with(SviTensor)
            .with(NutsCpu)
            .with(GaussianCpu::laplace())
            .with(LaplaceGpu::new())
            .with(GaussianCpu::structured_vi())
            .with(GaussianCpu::meanfield())
    });
    &REGISTRY
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
    let here = registry().gpus();
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
