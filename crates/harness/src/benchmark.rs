//! A benchmark from parity to pictures: for every size, every backend is compared with the reference, then
//! all that passed are timed in turns, then their quality is measured.

mod cases;
mod chains;
mod panel_benchmark;
mod remarks;
mod timed;

use crate::limits::{array_bytes, measure_memory_limit};
use crate::observer::Observer;
use crate::parity::PARITY_ROWS;
use crate::quiet::wait_until_quiet;
use infermark_atomic_file::FileError;
use infermark_backend::{Backend, DeviceId, Interrupt, Limits, Request};
use infermark_machine::System;
use infermark_memory::Shortage;
use infermark_model::Panel;
use infermark_report::plots::PlotError;
use infermark_report::records::case_record::{CaseRecord, Status};
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::redraw::draw;
use infermark_threads::NoThreads;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use cases::CaseChoice;
pub(crate) use remarks::{NOISY, is_no_fault};

/// A panel to measure on.
#[derive(Debug, Clone)]
pub struct BenchPanel {
    /// The panel.
    pub panel: Arc<Panel>,
    /// Its source: a file's name, or a generator with its settings and seed.
    pub source: String,
    /// True elasticities, one per product in the panel's order, where they are known.
    pub product_a_truth: Option<Vec<f64>>,
}

/// What to measure on every panel.
#[derive(Clone)]
pub struct Case {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// The request; for samplers, its chains, warm-up and draws are those of the run for the effective sample
    /// size.
    pub request: Request,
    /// Largest number of products on which it is measured; for more its record says `not measured`.
    pub most_products: usize,
}

/// Iterations of an optimizer's warm-up by default: after them few rows of the published process still clip
/// that later do not.
pub const WARMUP_ITERATIONS: u64 = 300;

/// A benchmark.
pub struct Plan {
    /// Sizes, in products, smallest first.
    pub products: Vec<usize>,
    /// What to measure.
    pub cases: Vec<Case>,
    /// Timed repeats of every case.
    pub repeats: usize,
    /// Seconds of the warm-up; for whole fits, one fit.
    pub warmup_seconds: f64,
    /// Least number of iterations of an optimizer's warm-up: rows stop clipping as a fit goes on, which makes
    /// iterations cheaper, so all backends should be timed from about the same iteration on.
    pub warmup_iterations: u64,
    /// Seconds of a repeat; for whole fits, as many as fill it, at least one.
    pub repeat_seconds: f64,
    /// Seconds that each case of the smallest size may take for its quality: SVI runs on, samplers make the
    /// requested draws, whole fits use the timed ones. 0 skips quality.
    pub quality_seconds: f64,
    /// Seconds for the published NUTS reference on the smallest size. 0 skips it.
    pub published_nuts_seconds: f64,
    /// Limit of tree doublings while gradients are timed: so that draws are short and a repeat has many.
    pub timing_max_depth: u32,
    /// Rows of the largest panel on which parity is checked in full.
    pub parity_rows: usize,
    /// Whether the bare kernels of the backends are measured ([`Backend::kernel_limit`]).
    pub kernel_limit: bool,
    /// Bytes of the array for measuring memory; `None` chooses it for the machine.
    pub memory_array_bytes: Option<usize>,
    /// Total seconds to wait before timing until other programs leave the machine idle.
    pub settle_seconds: f64,
}

impl Plan {
    /// Five repeats of two seconds after as many and [`WARMUP_ITERATIONS`] of warm-up.
    pub fn new(products: Vec<usize>, cases: Vec<Case>) -> Self {
        Plan {
            products,
            cases,
            repeats: 5,
            warmup_seconds: 2.0,
            warmup_iterations: WARMUP_ITERATIONS,
            repeat_seconds: 2.0,
            quality_seconds: 20.0,
            published_nuts_seconds: 30.0,
            timing_max_depth: 6,
            parity_rows: PARITY_ROWS,
            kernel_limit: false,
            memory_array_bytes: None,
            settle_seconds: 90.0,
        }
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// [`BenchmarkError::Plan`] says what is wrong.
    pub fn check(&self) -> Result<(), BenchmarkError> {
        let refuse = |text: &str| Err(BenchmarkError::Plan(text.into()));
        if self.products.is_empty() || self.products.contains(&0) {
            return refuse("give at least one size, each of at least one product");
        }
        if !self.products.is_sorted_by(|a, b| a < b) {
            return refuse("give the sizes in ascending order, each once");
        }
        if self.cases.is_empty() {
            return refuse("there is no backend to measure");
        }
        if self.repeats == 0 {
            return refuse("repeats is 0; give at least 1");
        }
        let seconds = [
            self.warmup_seconds,
            self.repeat_seconds,
            self.quality_seconds,
            self.published_nuts_seconds,
            self.settle_seconds,
        ];
        if seconds.iter().any(|s| !(s.is_finite() && *s >= 0.0)) {
            return refuse("times must be finite numbers of seconds, not below 0");
        }
        Ok(())
    }
}

/// Why a benchmark stopped.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// The plan is invalid.
    #[error("{0}")]
    Plan(String),
    /// GPUs are to be measured, and no backend that is runs on any.
    #[error(
        "GPUs are to be measured, which none of the backends runs on; choose other backends, or leave the GPUs out"
    )]
    NoneOnGpus,
    /// A panel could not be made.
    #[error("no panel of {products} products: {reason}")]
    Panel {
        /// Its size.
        products: usize,
        /// Why not.
        reason: String,
    },
    /// The threads to measure with are not available.
    #[error(transparent)]
    Threads(#[from] NoThreads),
    /// The machine cannot be measured in so little memory.
    #[error("{0}; give it more memory")]
    Memory(#[from] Shortage),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A picture could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// The outcome of a benchmark.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// All cases.
    pub records: Vec<CaseRecord>,
    /// The table, as in `table.md`.
    pub table: String,
    /// The pictures.
    pub plots: Vec<PathBuf>,
    /// Whether it was interrupted; earlier measurements are kept.
    pub interrupted: bool,
}

impl Outcome {
    /// Whether the command ends with success: something was measured, no case failed, and nothing cut it short.
    pub fn is_success(&self) -> bool {
        let failed = self.records.iter().any(|r| r.status == Status::Failed);
        !failed && !self.interrupted && self.records.iter().any(CaseRecord::has_speed)
    }
}

/// Runs `plan` and writes everything into `folder`. `make_panel` is asked for a panel of each size in turn.
///
/// Cases are written as soon as their size is done, so that a killed benchmark keeps them.
///
/// # Errors
/// When a panel cannot be made or a file not be written. A backend that fails is a row, not an error.
pub fn run_benchmark(
    plan: &Plan,
    make_panel: &mut dyn FnMut(usize) -> Result<BenchPanel, String>,
    folder: &ResultsFolder,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Outcome, BenchmarkError> {
    plan.check()?;
    let on_processors = plan.cases.iter().map(|case| &case.request);
    let on_processors = on_processors.filter(|request| request.devices.contains(&DeviceId::CPU));
    // A speed on fewer threads than requested would be reported as one on all of them.
    let most_threads = on_processors.map(Request::resolved_threads).max().unwrap_or(1);
    infermark_threads::check(most_threads)?;
    let mut patience = Duration::from_secs_f64(plan.settle_seconds.min(1e6));
    settle(&mut patience, observer, interrupt);
    let system = System::describe();
    observer.phase("memory bandwidth");
    let bytes = plan
        .memory_array_bytes
        .unwrap_or_else(|| array_bytes(system.cache_bytes, system.memory_bytes));
    // A smaller array would measure the rate of the caches.
    infermark_memory::check(
        "the array that the memory's bandwidth is measured on",
        bytes as u64,
    )?;
    // Limits of the machine, as far as its threads can be started.
    let readers = match infermark_threads::check(system.cores) {
        Ok(()) => system.cores,
        Err(_) => most_threads,
    };
    let memory_limit = measure_memory_limit(readers, bytes, 5)?;
    let device_limits = device_limits(&plan.cases, observer);
    let mut records: Vec<CaseRecord> = Vec::new();
    for (place, products) in plan.products.iter().copied().enumerate() {
        if interrupt.is_set() {
            break;
        }
        observer.phase(&format!("{products} products: panel"));
        let panel = match make_panel(products) {
            Ok(panel) => panel,
            Err(reason) => {
                if !records.is_empty() {
                    draw(folder, &records)?;
                }
                return Err(BenchmarkError::Panel { products, reason });
            }
        };
        let mut measured = panel_benchmark::PanelBenchmark {
            plan,
            panel: &panel,
            smallest: place == 0,
            system: &system,
            memory_limit,
            device_limits: &device_limits,
            first_sequence: records.len(),
        }
        .measure(products, &mut patience, observer, interrupt);
        for record in &mut measured {
            record.report = record
                .report
                .take()
                .map(infermark_fit_files::fit_record::finite_report);
            folder.write_case(record)?;
        }
        records.extend(measured);
    }
    observer.phase("tables and plots");
    let drawn = draw(folder, &records)?;
    Ok(Outcome {
        records,
        table: drawn.table,
        plots: drawn.plots,
        interrupted: interrupt.is_set(),
    })
}

/// The limits of devices, or why they could not be measured.
type DeviceLimits = HashMap<DeviceId, Result<Limits, String>>;

/// The limits of each of the cases' devices other than the CPU; a device without a measurement has no entry.
fn device_limits(cases: &[Case], observer: &mut dyn Observer) -> DeviceLimits {
    let mut all = DeviceLimits::new();
    for case in cases {
        let id = case.request.devices[0];
        if id == DeviceId::CPU || all.get(&id).is_some_and(Result::is_ok) {
            continue;
        }
        observer.phase(&format!("limits of {id}"));
        match case.backend.limits(&case.request) {
            Ok(Some(limits)) => {
                all.insert(id, Ok(limits));
            }
            Ok(None) => {}
            Err(e) => {
                all.insert(id, Err(e.to_string()));
            }
        }
    }
    all
}

/// Waits until other programs leave the machine idle, and returns the share of it that they then use. Waits
/// until other programs leave the machine idle, for at most `patience`, from which the waiting time is
/// subtracted, and reports that to `observer`. Returns the share of the machine that they then use, 0 to 1,
/// if the system reports it.
pub fn settle(patience: &mut Duration, observer: &mut dyn Observer, interrupt: &Interrupt) -> Option<f64> {
    let mut told = false;
    wait_until_quiet(patience, interrupt, |busy| {
        if !std::mem::replace(&mut told, true) {
            observer.phase(&format!(
                "waiting for other programs, which use {:.0}% of the machine",
                100.0 * busy
            ));
        }
    })
}
