//! One JSON a measured case: raw samples and all that is needed to understand them. Every derived figure is computed from
//! it, so that tables and plots drawn later are the same.

use crate::quality::agreement::Agreement;
use crate::quality::truth::{ChainQuality, TruthQuality};
use crate::records::memory_limit::MemoryLimit;
use crate::records::parity::ParityRecord;
use crate::records::published_nuts::PublishedNutsEstimate;
use crate::spread::Spread;
pub use infermark_backend::objective_in_words;
use infermark_backend::{DeviceId, Limits, Method, Report, Request};
use infermark_fit_files::file_name::in_file_name;
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::System;
use infermark_model::objective::Objective;
use infermark_model::{Coordinates, Likelihood, Parameterization};
use serde::{Deserialize, Serialize};

/// Share of the machine's CPU time that other programs may take while something is timed.
pub const QUIET: f64 = 0.1;

/// Whether a case may be relied on.
///
/// Ordered: the worse of two is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No remarks.
    Ok,
    /// Measured, with a remark that a reader must know.
    Warn,
    /// Left out on purpose, or because it does not fit the device or the backend does not serve it; the reason says why.
    #[serde(rename = "not measured")]
    NotMeasured,
    /// No speed: parity failed, or it could not run.
    Failed,
}

impl Status {
    /// The word in files.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::NotMeasured => "not measured",
            Status::Failed => "failed",
        }
    }
}

/// One timed stretch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Iterations of SVI, gradients of NUTS, or whole fits.
    pub iterations: u64,
    /// Wall-clock seconds, the device idle at both ends.
    pub seconds: f64,
}

impl Sample {
    /// Iterations per second.
    pub fn rate(&self) -> f64 {
        self.iterations as f64 / self.seconds
    }
}

/// What an iteration of a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IterationUnit {
    /// A complete iteration of the optimizer.
    Iterations,
    /// A gradient of the log joint, with its share of the sampler.
    Gradients,
    /// A whole fit, from the loaded panel to all marginals.
    Fits,
}

impl IterationUnit {
    /// The unit that is counted for a method.
    pub const fn of(method: &Method) -> Self {
        let kind = method.kind();
        if kind.is_fitted_whole() {
            IterationUnit::Fits
        } else if kind.has_draws() {
            IterationUnit::Gradients
        } else {
            IterationUnit::Iterations
        }
    }

    /// What is counted, in the plural.
    pub const fn plural(self) -> &'static str {
        match self {
            IterationUnit::Iterations => "iterations",
            IterationUnit::Gradients => "gradients",
            IterationUnit::Fits => "fits",
        }
    }

    /// What [`TruthQuality::after`](crate::quality::truth::TruthQuality::after) counts, in the plural.
    pub const fn quality_steps(self) -> &'static str {
        match self {
            IterationUnit::Iterations => "iterations",
            IterationUnit::Gradients => "draws a chain",
            IterationUnit::Fits => "steps",
        }
    }
}

/// What a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseKind {
    /// Iterations per second.
    Speed,
    /// The published NUTS reference.
    PublishedNuts,
}

/// A measured case: a backend, a request and a panel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseRecord {
    /// Version of the schema, [`infermark_fit_files::fit_record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Place in the run, from 0.
    pub sequence: usize,
    /// When it was measured, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub measured_at: String,
    /// What it is for.
    pub kind: CaseKind,
    /// Whether it may be relied on.
    pub status: Status,
    /// A remark if it is not `ok`; otherwise `none`.
    pub reason: String,
    /// The backend's name.
    pub backend: String,
    /// The device, in plain words; with its id unless it is the CPU, as in `NVIDIA A10G (cuda:1)`.
    pub device: String,
    /// Whether the device is a GPU that software plays on the CPU, whose speed is no card's.
    #[serde(default)]
    pub is_software: bool,
    /// Threads used.
    pub threads: usize,
    /// The resolved request.
    pub request: Request,
    /// The limit of tree doublings while a sampler's gradients were timed, lower than the request's: a gradient costs the same at
    /// any depth, and a repeat holds many short draws. Before version 3 the request has it instead.
    #[serde(default)]
    pub timing_max_depth: Option<u32>,
    /// The data.
    pub panel: PanelDescription,
    /// What an iteration is.
    pub unit: IterationUnit,
    /// The comparison with the reference, where it was made.
    pub parity: Option<ParityRecord>,
    /// Seconds of everything that is done once: layouts, uploads, compilation, start values.
    pub setup_seconds: Option<f64>,
    /// The warm-up before the timing, which is not counted.
    #[serde(alias = "warm_up")]
    pub warmup: Option<Sample>,
    /// The timed repeats, as they were, interleaved with the other cases of the panel.
    pub repeats: Vec<Sample>,
    /// Row-particles a second of the bare kernel.
    pub kernel_row_particles_per_second: Option<f64>,
    /// Share of the machine's CPU time that other programs used just before the timing, 0 to 1, if the system
    /// reports it.
    #[serde(default)]
    pub busy_share: Option<f64>,
    /// Peak resident memory of the program when the case was done, in bytes: of all cases so far, since all
    /// cases of a panel are held at the same time.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
    /// The bandwidth of the machine's memory.
    pub memory_limit: Option<MemoryLimit>,
    /// The limits of the case's device, if it is not the CPU.
    #[serde(default)]
    pub device_limits: Option<Limits>,
    /// Distance from the truth, if the data came with it.
    pub truth_quality: Option<TruthQuality>,
    /// Distance from the posterior of NUTS on the same panel, where there is one.
    #[serde(default)]
    pub agreement: Option<Agreement>,
    /// Quality of a short run of chains.
    pub chain_quality: Option<ChainQuality>,
    /// The published NUTS reference, partly measured.
    pub published_nuts: Option<PublishedNutsEstimate>,
    /// The run's own report.
    pub report: Option<Report>,
    /// The system.
    pub system: System,
}

impl CaseRecord {
    /// Whether it has a speed: a case that failed its gate has none.
    pub fn has_speed(&self) -> bool {
        self.status <= Status::Warn && !self.repeats.is_empty()
    }

    /// Iterations per second: median and spread over the repeats.
    pub fn iterations_per_second(&self) -> Option<Spread> {
        let rates: Vec<f64> = self.repeats.iter().map(Sample::rate).collect();
        self.has_speed().then(|| Spread::of(&rates)).flatten()
    }

    /// Timed iterations, all repeats.
    pub fn timed_iterations(&self) -> u64 {
        self.repeats
            .iter()
            .fold(0, |sum, s| sum.saturating_add(s.iterations))
    }

    /// Timed seconds, all repeats.
    pub fn timed_seconds(&self) -> f64 {
        self.repeats.iter().map(|s| s.seconds).sum()
    }

    /// Particles that an iteration evaluates on every row; 1 for a gradient.
    pub fn particles(&self) -> usize {
        self.request.method.particles()
    }

    /// Seconds of one iteration: median and spread over the repeats.
    pub fn seconds_per_iteration(&self) -> Option<Spread> {
        let seconds: Vec<f64> = self.repeats.iter().map(|s| 1.0 / s.rate()).collect();
        self.has_speed().then(|| Spread::of(&seconds)).flatten()
    }

    /// Rows times particles per second; a whole fit passes over the rows in more ways than one, and has none.
    pub fn row_particles_per_second(&self) -> Option<f64> {
        if self.unit == IterationUnit::Fits {
            return None;
        }
        let per_iteration = self.panel.rows as f64 * self.particles() as f64;
        Some(self.iterations_per_second()?.median * per_iteration)
    }

    /// Fraction of the limit that a complete iteration reaches, and which limit: for a GPU the one that takes
    /// longer, reading 4 bytes of every row or the arithmetic of the rows; for the CPU the bare kernel if it
    /// was measured, otherwise reading. Whole fits have none.
    pub fn fraction_of_limit(&self) -> Option<(f64, &'static str)> {
        const READING: &str = "memory read, 4 bytes a row";
        if self.unit == IterationUnit::Fits {
            return None;
        }
        let rate = self.iterations_per_second()?.median;
        if let Some(limits) = &self.device_limits {
            // Several devices have their share of the rows each.
            let rows = self.panel.rows.div_ceil(self.request.devices.len().max(1));
            let (reading, arithmetic) = limits.iteration_seconds(rows, self.particles());
            return Some(if reading > arithmetic {
                (rate * reading, READING)
            } else {
                (rate * arithmetic, "rows' arithmetic")
            });
        }
        if !self.request.devices.contains(&DeviceId::CPU) {
            return None;
        }
        if let Some(kernel) = self.kernel_row_particles_per_second {
            return Some((self.row_particles_per_second()? / kernel, "bare kernel"));
        }
        let limit = self.memory_limit?.read_bytes_per_second;
        Some((rate * 4.0 * self.panel.rows as f64 / limit, READING))
    }

    /// Seconds for 1,000,000 iterations of SVI in the published coordinates, estimated from the timed ones:
    /// in others nobody makes that many.
    pub fn estimated_seconds_1m(&self) -> Option<f64> {
        match self.request.method.coordinates() {
            Coordinates::Published => self.estimated_seconds_for(1e6),
            Coordinates::Orthogonal => None,
        }
    }

    /// Seconds for this many iterations of SVI, estimated from the timed ones.
    pub fn estimated_seconds_for(&self, iterations: f64) -> Option<f64> {
        match self.unit {
            IterationUnit::Iterations => Some(iterations / self.iterations_per_second()?.median),
            IterationUnit::Gradients | IterationUnit::Fits => None,
        }
    }

    /// The settings that a speed depends on, in words: `f32, centered, Renyi alpha 0, K = 4, 2 threads`.
    pub fn settings(&self) -> String {
        let threads = match self.threads {
            _ if !self.request.devices.contains(&DeviceId::CPU) => String::new(),
            1 => ", 1 thread".to_owned(),
            n => format!(", {n} threads"),
        };
        self.settings_without_threads() + &threads
    }

    /// [`CaseRecord::settings`] without the threads, which change only the speed:
    /// `f32, centered, Renyi alpha 0, K = 4`; and another likelihood than the usual one by its name.
    pub fn settings_without_threads(&self) -> String {
        let likelihood = match self.request.likelihood {
            usual if usual == Likelihood::default() => String::new(),
            other => format!(", {}", other.name()),
        };
        self.request.method.short_settings(self.request.parameterization) + &likelihood
    }

    /// Backend, device and settings in words: one side of a speedup.
    pub fn side(&self) -> String {
        format!("{} on {}: {}", self.backend, self.device, self.settings())
    }

    /// Whether it does the work of the published runs: their likelihood and coordinates, centred, Renyi alpha 0, 4 particles.
    pub fn is_published_workload(&self) -> bool {
        let Method::Svi(svi) = &self.request.method else {
            return false;
        };
        self.kind == CaseKind::Speed
            && self.request.likelihood == Likelihood::default()
            && svi.particles == crate::published::PARTICLES
            && svi.objective == Objective::Renyi { alpha: 0.0 }
            && svi.coordinates == Coordinates::Published
            && self.request.parameterization == Parameterization::Centered
    }

    /// The name of its files, from its place in the run.
    pub fn file_stem(&self) -> String {
        let kind = match (self.kind, &self.request.method) {
            (CaseKind::PublishedNuts, _) => "published-nuts".to_owned(),
            (CaseKind::Speed, Method::Svi(svi)) => {
                let coordinates = match svi.coordinates {
                    Coordinates::Published => String::new(),
                    orthogonal => format!("-{}", orthogonal.name()),
                };
                format!("k{}-{}{coordinates}", svi.particles, svi.precision.name())
            }
            (CaseKind::Speed, Method::Nuts(_)) => "gradients".to_owned(),
            (CaseKind::Speed, _) => "fits".to_owned(),
        };
        format!(
            "{:03}-{}-{}-{kind}",
            self.sequence,
            in_file_name(&self.backend),
            self.panel.products
        )
    }
}

/// Among cases that differ only in their threads, and so have one posterior, the one with the most threads;
/// in order of first appearance.
pub(crate) fn of_most_threads<'r>(records: impl IntoIterator<Item = &'r CaseRecord>) -> Vec<&'r CaseRecord> {
    let same = |a: &CaseRecord, b: &CaseRecord| {
        a.kind == b.kind
            && a.backend == b.backend
            && a.device == b.device
            && a.panel.sha256 == b.panel.sha256
            && a.settings_without_threads() == b.settings_without_threads()
    };
    let mut chosen: Vec<&CaseRecord> = Vec::new();
    for record in records {
        match chosen.iter_mut().find(|c| same(c, record)) {
            Some(other) if record.threads > other.threads => *other = record,
            Some(_) => {}
            None => chosen.push(record),
        }
    }
    chosen
}
