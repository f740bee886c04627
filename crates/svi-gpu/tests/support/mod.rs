//! The device that the tests run on.

use infermark_backend::{Backend, DeviceId};
use infermark_svi_gpu::SviGpu;

/// The first GPU or software rasterizer; `None`, with a word on stderr, where there is none. On a machine that checks
/// changes (`CI` is set) that is a failure, lest the checks pass by not running.
pub(crate) fn device() -> Option<DeviceId> {
    let devices = SviGpu::new().devices();
    let first = devices.first().map(|d| d.id);
    if first.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no GPU and no software Vulkan: install mesa-vulkan-drivers and libvulkan1"
        );
        eprintln!("skipped: no GPU, and no software Vulkan (Debian: mesa-vulkan-drivers, libvulkan1)");
    }
    first
}
