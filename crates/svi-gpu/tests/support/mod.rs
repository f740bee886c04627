//! The device that the tests run on.

use infermark_backend::{Backend, DeviceId};
use infermark_svi_gpu::SviGpu;

/// See [`infermark_test_support::gpu`].
pub(crate) fn device() -> Option<DeviceId> {
    infermark_test_support::gpu(&SviGpu::new().devices())
}
