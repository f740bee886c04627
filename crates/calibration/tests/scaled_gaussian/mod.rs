//! The structured Gaussian with an error of known size in every marginal.

use infermark_backend::{
    Backend, BackendError, Device, Interrupt, Posterior, Progress, Report, Request, Run,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use std::sync::Arc;

/// Structured-vi, its means off by `shift` standard deviations and its standard deviations by the factor `scale`.
pub(crate) struct ScaledGaussian {
    pub(crate) shift: f64,
    pub(crate) scale: f64,
}

impl Backend for ScaledGaussian {
    fn name(&self) -> &'static str {
        "scaled-gaussian"
    }

    fn devices(&self) -> Vec<Device> {
        GaussianCpu::structured_vi().devices()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        GaussianCpu::structured_vi().log_joint(panel, request, point)
    }

    fn loss_and_gradient(
        &self,
        _: &Arc<Panel>,
        _: &Request,
        _: &Guide,
        _: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        Ok(None)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        Ok(Box::new(ScaledRun {
            right: GaussianCpu::structured_vi().start(panel, request)?,
            shift: self.shift,
            scale: self.scale,
        }))
    }
}

struct ScaledRun {
    right: Box<dyn Run>,
    shift: f64,
    scale: f64,
}

impl Run for ScaledRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        self.right.advance(steps, interrupt)
    }

    fn progress(&self) -> Progress {
        self.right.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let right = self.right.posterior()?;
        let mean = right
            .mean
            .iter()
            .zip(&right.sd)
            .map(|(m, s)| m + self.shift * s)
            .collect();
        let sd = right.sd.iter().map(|s| s * self.scale).collect();
        Ok(Posterior::normal(right.layout, mean, sd))
    }

    fn report(&self) -> Report {
        self.right.report()
    }
}
