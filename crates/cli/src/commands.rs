//! The verbs.

pub mod bench;
mod calibrate;
mod compare;
mod completions;
mod devices;
mod evaluate;
pub(crate) mod fit;
mod generate;
mod gpu_check;
mod model;
mod profile;
mod project;
mod report;
mod scaling;
pub mod time;

use crate::exit::Exit;
use crate::output::notify;
use crate::remedies::{VerbOptions, with_column_options};
use anyhow::bail;
use clap::parser::ValueSource;
use clap::{ArgMatches, Subcommand};
use infermark::{Cause, Columns, Interrupt, Remedy, Setting, read_panel};
use infermark_atomic_file::ClaimedFolder;
use infermark_data::{RowStorage, read_own_rows, read_stored_panel};
use infermark_model::{Panel, PanelRanks};
use infermark_threads::on_pool;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fit the model to a sales file: elasticities with intervals.
    Fit(fit::FitArguments),
    /// Measure this machine: parity first, then speed, then quality; table, CSV and plots.
    Bench(bench::BenchArguments),
    /// Measure what more ranks or GPUs bring: strong and weak scaling, time in communication, bytes.
    Scaling(scaling::ScalingArguments),
    /// Project more GPUs and nodes by a model that is fitted on measured scaling: a projection, not a measurement.
    Project(project::ProjectArguments),
    /// Compare fits of the same data: time, error and coverage against the truth, distance from a reference fit.
    Compare(compare::CompareArguments),
    /// Check that methods' posteriors are what they say: simulation-based calibration.
    Calibrate(calibrate::CalibrateArguments),
    /// Draw the table, CSV and plots of a benchmark, or of measured scaling, again from its results.
    Report(report::ReportArguments),
    /// Make a synthetic panel, and the parameters it was drawn from.
    Generate(generate::GenerateArguments),
    /// Print the log joint and its gradient at a point, in double precision.
    Evaluate(evaluate::EvaluateArguments),
    /// Time one kernel on a panel: what comparisons with other programs call.
    Time(time::TimeArguments),
    /// Measure where an SVI iteration goes on a GPU, and the device's limits.
    Profile(profile::ProfileArguments),
    /// Check a GPU: its speed, NumPyro on the same card, the tests of the GPU backends; one archive for each.
    GpuCheck(gpu_check::GpuCheckArguments),
    /// List the devices that can run here.
    Devices(devices::DevicesArguments),
    /// Print the model's plate diagram.
    Model(model::ModelArguments),
    /// Print a script that completes the command in a shell.
    Completions(completions::CompletionsArguments),
}

impl Command {
    /// Does it; `matches` is what the command line was parsed to.
    ///
    /// # Errors
    /// Usage and input errors; gates that fail are an [`Exit`].
    pub fn run(self, matches: &ArgMatches) -> anyhow::Result<Exit> {
        let (verb, given) = matches.subcommand().expect("a verb was parsed");
        // A fit records it with its other warnings.
        let tells_itself = matches!(self, Command::Fit(_));
        let exit = match self {
            Command::Fit(arguments) => arguments.run(given),
            Command::Bench(arguments) => arguments.run(given),
            Command::Scaling(arguments) => arguments.run(),
            Command::Project(arguments) => arguments.run(given),
            Command::Compare(arguments) => arguments.run(given),
            Command::Calibrate(arguments) => arguments.run(given),
            Command::Report(arguments) => arguments.run(),
            Command::Generate(arguments) => arguments.run(),
            Command::Evaluate(arguments) => arguments.run(given),
            Command::Time(arguments) => arguments.run(given),
            Command::Profile(arguments) => arguments.run(given),
            Command::GpuCheck(arguments) => arguments.run(),
            Command::Devices(arguments) => arguments.run(),
            Command::Model(arguments) => arguments.run(),
            Command::Completions(arguments) => arguments.run(),
        };
        // An error already reports what was not available.
        if !tells_itself
            && exit.is_ok()
            && let Some(told) = fewer_threads()
        {
            let warning = VerbOptions::of(verb).in_warning(&told.into());
            notify(format_args!("warning: {warning}"));
        }
        exit
    }
}

/// Refuses options on the command line that would be ignored; `with` names what they require.
///
/// # Errors
/// When one was given.
fn refuse_given(given: &ArgMatches, options: &[&str], with: &str) -> anyhow::Result<()> {
    for option in options {
        if given.value_source(option) == Some(ValueSource::CommandLine) {
            bail!("--{} goes with {with}", option.replace('_', "-"));
        }
    }
    Ok(())
}

/// Reads a sales file, showing that it is at work.
fn load_panel(path: &Path, columns: &Columns) -> anyhow::Result<Arc<Panel>> {
    let _spinner = crate::progress_bar::Bar::spinner(&format!("reading {}", path.display()));
    let panel = on_pool(0, || read_panel(path, columns)).map_err(with_column_options)?;
    Ok(Arc::new(panel))
}

/// The same for a panel that may be larger than memory.
fn load_stored_panel(path: &Path, columns: &Columns, storage: &RowStorage) -> anyhow::Result<Arc<Panel>> {
    let _spinner = crate::progress_bar::Bar::spinner(&format!("reading {}", path.display()));
    let panel = on_pool(0, || read_stored_panel(path, columns, storage)).map_err(with_column_options)?;
    Ok(Arc::new(panel))
}

/// The same for the rows of a rank's own products, of a panel that may be larger than its memory where there is a storage.
fn load_own_rows(
    path: &Path,
    columns: &Columns,
    storage: Option<&RowStorage>,
    ranks: &Arc<dyn PanelRanks>,
) -> anyhow::Result<Arc<Panel>> {
    let _spinner = crate::progress_bar::Bar::spinner(&format!("reading {}", path.display()));
    let panel = read_own_rows(path, columns, storage, ranks).map_err(with_column_options)?;
    Ok(Arc::new(panel))
}

/// The warning if the system started fewer threads than requested.
fn fewer_threads() -> Option<Cause> {
    infermark_threads::refused().map(|reason| {
        Cause::new(
            format!("The system started fewer threads than were asked for ({reason}): the results are the same, later"),
            [Remedy::Lower(Setting::Threads), Remedy::RaiseProcessLimit],
        )
    })
}

/// An interrupt that Ctrl-C sets, or SIGTERM or SIGHUP; a second of them ends the program at once.
fn interrupt_on_signals() -> Interrupt {
    interrupt_or_end(|| {}, || {})
}

/// The same while a run is set up that will write into `folder`: until the returned flag is set there is
/// nothing to keep, and a signal ends the program, however long the set-up takes.
fn interrupt_set_up(folder: &ClaimedFolder) -> (Interrupt, Arc<AtomicBool>) {
    let begun = Arc::new(AtomicBool::new(false));
    let (flag, abandon) = (begun.clone(), folder.abandonment());
    let end_before_begun = move || {
        if !flag.load(Ordering::SeqCst) {
            abandon();
            notify("\ninterrupted before there was anything to save");
            std::process::exit(Exit::Interrupted.code().into());
        }
    };
    (interrupt_or_end(end_before_begun, || {}), begun)
}

/// An interrupt that a signal sets after `first`, which may end the program; a second signal ends it after `second`.
fn interrupt_or_end(first: impl Fn() + Send + 'static, second: impl Fn() + Send + 'static) -> Interrupt {
    let interrupt = Interrupt::new();
    let flag = interrupt.clone();
    // The handler has its own thread. Installed without one, it would swallow the signals.
    if let Err(error) = infermark_threads::check(2) {
        notify(format_args!(
            "warning: Ctrl-C will end the program at once: {}",
            error.reason
        ));
        return interrupt;
    }
    let installed = ctrlc::set_handler(move || {
        if flag.is_set() {
            second();
            std::process::exit(130);
        }
        first();
        flag.set();
        // After a hangup there may be no terminal left to print it on.
        notify("\nstopping and saving; press Ctrl-C again to quit immediately");
    });
    if let Err(error) = installed {
        notify(format_args!(
            "warning: Ctrl-C will end the program at once: {error}"
        ));
    }
    interrupt
}
