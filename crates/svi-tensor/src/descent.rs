//! The optimizer: loss, automatic differentiation, AdamW.

use crate::log_weights::LogWeights;
use burn_tensor::activation::sigmoid;
use burn_tensor::backend::{AutodiffBackend, Backend};
use burn_tensor::{Distribution, Tensor, TensorData};
use infermark_backend::{BackendError, Request, SviSettings};
use infermark_model::guide::Guide;
use infermark_model::objective::{Objective, Weighted};
use infermark_model::optimizer::StepScalars;
use infermark_model::svi::LossAndGradient;
use infermark_model::{Panel, Parameterization, PerSite};
use infermark_svi::{Chart, Recording};

/// The source of a run's noise.
#[derive(Debug, Clone)]
pub(crate) enum Noise {
    /// The device's generator, which was given the seed.
    Device,
    /// Recorded elsewhere.
    Recorded(Recording),
}

/// The start of a descent.
pub(crate) struct Start<'a> {
    pub(crate) panel: &'a Panel,
    pub(crate) request: &'a Request,
    pub(crate) chart: &'a Chart,
    pub(crate) settings: &'a SviSettings,
    pub(crate) guide: &'a Guide,
    pub(crate) noise: Noise,
    /// The iteration to begin with.
    pub(crate) iteration: u32,
}

/// A descent, whatever its device. What the device fails at shows when something is read from it.
pub(crate) trait Descend: Send {
    /// Loss and gradient of the present iteration, without a step.
    ///
    /// # Errors
    /// [`BackendError::Device`] when the device fails, as the others.
    fn evaluate(&mut self) -> Result<LossAndGradient, BackendError>;

    /// The loss of the present iteration, and a step down its gradient where it is finite.
    ///
    /// # Errors
    /// No step is made then.
    fn iterate(&mut self) -> Result<Weighted, BackendError>;

    /// Waits until the device is idle.
    ///
    /// # Errors
    /// When the device failed meanwhile.
    fn wait(&self) -> Result<(), BackendError>;

    /// The guide's parameters now.
    ///
    /// # Errors
    /// When they cannot be read.
    fn guide(&self) -> Result<Guide, BackendError>;
}

/// A parameter with AdamW's moments; each of shape `[1, length]`.
struct Parameter<I: Backend> {
    value: Tensor<I, 2>,
    first: Tensor<I, 2>,
    second: Tensor<I, 2>,
}

impl<I: Backend> Parameter<I> {
    fn new(values: &[f64], device: &I::Device) -> Self {
        let value = vector(values, device);
        let zeros = value.zeros_like();
        Parameter {
            value,
            first: zeros.clone(),
            second: zeros,
        }
    }

    fn step(&mut self, gradient: Tensor<I, 2>, settings: &SviSettings, scalars: &StepScalars) {
        let adam = &settings.optimizer;
        self.first = self.first.clone().mul_scalar(adam.b1) + gradient.clone().mul_scalar(1.0 - adam.b1);
        self.second = self.second.clone().mul_scalar(adam.b2) + gradient.square().mul_scalar(1.0 - adam.b2);
        let first = self.first.clone().mul_scalar(scalars.first_correction);
        let second = self.second.clone().mul_scalar(scalars.second_correction);
        let update =
            first / second.sqrt().add_scalar(adam.eps) + self.value.clone().mul_scalar(adam.weight_decay);
        self.value = self.value.clone() - update.mul_scalar(scalars.learning_rate);
    }
}

/// See the module.
pub(crate) struct Descent<B: AutodiffBackend> {
    model: LogWeights<B>,
    settings: SviSettings,
    parameterization: Parameterization,
    latents: usize,
    noise: Noise,
    iteration: u32,
    loc: Parameter<B::InnerBackend>,
    unconstrained_scale: Parameter<B::InnerBackend>,
    unconstrained_centredness: Parameter<B::InnerBackend>,
    device: B::Device,
    /// The id of the device, which its errors name.
    device_name: String,
}

/// The gradients with respect to the three parameters.
type Gradients<B> = [Tensor<<B as AutodiffBackend>::InnerBackend, 2>; 3];

impl<B: AutodiffBackend> Descent<B> {
    /// A descent on a device.
    pub(crate) fn new(start: Start<'_>, device: B::Device) -> Self {
        let guide = start.guide;
        Descent {
            model: LogWeights::new(
                start.panel,
                &start.request.priors,
                start.chart.orthogonal().map(AsRef::as_ref),
                &device,
            ),
            settings: start.settings.clone(),
            parameterization: start.chart.parameterization(),
            latents: start.panel.layout().latents(),
            noise: start.noise,
            iteration: start.iteration,
            loc: Parameter::new(&guide.loc, &device),
            unconstrained_scale: Parameter::new(&guide.unconstrained_scale, &device),
            unconstrained_centredness: Parameter::new(
                &guide
                    .unconstrained_centredness
                    .unwrap_or_default()
                    .reparameterized(),
                &device,
            ),
            device,
            device_name: start.request.devices[0].to_string(),
        }
    }

    /// The present iteration's noise, `[K, L]`. Beyond a record its last noise stays.
    fn eps(&self) -> Tensor<B, 2> {
        let shape = [self.settings.particles, self.latents];
        match &self.noise {
            Noise::Device => Tensor::random(shape, Distribution::Normal(0.0, 1.0), &self.device),
            Noise::Recorded(record) => {
                let last = record.noise.len() - 1;
                let noise = &record.noise[(self.iteration as usize).min(last)];
                let values: Vec<f32> = noise.iter().flatten().map(|x| *x as f32).collect();
                Tensor::from_data(TensorData::new(values, shape), &self.device)
            }
        }
    }

    /// Log-weights and gradients of the present iteration.
    fn differentiate(&self) -> Result<(Vec<f64>, Gradients<B>), BackendError> {
        let leaf =
            |p: &Parameter<B::InnerBackend>| Tensor::<B, 2>::from_inner(p.value.clone()).require_grad();
        let leaves = [
            &self.loc,
            &self.unconstrained_scale,
            &self.unconstrained_centredness,
        ]
        .map(leaf);
        let [loc, scale, centredness] = leaves.clone();
        let centredness = match self.parameterization {
            Parameterization::Learned => sigmoid(centredness),
            fixed => vector(&fixed.start().chosen(), &self.device),
        };
        let log_weights = self.model.at(loc, scale, centredness, self.eps());
        let told = log_weights.clone().inner();
        let mut gradients = loss(log_weights, self.settings.objective).backward();
        let gradients = leaves.map(|leaf| {
            let zeros = || leaf.clone().inner().zeros_like();
            leaf.grad_remove(&mut gradients).unwrap_or_else(zeros)
        });
        Ok((numbers(told, &self.device_name)?, gradients))
    }
}

impl<B: AutodiffBackend> Descend for Descent<B> {
    fn evaluate(&mut self) -> Result<LossAndGradient, BackendError> {
        let (log_weights, [loc, scale, centredness]) = self.differentiate()?;
        let learned = self.parameterization == Parameterization::Learned;
        Ok(LossAndGradient {
            weighted: self.settings.objective.weigh(&log_weights),
            log_weights,
            gradient: guide_of(loc, scale, centredness, learned, &self.device_name)?,
        })
    }

    fn iterate(&mut self) -> Result<Weighted, BackendError> {
        let (log_weights, [loc, scale, centredness]) = self.differentiate()?;
        let weighted = self.settings.objective.weigh(&log_weights);
        if weighted.loss.is_finite() {
            let mut scalars = self.settings.optimizer.scalars(u64::from(self.iteration));
            if let Noise::Recorded(record) = &self.noise
                && let Some(rate) = record.learning_rates.get(self.iteration as usize)
            {
                scalars.learning_rate = *rate;
            }
            self.loc.step(loc, &self.settings, &scalars);
            self.unconstrained_scale.step(scale, &self.settings, &scalars);
            if self.parameterization == Parameterization::Learned {
                self.unconstrained_centredness
                    .step(centredness, &self.settings, &scalars);
            }
            self.iteration += 1;
        }
        Ok(weighted)
    }

    fn wait(&self) -> Result<(), BackendError> {
        B::sync(&self.device).map_err(|e| BackendError::Device {
            device: self.device_name.clone(),
            reason: e.to_string(),
        })
    }

    fn guide(&self) -> Result<Guide, BackendError> {
        guide_of(
            self.loc.value.clone(),
            self.unconstrained_scale.value.clone(),
            self.unconstrained_centredness.value.clone(),
            self.parameterization == Parameterization::Learned,
            &self.device_name,
        )
    }
}

/// Minus the bound, of the log-weights `[K]`.
fn loss<B: Backend>(log_weights: Tensor<B, 1>, objective: Objective) -> Tensor<B, 1> {
    match objective {
        Objective::Renyi { alpha } if alpha != 1.0 => {
            let ln_count = (log_weights.dims()[0] as f64).ln();
            let tempered = log_weights.mul_scalar(1.0 - alpha);
            let top = tempered.clone().max().detach();
            let ln_sum = (tempered - top.clone()).exp().sum().log();
            (ln_sum + top).sub_scalar(ln_count).div_scalar(alpha - 1.0)
        }
        _ => log_weights.mean().neg(),
    }
}

fn vector<B: Backend>(values: &[f64], device: &B::Device) -> Tensor<B, 2> {
    let len = values.len();
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    Tensor::from_data(TensorData::new(values, [1, len]), device)
}

/// Reads a tensor; `device` names where it is when that fails.
fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>, device: &str) -> Result<Vec<f64>, BackendError> {
    let failed = |reason| BackendError::Device {
        device: device.to_owned(),
        reason,
    };
    let data = tensor
        .try_into_data()
        .map_err(|error| failed(error.to_string()))?;
    // An uncaptured error of the driver makes the results read invalid.
    match infermark_gpu_devices::take_error(device) {
        Some(reason) => Err(failed(reason)),
        None => Ok(data.iter::<f64>().collect()),
    }
}

fn guide_of<B: Backend>(
    loc: Tensor<B, 2>,
    scale: Tensor<B, 2>,
    centredness: Tensor<B, 2>,
    learned: bool,
    device: &str,
) -> Result<Guide, BackendError> {
    Ok(Guide {
        loc: numbers(loc, device)?,
        unconstrained_scale: numbers(scale, device)?,
        unconstrained_centredness: if learned {
            let chosen = numbers(centredness, device)?.try_into();
            Some(PerSite::from_reparameterized(
                chosen.expect("one entry per reparameterized site"),
                0.0,
            ))
        } else {
            None
        },
    })
}
