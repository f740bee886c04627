//! One JSON a measured point of scaling: a panel on some ranks; and one a timed all-reduce.

use crate::records::case_record::{Sample, Status};
use crate::records::parity::ParityRecord;
use crate::spread::{Spread, median};
use infermark_backend::{DeviceId, Request};
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::System;
use infermark_model::Likelihood;
use serde::{Deserialize, Serialize};

/// Where the ranks of a measurement are, and whether each has to itself what it would have among several machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Ranks.
    pub ranks: usize,
    /// Devices that they run on: GPUs, or 1 for the CPU.
    pub devices: usize,
    /// CPU threads of each rank.
    pub threads_per_rank: usize,
    /// Whether they share what several devices would have each: more ranks than GPUs, or more threads than cores. They are
    /// logical shards then, which are no faster than one, and are no measurement of several devices.
    pub logical: bool,
    /// Whether the device is a GPU that software plays on the CPU, whose speed is no card's.
    pub software: bool,
    /// What connects them, for instance `threads`; `none` for one rank.
    pub communicator: String,
}

impl Placement {
    /// The ranks in words: `1 rank`, `2 ranks`, `4 GPUs`, `4 logical shards on 2 cores`, `4 logical shards on 1 GPU`.
    pub fn in_words(&self, is_gpu: bool, cores: usize) -> String {
        let Placement { ranks, devices, .. } = *self;
        let gpu = if self.software { "software device" } else { "GPU" };
        match (is_gpu, self.logical) {
            (true, true) => format!("{ranks} logical shards on {}", several(devices, gpu)),
            (true, false) => several(devices, gpu),
            (false, true) => format!("{ranks} logical shards on {}", several(cores, "core")),
            (false, false) => several(ranks, "rank"),
        }
    }
}

/// `1 rank`, `2 ranks`.
fn several(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A timed stretch of iterations, and what the ranks spent of it in communication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingSample {
    /// Iterations.
    pub iterations: u64,
    /// Wall-clock seconds, the devices idle at both ends.
    pub seconds: f64,
    /// Seconds that each rank spent in operations of its communicator, in the order of the ranks: the exchange, and waiting for
    /// slower ranks. Empty for one rank.
    pub communication_seconds: Vec<f64>,
}

impl ScalingSample {
    /// Iterations per second.
    pub fn rate(&self) -> f64 {
        self.iterations as f64 / self.seconds
    }

    /// Seconds per iteration that the rank that waited least spent in communication; 0 for one rank.
    pub fn communication(&self) -> f64 {
        let least = self.communication_seconds.iter().copied().reduce(f64::min);
        least.unwrap_or(0.0) / self.iterations as f64
    }
}

/// A measured point: a panel, and ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingRecord {
    /// Version of the schema, [`infermark_fit_files::fit_record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Place in the run, from 0.
    pub sequence: usize,
    /// When it was measured, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub measured_at: String,
    /// Whether it may be relied on.
    pub status: Status,
    /// A remark if it is not `ok`; otherwise `none`.
    pub reason: String,
    /// The backend's name: of one rank the unsharded one.
    pub backend: String,
    /// One of the devices, in plain words.
    pub device: String,
    /// The ranks.
    pub placement: Placement,
    /// The resolved request.
    pub request: Request,
    /// The data.
    pub panel: PanelDescription,
    /// Rows of each rank, in their order.
    pub rows_of_ranks: Vec<usize>,
    /// The comparison with the reference, where it was made.
    pub parity: Option<ParityRecord>,
    /// CPU threads that the iterations of all ranks used: fewer than asked for where a rank has little work.
    pub threads_used: Option<usize>,
    /// Seconds of everything that is done once.
    pub setup_seconds: Option<f64>,
    /// The warm-up before the timing, which is not counted.
    pub warmup: Option<Sample>,
    /// The timed repeats, interleaved with the other points of the panel.
    pub repeats: Vec<ScalingSample>,
    /// Bytes of the buffers that a rank brings to the operations of an iteration; 0 for one rank.
    pub bytes_per_iteration: Option<f64>,
    /// Share of the machine's CPU time that other programs used just before the timing, 0 to 1, if the system reports it.
    pub busy_share: Option<f64>,
    /// The system.
    pub system: System,
}

impl ScalingRecord {
    /// Whether it has a speed: a point that failed its gate has none.
    pub fn has_speed(&self) -> bool {
        self.status <= Status::Warn && !self.repeats.is_empty()
    }

    /// Whether it ran on GPUs.
    pub fn is_on_gpu(&self) -> bool {
        self.request.devices[0] != DeviceId::CPU
    }

    /// Iterations per second: median and spread over the repeats.
    pub fn iterations_per_second(&self) -> Option<Spread> {
        let rates: Vec<f64> = self.repeats.iter().map(ScalingSample::rate).collect();
        self.has_speed().then(|| Spread::of(&rates)).flatten()
    }

    /// Seconds of an iteration: the median over the repeats.
    pub fn seconds_per_iteration(&self) -> Option<f64> {
        self.iterations_per_second().map(|rate| 1.0 / rate.median)
    }

    /// Seconds of an iteration in communication, of the rank that waits least: the median over the repeats. `None` for one rank.
    pub fn communication_per_iteration(&self) -> Option<f64> {
        let seconds: Vec<f64> = self.repeats.iter().map(ScalingSample::communication).collect();
        median(&seconds).filter(|_| self.has_speed() && self.placement.ranks > 1)
    }

    /// Rows of the rank that has most.
    pub fn rows_of_largest(&self) -> usize {
        self.rows_of_ranks.iter().copied().max().unwrap_or(0)
    }

    /// The ranks in words.
    pub fn place(&self) -> String {
        self.placement.in_words(self.is_on_gpu(), self.system.cores)
    }

    /// What points of one line have in common, in words: one device, settings, the sizes of the hierarchy and, on the CPU, threads of a
    /// rank.
    pub fn configuration(&self) -> String {
        let likelihood = match self.request.likelihood {
            usual if usual == Likelihood::default() => String::new(),
            other => format!(", {}", other.name()),
        };
        let threads = match self.placement.threads_per_rank {
            _ if self.is_on_gpu() => String::new(),
            1 => ", 1 thread per rank".to_owned(),
            n => format!(", {n} threads per rank"),
        };
        let settings = self.request.method.short_settings(self.request.parameterization);
        let PanelDescription {
            categories, periods, ..
        } = self.panel;
        format!(
            "{}: {settings}{likelihood}, {categories} categories, {periods} periods{threads}",
            self.device
        )
    }

    /// The name of its file, from its place in the run.
    pub fn file_stem(&self) -> String {
        let ranks = self.placement.ranks;
        format!(
            "{:03}-{}-products-{ranks}-ranks",
            self.sequence, self.panel.products
        )
    }
}

/// Timed all-reduces of one size on some ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectiveRecord {
    /// Version of the schema, [`infermark_fit_files::fit_record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Place in the run, from 0.
    pub sequence: usize,
    /// When it was measured, UTC, `YYYY-MM-DDThh:mm:ssZ`.
    pub measured_at: String,
    /// The ranks.
    pub placement: Placement,
    /// Bytes of the buffer.
    pub bytes: u64,
    /// The timed repeats: operations, and the seconds of the slowest rank.
    pub repeats: Vec<Sample>,
    /// Share of the machine's CPU time that other programs used just before the timing, 0 to 1, if the system reports it.
    pub busy_share: Option<f64>,
    /// The system.
    pub system: System,
}

impl CollectiveRecord {
    /// Seconds of an operation: median and spread over the repeats.
    pub fn seconds(&self) -> Option<Spread> {
        let seconds: Vec<f64> = self.repeats.iter().map(|sample| 1.0 / sample.rate()).collect();
        Spread::of(&seconds)
    }

    /// The name of its file, from its place in the run.
    pub fn file_stem(&self) -> String {
        let (ranks, bytes) = (self.placement.ranks, self.bytes);
        format!("{:03}-all-reduce-{ranks}-ranks-{bytes}-bytes", self.sequence)
    }
}
