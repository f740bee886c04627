//! Arguments that several verbs share, and the requests built from them.

use crate::choices::{
    coordinates_parser, cut_parser, likelihood_parser, method_parser, metric_parser, model_parser,
    parameterization_parser, precision_parser,
};
use crate::device::named_device;
use crate::ranks::RankArguments;
use clap::{Args, ValueEnum};
use infermark::{
    Columns, DeviceId, EarlyStop, LaplaceSettings, MeanfieldSettings, Method, MethodKind, Metric,
    NutsSettings, Precision, Request, StructuredViSettings, SviSettings,
};
use infermark_fit_files::given::GivenPriors;
use infermark_model::objective::Objective;
use infermark_model::optimizer::AdamW;
use infermark_model::setting_names;
use infermark_model::{Coordinates, Cut, Likelihood, Parameterization, Priors, Specification};
use infermark_report::number_format::count;
use std::path::PathBuf;

/// Names of the columns in a sales file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Columns of the file")]
pub struct ColumnArguments {
    /// Column of the product: text or whole number.
    #[arg(long, value_name = "NAME", default_value = "product")]
    pub product_column: String,
    /// Column of the category: text or whole number; a product has one.
    #[arg(long, value_name = "NAME", default_value = "category")]
    pub category_column: String,
    /// Column of the period: whole number or date (YYYY-MM-DD).
    #[arg(long, value_name = "NAME", default_value = "week")]
    pub period_column: String,
    /// Column of the price: a positive number.
    #[arg(long, value_name = "NAME", default_value = "price")]
    pub price_column: String,
    /// Column of the units sold: a whole number, 0 or more.
    #[arg(long, value_name = "NAME", default_value = "units")]
    pub units_column: String,
}

/// The options of [`ColumnArguments`].
pub(crate) const COLUMN_OPTIONS: [&str; 5] = [
    "product_column",
    "category_column",
    "period_column",
    "price_column",
    "units_column",
];

impl From<ColumnArguments> for Columns {
    fn from(names: ColumnArguments) -> Self {
        Columns {
            product: names.product_column,
            category: names.category_column,
            period: names.period_column,
            price: names.price_column,
            units: names.units_column,
        }
    }
}

/// The choice of the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct SpecificationArguments {
    /// Model: what prices are measured against, clip bounds and default priors.
    #[arg(long, value_name = "MODEL", value_parser = model_parser(), default_value = Specification::Sales.name())]
    pub model: Specification,
}

/// Settings of the model.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct PriorArguments {
    /// JSON file with prior settings.
    #[arg(long, value_name = "FILE", help = priors_help())]
    pub priors: Option<PathBuf>,
}

fn priors_help() -> String {
    let names: Vec<&str> = setting_names().collect();
    format!(
        "JSON file with prior settings ({}); what it leaves out keeps the model's default: the published one, but for \
         clip_low, clip_high and product_effect_mean of `fit --model sales` (-30, 30, and the log units per row of the \
         median product)",
        names.join(", ")
    )
}

impl PriorArguments {
    /// The priors of the file, or the published ones.
    ///
    /// # Errors
    /// When the file cannot be read or a setting is out of its range.
    pub fn load(&self) -> anyhow::Result<Priors> {
        self.given()?.over(Priors::default())
    }

    /// The settings of the file, which override any default.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn given(&self) -> anyhow::Result<GivenPriors> {
        GivenPriors::read(self.priors.as_deref())
    }
}

/// The choice of the counts' law.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct LikelihoodArguments {
    /// Law of the counts given their mean rate.
    #[arg(long, value_name = "LIKELIHOOD", value_parser = likelihood_parser(), default_value = Likelihood::Poisson.name())]
    pub likelihood: Likelihood,
}

/// Variational objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveName {
    /// Renyi bound of order --alpha; at 0 the importance-weighted bound.
    Renyi,
    /// Plain evidence lower bound.
    Elbo,
}

/// The choice of a mean-field guide's coordinates.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "SVI, meanfield")]
pub struct CoordinatesArguments {
    /// Coordinates in which the latents of the guide are independent; orthogonal ones go with --parameterization centered.
    #[arg(
        long,
        value_name = "COORDINATES",
        value_parser = coordinates_parser(),
        default_value = Coordinates::Orthogonal.name()
    )]
    pub coordinates: Coordinates,
}

/// Settings of SVI.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "SVI")]
pub struct SviArguments {
    /// Iterations.
    #[arg(long, value_name = "N", help = iterations_help())]
    pub iterations: Option<u64>,
    /// Particles an iteration.
    #[arg(long, value_name = "K", default_value_t = SviSettings::default().particles)]
    pub particles: usize,
    /// What is maximized.
    #[arg(long, value_enum, default_value = "renyi")]
    pub objective: ObjectiveName,
    /// Order of the Renyi bound.
    #[arg(
        long,
        value_name = "ALPHA",
        default_value_t = default_alpha(),
        allow_negative_numbers = true
    )]
    pub alpha: f64,
    /// Precision of the passes over the panel.
    #[arg(
        long,
        value_name = "PRECISION",
        value_parser = precision_parser(),
        default_value = SviSettings::default().precision.name()
    )]
    pub precision: Precision,
    /// AdamW's learning rate at the start. In orthogonal coordinates it falls to 1e-5 at the last iteration; in the published ones it decays by
    /// 1% every 1,000 iterations, down to 1e-5.
    #[arg(long, value_name = "RATE", default_value_t = AdamW::default().learning_rate)]
    pub learning_rate: f64,
    /// Stop early once the loss no longer falls. In orthogonal coordinates: the mean loss of --window iterations is lower than that of the ones before
    /// by less than one standard error or 0.001 per latent, three times in a row; in the published ones by less than one standard error, five times.
    #[arg(long)]
    pub early_stop: bool,
    /// Iterations of a window of the criterion.
    #[arg(long, value_name = "N", help = window_help())]
    pub window: Option<u64>,
    /// Products of a mini-batch, about: an iteration passes over these instead of all. For --objective elbo on the CPU.
    #[arg(long, value_name = "N")]
    pub batch_products: Option<usize>,
    /// Iterations between two entries of the loss trace.
    #[arg(long, value_name = "N", default_value_t = SviSettings::default().trace_every)]
    pub trace_every: u64,
}

fn iterations_help() -> String {
    format!(
        "Iterations; by default {} in orthogonal coordinates, and {} in the published ones",
        count(SviSettings::orthogonal().iterations),
        count(SviSettings::default().iterations)
    )
}

fn window_help() -> String {
    format!(
        "Iterations of a window of --early-stop; by default a twentieth of --iterations in orthogonal coordinates, and {} in the \
         published ones",
        count(EarlyStop::default().window)
    )
}

/// The order of the bound that is maximized by default.
fn default_alpha() -> f64 {
    match Objective::default() {
        Objective::Renyi { alpha } => alpha,
        Objective::Elbo => 0.0,
    }
}

impl SviArguments {
    /// The settings.
    pub fn settings(&self, coordinates: Coordinates) -> SviSettings {
        let published = SviSettings {
            optimizer: AdamW {
                learning_rate: self.learning_rate,
                ..AdamW::default()
            },
            ..SviSettings::default()
        };
        let default = match coordinates {
            Coordinates::Published => SviSettings {
                iterations: self.iterations.unwrap_or(published.iterations),
                ..published
            },
            Coordinates::Orthogonal => {
                let iterations = self.iterations.unwrap_or(SviSettings::orthogonal().iterations);
                SviSettings {
                    coordinates: Coordinates::Orthogonal,
                    ..published
                }
                .falling_over(iterations)
            }
        };
        let criterion = match coordinates {
            Coordinates::Published => Some(EarlyStop::default()),
            Coordinates::Orthogonal => EarlyStop::falling_over(default.iterations),
        };
        SviSettings {
            particles: self.particles,
            objective: match self.objective {
                ObjectiveName::Renyi => Objective::Renyi { alpha: self.alpha },
                ObjectiveName::Elbo => Objective::Elbo,
            },
            precision: self.precision,
            early_stop: criterion.filter(|_| self.early_stop).map(|stop| EarlyStop {
                window: self.window.unwrap_or(stop.window),
                ..stop
            }),
            trace_every: self.trace_every,
            batch_products: self.batch_products,
            ..default
        }
    }
}

/// Settings of NUTS.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "NUTS")]
pub struct NutsArguments {
    /// Chains.
    #[arg(long, value_name = "N", default_value_t = NutsSettings::default().chains)]
    pub chains: usize,
    /// Mass matrix.
    #[arg(
        long,
        value_name = "METRIC",
        value_parser = metric_parser(),
        default_value = Metric::default().name()
    )]
    pub metric: Metric,
    /// Warm-up draws of each chain.
    #[arg(long, alias = "warm-up", value_name = "N", help = warmup_help())]
    pub warmup: Option<u64>,
    /// Draws of each chain after warm-up.
    #[arg(long, value_name = "N", default_value_t = NutsSettings::default().draws)]
    pub draws: u64,
    /// Mean acceptance that the step size is tuned to.
    #[arg(long, value_name = "P", help = target_accept_help())]
    pub target_accept: Option<f64>,
    /// Most doublings of a trajectory.
    #[arg(long, value_name = "N", default_value_t = NutsSettings::default().max_depth)]
    pub max_depth: u32,
}

fn warmup_help() -> String {
    format!(
        "Warm-up draws of each chain: they tune step size and diagonal metric, and are not kept; by default {} with the structured \
         metric, {} with the diagonal one",
        Metric::Structured.default_warmup(),
        Metric::Diagonal.default_warmup()
    )
}

fn target_accept_help() -> String {
    format!(
        "Mean acceptance that the step size is tuned to; by default {} with the structured metric, {} with the diagonal one",
        Metric::Structured.default_target_accept(),
        Metric::Diagonal.default_target_accept()
    )
}

impl NutsArguments {
    /// The settings.
    pub fn settings(&self) -> NutsSettings {
        let metric = self.metric;
        NutsSettings {
            metric,
            chains: self.chains,
            warmup: self.warmup.unwrap_or_else(|| metric.default_warmup()),
            draws: self.draws,
            target_accept: self
                .target_accept
                .unwrap_or_else(|| metric.default_target_accept()),
            max_depth: self.max_depth,
            ..NutsSettings::default()
        }
    }
}

/// Settings of the Gaussian methods.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Laplace, structured-vi, meanfield")]
pub struct GaussianArguments {
    /// Steps at most.
    #[arg(long, value_name = "N", help = steps_help())]
    pub steps: Option<u64>,
    /// When it has converged.
    #[arg(long, value_name = "X", help = tolerance_help())]
    pub tolerance: Option<f64>,
    /// Leave the marginals of --method laplace or structured-vi normal, not corrected for skewness.
    #[arg(long)]
    pub plain: bool,
}

fn steps_help() -> String {
    format!(
        "Steps at most; by default {} with laplace, {} with the others, those to the mode that they start from not counted",
        LaplaceSettings::default().steps,
        StructuredViSettings::default().steps
    )
}

fn tolerance_help() -> String {
    format!(
        "When it has converged: nats still to be gained with laplace, by default {:e}; with the others standard deviations that a mean \
         may still move in a step, by default {:e}",
        LaplaceSettings::default().tolerance,
        StructuredViSettings::default().tolerance
    )
}

impl GaussianArguments {
    /// The settings of Laplace.
    pub fn laplace(&self) -> LaplaceSettings {
        let default = LaplaceSettings::default();
        LaplaceSettings {
            steps: self.steps.unwrap_or(default.steps),
            tolerance: self.tolerance.unwrap_or(default.tolerance),
            skewness_correction: !self.plain,
        }
    }

    /// The settings of structured VI.
    pub fn structured_vi(&self) -> StructuredViSettings {
        let default = StructuredViSettings::default();
        StructuredViSettings {
            steps: self.steps.unwrap_or(default.steps),
            tolerance: self.tolerance.unwrap_or(default.tolerance),
            skewness_correction: !self.plain,
        }
    }

    /// The settings of the mean-field Gaussian.
    pub fn meanfield(&self, coordinates: Coordinates) -> MeanfieldSettings {
        let default = MeanfieldSettings::default();
        MeanfieldSettings {
            coordinates,
            steps: self.steps.unwrap_or(default.steps),
            tolerance: self.tolerance.unwrap_or(default.tolerance),
        }
    }
}

/// Where and how a run is made.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Inference method. The default is one whose intervals can be trusted: its means are within 0.06 standard deviations and its
    /// standard deviations within 4% of long NUTS chains on the reference panel and on a long tail of few sales, in a second where NUTS
    /// takes minutes, and it warns where its limits are met. Take nuts to check it, and where it warns.
    #[arg(
        long,
        value_name = "METHOD",
        value_parser = method_parser(),
        default_value = MethodKind::StructuredVi.name()
    )]
    pub method: MethodKind,
    /// Device: cpu, gpu (the first card), or as `infermark devices` lists them. Several cards of one model, as cuda:0,cuda:1, share the panel of a fit by
    /// --method svi, with one shard on each.
    #[arg(
        long = "device",
        value_name = "DEVICE,..",
        default_value = "cpu",
        value_delimiter = ',',
        value_parser = named_device
    )]
    pub devices: Vec<DeviceId>,
    /// Form in which the sites are inferred.
    #[arg(
        long,
        value_name = "PARAMETERIZATION",
        value_parser = parameterization_parser(),
        default_value = Parameterization::default().name()
    )]
    pub parameterization: Parameterization,
    /// Shards into which the panel is cut, each with threads of its own: for --method svi, laplace and structured-vi. By default one for each
    /// device. Several on one device are logical shards, which are there to try a cut, and no faster than one.
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// What the shards have of the panel.
    #[arg(long, value_name = "CUT", value_parser = cut_parser(), default_value = Cut::default().name())]
    pub cut: Cut,
    /// Processor threads; all by default.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Seed of all noise.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// The ranks that share the panel.
    #[command(flatten)]
    pub ranks: RankArguments,
}

impl RunArguments {
    /// The request for `method`.
    pub fn request(&self, method: Method, priors: Priors) -> Request {
        Request {
            priors,
            likelihood: Likelihood::default(),
            parameterization: self.parameterization,
            method,
            devices: self.devices.clone(),
            shards: self.shards.unwrap_or(self.devices.len()),
            cut: self.cut,
            threads: self.threads,
            seed: self.seed,
        }
    }
}
