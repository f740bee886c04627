//! The backend: checks of requests, and devices.

use crate::NAME;
use crate::density::{Density, PanelDensity};
use crate::memory;
use crate::record::Retention;
use crate::run::{NutsRun, RunSetup, SavedRun};
use crate::whitening::Whitening;
use infermark_backend::{
    Backend, BackendError, Capabilities, Cause, Checkpoint, Choice, Device, Method, MethodKind, Metric,
    NutsSettings, Precision, Remedy, Request, Run, check_ranks,
};
use infermark_communicator::{Communicator, Local, World};
use infermark_cpu_kernels::bare;
use infermark_model::{Centredness, Likelihood, Panel};
use infermark_processor::InstructionSet;
use std::sync::Arc;
use std::time::Instant;

/// NUTS on the host's CPU, in `f64`.
///
/// A step of its runs is a draw of one chain, warm-up included. Draws and summaries are in natural parameters. Under
/// `Parameterization::Learned`, which takes the diagonal metric, the centredness stays at its start value.
///
/// # Example
/// ```
/// use infermark_backend::{Backend, Interrupt, Method, NutsSettings, Request};
/// use infermark_model::{Labels, Panel, PanelPart};
/// use infermark_nuts_cpu::NutsCpu;
/// use std::sync::Arc;
///
/// let mut part = PanelPart::new(1, 2);
/// part.push_product(0, None, &[2.0, 2.5], &[7, 4]).unwrap();
/// let numbered = |n| Labels::numbered("x", n);
/// let panel = Panel::from_parts(numbered(1), numbered(1), numbered(2), vec![part]).unwrap();
/// let settings = NutsSettings { warmup: 200, draws: 200, ..Default::default() };
/// let mut run = NutsCpu.start(Arc::new(panel), &Request::new(Method::Nuts(settings))).unwrap();
/// let interrupt = Interrupt::new();
/// while !run.advance(400, &interrupt).unwrap().state.is_complete() {}
/// println!("{:?}", run.posterior().unwrap().mean);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct NutsCpu;

impl NutsCpu {
    /// The request's NUTS settings, if it can be served here.
    fn settings<'r>(&self, request: &'r Request) -> Result<&'r NutsSettings, BackendError> {
        self.supports(request)?;
        InstructionSet::from_environment()?;
        match &request.method {
            Method::Nuts(settings) => Ok(settings),
            other => unreachable!("{} was refused", other.name()),
        }
    }
}

impl NutsCpu {
    /// Starts a rank's part of a run whose chains are spread over the ranks of a communicator: rank r of n runs the chains r, r + n,
    /// and so on. All ranks have the same panel and request, whose threads are those of the rank, and advance by the same numbers of
    /// steps, which are those of all ranks together. The draws are those of one rank to the bit; every rank has all of them once the
    /// run is complete, and until then those of its own chains alone.
    ///
    /// # Errors
    /// As [`Backend::start`], and when there are more ranks than chains.
    pub fn start_on_rank(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        communicator: Box<dyn Communicator>,
    ) -> Result<Box<dyn Run>, BackendError> {
        self.begin(panel, request, communicator, None)
    }

    /// Starts a run on a rank, as far as `saved` had come.
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        communicator: Box<dyn Communicator>,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn Run>, BackendError> {
        let started = Instant::now();
        let settings = self.settings(request)?;
        if panel.stored().is_some() {
            return Err(BackendError::request(
                "chains walk rows in memory, and those of this panel lie outside of it",
            ));
        }
        let layout = panel.layout_for(request.likelihood);
        let retention = Retention::of(settings, &layout);
        let mut density = PanelDensity::bytes(&panel, settings.chains, request.resolved_threads());
        if settings.metric == Metric::Structured {
            density = density.saturating_add(Whitening::bytes(
                &panel,
                request.likelihood,
                &request.priors,
                request.resolved_threads(),
            ));
        }
        let besides = retention.bytes(settings, &layout).saturating_add(density);
        memory::check(settings, &layout, besides)?;
        let setup = RunSetup {
            layout,
            request,
            settings,
            retention,
            communicator,
            saved,
            started,
        };
        Ok(Box::new(NutsRun::start(panel, setup)?))
    }

    /// The state in a checkpoint, which the sampler of the diagonal metric cannot go on from.
    fn read(&self, request: &Request, checkpoint: &Checkpoint) -> Result<SavedRun, BackendError> {
        if self.settings(request)?.metric == Metric::Diagonal {
            return Err(BackendError::Unsupported {
                backend: NAME,
                what: Cause::new(
                    "checkpoints with the diagonal metric",
                    [Remedy::Choose(Choice::Metric(Metric::Structured))],
                ),
            });
        }
        SavedRun::read(checkpoint)
    }
}

/// [`NutsCpu`] with its chains spread over the processes of a world.
struct NutsAmong {
    world: Arc<dyn World>,
}

impl NutsAmong {
    fn begin(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        saved: Option<SavedRun>,
    ) -> Result<Box<dyn Run>, BackendError> {
        let size = self.world.size().unwrap_or(1);
        let mut communicator = self.world.ranks(size).swap_remove(0);
        check_ranks(
            &mut *communicator,
            &panel,
            request,
            InstructionSet::from_environment()?.name(),
        )?;
        NutsCpu.begin(panel, request, communicator, saved)
    }
}

impl Backend for NutsAmong {
    fn name(&self) -> &'static str {
        NutsCpu.name()
    }

    fn method(&self) -> MethodKind {
        NutsCpu.method()
    }

    fn capabilities(&self) -> Capabilities {
        NutsCpu.capabilities()
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        NutsCpu.supports(request)
    }

    fn kernel_limit(&self, panel: &Arc<Panel>, request: &Request) -> Option<f64> {
        NutsCpu.kernel_limit(panel, request)
    }

    fn devices(&self) -> Vec<Device> {
        NutsCpu.devices()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        NutsCpu.log_joint(panel, request, point)
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        self.begin(panel, request, None)
    }

    fn resume(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Box<dyn Run>, BackendError> {
        let saved = NutsCpu.read(request, checkpoint)?;
        self.begin(panel, request, Some(saved))
    }
}

/// The structured metric is the precision at the mode, which is found for the laws `of_mode` alone; the diagonal one needs no more
/// than the gradient.
fn check_metric(metric: Metric, likelihood: Likelihood, of_mode: &[Likelihood]) -> Result<(), BackendError> {
    if metric == Metric::Structured && !of_mode.contains(&likelihood) {
        return Err(BackendError::Unsupported {
            backend: NAME,
            what: Cause::new(
                format!("the structured metric with the {} likelihood", likelihood.name()),
                [Remedy::Choose(Choice::Metric(Metric::Diagonal))],
            ),
        });
    }
    Ok(())
}

impl Backend for NutsCpu {
    fn name(&self) -> &'static str {
        NAME
    }

    fn method(&self) -> MethodKind {
        MethodKind::Nuts
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::CPU
    }

    fn supports(&self, request: &Request) -> Result<(), BackendError> {
        self.capabilities().check(NAME, self.method(), request)?;
        match &request.method {
            Method::Nuts(settings) => check_metric(
                settings.metric,
                request.likelihood,
                infermark_gaussian::LIKELIHOODS,
            ),
            other => unreachable!("{} was refused", other.name()),
        }
    }

    fn kernel_limit(&self, panel: &Arc<Panel>, request: &Request) -> Option<f64> {
        let single_precision = request.method.precision() == Precision::F32;
        bare::kernel_limit(
            InstructionSet::best(),
            request.likelihood,
            single_precision,
            panel,
            request.method.particles(),
            request.resolved_threads(),
        )
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device::cpu(InstructionSet::best())]
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        self.settings(request)?;
        request.check_point(panel, point)?;
        // Centred, z is the natural parameter.
        let mut density = PanelDensity::new(
            panel,
            request.likelihood,
            request.priors,
            Centredness::all(1.0),
            request.resolved_threads(),
        );
        let mut gradient = vec![0.0; point.len()];
        let value = density.value_and_gradient(point, &mut gradient);
        Ok((value, gradient))
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        self.begin(panel, request, Box::new(Local::default()), None)
    }

    fn resume(
        &self,
        panel: Arc<Panel>,
        request: &Request,
        checkpoint: &Checkpoint,
    ) -> Result<Box<dyn Run>, BackendError> {
        let saved = self.read(request, checkpoint)?;
        self.begin(panel, request, Box::new(Local::default()), Some(saved))
    }

    fn among(&self, world: Arc<dyn World>) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(NutsAmong { world }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_likelihood_without_a_mode_is_refused_in_the_structured_metric_alone() {
        let check = |metric| check_metric(metric, Likelihood::NegativeBinomial, &[Likelihood::Poisson]);
        let refused = check(Metric::Structured).unwrap_err();
        assert!(matches!(refused, BackendError::Unsupported { .. }));
        assert_eq!(
            refused.to_string(),
            "backend nuts-cpu cannot serve the structured metric with the negative-binomial likelihood; choose the diagonal metric"
        );
        check(Metric::Diagonal).unwrap();
        check_metric(
            Metric::Structured,
            Likelihood::Poisson,
            infermark_gaussian::LIKELIHOODS,
        )
        .unwrap();
    }
}
