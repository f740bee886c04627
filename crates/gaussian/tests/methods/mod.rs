//! The Gaussian methods, each with its backend.

use infermark_backend::Method;
use infermark_gaussian::GaussianCpu;

/// Laplace, structured and mean-field, with their default settings.
pub(crate) fn methods() -> [(GaussianCpu, Method); 3] {
    [
        (GaussianCpu::laplace(), Method::Laplace(Default::default())),
        (
            GaussianCpu::structured_vi(),
            Method::StructuredVi(Default::default()),
        ),
        (GaussianCpu::meanfield(), Method::Meanfield(Default::default())),
    ]
}
