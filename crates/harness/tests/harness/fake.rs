//! Backends made of the plain reference code, some of them with a fault.

use infermark_backend::{
    Backend, BackendError, Capabilities, ChainReport, Detail, Device, DeviceId, DeviceKind, GaussianPass,
    GaussianPoint, GaussianReport, Interrupt, Limits, Method, MethodKind, NutsReport, Posterior, Precision,
    Progress, Remedy, Report, Request, Run, RunState, StepUnit, SviReport, SviSettings, TracePoint,
};
use infermark_gaussian::GaussianCpu;
use infermark_model::guide::Guide;
use infermark_model::log_joint::LogJoint;
use infermark_model::noise::Stream;
use infermark_model::svi::{
    GuideMoments, LossAndGradient, draw_noise, loss_and_gradient, loss_and_gradient_of,
};
use infermark_model::{Likelihood, Panel};
use std::sync::Arc;
use std::time::Instant;

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The gradient of the log joint is 1% too long.
    Gradient,
    /// The log joint is off by 1e-5 of itself.
    LogJoint,
    /// One particle's log-weight is off by 1e-4 of itself.
    LogWeight,
    /// The loss's gradient by the means is off by 1%.
    LossGradient,
    /// The loss's gradient by the scales has the wrong sign in one latent.
    ScaleGradient,
    /// An entry of the gradient is not a number.
    NotANumber,
    /// It does not start.
    Start,
    /// It refuses to start for lack of memory.
    Memory,
    /// It does not serve the request.
    Unsupported,
    /// The limits of its device cannot be measured.
    Limits,
    /// It fails while it runs.
    Run,
    /// It fails at its first step.
    Step,
    /// Its fits end before they have converged.
    Unconverged,
}

/// Steps of a fit that the fake plays.
pub(crate) const FIT_STEPS: u64 = 3;

/// One of the equal cards.
pub(crate) fn card(index: usize) -> DeviceId {
    DeviceId {
        kind: DeviceKind::Cuda,
        index,
    }
}

fn name_of(device: DeviceId) -> &'static str {
    match device {
        DeviceId::CPU => "test processor",
        _ => "test card",
    }
}

/// The real backend of a Gaussian method.
fn gaussian(request: &Request) -> Option<GaussianCpu> {
    match &request.method {
        Method::Svi(_) | Method::Nuts(_) => None,
        Method::Laplace(_) => Some(GaussianCpu::laplace()),
        Method::StructuredVi(_) => Some(GaussianCpu::structured_vi()),
        Method::Meanfield(_) => Some(GaussianCpu::meanfield()),
    }
}

pub(crate) struct Fake {
    name: &'static str,
    method: MethodKind,
    fault: Fault,
}

impl Fake {
    /// A backend that plays whatever method it is asked for.
    pub(crate) fn backend(name: &'static str, fault: Fault) -> Arc<dyn Backend> {
        Arc::new(Fake::of(MethodKind::Svi, name, fault))
    }

    /// A backend that says that it implements `method`.
    pub(crate) fn of(method: MethodKind, name: &'static str, fault: Fault) -> Self {
        Fake { name, method, fault }
    }
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        self.name
    }

    fn method(&self) -> MethodKind {
        self.method
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            device_kinds: &[DeviceKind::Cpu, DeviceKind::Cuda],
            precisions: &[Precision::F32, Precision::F64],
            ..Capabilities::CPU
        }
    }

    /// As if there were one for every method but samplers.
    fn kernel_limit(&self, panel: &Arc<Panel>, request: &Request) -> Option<f64> {
        (!request.method.kind().has_draws()).then_some(1e9 + panel.rows() as f64)
    }

    /// A processor, and two equal cards.
    fn devices(&self) -> Vec<Device> {
        [DeviceId::CPU, card(0), card(1)]
            .map(|id| Device {
                id,
                name: name_of(id).into(),
                memory_bytes: None,
                driver: None,
                software: false,
            })
            .to_vec()
    }

    fn log_joint(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        point: &[f64],
    ) -> Result<(f64, Vec<f64>), BackendError> {
        if self.fault == Fault::Unsupported {
            return Err(BackendError::Unsupported {
                backend: self.name,
                what: "tests".into(),
            });
        }
        let mut priors = request.priors;
        if gaussian(request).is_some() {
            (priors.clip_low, priors.clip_high) = (f64::NEG_INFINITY, f64::INFINITY);
        }
        let log_joint = LogJoint::new(panel, priors).with_likelihood(request.likelihood);
        let (mut value, mut gradient) = log_joint.natural(point);
        match self.fault {
            Fault::Gradient => gradient.iter_mut().for_each(|g| *g *= 1.01),
            Fault::LogJoint => value *= 1.0 + 1e-5,
            Fault::NotANumber => gradient[3] = f64::NAN,
            _ => {}
        }
        Ok((value, gradient))
    }

    /// The real method's.
    fn gaussian_pass(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        at: GaussianPoint<'_>,
    ) -> Result<Option<GaussianPass>, BackendError> {
        let request = Request {
            devices: vec![DeviceId::CPU],
            ..request.clone()
        };
        gaussian(&request).map_or(Ok(None), |real| real.gaussian_pass(panel, &request, at))
    }

    fn loss_and_gradient(
        &self,
        panel: &Arc<Panel>,
        request: &Request,
        guide: &Guide,
        stream: Stream,
    ) -> Result<Option<LossAndGradient>, BackendError> {
        let Method::Svi(svi) = &request.method else {
            return Ok(None);
        };
        let noise = draw_noise(&panel.layout_for(request.likelihood), svi.particles, stream);
        let mut got = loss_and_gradient_of(
            &LogJoint::new(panel, request.priors).with_likelihood(request.likelihood),
            request.parameterization,
            svi.objective,
            guide,
            &noise,
        );
        match self.fault {
            Fault::LogWeight => {
                got.log_weights[0] *= 1.0 + 1e-4;
                got.weighted = svi.objective.weigh(&got.log_weights);
            }
            Fault::LossGradient => got.gradient.loc.iter_mut().for_each(|g| *g *= 0.99),
            Fault::ScaleGradient => {
                let scales = &mut got.gradient.unconstrained_scale;
                let largest = (0..scales.len()).max_by(|a, b| scales[*a].abs().total_cmp(&scales[*b].abs()));
                scales[largest.unwrap()] *= -1.0;
            }
            _ => {}
        }
        Ok(Some(got))
    }

    fn limits(&self, request: &Request) -> Result<Option<Limits>, BackendError> {
        if self.fault != Fault::Limits {
            return Ok(None);
        }
        Err(BackendError::Device {
            device: request.devices[0].to_string(),
            reason: "it tells nothing".into(),
        })
    }

    fn start(&self, panel: Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, BackendError> {
        request.validate()?;
        if self.fault == Fault::Memory {
            return Err(BackendError::Memory {
                what: "the panel".into(),
                device: name_of(request.devices[0]).into(),
                needed_bytes: 2,
                available_bytes: 1,
                remedies: vec![Remedy::GiveMemory],
            });
        }
        if self.fault == Fault::Start {
            return Err(BackendError::Device {
                device: "test processor".into(),
                reason: "it is only made of tests".into(),
            });
        }
        let layout = panel.layout();
        Ok(Box::new(FakeRun {
            name: self.name,
            fault: self.fault,
            guide: Guide::start(&layout, request.parameterization, request.seed),
            moments: GuideMoments::new(layout.latents()),
            panel,
            request: request.clone(),
            completed: 0,
            gradients: 0,
            seconds: 0.0,
            trace: Vec::new(),
        }))
    }
}

struct FakeRun {
    name: &'static str,
    fault: Fault,
    panel: Arc<Panel>,
    request: Request,
    guide: Guide,
    moments: GuideMoments,
    completed: u64,
    gradients: u64,
    seconds: f64,
    trace: Vec<TracePoint>,
}

impl FakeRun {
    fn total(&self) -> u64 {
        match &self.request.method {
            Method::Svi(svi) => svi.iterations,
            Method::Nuts(nuts) => nuts.chains as u64 * (nuts.warmup + nuts.draws),
            Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => FIT_STEPS,
        }
    }

    fn iterate(&mut self, svi: &SviSettings) {
        let stream = Stream {
            seed: self.request.seed,
            iteration: self.completed as u32,
        };
        let noise = draw_noise(&self.panel.layout(), svi.particles, stream);
        let got = loss_and_gradient(
            &self.panel,
            &self.request.priors,
            self.request.parameterization,
            svi.objective,
            &self.guide,
            &noise,
        );
        self.moments
            .step(&svi.optimizer, self.completed, &mut self.guide, &got.gradient);
        if self.completed.is_multiple_of(10) {
            self.trace.push(TracePoint {
                iteration: self.completed + 1,
                seconds: self.seconds,
                loss: got.weighted.loss,
                effective_particles: got.weighted.effective_particles,
                learning_rate: svi.optimizer.learning_rate_at(self.completed),
            });
        }
    }

    /// Not a sampler: a gradient for each of `1 + draw % 3` steps, so that draws differ in their cost.
    fn draw(&mut self) {
        for _ in 0..1 + self.completed % 3 {
            LogJoint::new(&self.panel, self.request.priors).natural(&self.guide.loc);
            self.gradients += 1;
        }
    }
}

impl Run for FakeRun {
    fn advance(&mut self, steps: u64, interrupt: &Interrupt) -> Result<Progress, BackendError> {
        let is_broken = match self.fault {
            Fault::Run => self.completed > 2,
            fault => fault == Fault::Step,
        };
        if is_broken {
            return Err(BackendError::Diverged {
                step: self.completed,
                reason: "on purpose".into(),
            });
        }
        // Otherwise chains would stand idle.
        assert!(
            steps.is_multiple_of(self.width()),
            "{steps} steps of {} chains",
            self.width()
        );
        let clock = Instant::now();
        let before = self.seconds;
        for _ in 0..steps {
            if interrupt.is_set() || self.completed >= self.total() {
                break;
            }
            match self.request.method.clone() {
                Method::Svi(svi) => self.iterate(&svi),
                Method::Nuts(_) => self.draw(),
                // A step of a fit costs a gradient.
                Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => {
                    LogJoint::new(&self.panel, self.request.priors).natural(&self.guide.loc);
                }
            }
            self.completed += 1;
            self.seconds = before + clock.elapsed().as_secs_f64();
        }
        Ok(self.progress())
    }

    fn progress(&self) -> Progress {
        Progress {
            completed: self.completed,
            total: self.total(),
            unit: match &self.request.method {
                Method::Svi(_) => StepUnit::Iterations,
                Method::Nuts(_) => StepUnit::Draws,
                Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => StepUnit::Steps,
            },
            state: if self.completed >= self.total() {
                RunState::Finished
            } else {
                RunState::Running
            },
            note: String::new(),
        }
    }

    fn width(&self) -> u64 {
        match &self.request.method {
            Method::Nuts(nuts) => nuts.chains as u64,
            _ => 1,
        }
    }

    fn gradients(&self) -> Option<u64> {
        matches!(self.request.method, Method::Nuts(_)).then_some(self.gradients)
    }

    /// The guide's; of a fit, once it is whole, with half its standard deviations.
    fn posterior(&self) -> Result<Posterior, BackendError> {
        let is_fit = self.progress().unit == StepUnit::Steps;
        if is_fit && self.completed < self.total() {
            return Err(BackendError::NoPosterior("the fit is not whole".into()));
        }
        let (mean, sd) = self.guide.natural_moments(
            &self.panel,
            Likelihood::Poisson,
            &self.request.priors,
            self.request.parameterization,
        );
        let share = if is_fit { 0.5 } else { 1.0 };
        let sd = sd.into_iter().map(|sd| share * sd).collect();
        Ok(Posterior::normal(self.panel.layout(), mean, sd))
    }

    fn report(&self) -> Report {
        let detail = match &self.request.method {
            Method::Svi(_) => Detail::Svi(SviReport {
                iterations: self.completed,
                iterations_per_second: self.completed as f64 / self.seconds.max(1e-9),
                mean_effective_particles: 1.5,
                centredness: infermark_model::Centredness::all(1.0),
                trace: self.trace.clone(),
                communication: None,
            }),
            Method::Nuts(nuts) => Detail::Nuts(NutsReport {
                metric: nuts.metric,
                mode_search: None,
                gradients: self.gradients,
                gradients_per_second: self.gradients as f64 / self.seconds.max(1e-9),
                divergences: 2,
                saturated_trees: 1,
                tree_depths: vec![0, 1],
                max_rhat: Some(1.05),
                min_ess_bulk: Some(40.0),
                min_ess_tail: Some(f64::NAN),
                every_draw_kept: true,
                chains: vec![
                    ChainReport {
                        warmup_draws: nuts.warmup.min(self.completed),
                        draws: (self.completed / nuts.chains as u64).saturating_sub(nuts.warmup),
                        warmup_gradients: 1,
                        gradients: self.gradients,
                        warmup_seconds: 0.1,
                        seconds: self.seconds,
                        step_size: 0.1,
                        acceptance: Some(0.8),
                    };
                    nuts.chains
                ],
            }),
            Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => {
                Detail::Gaussian(GaussianReport {
                    skewed_products: 0,
                    left_out_products: Vec::new(),
                    newton_steps: self.completed,
                    variational_steps: 0,
                    converged: self.fault != Fault::Unconverged,
                    gradient_norm: 1e-9,
                    decrement: 1e-12,
                    log_joint: -1.0,
                    elbo: None,
                    trace: Vec::new(),
                })
            }
        };
        Report {
            backend: self.name.into(),
            device: name_of(self.request.devices[0]).into(),
            threads: 1,
            setup_seconds: 0.0,
            run_seconds: self.seconds,
            state: self.progress().state,
            warnings: Vec::new(),
            detail,
        }
    }
}
