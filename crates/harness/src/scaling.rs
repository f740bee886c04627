//! Measuring how SVI scales: each panel on one rank and on several, in turns, with the time that the ranks spend in communication; and
//! all-reduces alone.

mod collectives;
mod meter;
mod points;

use crate::benchmark::{BenchPanel, BenchmarkError, settle};
use crate::observer::Observer;
use crate::parity::PARITY_ROWS;
use infermark_backend::{Backend, DeviceId, Interrupt, Request};
use infermark_machine::System;
use infermark_report::records::case_record::Status;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::records::scaling_record::{CollectiveRecord, Placement, ScalingRecord};
use infermark_report::redraw::draw_scaling;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What connects the ranks of a measurement.
const THREADS: &str = "threads";

/// What to measure.
pub struct ScalingPlan {
    /// The backend of one rank.
    pub whole: Arc<dyn Backend>,
    /// The backend of several ranks.
    pub sharded: Arc<dyn Backend>,
    /// Method, model and seed; devices, shards and threads are those of each point.
    pub request: Request,
    /// The CPU, or GPUs of one model: a point takes as many as it has ranks, from the first on.
    pub devices: Vec<DeviceId>,
    /// Panels of strong scaling, in products.
    pub products: Vec<usize>,
    /// Products for each rank of weak scaling; 0 leaves it out.
    pub products_per_rank: usize,
    /// Numbers of ranks; one rank is always measured.
    pub ranks: Vec<usize>,
    /// CPU threads of each rank.
    pub threads_per_rank: usize,
    /// Timed repeats of every point.
    pub repeats: usize,
    /// Seconds of the warm-up.
    pub warmup_seconds: f64,
    /// Least number of iterations of the warm-up.
    pub warmup_iterations: u64,
    /// Seconds of a repeat.
    pub repeat_seconds: f64,
    /// Rows of the largest panel on which parity is checked in full.
    pub parity_rows: usize,
    /// Total seconds to wait before timing until other programs leave the machine idle.
    pub settle_seconds: f64,
}

impl ScalingPlan {
    /// Five repeats of two seconds on these panels, and weak scaling from the smallest one.
    pub fn new(
        whole: Arc<dyn Backend>,
        sharded: Arc<dyn Backend>,
        request: Request,
        products: Vec<usize>,
        ranks: Vec<usize>,
    ) -> Self {
        ScalingPlan {
            whole,
            sharded,
            devices: request.devices.clone(),
            request,
            products_per_rank: products.iter().copied().min().unwrap_or(0),
            products,
            ranks,
            threads_per_rank: 1,
            repeats: 5,
            warmup_seconds: 2.0,
            warmup_iterations: crate::benchmark::WARMUP_ITERATIONS,
            repeat_seconds: 2.0,
            parity_rows: PARITY_ROWS,
            settle_seconds: 90.0,
        }
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// [`BenchmarkError::Plan`] says what is wrong.
    pub fn check(&self) -> Result<(), BenchmarkError> {
        let refuse = |text: String| Err(BenchmarkError::Plan(text));
        if self.products.is_empty() || self.products.contains(&0) {
            return refuse("give at least one size, each of at least one product".into());
        }
        if self.ranks.is_empty() || self.ranks.contains(&0) {
            return refuse("give at least one number of ranks, each at least 1".into());
        }
        if self.repeats == 0 {
            return refuse("repeats is 0; give at least 1".into());
        }
        if self.threads_per_rank == 0 {
            return refuse("threads per rank is 0; give at least 1".into());
        }
        let seconds = [self.warmup_seconds, self.repeat_seconds, self.settle_seconds];
        if seconds.iter().any(|s| !(s.is_finite() && *s >= 0.0)) {
            return refuse("times must be finite numbers of seconds, not below 0".into());
        }
        for ranks in self.ranks.iter().copied().filter(|ranks| *ranks > 1) {
            self.sharded
                .supports(&self.request_of(ranks))
                .map_err(|e| BenchmarkError::Plan(format!("{ranks} ranks: {e}")))?;
        }
        self.whole
            .supports(&self.request_of(1))
            .map_err(|e| BenchmarkError::Plan(e.to_string()))
    }

    /// The numbers of ranks that each panel is measured on, by its products.
    pub fn points(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let ranks: BTreeSet<usize> = self.ranks.iter().copied().chain([1]).collect();
        let mut points: BTreeMap<usize, BTreeSet<usize>> = self
            .products
            .iter()
            .map(|products| (*products, ranks.clone()))
            .collect();
        if self.products_per_rank > 0 {
            for count in ranks {
                points
                    .entry(self.products_per_rank * count)
                    .or_default()
                    .insert(count);
            }
        }
        points
    }

    /// Devices of a point.
    fn devices_of(&self, ranks: usize) -> &[DeviceId] {
        &self.devices[..ranks.min(self.devices.len())]
    }

    fn request_of(&self, ranks: usize) -> Request {
        Request {
            devices: self.devices_of(ranks).to_vec(),
            shards: ranks,
            threads: Some(self.threads_per_rank.saturating_mul(ranks)),
            ..self.request.clone()
        }
    }

    /// Where the ranks of a point are, on a machine with `cores`.
    fn placement(&self, ranks: usize, cores: usize, software: bool) -> Placement {
        let devices = self.devices_of(ranks);
        let shares = match devices[0] {
            DeviceId::CPU => self.threads_per_rank * ranks > cores,
            _ => ranks > devices.len() || software,
        };
        Placement {
            ranks,
            devices: devices.len(),
            threads_per_rank: self.threads_per_rank,
            logical: ranks > 1 && shares,
            software,
            communicator: if ranks > 1 { THREADS } else { "none" }.to_owned(),
        }
    }
}

/// The outcome of a measurement of scaling.
#[derive(Debug, Clone)]
pub struct ScalingOutcome {
    /// All points.
    pub records: Vec<ScalingRecord>,
    /// All timed all-reduces.
    pub collectives: Vec<CollectiveRecord>,
    /// The table, as in `scaling.md`.
    pub table: String,
    /// The pictures.
    pub plots: Vec<PathBuf>,
    /// Whether it was interrupted; earlier measurements are kept.
    pub interrupted: bool,
}

impl ScalingOutcome {
    /// Whether something was measured, no point failed, and nothing cut it short.
    pub fn is_success(&self) -> bool {
        let failed = self.records.iter().any(|r| r.status == Status::Failed);
        !failed && !self.interrupted && self.records.iter().any(ScalingRecord::has_speed)
    }
}

/// Measures `plan` and writes everything into `folder`. `make_panel` is asked for a panel of each size in turn.
///
/// Points are written as soon as their size is done, so that a killed measurement keeps them.
///
/// # Errors
/// When a panel cannot be made or a file not be written. A point that fails is a row, not an error.
pub fn measure_scaling(
    plan: &ScalingPlan,
    make_panel: &mut dyn FnMut(usize) -> Result<BenchPanel, String>,
    folder: &ResultsFolder,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<ScalingOutcome, BenchmarkError> {
    plan.check()?;
    let most_ranks = plan.ranks.iter().copied().max().unwrap_or(1);
    let most_threads = plan.request_of(most_ranks).resolved_threads();
    infermark_threads::check(most_threads.max(most_ranks))?;
    let mut patience = Duration::from_secs_f64(plan.settle_seconds.min(1e6));
    settle(&mut patience, observer, interrupt);
    let system = System::describe();
    let mut records: Vec<ScalingRecord> = Vec::new();
    for (products, ranks) in plan.points() {
        if interrupt.is_set() {
            break;
        }
        observer.phase(&format!("{products} products: panel"));
        let panel = make_panel(products).map_err(|reason| BenchmarkError::Panel { products, reason })?;
        let of_panel = points::PanelPoints {
            plan,
            panel: &panel,
            system: &system,
            first_sequence: records.len(),
        };
        let measured = of_panel.measure(&ranks, &mut patience, observer, interrupt);
        for record in &measured {
            folder.write_scaling(record)?;
        }
        records.extend(measured);
    }
    let collectives = collectives::measure(plan, &records, &system, &mut patience, observer, interrupt)?;
    for record in &collectives {
        folder.write_collective(record)?;
    }
    let mut outcome = ScalingOutcome {
        records,
        collectives,
        table: String::new(),
        plots: Vec::new(),
        interrupted: interrupt.is_set(),
    };
    // Interrupted before the first panel, there is nothing to write.
    if !outcome.records.is_empty() {
        observer.phase("tables and plots");
        let drawn = draw_scaling(folder, &outcome.records, &outcome.collectives)?;
        (outcome.table, outcome.plots) = (drawn.table, drawn.plots);
    }
    Ok(outcome)
}
