//! A model of the seconds of an iteration, fitted on what was measured.
//!
//! An iteration of a panel on R ranks takes
//!
//! `a rows + h + [R > 1] (f + collective(R, bytes))`,
//!
//! where `rows` are those of the rank with most, `a` the time per row (the products' own work included), `h` what every rank
//! computes alike whatever its rows (the hierarchy, the start of passes), `f` what a rank of several does beyond that (folding its sums
//! into the buffer, reading them, waiting for the others), and
//!
//! `collective(R, bytes) = o + 2 (R - 1) m + s bytes`:
//!
//! each rank sends its parts to all others, adds up what it gets, and sends the sums to all others, so that 2 (R - 1) messages
//! follow each other, each of `bytes / R`. In shared memory what is sent is read where it is, and a byte costs the same for any R.
//!
//! The collective is fitted on timed all-reduces, the rest on iterations less the collective; both by least squares of relative
//! errors with coefficients that are not negative. Shards that share a GPU follow each other on it: `a` counts all rows of the GPU, and
//! `h` and `f` once for each of its shards. Logical shards that share cores are not used, nor are devices that software plays.

use super::least_squares::relative_least_squares;
use crate::records::scaling_record::{CollectiveRecord, ScalingRecord};
use infermark_machine::Program;
use serde::{Deserialize, Serialize};

/// Seconds of an all-reduce among the ranks of one machine, as measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectiveCost {
    /// `o`, whatever the ranks and bytes. 0 where it cannot be told from `m`, because all were timed on as many ranks.
    pub operation_seconds: f64,
    /// `m`, of each of 2 (R - 1) messages.
    pub message_seconds: f64,
    /// `s`, of a byte of the buffer: copies and sums.
    pub seconds_per_byte: f64,
    /// Numbers of ranks that it was fitted on.
    pub ranks: Vec<usize>,
    /// Sizes that it was fitted on, in bytes.
    pub bytes: Vec<u64>,
    /// Largest relative error of the fit.
    pub largest_error: f64,
}

impl CollectiveCost {
    /// Seconds of an all-reduce of `bytes` among `ranks` of one machine; 0 for one.
    pub fn seconds(&self, ranks: usize, bytes: f64) -> f64 {
        if ranks < 2 {
            return 0.0;
        }
        self.operation_seconds + messages(ranks) * self.message_seconds + bytes * self.seconds_per_byte
    }

    /// Fits the cost of a communicator; `None` where the timed sizes do not determine it.
    pub fn fit(records: &[&CollectiveRecord]) -> Option<Self> {
        let timed: Vec<(f64, f64, f64)> = records
            .iter()
            .filter_map(|r| {
                let seconds = r.seconds()?.median;
                Some((messages(r.placement.ranks), r.bytes as f64, seconds))
            })
            .collect();
        let with_start: Vec<([f64; 3], f64)> = timed
            .iter()
            .map(|(sent, bytes, t)| ([1.0, *sent, *bytes], *t))
            .collect();
        let without: Vec<([f64; 2], f64)> = timed
            .iter()
            .map(|(sent, bytes, t)| ([*sent, *bytes], *t))
            .collect();
        let [operation, message, byte] = match relative_least_squares(&with_start) {
            Some(found) => found,
            None => {
                let [message, byte] = relative_least_squares(&without)?;
                [0.0, message, byte]
            }
        };
        let mut ranks: Vec<usize> = records.iter().map(|r| r.placement.ranks).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut bytes: Vec<u64> = records.iter().map(|r| r.bytes).collect();
        bytes.sort_unstable();
        bytes.dedup();
        let largest_error = with_start
            .iter()
            .map(|([one, sent, size], t)| (one * operation + sent * message + size * byte) / t - 1.0)
            .fold(0.0, |most: f64, error| most.max(error.abs()));
        Some(CollectiveCost {
            operation_seconds: operation,
            message_seconds: message,
            seconds_per_byte: byte,
            ranks,
            bytes,
            largest_error,
        })
    }
}

/// Messages that follow each other in an all-reduce.
fn messages(ranks: usize) -> f64 {
    2.0 * (ranks as f64 - 1.0)
}

/// Seconds of an iteration without the collective.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ComputeCost {
    /// `a`.
    pub seconds_per_row: f64,
    /// `h`, on every rank.
    pub hierarchy_seconds: f64,
    /// `f`, on every rank of several.
    pub fold_seconds: f64,
}

impl ComputeCost {
    /// Seconds of an iteration where a device has `rows` and each rank a device.
    pub fn seconds(&self, rows: f64, ranks: usize) -> f64 {
        let fold = if ranks > 1 { self.fold_seconds } else { 0.0 };
        self.seconds_per_row * rows + self.hierarchy_seconds + fold
    }
}

/// A measured point next to the model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittedPoint {
    /// Products.
    pub products: usize,
    /// Rows of the device with most.
    pub rows: usize,
    /// The ranks in words.
    pub place: String,
    /// Seconds of an iteration, measured.
    pub measured_seconds: f64,
    /// Seconds by the model.
    pub fitted_seconds: f64,
    /// Seconds by a model that was fitted without this point; `None` where the others do not determine one.
    pub predicted_without_seconds: Option<f64>,
}

impl FittedPoint {
    /// Relative error of the prediction without the point.
    pub fn error(&self) -> Option<f64> {
        self.predicted_without_seconds
            .map(|seconds| seconds / self.measured_seconds - 1.0)
    }
}

/// The model of one device and configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalingModel {
    /// Device and settings in words.
    pub configuration: String,
    /// Whether the device is a GPU.
    pub is_gpu: bool,
    /// What connected the ranks.
    pub communicator: String,
    /// Most ranks that each had a device, or cores, to itself.
    pub most_ranks: usize,
    /// Bytes of the buffer of an iteration.
    pub bytes: f64,
    /// Of an iteration without the collective.
    pub compute: ComputeCost,
    /// Of the collective, on the machine that was measured.
    pub collective: CollectiveCost,
    /// The points that it was fitted on.
    pub points: Vec<FittedPoint>,
    /// Points among them whose records carry a remark, for instance that the machine was busy.
    pub points_with_remarks: usize,
    /// Fewest and most rows of a device among the points.
    pub rows: [usize; 2],
    /// The program that was measured.
    pub program: Program,
}

impl ScalingModel {
    /// The largest relative error of a point predicted without it, by which projections are widened.
    pub fn error(&self) -> f64 {
        let errors = self.points.iter().filter_map(FittedPoint::error);
        errors.fold(0.0, |most, error| most.max(error.abs()))
    }
}

/// Why there is no model of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{configuration}: {reason}")]
pub struct Unfitted {
    /// Device and settings in words.
    pub configuration: String,
    /// What was not measured.
    pub reason: &'static str,
}

/// Points that a model needs, at least: its three coefficients and one to err by.
const FEWEST_POINTS: usize = 4;

/// A point as the fit sees it.
#[derive(Debug, Clone, Copy)]
struct Observation {
    /// Coefficients' factors: rows of the device, its shards, its shards where there are several ranks.
    factors: [f64; 3],
    /// Seconds of the collective.
    collective: f64,
    /// Seconds of an iteration.
    seconds: f64,
}

impl Observation {
    fn new(record: &ScalingRecord, collective: &CollectiveCost, bytes: f64) -> Option<Self> {
        let ranks = record.placement.ranks;
        let shards = ranks / record.placement.devices.max(1);
        let [rows, shards] = match record.is_on_gpu() {
            true => [rows_of_device(record) as f64, shards as f64],
            false => [record.rows_of_largest() as f64, 1.0],
        };
        let several = if ranks > 1 { shards } else { 0.0 };
        Some(Observation {
            factors: [rows, shards, several],
            collective: collective.seconds(ranks, bytes),
            seconds: record.seconds_per_iteration()?,
        })
    }

    fn predicted(&self, cost: &ComputeCost) -> f64 {
        let [rows, shards, several] = self.factors;
        cost.seconds_per_row * rows
            + cost.hierarchy_seconds * shards
            + cost.fold_seconds * several
            + self.collective
    }
}

/// Rows of the GPU that has most; the ranks on one follow each other.
fn rows_of_device(record: &ScalingRecord) -> usize {
    let on_device = (record.placement.ranks / record.placement.devices.max(1)).max(1);
    let devices = record.rows_of_ranks.chunks(on_device);
    devices.map(|rows| rows.iter().sum()).max().unwrap_or(0)
}

/// The coefficients; `None` where the observations do not determine them.
fn compute_cost(observations: &[Observation]) -> Option<ComputeCost> {
    let several = observations.iter().filter(|o| o.factors[2] > 0.0).count();
    if several == 0 || several == observations.len() {
        return None;
    }
    let rows: Vec<([f64; 3], f64)> = observations
        .iter()
        // Where timings are noisy, a collective can take longer than an iteration.
        .map(|o| (o.factors, (o.seconds - o.collective).max(0.01 * o.seconds)))
        .collect();
    let [seconds_per_row, hierarchy_seconds, fold_seconds] = relative_least_squares(&rows)?;
    Some(ComputeCost {
        seconds_per_row,
        hierarchy_seconds,
        fold_seconds,
    })
}

/// The models of all configurations among `records`, one for each communicator; or why there is none.
pub fn fit(
    records: &[ScalingRecord],
    collectives: &[CollectiveRecord],
) -> Vec<Result<ScalingModel, Unfitted>> {
    let usable: Vec<&ScalingRecord> = records
        .iter()
        .filter(|r| r.has_speed() && !r.placement.software && (r.is_on_gpu() || !r.placement.logical))
        .collect();
    let mut found = Vec::new();
    let mut configurations: Vec<String> = Vec::new();
    for record in &usable {
        let configuration = record.configuration();
        if configurations.contains(&configuration) {
            continue;
        }
        let of_one: Vec<&ScalingRecord> = usable
            .iter()
            .copied()
            .filter(|r| r.configuration() == configuration)
            .collect();
        configurations.push(configuration.clone());
        let mut communicators: Vec<&str> = of_one
            .iter()
            .filter(|r| r.placement.ranks > 1)
            .map(|r| r.placement.communicator.as_str())
            .collect();
        communicators.sort_unstable();
        communicators.dedup();
        let unfitted = |reason| Unfitted {
            configuration: configuration.clone(),
            reason,
        };
        if communicators.is_empty() {
            found.push(Err(unfitted(
                "nothing was measured on several ranks, so what a shard adds is not known",
            )));
        }
        for communicator in communicators {
            let timed: Vec<&CollectiveRecord> = collectives
                .iter()
                .filter(|c| {
                    c.placement.communicator == communicator && (record.is_on_gpu() || !c.placement.logical)
                })
                .collect();
            let points: Vec<&ScalingRecord> = of_one
                .iter()
                .copied()
                .filter(|r| r.placement.ranks == 1 || r.placement.communicator == communicator)
                .collect();
            found.push(fit_one(&points, &timed, communicator).map_err(unfitted));
        }
    }
    found
}

fn fit_one(
    points: &[&ScalingRecord],
    timed: &[&CollectiveRecord],
    communicator: &str,
) -> Result<ScalingModel, &'static str> {
    let collective = CollectiveCost::fit(timed)
        .ok_or("no all-reduces of several sizes were timed, so what a collective costs is not known")?;
    let sent = points
        .iter()
        .filter(|r| r.placement.ranks > 1)
        .filter_map(|r| r.bytes_per_iteration);
    let bytes = sent.fold(0.0, f64::max);
    let with_speed: Vec<(&ScalingRecord, Observation)> = points
        .iter()
        .filter_map(|r| Some((*r, Observation::new(r, &collective, bytes)?)))
        .collect();
    if with_speed.len() < FEWEST_POINTS {
        return Err("fewer than four points were measured; measure more sizes");
    }
    let all: Vec<Observation> = with_speed.iter().map(|(_, o)| *o).collect();
    let compute =
        compute_cost(&all).ok_or("the sizes that were measured do not tell time per row from fixed time")?;
    let fitted = with_speed.iter().enumerate().map(|(k, (record, observation))| {
        let mut others = all.clone();
        others.remove(k);
        FittedPoint {
            products: record.panel.products,
            rows: observation.factors[0] as usize,
            place: record.place(),
            measured_seconds: observation.seconds,
            fitted_seconds: observation.predicted(&compute),
            predicted_without_seconds: compute_cost(&others).map(|cost| observation.predicted(&cost)),
        }
    });
    let first = with_speed[0].0;
    let rows = || all.iter().map(|o| o.factors[0] as usize);
    let own = points.iter().filter(|r| !r.placement.logical);
    Ok(ScalingModel {
        configuration: first.configuration(),
        is_gpu: first.is_on_gpu(),
        communicator: communicator.to_owned(),
        most_ranks: own.map(|r| r.placement.ranks).max().unwrap_or(1),
        bytes,
        compute,
        collective,
        points: fitted.collect(),
        points_with_remarks: points.iter().filter(|r| r.reason != "none").count(),
        rows: [rows().min().unwrap_or(0), rows().max().unwrap_or(0)],
        program: first.system.program.clone(),
    })
}
