//! `infermark scaling`: what more ranks or GPUs bring, measured.

use super::bench::{check_generated, interrupted_early, published_panel};
use super::interrupt_on_signals;
use crate::device::named_device;
use crate::exit::Exit;
use crate::output::{notify, print};
use crate::progress_bar::BenchBar;
use anyhow::{Context, ensure};
use clap::Args;
use infermark::{DeviceId, Method, Request, SviSettings, registry};
use infermark_atomic_file::ClaimedFolder;
use infermark_harness::benchmark::WARMUP_ITERATIONS;
use infermark_harness::scaling::{ScalingPlan, measure_scaling};
use infermark_model::Likelihood;
use infermark_report::records::results_folder::ResultsFolder;
use std::path::PathBuf;

/// Arguments of `scaling`.
#[derive(Debug, Args)]
pub struct ScalingArguments {
    /// Panels of strong scaling, in products: each is measured on every number of ranks. They have 156 periods and come from the published process.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    products: Vec<usize>,
    /// Products for each rank of weak scaling, whose panel grows with the ranks; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    products_per_rank: usize,
    /// Numbers of ranks, one shard each; one rank is always measured. By default 1, 2, 4 .. as far as each has cores, or a GPU, to itself; of a single
    /// GPU two logical shards, from which `infermark project` takes what a shard adds.
    #[arg(long, value_name = "R,..", value_delimiter = ',')]
    ranks: Vec<usize>,
    /// GPUs to measure, all of one model, as `infermark devices` lists them; by default the CPU.
    #[arg(long, value_name = "DEVICE,..", value_delimiter = ',', value_parser = named_device)]
    devices: Vec<DeviceId>,
    /// CPU threads of each rank.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads_per_rank: usize,
    /// Timed repeats of each point, in turns over the numbers of ranks.
    #[arg(long, value_name = "R", default_value_t = 5)]
    repeats: usize,
    /// Seconds of a repeat.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    repeat_seconds: f64,
    /// Seconds of warm-up before the first repeat of a point.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    warmup_seconds: f64,
    /// Iterations of the warm-up at least, for which it lasts up to a minute: the first ones are dearer, as rows clip.
    #[arg(long, value_name = "N", default_value_t = WARMUP_ITERATIONS)]
    warmup_iterations: u64,
    /// Most seconds, in all, to wait before timing until other programs leave the machine alone; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 90.0)]
    settle_seconds: f64,
    /// Particles of SVI.
    #[arg(long, value_name = "K", default_value_t = SviSettings::default().particles)]
    particles: usize,
    /// Seed of the panels and of all noise.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Results folder; by default `results/DATE-HOST`. Where there is something in it already, -2, -3 .. is appended to its
    /// name: nothing is overwritten.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl ScalingArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let interrupt = interrupt_on_signals();
        let plan = self.plan()?;
        plan.check()?;
        for products in plan.points().keys() {
            check_generated(*products, self.seed, Likelihood::default())
                .with_context(|| format!("a panel of {products} products"))?;
        }
        let folder = match &self.out {
            Some(path) => ResultsFolder::create(path)?,
            None => ResultsFolder::dated("results".as_ref(), None)?,
        };
        let _claimed = ClaimedFolder::claim(folder.path(), &[])?;
        let mut make = |products| {
            published_panel(products, self.seed, Likelihood::default()).map_err(|error| error.to_string())
        };
        let outcome = measure_scaling(&plan, &mut make, &folder, &mut BenchBar::new(), &interrupt)?;
        if outcome.records.is_empty() {
            return Ok(interrupted_early());
        }
        print(|out| {
            write!(out, "{}", outcome.table)?;
            writeln!(out, "\nresults: {}", folder.path().display())
        })?;
        if outcome.interrupted {
            notify("interrupted: points that were not reached are missing");
            return Ok(Exit::Interrupted);
        }
        Ok(match outcome.is_success() {
            true => Exit::Done,
            false => Exit::CheckFailed,
        })
    }

    fn plan(&self) -> anyhow::Result<ScalingPlan> {
        ensure!(
            self.threads_per_rank > 0,
            "--threads-per-rank is 0; give at least 1"
        );
        ensure!(
            !self.devices.contains(&DeviceId::CPU) || self.devices.len() == 1,
            "--devices has the CPU among others; give the CPU alone, or GPUs"
        );
        let devices = match self.devices.as_slice() {
            [] => vec![DeviceId::CPU],
            given => given.to_vec(),
        };
        let request = Request {
            devices: vec![devices[0]],
            threads: Some(self.threads_per_rank),
            seed: self.seed,
            ..Request::new(Method::Svi(SviSettings {
                particles: self.particles,
                ..SviSettings::default()
            }))
        };
        let several = Request {
            shards: 2,
            threads: None,
            ..request.clone()
        };
        let (whole, sharded) = (registry().choose(&request)?, registry().choose(&several)?);
        let ranks = match self.ranks.as_slice() {
            [] => self.usual_ranks(&devices),
            given => given.to_vec(),
        };
        Ok(ScalingPlan {
            devices,
            products_per_rank: self.products_per_rank,
            threads_per_rank: self.threads_per_rank,
            repeats: self.repeats,
            repeat_seconds: self.repeat_seconds,
            warmup_seconds: self.warmup_seconds,
            warmup_iterations: self.warmup_iterations,
            settle_seconds: self.settle_seconds,
            ..ScalingPlan::new(whole, sharded, request, self.products.clone(), ranks)
        })
    }

    /// Powers of two, as far as each rank has cores, or a GPU, to itself; at least two.
    fn usual_ranks(&self, devices: &[DeviceId]) -> Vec<usize> {
        let room = match devices[0] {
            DeviceId::CPU => infermark_threads::available() / self.threads_per_rank,
            _ => devices.len(),
        };
        std::iter::successors(Some(1), |ranks| Some(2 * ranks))
            .take_while(|ranks| *ranks <= room.max(2))
            .collect()
    }
}
