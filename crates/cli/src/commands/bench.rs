//! `infermark bench`.

use super::{interrupt_on_signals, load_panel, refuse_given};
use crate::answer::{answer, say};
use crate::backends;
use crate::exit::Exit;
use crate::progress_bar::BenchBar;
use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Args};
use infermark_atomic_file::ClaimedFolder;
use infermark_backend::device::DeviceId;
use infermark_backend::request::check_threads;
use infermark_backend::{
    Backend, Interrupt, LaplaceSettings, MeanfieldSettings, Method, NutsSettings, Request,
    StructuredViSettings, SviSettings,
};
use infermark_data::{Columns, Generator, Process, generate_panel, read_truth};
pub use infermark_harness::benchmark::WARMUP_ITERATIONS;
use infermark_harness::benchmark::{BenchPanel, Case, Outcome, Plan, run_benchmark, settle};
use infermark_model::{Coordinates, Panel};
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

/// The bare kernel of this program's backends.
const KERNEL_LIMIT: fn(&Arc<Panel>, &Request) -> Option<f64> = backends::kernel_limit;

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
    /// GPUs to measure, as `infermark devices` lists them; by default all, software only for backends that are named.
    #[arg(long, value_name = "DEVICE,..", value_delimiter = ',', value_parser = backends::device)]
    pub devices: Vec<DeviceId>,
    /// Thread counts to measure SVI with; by default one and all that the machine has. Other methods take the largest.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    pub threads: Vec<usize>,
    /// Timed repeats of each case, interleaved across backends.
    #[arg(long, value_name = "R", default_value_t = 5)]
    pub repeats: usize,
    /// Seconds of a repeat; of a method that is fitted whole, as many fits as fill them, at least one.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub repeat_seconds: f64,
    /// Seconds of warm-up before the first repeat of a case; of a method that is fitted whole, one fit.
    #[arg(
        long,
        alias = "warm-up-seconds",
        value_name = "SECONDS",
        default_value_t = 2.0
    )]
    pub warmup_seconds: f64,
    /// Iterations of SVI's warm-up at least, for which it lasts up to a minute: the first ones are dearer, as rows clip.
    #[arg(long, value_name = "N", default_value_t = WARMUP_ITERATIONS)]
    pub warmup_iterations: u64,
    /// Seconds that each case of the smallest size may take for its quality; 0 leaves it out.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    pub quality_seconds: f64,
    /// Seconds for the published NUTS reference on the smallest size; 0 leaves it out.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub published_nuts_seconds: f64,
    /// Largest size on which samplers are measured; beyond it the table says "not measured".
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub nuts_most_products: usize,
    /// Most seconds, in all, to wait before timing until other programs leave the machine alone; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 90.0)]
    pub settle_seconds: f64,
    /// Particles of SVI.
    #[arg(long, value_name = "K", default_value_t = 4)]
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
}

impl BenchArguments {
    pub(super) fn run(self, given: &ArgMatches) -> anyhow::Result<Exit> {
        let cases = self.cases()?;
        if !cases
            .iter()
            .any(|case| matches!(case.request.method, Method::Svi(_)))
        {
            refuse_given(
                given,
                &["particles", "warmup_iterations"],
                "SVI, which none of the --backends does",
            )?;
        }
        if cases.iter().all(|case| case.request.devices != [DeviceId::CPU]) {
            refuse_given(given, &["threads"], "backends on the processors")?;
        }
        let (outcome, folder) = self.measure()?;
        let exit = if outcome.interrupted {
            Exit::Interrupted
        } else if outcome.is_success() {
            Exit::Done
        } else {
            Exit::GateFailed
        };
        answer_outcome(&outcome, &folder)?;
        if outcome.interrupted {
            say("interrupted: cases that were not reached are missing");
        }
        Ok(exit)
    }

    /// Refuses what [`BenchArguments::measure`] would refuse, before anything is made or measured.
    ///
    /// # Errors
    /// When an argument is out of range, or the results folder cannot be written to.
    pub fn check(&self) -> anyhow::Result<()> {
        self.check_plan()?;
        self.baseline()?;
        let folder = self.folder()?;
        drop(ClaimedFolder::claim(folder.path(), &[])?);
        // It is made again once there is something for it; what is not empty stays.
        let _ = std::fs::remove_dir(folder.path());
        Ok(())
    }

    /// Waits until other programs leave the machine alone, for at most `settle_seconds`, and tells that it does.
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
    fn check_plan(&self) -> anyhow::Result<()> {
        self.plan(self.products.clone())?.check()?;
        if self.data.is_none() {
            for products in &self.products {
                generator(*products, self.seed)
                    .validate()
                    .with_context(|| format!("--products {products}"))?;
            }
        }
        Ok(())
    }

    fn plan(&self, sizes: Vec<usize>) -> anyhow::Result<Plan<'static>> {
        Ok(Plan {
            repeats: self.repeats,
            warmup_seconds: self.warmup_seconds,
            warmup_iterations: self.warmup_iterations,
            repeat_seconds: self.repeat_seconds,
            quality_seconds: self.quality_seconds,
            published_nuts_seconds: self.published_nuts_seconds,
            settle_seconds: self.settle_seconds,
            kernel_limit: Some(&KERNEL_LIMIT),
            ..Plan::new(sizes, self.cases()?)
        })
    }

    /// Runs the benchmark and returns what came of it, and where it is.
    ///
    /// # Errors
    /// When an argument is out of range, a panel cannot be made, or a file not be written.
    pub fn measure(&self) -> anyhow::Result<(Outcome, ResultsFolder)> {
        // Before a file is read; the sizes of a sales file are not known then.
        self.check_plan()?;
        let baseline = self.baseline()?;
        let mut sizes = self.products.clone();
        let mut read = None;
        if let Some(path) = &self.data {
            let panel = load_panel(path, &Columns::default())?;
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
        let plan = self.plan(sizes)?;
        let folder = self.folder()?;
        let seed = self.seed;
        let mut make = |products| match read.take() {
            Some(panel) => Ok(panel),
            None => published_panel(products, seed).map_err(|e| e.to_string()),
        };
        let _claimed = ClaimedFolder::claim(folder.path(), &[])?;
        let interrupt = interrupt_on_signals();
        let mut outcome = run_benchmark(&plan, &mut make, &folder, &mut BenchBar::new(), &interrupt)?;
        if let Some(baseline) = baseline
            && let Some(comparison) = BaselineComparison::new(&outcome.records, &baseline)
        {
            draw_beside(&folder, &comparison, &mut outcome.table)?;
        }
        Ok((outcome, folder))
    }

    fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let all = backends::all();
        let known = all.iter().map(|b| b.name()).collect::<Vec<_>>().join(", ");
        let named = |name: &String| {
            backends::named(name).with_context(|| format!("there is no backend '{name}'; there are {known}"))
        };
        let names = self.backends.iter().filter(|name| *name != "all");
        let chosen: Vec<Arc<dyn Backend>> = names.map(named).collect::<anyhow::Result<_>>()?;
        let chosen = if self.backends.iter().any(|name| name == "all") {
            all
        } else {
            chosen
        };
        if chosen.is_empty() {
            bail!("no backend was named");
        }
        for count in &self.threads {
            check_threads(Some(*count))?;
        }
        let mut threads = if self.threads.is_empty() {
            vec![1, infermark_threads::available()]
        } else {
            self.threads.clone()
        };
        threads.sort_unstable();
        threads.dedup();
        let is_gpu = |backend: &Arc<dyn Backend>| {
            [
                infermark_svi_gpu::NAME,
                infermark_svi_tensor::NAME,
                infermark_gaussian_gpu::NAME,
            ]
            .contains(&backend.name())
        };
        ensure!(
            self.devices.is_empty() || chosen.iter().any(is_gpu),
            "--devices names GPUs, which none of the --backends runs on"
        );
        let mut cases = Vec::new();
        let named = !self.backends.iter().any(|name| name == "all");
        for backend in chosen {
            if is_gpu(&backend) {
                cases.extend(self.gpu_cases(&backend, named)?);
                continue;
            }
            let method = self.method_of(backend.name());
            let sampler = matches!(method, Method::Nuts(_));
            let orthogonal = matches!(method, Method::Svi(_)).then(|| self.svi(Coordinates::Orthogonal));
            let most = *threads.last().expect("there is a thread count");
            // What one thread does is asked of the published algorithm, whose iterations are compared across machines.
            let scales = matches!(method, Method::Svi(_));
            for count in threads.iter().copied().filter(|count| scales || *count == most) {
                let request = Request {
                    threads: Some(count),
                    seed: self.seed,
                    ..Request::new(method.clone())
                };
                request.validate()?;
                cases.push(Case {
                    backend: backend.clone(),
                    request,
                    most_products: if sampler {
                        self.nuts_most_products
                    } else {
                        usize::MAX
                    },
                });
            }
            if let Some(orthogonal) = orthogonal {
                let request = Request {
                    threads: Some(most),
                    seed: self.seed,
                    ..Request::new(orthogonal)
                };
                request.validate()?;
                cases.push(Case {
                    backend,
                    request,
                    most_products: usize::MAX,
                });
            }
        }
        Ok(cases)
    }

    /// The method that a backend is measured with.
    fn method_of(&self, backend: &str) -> Method {
        match backend {
            infermark_gaussian::LAPLACE | infermark_gaussian_gpu::NAME => {
                Method::Laplace(LaplaceSettings::default())
            }
            infermark_gaussian::STRUCTURED_VI => Method::StructuredVi(StructuredViSettings::default()),
            infermark_gaussian::MEANFIELD => Method::Meanfield(MeanfieldSettings::default()),
            name if name.starts_with("nuts") => Method::Nuts(NutsSettings::diagonal()),
            _ => self.svi(Coordinates::Published),
        }
    }

    /// The methods that a backend is measured with on a GPU, and the processors' threads beside it: those that factor borders are all the host has.
    fn gpu_methods(&self, backend: &str) -> Vec<(Method, usize)> {
        match self.method_of(backend) {
            Method::Svi(_) => [Coordinates::Published, Coordinates::Orthogonal]
                .map(|coordinates| (self.svi(coordinates), 1))
                .into(),
            method => vec![(method, infermark_threads::available())],
        }
    }

    /// SVI as it is measured: the published algorithm, and the same in coordinates that make its intervals right.
    fn svi(&self, coordinates: Coordinates) -> Method {
        let settings = match coordinates {
            Coordinates::Published => SviSettings::default(),
            // It goes on beyond the end of its schedule: iterations are timed, and a fast device is soon there.
            Coordinates::Orthogonal => SviSettings {
                iterations: SviSettings::default().iterations,
                ..SviSettings::orthogonal()
            },
        };
        Method::Svi(SviSettings {
            particles: self.particles,
            ..settings
        })
    }

    /// A case for each GPU that was asked for, or for all. Software on the processor is measured only when it, or the
    /// backend, was `named`: its speed is no card's.
    fn gpu_cases(&self, backend: &Arc<dyn Backend>, named: bool) -> anyhow::Result<Vec<Case>> {
        let devices = backend.devices();
        for wanted in &self.devices {
            ensure!(
                devices.iter().any(|device| device.id == *wanted),
                "{} cannot run on {wanted}; see `infermark devices`",
                backend.name()
            );
        }
        ensure!(
            !named || !devices.is_empty(),
            "{} has no device here; see `infermark devices`",
            backend.name()
        );
        devices
            .into_iter()
            .filter(|device| match self.devices.as_slice() {
                [] => named || !device.software,
                wanted => wanted.contains(&device.id),
            })
            .flat_map(|device| {
                self.gpu_methods(backend.name())
                    .into_iter()
                    .map(move |m| (device.id, m))
            })
            .map(|(device, (method, threads))| {
                let request = Request {
                    devices: vec![device],
                    threads: Some(threads),
                    seed: self.seed,
                    ..Request::new(method)
                };
                request.validate()?;
                Ok(Case {
                    backend: backend.clone(),
                    request,
                    most_products: usize::MAX,
                })
            })
            .collect()
    }
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
    answer(|out| {
        write!(out, "{}", outcome.table)?;
        writeln!(out, "\nresults: {}", folder.path().display())?;
        for picture in pictures {
            writeln!(out, "plot: {}", picture.display())?;
        }
        Ok(())
    })
}

/// The generator of a panel of the published process.
fn generator(products: usize, seed: u64) -> Generator {
    Generator {
        process: Process::Published,
        products,
        periods: PERIODS,
        categories: CATEGORIES,
        seed,
    }
}

/// A panel of the published process.
///
/// # Errors
/// When it cannot be generated.
pub fn published_panel(products: usize, seed: u64) -> anyhow::Result<BenchPanel> {
    let (panel, truth) = generate_panel(&generator(products, seed), 0)?;
    Ok(BenchPanel {
        panel: Arc::new(panel),
        source: format!(
            "generated: published process, {products} products, {PERIODS} periods, {CATEGORIES} categories, seed {seed}"
        ),
        product_a_truth: Some(truth.product_elasticity),
    })
}
