//! `infermark generate`.

use super::interrupt_on_signals;
use crate::exit::Exit;
use crate::output::notify;
use crate::progress_bar::Bar;
use crate::settings::{LikelihoodArguments, PriorArguments};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use infermark::{GenerateError, Generator, Process, check_threads, generate_to_file};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Where a panel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProcessName {
    /// The published data-generating process; products with at most 100 units are dropped and replaced.
    Published,
    /// A draw from the model itself, with parameters from its priors.
    Model,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// Data-generating process.
    #[arg(long, value_enum, default_value = "published")]
    process: ProcessName,
    /// Products.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    products: usize,
    /// Periods.
    #[arg(long, value_name = "T", default_value_t = 156)]
    periods: usize,
    /// Categories.
    #[arg(long, value_name = "C", default_value_t = 10)]
    categories: usize,
    /// Seed; the panel is the same whatever the number of threads.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Processor threads; all by default.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The panel's file: .parquet or .csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// CSV file for the true parameters.
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    priors: PriorArguments,
    #[command(flatten)]
    likelihood: LikelihoodArguments,
}

impl GenerateArguments {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        check_threads(self.threads)?;
        for file in [&self.out, &self.truth] {
            ensure!(
                self.force || !file.exists(),
                "{} is there already; give another file, or --force to replace it",
                file.display()
            );
        }
        let process = match self.process {
            ProcessName::Published => {
                ensure!(self.priors.priors.is_none(), "--priors goes with --process model");
                Process::Published
            }
            ProcessName::Model => Process::Model(self.priors.load()?),
        };
        let generator = Generator {
            process,
            likelihood: self.likelihood.likelihood,
            products: self.products,
            periods: self.periods,
            categories: self.categories,
            seed: self.seed,
        };
        let interrupt = interrupt_on_signals();
        let bar = Bar::new(self.products as u64, "products");
        let written = generate_to_file(
            &generator,
            &self.out,
            &self.truth,
            self.threads.unwrap_or(0),
            &mut |progress| {
                bar.set(progress.products_done as u64);
                if interrupt.is_set() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        drop(bar);
        match written {
            Err(stopped @ GenerateError::Stopped(_)) => {
                notify(stopped);
                return Ok(Exit::Interrupted);
            }
            written => written?,
        }
        notify(format_args!(
            "wrote {} and {}",
            self.out.display(),
            self.truth.display()
        ));
        Ok(Exit::Done)
    }
}
