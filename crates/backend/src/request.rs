//! What is asked of a backend.

use crate::device::DeviceId;
use crate::error::BackendError;
use infermark_model::objective::Objective;
use infermark_model::optimizer::AdamW;
use infermark_model::{Coordinates, Likelihood, Panel, Parameterization, Priors, Site};
use serde::{Deserialize, Serialize};

pub use infermark_threads::MOST_THREADS;

/// A run to be made: the resolved configuration, which result files record whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Prior settings.
    pub priors: Priors,
    /// Law of the counts; a request that does not name it is from before there was a choice.
    #[serde(default)]
    pub likelihood: Likelihood,
    /// Form in which the sites are inferred.
    pub parameterization: Parameterization,
    /// Method and its settings.
    pub method: Method,
    /// Devices to run on: one, or several that share the panel.
    pub devices: Vec<DeviceId>,
    /// Processor threads, 1 to [`MOST_THREADS`]; `None` takes all that the machine has.
    pub threads: Option<usize>,
    /// Seed of all noise.
    pub seed: u64,
}

impl Request {
    /// A request with the published settings on the CPU.
    pub fn new(method: Method) -> Self {
        Request {
            priors: Priors::default(),
            likelihood: Likelihood::default(),
            parameterization: Parameterization::default(),
            method,
            devices: vec![DeviceId::CPU],
            threads: None,
            seed: 0,
        }
    }

    /// Refuses another likelihood than the Poisson one, for the backend `backend` that has no other.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] says what has it.
    pub fn refuse_other_than_poisson(&self, backend: &'static str) -> Result<(), BackendError> {
        match self.likelihood {
            Likelihood::Poisson => Ok(()),
            other => Err(BackendError::Unsupported {
                backend,
                what: format!(
                    "the {} likelihood; every method with --device cpu has it",
                    other.name()
                ),
            }),
        }
    }

    /// The number of threads to use: the one asked for, or the machine's.
    pub fn resolved_threads(&self) -> usize {
        self.threads.unwrap_or_else(infermark_threads::available)
    }

    /// Checks every setting that no hardware needs to be asked for.
    ///
    /// # Errors
    /// [`BackendError::Request`] says which setting is out of range, and its range.
    pub fn validate(&self) -> Result<(), BackendError> {
        self.priors
            .validate()
            .map_err(|e| BackendError::Request(e.to_string()))?;
        if self.devices.is_empty() {
            return Err(BackendError::Request("no device was asked for".into()));
        }
        check_threads(self.threads)?;
        if self.method.coordinates() == Coordinates::Orthogonal
            && self.parameterization != Parameterization::Centered
        {
            return Err(BackendError::Request(format!(
                "orthogonal coordinates go with the centered parameterization, this is {}; ask for the published ones \
                 (--coordinates published)",
                self.parameterization.name()
            )));
        }
        match &self.method {
            Method::Svi(svi) => svi.validate(),
            Method::Nuts(nuts) => {
                if nuts.metric == Metric::Structured && self.parameterization != Parameterization::Centered {
                    return Err(BackendError::Request(format!(
                        "the structured metric goes with the centered parameterization, this is {}; ask for the \
                         diagonal metric (--metric diagonal)",
                        self.parameterization.name()
                    )));
                }
                nuts.validate()
            }
            Method::Laplace(laplace) => laplace.validate(),
            Method::StructuredVi(structured) => structured.validate(),
            Method::Meanfield(meanfield) => meanfield.validate(),
        }
    }

    /// Checks that `point` has an entry for every latent of `panel` under the request's likelihood.
    ///
    /// # Errors
    /// [`BackendError::Request`] with both numbers.
    pub fn check_point(&self, panel: &Panel, point: &[f64]) -> Result<(), BackendError> {
        let latents = panel.layout_for(self.likelihood).latents();
        if point.len() != latents {
            return Err(BackendError::Request(format!(
                "the point has {} entries; the panel has {latents} latents",
                point.len()
            )));
        }
        Ok(())
    }
}

/// Checks that a number of processor threads, where one was asked for, is from 1 to [`MOST_THREADS`].
///
/// # Errors
/// [`BackendError::Request`] with the number and its range.
pub fn check_threads(threads: Option<usize>) -> Result<(), BackendError> {
    match threads {
        Some(threads) if !(1..=MOST_THREADS).contains(&threads) => Err(BackendError::Request(format!(
            "threads is {threads}; give 1 to {MOST_THREADS}"
        ))),
        _ => Ok(()),
    }
}

/// An inference method with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Method {
    /// Stochastic variational inference with a mean-field guide.
    Svi(SviSettings),
    /// The No-U-Turn sampler.
    Nuts(NutsSettings),
    /// The Gaussian at the posterior mode.
    Laplace(LaplaceSettings),
    /// The Gaussian with the model's own block-arrow precision that maximizes the evidence lower bound.
    #[serde(rename = "structured-vi")]
    StructuredVi(StructuredViSettings),
    /// The mean-field Gaussian that maximizes the evidence lower bound, in closed form.
    Meanfield(MeanfieldSettings),
}

impl Method {
    /// The name in the command and in files.
    pub const fn name(&self) -> &'static str {
        match self {
            Method::Svi(_) => "svi",
            Method::Nuts(_) => "nuts",
            Method::Laplace(_) => "laplace",
            Method::StructuredVi(_) => "structured-vi",
            Method::Meanfield(_) => "meanfield",
        }
    }

    /// The coordinates of a mean-field guide; every other method is in the published ones.
    pub const fn coordinates(&self) -> Coordinates {
        match self {
            Method::Svi(svi) => svi.coordinates,
            Method::Meanfield(meanfield) => meanfield.coordinates,
            Method::Nuts(_) | Method::Laplace(_) | Method::StructuredVi(_) => Coordinates::Published,
        }
    }
}

/// Settings of the Laplace approximation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaplaceSettings {
    /// Newton steps at most.
    pub steps: u64,
    /// The mode is found when half the squared Newton decrement, the log density still to be gained, is below this.
    pub tolerance: f64,
    /// Whether means, and the marginals of products and periods with few sales, are corrected for skewness.
    pub skewness_correction: bool,
}

impl Default for LaplaceSettings {
    fn default() -> Self {
        LaplaceSettings {
            steps: 50,
            tolerance: 1e-9,
            skewness_correction: true,
        }
    }
}

impl LaplaceSettings {
    fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

/// Settings of structured Gaussian VI.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StructuredViSettings {
    /// Steps at most, those to the mode that the iteration starts from not counted.
    pub steps: u64,
    /// The optimum is found when no mean moves by more than this many of its standard deviations in a step, nor any log
    /// standard deviation by more than this.
    pub tolerance: f64,
    /// Whether the marginals of products and periods with few sales are corrected for skewness.
    #[serde(default)]
    pub skewness_correction: bool,
}

impl Default for StructuredViSettings {
    fn default() -> Self {
        StructuredViSettings {
            steps: 500,
            tolerance: 1e-5,
            skewness_correction: true,
        }
    }
}

impl StructuredViSettings {
    fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

/// Settings of the mean-field Gaussian whose bound has a closed form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanfieldSettings {
    /// As [`SviSettings::coordinates`].
    #[serde(default)]
    pub coordinates: Coordinates,
    /// As [`StructuredViSettings::steps`].
    pub steps: u64,
    /// As [`StructuredViSettings::tolerance`].
    pub tolerance: f64,
}

impl Default for MeanfieldSettings {
    fn default() -> Self {
        MeanfieldSettings {
            coordinates: Coordinates::Published,
            steps: 500,
            tolerance: 1e-5,
        }
    }
}

impl MeanfieldSettings {
    fn validate(&self) -> Result<(), BackendError> {
        check_steps(self.steps, self.tolerance)
    }
}

fn check_steps(steps: u64, tolerance: f64) -> Result<(), BackendError> {
    if !(1..=1_000_000).contains(&steps) {
        return Err(BackendError::Request(format!(
            "steps is {steps}; give 1 to 1000000"
        )));
    }
    if !(1e-12..1.0).contains(&tolerance) {
        return Err(BackendError::Request(format!(
            "tolerance is {tolerance}; give a number from 1e-12 to below 1"
        )));
    }
    Ok(())
}

/// Floating-point type of the passes over the panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision for rates and gradients, double for every sum that decides a log-weight.
    #[default]
    F32,
    /// Double precision throughout.
    F64,
}

impl Precision {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }
}

/// Settings of SVI; the defaults are the published ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SviSettings {
    /// Iterations.
    pub iterations: u64,
    /// K, particles an iteration.
    pub particles: usize,
    /// What is maximized.
    pub objective: Objective,
    /// The coordinates of the guide; a request that does not name them is from before there was a choice.
    #[serde(default)]
    pub coordinates: Coordinates,
    /// The optimizer and its schedule.
    pub optimizer: AdamW,
    /// Floating-point type of the passes over the panel.
    pub precision: Precision,
    /// Stop before the last iteration once this criterion is met; `None` runs the whole schedule.
    pub early_stop: Option<EarlyStop>,
    /// Iterations between two entries of the loss trace.
    pub trace_every: u64,
}

impl Default for SviSettings {
    fn default() -> Self {
        SviSettings {
            iterations: 1_000_000,
            particles: 4,
            objective: Objective::default(),
            coordinates: Coordinates::Published,
            optimizer: AdamW::default(),
            precision: Precision::F32,
            early_stop: None,
            trace_every: 100,
        }
    }
}

impl SviSettings {
    /// The defaults in orthogonal coordinates: objective and particles as published, and 10,000 iterations over which the learning rate falls from
    /// 0.01 to 1e-5.
    pub fn orthogonal() -> Self {
        SviSettings {
            coordinates: Coordinates::Orthogonal,
            ..SviSettings::default()
        }
        .falling_over(10_000)
    }

    /// The settings with `iterations` over which the learning rate falls from where it is to its floor, and the criterion that goes with it.
    #[must_use]
    pub fn falling_over(self, iterations: u64) -> Self {
        SviSettings {
            iterations,
            optimizer: AdamW::falling_over(iterations, self.optimizer.learning_rate),
            early_stop: EarlyStop::falling_over(iterations),
            ..self
        }
    }
}

/// When a run has converged: the mean loss of the last `window` iterations is lower than that of the `window` before
/// by less than `tolerance` standard errors of their difference, or by less than `least_fall` for each latent, `patience` windows in a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// Iterations of a window.
    pub window: u64,
    /// Standard errors.
    pub tolerance: f64,
    /// Windows in a row.
    pub patience: u32,
    /// Nats for each latent.
    #[serde(default)]
    pub least_fall: f64,
}

impl Default for EarlyStop {
    fn default() -> Self {
        EarlyStop {
            window: 2_000,
            tolerance: 1.0,
            patience: 5,
            least_fall: 0.0,
        }
    }
}

impl EarlyStop {
    /// The criterion for a learning rate that falls over `iterations`: its loss is never flat before the end, for a lower rate leaves the means less far
    /// from where they belong. What a twentieth of the way still takes off the loss says how far: means that are on average `d` of their
    /// standard deviations away cost `d^2 / 2` nats each, and a fall of 0.001 nats is one from 0.08 to 0.07.
    ///
    /// `None` below 2,000 iterations: a rate that falls that fast may leave the means where they are, and the loss with them.
    pub fn falling_over(iterations: u64) -> Option<Self> {
        (iterations >= 2_000).then_some(EarlyStop {
            window: iterations / 20,
            tolerance: 1.0,
            patience: 1,
            least_fall: 1e-3,
        })
    }
}

impl SviSettings {
    fn validate(&self) -> Result<(), BackendError> {
        let refuse = |text: String| Err(BackendError::Request(text));
        if self.iterations == 0 || self.iterations >= u64::from(u32::MAX) {
            return refuse(format!(
                "iterations is {}; give 1 to {}",
                self.iterations,
                u32::MAX - 1
            ));
        }
        if self.particles == 0 || self.particles > 1024 {
            return refuse(format!("particles is {}; give 1 to 1024", self.particles));
        }
        if let Objective::Renyi { alpha } = self.objective
            && !alpha.is_finite()
        {
            return refuse(format!(
                "alpha is {alpha}; give a finite number (0 is the importance-weighted bound)"
            ));
        }
        if self.trace_every == 0 {
            return refuse("trace_every is 0; give at least 1".into());
        }
        let adam = &self.optimizer;
        for (name, value, low, high) in [
            ("b1", adam.b1, 0.0, 1.0 - 1e-9),
            ("b2", adam.b2, 0.0, 1.0 - 1e-9),
            ("eps", adam.eps, 0.0, 1.0),
            ("weight_decay", adam.weight_decay, 0.0, 1e6),
            ("learning_rate", adam.learning_rate, 1e-12, 1e3),
            ("decay_rate", adam.decay_rate, 1e-12, 1.0),
            ("decay_iterations", adam.decay_iterations, 1e-3, 1e15),
            ("learning_rate_floor", adam.learning_rate_floor, 0.0, 1e3),
        ] {
            if !(low..=high).contains(&value) {
                return refuse(format!("{name} is {value}; give a number from {low} to {high}"));
            }
        }
        match self.early_stop {
            Some(stop)
                if stop.window < 10
                    || stop.patience == 0
                    || stop.tolerance.is_nan()
                    || stop.tolerance <= 0.0
                    || !(0.0..=1e3).contains(&stop.least_fall) =>
            {
                refuse(
                    "early stop needs a window of at least 10, a positive tolerance, a patience of 1 and a least fall from 0 to 1000"
                        .into(),
                )
            }
            _ => Ok(()),
        }
    }
}

/// Mass matrix of the sampler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// One variance a latent, tuned during warm-up.
    Diagonal,
    /// The precision at the posterior mode, whose block-arrow factor whitens the latents; centred parameterization only.
    /// Trajectories are about a quarter rotation long there, so that no U-turn is looked for.
    #[default]
    Structured,
}

impl Metric {
    /// The name in files and in the command.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Diagonal => "diagonal",
            Metric::Structured => "structured",
        }
    }

    /// Draws of warm-up that it needs: the structured one is there before the first draw, and only a step size is tuned.
    pub const fn default_warmup(self) -> u64 {
        match self {
            Metric::Diagonal => 1000,
            Metric::Structured => 300,
        }
    }

    /// Acceptance that the step size is tuned to. The structured metric accepts or rejects the end of a trajectory alone, so
    /// that every rejection repeats a draw: more, and shorter, steps pay there.
    pub const fn default_target_accept(self) -> f64 {
        match self {
            Metric::Diagonal => 0.8,
            Metric::Structured => 0.9,
        }
    }
}

/// Settings of NUTS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NutsSettings {
    /// Chains.
    pub chains: usize,
    /// Warm-up draws of each chain, which tune step size and metric and are not kept.
    pub warmup: u64,
    /// Draws of each chain after warm-up.
    pub draws: u64,
    /// Target mean acceptance statistic.
    pub target_accept: f64,
    /// Limit of the doublings of a trajectory, which has at most `2^max_depth - 1` steps.
    pub max_depth: u32,
    /// Mass matrix.
    pub metric: Metric,
    /// Draws are kept whole while all of them together take at most this many bytes; beyond it, moments of every
    /// latent and the draws of `sites_beyond_limit` are kept.
    pub draw_bytes_limit: u64,
    /// Sites whose draws are kept when not all can be.
    pub sites_beyond_limit: Vec<Site>,
}

impl Default for NutsSettings {
    fn default() -> Self {
        NutsSettings {
            chains: 4,
            warmup: Metric::default().default_warmup(),
            draws: 1000,
            target_accept: Metric::default().default_target_accept(),
            max_depth: 10,
            metric: Metric::default(),
            draw_bytes_limit: 2 << 30,
            sites_beyond_limit: vec![Site::GlobalA, Site::CategoryA],
        }
    }
}

impl NutsSettings {
    /// The defaults under the diagonal metric.
    pub fn diagonal() -> Self {
        NutsSettings {
            metric: Metric::Diagonal,
            warmup: Metric::Diagonal.default_warmup(),
            target_accept: Metric::Diagonal.default_target_accept(),
            ..NutsSettings::default()
        }
    }

    fn validate(&self) -> Result<(), BackendError> {
        let refuse = |text: String| Err(BackendError::Request(text));
        if self.chains == 0 || self.chains > 1024 {
            return refuse(format!("chains is {}; give 1 to 1024", self.chains));
        }
        if self.draws == 0 {
            return refuse("draws is 0; give at least 1".into());
        }
        if !(self.target_accept > 0.0 && self.target_accept < 1.0) {
            return refuse(format!(
                "target_accept is {}; give a number between 0 and 1",
                self.target_accept
            ));
        }
        if self.max_depth == 0 || self.max_depth > 20 {
            return refuse(format!("max_depth is {}; give 1 to 20", self.max_depth));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        assert!(
            Request::new(Method::Svi(SviSettings::default()))
                .validate()
                .is_ok()
        );
        assert!(
            Request::new(Method::Nuts(NutsSettings::default()))
                .validate()
                .is_ok()
        );
        for (svi, word) in [
            (
                SviSettings {
                    iterations: 0,
                    ..Default::default()
                },
                "iterations",
            ),
            (
                SviSettings {
                    particles: 0,
                    ..Default::default()
                },
                "particles",
            ),
            (
                SviSettings {
                    objective: Objective::Renyi { alpha: f64::NAN },
                    ..Default::default()
                },
                "alpha",
            ),
            (
                SviSettings {
                    optimizer: AdamW {
                        b1: 1.0,
                        ..AdamW::default()
                    },
                    ..Default::default()
                },
                "b1",
            ),
        ] {
            let error = Request::new(Method::Svi(svi)).validate().unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        let mut request = Request::new(Method::Nuts(NutsSettings {
            chains: 0,
            ..Default::default()
        }));
        assert!(request.validate().unwrap_err().to_string().contains("chains"));
        request = Request::new(Method::Nuts(NutsSettings::default()));
        request.parameterization = Parameterization::Learned;
        let error = request.validate().unwrap_err().to_string();
        assert!(
            error.contains("--metric diagonal") && error.contains("learned"),
            "{error}"
        );
        request.method = Method::Nuts(NutsSettings::diagonal());
        assert!(request.validate().is_ok());
        request = Request::new(Method::Nuts(NutsSettings::default()));
        for (threads, valid) in [
            (0, false),
            (1, true),
            (MOST_THREADS, true),
            (MOST_THREADS + 1, false),
        ] {
            request.threads = Some(threads);
            match request.validate() {
                Ok(()) => assert!(valid, "{threads}"),
                Err(error) => assert_eq!(
                    (error.to_string(), valid),
                    (format!("threads is {threads}; give 1 to 1024"), false)
                ),
            }
        }
    }
}
