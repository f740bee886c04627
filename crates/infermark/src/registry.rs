//! The backends of this build.

use infermark_backend::Registry;
use infermark_gaussian::GaussianCpu;
use infermark_gaussian_gpu::LaplaceGpu;
use infermark_nuts_cpu::NutsCpu;
use infermark_svi_cpu::SviCpu;
use infermark_svi_gpu::SviGpu;
use infermark_svi_sharded::SviSharded;
#[cfg(feature = "tensor")]
use infermark_svi_tensor::SviTensor;
use std::sync::LazyLock;

/// All backends, in the order of tables. A new backend is one more line here; your own program adds one to a
/// clone with [`Registry::with`].
///
/// # Example
/// ```
/// for backend in infermark::registry().all() {
///     println!("{}: {}", backend.name(), backend.method().description());
/// }
/// ```
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
        let registry = Registry::new().with(SviCpu::new()).with(SviGpu::new());
        #[cfg(feature = "tensor")]
        let registry = registry.with(SviTensor);
        registry
            .with(SviSharded::over(SviCpu::new()).and(SviGpu::new()))
            .with(NutsCpu)
            .with(GaussianCpu::laplace())
            .with(LaplaceGpu::new())
            .with(GaussianCpu::structured_vi())
            .with(GaussianCpu::meanfield())
    });
    &REGISTRY
}
