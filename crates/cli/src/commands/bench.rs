//! `infermark bench`.

use super::{interrupt_on_signals, load_panel, refuse_given};
use crate::choices::likelihood_parser;
use crate::device::named_device;
use crate::exit::Exit;
use crate::output::{notify, print};
use crate::progress_bar::BenchBar;
use crate::settings::{COLUMN_OPTIONS, ColumnArguments};
use anyhow::{Context, ensure};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use infermark::{
    DeviceId, Generator, Interrupt, MethodKind, Process, Registry, SviSettings, generate_panel, read_truth,
    registry,
};
use infermark_atomic_file::ClaimedFolder;
pub use infermark_harness::benchmark::WARMUP_ITERATIONS;
use infermark_harness::benchmark::{
    BenchPanel, BenchmarkError, Case, CaseChoice, Outcome, Plan, run_benchmark, settle,
};
use infermark_model::Likelihood;
use infermark_peer_process::{PeerError, PeerProcess};
use infermark_report::baseline::{Baseline, BaselineComparison};
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::redraw::draw_beside;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Periods of the panels: three years of weeks, as published.
const PERIODS: usize = 156;
/// Categories of the panels, as published.
const CATEGORIES: usize = 10;

/// The plan whose figures are the defaults.
fn default_plan() -> Plan {
    Plan::new(Vec::new(), Vec::new())
}

/// Arguments of `bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArguments {
    /// Sizes, in products, ascending; each panel has 156 periods and comes from the published process.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [10_000, 100_000])]
    pub products: Vec<usize>,
    /// Measure on this sales file (default column names) instead of synthetic panels.
    #[arg(long, value_name = "FILE", conflicts_with = "products")]
    pub data: Option<PathBuf>,
    /// True parameters of --data.
    #[arg(long, value_name = "FILE", requires = "data")]
    pub truth: Option<PathBuf>,
    /// Backends: all, or names as `infermark devices` lists them.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_values_t = ["all".to_owned()])]
    pub backends: Vec<String>,
    /// A peer: another program that runs the published SVI, to be measured first and in turns with the backends, which are compared with it. COMMAND, split
    /// at spaces, starts a worker that keeps to the protocol of peers/README.md, such as peers/numpyro/worker.sh. May be repeated.
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = named_command)]
    pub peers: Vec<PeerCommand>,
    /// GPUs to measure, as `infermark devices` lists them; by default all, software only for backends that are named.
    #[arg(long, value_name = "DEVICE,..", value_delimiter = ',', value_parser = named_device)]
    pub devices: Vec<DeviceId>,
    /// Thread counts to measure SVI with; by default one and all that the machine has. Other methods take the largest.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pub threads: Vec<usize>,
    /// Timed repeats of each case, interleaved across backends.
    #[arg(long, value_name = "R", default_value_t = default_plan().repeats)]
    pub repeats: usize,
    /// Seconds of a repeat; of a method that is fitted whole, as many fits as fill them, at least one.
    #[arg(long, value_name = "SECONDS", default_value_t = default_plan().repeat_seconds)]
    pub repeat_seconds: f64,
    /// Seconds of warm-up before the first repeat of a case; of a method that is fitted whole, one fit.
    #[arg(
        long,
        alias = "warm-up-seconds",
        value_name = "SECONDS",
        default_value_t = default_plan().warmup_seconds
    )]
    pub warmup_seconds: f64,
    /// Iterations of SVI's warm-up at least, for which it lasts up to a minute: the first ones are dearer, as rows clip.
    #[arg(long, value_name = "N", default_value_t = default_plan().warmup_iterations)]
    pub warmup_iterations: u64,
    /// Seconds that each case of the smallest size may take for its quality; 0 leaves it out.
    #[arg(long, value_name = "SECONDS", default_value_t = default_plan().quality_seconds)]
    pub quality_seconds: f64,
    /// Seconds for the published NUTS reference on the smallest size; 0 leaves it out.
    #[arg(long, value_name = "SECONDS", default_value_t = default_plan().published_nuts_seconds)]
    pub published_nuts_seconds: f64,
    /// Largest size on which samplers are measured; beyond it the table says "not measured".
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub nuts_most_products: usize,
    /// Most seconds, in all, to wait before timing until other programs leave the machine alone; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = default_plan().settle_seconds)]
    pub settle_seconds: f64,
    /// Law of the counts, of the panels that are made and of every case; backends without it are left out with the reason.
    #[arg(long, value_name = "LIKELIHOOD", value_parser = likelihood_parser(), default_value = Likelihood::Poisson.name())]
    pub likelihood: Likelihood,
    /// Particles of SVI.
    #[arg(long, value_name = "K", default_value_t = SviSettings::default().particles)]
    pub particles: usize,
    /// Seed of the panels and of all noise.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,
    /// Folder of an earlier benchmark's results, to compare the speeds with, case by case: adds a section to the table, and baseline.csv.
    /// The exit code does not depend on it.
    #[arg(long, value_name = "DIR")]
    pub baseline: Option<PathBuf>,
    /// Results folder; by default `results/DATE-HOST`. Where there is something in it already, -2, -3 .. is appended to its
    /// name: nothing is overwritten.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Names of the columns of `data`.
    #[command(flatten)]
    pub columns: ColumnArguments,
}

impl Default for BenchArguments {
    /// What `infermark bench` takes where nothing is given.
    fn default() -> Self {
        let nothing: [&str; 0] = [];
        let given = Self::augment_args(Command::new("bench"))
            .no_binary_name(true)
            .get_matches_from(nothing);
        Self::from_arg_matches(&given).expect("every argument has a default")
    }
}

impl BenchArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        if self.data.is_none() {
            refuse_given(given, &COLUMN_OPTIONS, "--data")?;
        }
        let interrupt = interrupt_on_signals();
        let registry = match self.registry(&interrupt) {
            Err(_) if interrupt.is_set() => return Ok(interrupted_early()),
            registry => registry?,
        };
        let cases = self.cases(&registry)?;
        if !cases
            .iter()
            .any(|case| case.request.method.kind() == MethodKind::Svi)
        {
            refuse_given(
                given,
                &["particles", "warmup_iterations"],
                "SVI, which none of the --backends does",
            )?;
        }
        if cases.iter().all(|case| case.request.devices != [DeviceId::CPU]) {
            refuse_given(given, &["threads"], "backends on the CPU")?;
        }
        let Some((outcome, folder)) = self.measure_those_of(&registry, &interrupt)? else {
            return Ok(interrupted_early());
        };
        let exit = if outcome.interrupted {
            Exit::Interrupted
        } else if outcome.is_success() {
            Exit::Done
        } else {
            Exit::CheckFailed
        };
        answer_outcome(&outcome, &folder)?;
        let sizes = || outcome.records.iter().map(|record| record.panel.products);
        if cases
            .iter()
            .any(|case| sizes().any(|products| products > case.most_products))
        {
            let largest = self.nuts_most_products;
            notify(format_args!(
                "samplers are measured on up to {largest} products; --nuts-most-products sets that"
            ));
        }
        if outcome.interrupted {
            notify("interrupted: cases that were not reached are missing");
        }
        Ok(exit)
    }

    /// Refuses what [`BenchArguments::measure`] would refuse, before anything is made or measured.
    ///
    /// # Errors
    /// When an argument is out of range, or the results folder cannot be written to.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_plan(&self.registry(&Interrupt::new())?)?;
        self.baseline()?;
        let folder = self.folder()?;
        drop(ClaimedFolder::claim(folder.path(), &[])?);
        // It is created again when there is something to write; a folder that is not empty stays.
        let _ = std::fs::remove_dir(folder.path());
        Ok(())
    }

    /// Waits until other programs leave the machine idle, for at most `settle_seconds`, and reports that it
    /// waits.
    pub fn wait_until_quiet(&self) {
        let mut patience = Duration::from_secs_f64(self.settle_seconds.min(1e6));
        settle(&mut patience, &mut BenchBar::new(), &Interrupt::new());
    }

    fn baseline(&self) -> anyhow::Result<Option<Baseline>> {
        Ok(self.baseline.as_deref().map(Baseline::read).transpose()?)
    }

    fn folder(&self) -> anyhow::Result<ResultsFolder> {
        Ok(match &self.out {
            Some(path) => ResultsFolder::create(path)?,
            None => ResultsFolder::dated("results".as_ref(), None)?,
        })
    }

    /// Refuses arguments that are out of range, and sizes of which no panel can be made.
    fn check_plan(&self, registry: &Registry) -> anyhow::Result<()> {
        self.plan(self.products.clone(), registry)?.check()?;
        if self.data.is_none() {
            for products in &self.products {
                check_generated(*products, self.seed, self.likelihood)
                    .with_context(|| format!("--products {products}"))?;
            }
        }
        Ok(())
    }

    fn plan(&self, sizes: Vec<usize>, registry: &Registry) -> anyhow::Result<Plan> {
        Ok(Plan {
            repeats: self.repeats,
            warmup_seconds: self.warmup_seconds,
            warmup_iterations: self.warmup_iterations,
            repeat_seconds: self.repeat_seconds,
            quality_seconds: self.quality_seconds,
            published_nuts_seconds: self.published_nuts_seconds,
            settle_seconds: self.settle_seconds,
            kernel_limit: true,
            ..Plan::new(sizes, self.cases(registry)?)
        })
    }

    /// Runs the benchmark and returns its outcome and its folder.
    ///
    /// # Errors
    /// When an argument is out of range, a panel cannot be made, or a file not be written.
    pub fn measure(&self) -> anyhow::Result<(Outcome, ResultsFolder)> {
        let interrupt = interrupt_on_signals();
        self.measure_those_of(&self.registry(&interrupt)?, &interrupt)?
            .context("interrupted before anything was measured")
    }

    /// The outcome and its folder; `None`, and no folder, if `interrupt` is set before anything is measured.
    fn measure_those_of(
        &self,
        registry: &Registry,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<(Outcome, ResultsFolder)>> {
        // Before a file is read; the sizes of a sales file are not known then.
        self.check_plan(registry)?;
        let baseline = self.baseline()?;
        let mut sizes = self.products.clone();
        let mut read = None;
        if let Some(path) = &self.data {
            let panel = load_panel(path, &self.columns.clone().into())?;
            let truth = self
                .truth
                .as_ref()
                .map(|truth| read_truth(truth, &panel))
                .transpose()?;
            sizes = vec![panel.layout().products];
            read = Some(BenchPanel {
                panel,
                source: path
                    .file_name()
                    .unwrap_or(path.as_os_str())
                    .to_string_lossy()
                    .into_owned(),
                product_a_truth: truth.map(|t| t.product_elasticity),
            });
        }
        let plan = self.plan(sizes, registry)?;
        if interrupt.is_set() {
            return Ok(None);
        }
        let folder = self.folder()?;
        let (seed, likelihood) = (self.seed, self.likelihood);
        let mut make = |products| match read.take() {
            Some(panel) => Ok(panel),
            None => published_panel(products, seed, likelihood).map_err(|e| e.to_string()),
        };
        let _claimed = ClaimedFolder::claim(folder.path(), &[])?;
        let mut outcome = run_benchmark(&plan, &mut make, &folder, &mut BenchBar::new(), interrupt)?;
        if let Some(baseline) = baseline
            && let Some(comparison) = BaselineComparison::new(&outcome.records, &baseline)
        {
            draw_beside(&folder, &comparison, &mut outcome.table)?;
        }
        Ok(Some((outcome, folder)))
    }

    /// All backends, after the peers that are installed here.
    ///
    /// # Errors
    /// When a peer is no worker, or `interrupt` is set before it has described itself; where `CI` is set also when one is not installed, lest a
    /// check passes by not running.
    fn registry(&self, interrupt: &Interrupt) -> anyhow::Result<Registry> {
        let mut found = registry().clone();
        for PeerCommand { name, command } in self.peers.iter().rev() {
            ensure!(
                found.named(name).is_none(),
                "--peer {name}: there is a backend of that name"
            );
            match PeerProcess::connect(name, command.clone(), interrupt) {
                Ok(peer) => found = found.with_first(peer),
                Err(PeerError::Unavailable(what)) if std::env::var_os("CI").is_none() => {
                    notify(format_args!("peer {name} is left out: {what}"));
                }
                Err(error) => return Err(error).with_context(|| format!("--peer {name}")),
            }
        }
        Ok(found)
    }

    fn cases(&self, registry: &Registry) -> Result<Vec<Case>, BenchmarkError> {
        let peers = self.peers.iter().map(|peer| peer.name.clone());
        let is_here = |name: &String| registry.named(name).is_some();
        CaseChoice {
            backends: peers
                .filter(is_here)
                .chain(self.backends.iter().cloned())
                .collect(),
            devices: self.devices.clone(),
            threads: self.threads.clone(),
            particles: self.particles,
            likelihood: self.likelihood,
            seed: self.seed,
            sampler_most_products: self.nuts_most_products,
        }
        .cases(registry)
    }
}

/// Reports a signal before anything was measured.
pub(super) fn interrupted_early() -> Exit {
    notify("interrupted before there was anything to save");
    Exit::Interrupted
}

/// A peer as it is named: what it goes by, and the command that starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCommand {
    /// Its name in tables and files.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

fn named_command(text: &str) -> Result<PeerCommand, String> {
    let (name, command) = text
        .split_once('=')
        .ok_or("give a name and a command: NAME=COMMAND")?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err("its name goes into names of files: give letters, digits, '-', '_' and '.'".into());
    }
    let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return Err("there is no command after the name".into());
    }
    Ok(PeerCommand {
        name: name.to_owned(),
        command,
    })
}

/// Prints the table, and where the results and pictures are.
///
/// # Errors
/// When stdout cannot be written to.
pub fn answer_outcome(outcome: &Outcome, folder: &ResultsFolder) -> anyhow::Result<()> {
    let pictures = outcome
        .plots
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "png"));
    print(|out| {
        write!(out, "{}", outcome.table)?;
        writeln!(out, "\nresults: {}", folder.path().display())?;
        for picture in pictures {
            writeln!(out, "plot: {}", picture.display())?;
        }
        Ok(())
    })
}

/// The generator of a panel of the published process, with counts of `likelihood`.
fn generator(products: usize, seed: u64, likelihood: Likelihood) -> Generator {
    Generator {
        process: Process::Published,
        likelihood,
        products,
        periods: PERIODS,
        categories: CATEGORIES,
        seed,
    }
}

/// Checks that a panel of the published process can be made.
///
/// # Errors
/// When it cannot, with the reason.
pub(super) fn check_generated(products: usize, seed: u64, likelihood: Likelihood) -> anyhow::Result<()> {
    Ok(generator(products, seed, likelihood).validate()?)
}

/// A panel of the published process, with counts of `likelihood`.
///
/// # Errors
/// When it cannot be generated.
pub fn published_panel(products: usize, seed: u64, likelihood: Likelihood) -> anyhow::Result<BenchPanel> {
    let (panel, truth) = generate_panel(&generator(products, seed, likelihood), 0)?;
    let counts = match likelihood {
        usual if usual == Likelihood::default() => String::new(),
        other => format!(" with {}", other.counts()),
    };
    Ok(BenchPanel {
        panel: Arc::new(panel),
        source: format!(
            "generated: published process{counts}, {products} products, {PERIODS} periods, {CATEGORIES} categories, seed {seed}"
        ),
        product_a_truth: Some(truth.product_elasticity),
    })
}
