//! Devices as the command names them.

use anyhow::bail;
use infermark::{DeviceId, registry};

/// A device as the command names it: `gpu` is the first card that `infermark devices` lists. A software
/// rasterizer is much slower than the CPU, so it is only used when named explicitly.
///
/// # Errors
/// When the name is not understood, or `gpu` is requested and there is no card.
pub(crate) fn named_device(text: &str) -> anyhow::Result<DeviceId> {
    if text != "gpu" {
        return Ok(text.parse()?);
    }
    let here = registry().gpus();
    if let Some(card) = here.iter().find(|device| !device.software) {
        return Ok(card.id);
    }
    match here.first() {
        Some(software) => bail!(
            "there is no GPU here, only a software rasterizer (see `infermark devices`); --device {} asks for it",
            software.id
        ),
        None => bail!("there is no GPU here (see `infermark devices`); --device cpu needs none"),
    }
}
