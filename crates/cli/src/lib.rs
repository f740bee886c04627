//! The `infermark` command as a library: its arguments, its verbs, and the backends it knows.
//!
//! Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 a gate failed (parity, convergence,
//! an unfinished run that was asked to finish), 2 usage or input.

pub mod backends;
pub mod commands;
pub mod exit;
mod progress_bar;
pub mod settings;

use crate::commands::Command;
use crate::exit::Exit;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Trustworthy posteriors for hierarchical demand models, and how fast.
#[derive(Debug, Parser)]
#[command(
    name = "infermark",
    version,
    about,
    after_help = "EXAMPLES:\n  \
        infermark fit sales.csv --method nuts --out fit/         elasticities with intervals, by NUTS\n  \
        infermark fit sales.parquet --product-column sku --period-column month --out fit/\n  \
        infermark bench --products 10000,100000 --out results/   the speedup table on this machine\n\n\
        A sales file has one row a product and period, with columns product, category, week, price and units\n\
        (other names can be given). EXIT CODES: 0 done, 1 a gate failed, 2 usage or input."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Runs the command with the given arguments, the first of which is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not errors.
            let code = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            let _ = error.print();
            return code.into();
        }
    };
    match arguments.command.run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            // A reader that closed the pipe early (`| head`) has what it wanted.
            if exit::is_broken_pipe(&error) {
                return Exit::Done.into();
            }
            eprintln!("error: {error:#}");
            Exit::Usage.into()
        }
    }
}
