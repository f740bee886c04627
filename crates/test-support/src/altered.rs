//! A backend that wraps another one with a change, to test whether a check notices.

use infermark_backend::{
    Backend, BackendError, Capabilities, Device, GaussianPass, GaussianPoint, Interrupt, MethodKind,
    Posterior, Progress, Report, Request, Run,
};
use infermark_model::Panel;
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::svi::LossAndGradient;
use std::sync::Arc;

/// What a backend's log joint returns.
type LogJoint = Result<(f64, Vec<f64>), BackendError>;

type AlterLogJoint = dyn Fn(&dyn Backend, &Arc<Panel>, &Request, &[f64]) -> LogJoint + Send + Sync;

type AlterPosterior = dyn Fn(&Panel, &Request, Posterior) -> Posterior + Send + Sync;

/// The changed backend. Runs of it have no draws, which a changed posterior would contradict.
pub struct Altered<B> {
    right: B,
    log_joint: Box<AlterLogJoint>,
    posterior: Arc<AlterPosterior>,
}

impl<B: Backend> Altered<B> {
    /// A wrapper without changes.
    pub fn new(right: B) -> Self {
        Altered {
            right,
            log_joint: Box::new(|right, panel, request, point| right.log_joint(panel, request, point)),
            posterior: Arc::new(|_, _, posterior| posterior),
        }
    }

    /// Replaces the log joint by one computed from the correct backend.
    pub fn log_joint(
        self,
        alter: impl Fn(&dyn Backend, &Arc<Panel>, &Request, &[f64]) -> LogJoint + Send + Sync + 'static,
    ) -> Self {
        Altered {
            log_joint: Box::new(alter),
            ..self
        }
    }

    /// Replaces the posterior by one computed from the correct one.
    pub fn posterior(
        self,
        alter: impl Fn(&Panel, &Request, Posterior) -> Posterior + Send + Sync + 'static,
    ) -> Self {
        Altered {
            posterior: Arc::new(alter),
            ..self
        }
    }
}

impl<B: Backend> Backend for Altered<B> {
    fn name(&self) -> &'static str {
        "altered"
    }

    fn method(&self) -> MethodKind {
        self.right.method()
    }

    fn capabilities(&self) -> Capabilities {
        self.right.capabilities()
    }

    fn devices(&self) -> Vec<Device> {
        self.right.devices()
    }

    fn log_joint(&self, panel: &Arc<Panel>, request: &Request, point: &[f64]) -> LogJoint {
        (self.log_joint)(&self.right, panel, request, point)
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        self.right.loss_and_gradient(panel, request, guide, stream)
    }

    fn gaussian_pass(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        at: GaussianPoint<'_>,
    ) -> Result<Option<GaussianPass>, BackendError> {
        self.right.gaussian_pass(panel, request, at)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        Ok(Box::new(AlteredRun {
            right: self.right.start(panel.clone(), request)?,
            panel,
            request: request.clone(),
            posterior: self.posterior.clone(),
        }))
    }
}

struct AlteredRun {
    right: Box<dyn Run>,
    panel: Arc<Panel>,
    request: Request,
    posterior: Arc<AlterPosterior>,
}

impl Run for AlteredRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        self.right.advance(steps, interrupt)
    }

    fn progress(&self) -> Progress {
        self.right.progress()
    }

    fn posterior(&self) -> Result<Posterior, BackendError> {
        let right = self.right.posterior()?;
        Ok((self.posterior)(&self.panel, &self.request, right))
    }

    fn report(&self) -> Report {
        self.right.report()
    }
}
