//! Gaussian posteriors behind the backend trait.

use crate::newton::{ModeSettings, find_mode};
use crate::structured::{StructuredSettings, fit_structured};
use infermark_backend::progress::{Progress, RunState, StepUnit};
use infermark_backend::report::{Detail, GaussianReport, Report};
use infermark_backend::{Backend, BackendError, Device, Interrupt, Method, Posterior, Request, Run};
use infermark_cpu_kernels::{FusedLogJoint, InstructionSet, cpu_device, device, device_name};
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
        request.refuse_other_than_poisson(self.name)?;
        match (&request.method, self.name) {
            (Method::Laplace(_), LAPLACE) | (Method::StructuredVi(_), STRUCTURED_VI) => Ok(()),
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

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.check(request)?;
        let threads = request.resolved_threads();
        let mut log_joint = FusedLogJoint::new(panel.clone(), request.priors, Centredness([1.0; 5]), threads);
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
        Ok(Box::new(GaussianRun {
            name: self.name,
            panel,
            request: request.clone(),
            found: None,
            run_seconds: 0.0,
        }))
    }
}

struct GaussianRun {
    name: &'static str,
    panel: Arc<Panel>,
    request: Request,
    found: Option<(Posterior, GaussianReport)>,
    run_seconds: f64,
}

impl Run for GaussianRun {
    fn advance(&mut self, _steps: u64, _interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let clock = Instant::now();
        let threads = self.request.resolved_threads();
        let failed = |error: crate::ModeError| BackendError::Diverged {
            step: 0,
            reason: error.to_string(),
        };
        let mut report = GaussianReport {
            newton_steps: 0,
            variational_steps: 0,
            converged: false,
            gradient_norm: 0.0,
            decrement: 0.0,
            log_joint: 0.0,
            elbo: None,
            trace: Vec::new(),
        };
        let layout = self.panel.layout();
        let mode = ModeSettings {
            threads,
            ..ModeSettings::default()
        };
        let (mean, variance) = match &self.request.method {
            Method::Laplace(_) => {
                let mode = find_mode(&self.panel, &self.request.priors, &mode).map_err(failed)?;
                report.newton_steps = mode.steps as u64;
                report.converged = mode.converged;
                (mode.point, mode.factor.marginals().variance)
            }
            _ => {
                let settings = StructuredSettings {
                    mode,
                    ..StructuredSettings::default()
                };
                let fit = fit_structured(&self.panel, &self.request.priors, &settings).map_err(failed)?;
                report.variational_steps = fit.steps as u64;
                report.converged = fit.converged;
                report.elbo = Some(fit.elbo);
                (fit.mean, fit.marginals.variance)
            }
        };
        let sd = variance.iter().map(|v| v.sqrt()).collect();
        self.found = Some((Posterior::normal(layout, mean, sd), report));
        self.run_seconds += clock.elapsed().as_secs_f64();
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        Progress {
            completed: self
                .found
                .as_ref()
                .map_or(0, |(_, r)| r.newton_steps + r.variational_steps),
            total: 100,
            unit: StepUnit::Steps,
            state: match &self.found {
                Some((_, report)) if report.converged => RunState::Converged,
                Some(_) => RunState::Finished,
                None => RunState::Running,
            },
            note: String::new(),
        }
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        match &self.found {
            Some((posterior, _)) => Ok(posterior.clone()),
            None => Err(BackendError::NoPosterior("the mode was not found yet".into())),
        }
    }

    fn report(&self) -> Report {
        let (_, detail) = self.found.clone().expect("advanced");
        Report {
            backend: self.name.into(),
            device: device_name(),
            threads: self.request.resolved_threads(),
            setup_seconds: 0.0,
            run_seconds: self.run_seconds,
            state: self.progress().state,
            warnings: Vec::new(),
            detail: Detail::Gaussian(detail),
        }
    }
}
