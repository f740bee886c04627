//! Gaussian posteriors behind the backend trait.

use crate::run::GaussianRun;
use infermark_arrow::ArrowFactor;
use infermark_backend::{Backend, BackendError, Device, Method, Request, Run};
use infermark_cpu_kernels::{FusedLogJoint, InstructionSet, cpu_device, device};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Centredness, Panel};
use std::sync::Arc;
use std::time::Instant;

/// Name of the Laplace backend.
pub const LAPLACE: &str = "laplace-cpu";
/// Name of the structured variational backend.
pub const STRUCTURED_VI: &str = "structured-vi-cpu";
/// Name of the mean-field backend.
pub const MEANFIELD: &str = "meanfield-cpu";

/// A Gaussian posterior on the host's processors.
#[derive(Debug, Clone, Copy)]
pub struct GaussianCpu {
    name: &'static str,
}

impl GaussianCpu {
    /// The Laplace approximation.
    pub fn laplace() -> Self {
        GaussianCpu { name: LAPLACE }
    }

    /// The structured variational Gaussian.
    pub fn structured_vi() -> Self {
        GaussianCpu { name: STRUCTURED_VI }
    }

    /// The mean-field Gaussian.
    pub fn meanfield() -> Self {
        GaussianCpu { name: MEANFIELD }
    }

    fn check(&self, request: &Request) -> Result<(), BackendError> {
        request.validate()?;
        device::check(self.name, &request.devices, None)?;
        match (&request.method, self.name) {
            (Method::Laplace(_), LAPLACE)
            | (Method::StructuredVi(_), STRUCTURED_VI)
            | (Method::Meanfield(_), MEANFIELD) => Ok(()),
            (other, _) => Err(BackendError::Unsupported {
                backend: self.name,
                what: format!("the method {}", other.name()),
            }),
        }
    }
}

impl Backend for GaussianCpu {
    fn name(&self) -> &'static str {
        self.name
    }

    fn devices(&self) -> Vec<Device> {
        vec![cpu_device(InstructionSet::best())]
    }

    /// The log joint with its clip, by the pass that NUTS has. A run's own pass has the weights of a factor beside the gradient
    /// and knows of the clip no more than the counts at its upper bound; the log joint that it reports at a mode is held
    /// against the model's in the tests.
    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.check(request)?;
        request.check_point(panel, point)?;
        let threads = request.resolved_threads();
        let mut log_joint = FusedLogJoint::of_counts(
            request.likelihood,
            panel.clone(),
            request.priors,
            Centredness([1.0; 5]),
            threads,
        );
        let mut gradient = vec![0.0; point.len()];
        let value = log_joint.value_and_gradient(point, &mut gradient);
        Ok((value, gradient))
    }

    fn loss_and_gradient(
        &self,
        _panel: &Arc<Panel>,
        request: &Request,
        _guide: &Guide,
        _stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        self.check(request)?;
        Ok(None)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        self.check(request)?;
        let started = Instant::now();
        // The factor, and vectors of latents: point, gradient, step, their successors, variances.
        let latents = panel.layout_for(request.likelihood).latents() as u64;
        let needed =
            ArrowFactor::bytes_on(&panel, request.resolved_threads()).saturating_add(12 * 8 * latents);
        if let Some(available) = device::available_bytes()
            && needed > available
        {
            return Err(BackendError::Memory {
                what: format!("{} with its factor", request.method.name()),
                device: "the machine".into(),
                needed_bytes: needed,
                available_bytes: available,
            });
        }
        Ok(Box::new(GaussianRun::start(
            self.name, panel, request, needed, started,
        )?))
    }
}
