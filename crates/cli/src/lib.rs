//! The `infermark` command as a library: its arguments and its verbs. The backends are those of [`infermark::registry`].
//!
//! Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 a gate failed (parity,
//! convergence, an unfinished run that was asked to finish, a file that could not be written), 2 usage or
//! input, 3 interrupted: Ctrl-C, SIGTERM or SIGHUP ended the work, and partial results are written. A second
//! of them ends the program at once: 130.

mod choices;
pub mod commands;
mod device;
pub mod exit;
mod memory;
pub mod output;
mod progress_bar;
mod ranks;
mod remedies;
pub mod settings;

use crate::commands::Command;
use crate::exit::Exit;
use crate::remedies::VerbOptions;
use clap::{CommandFactory, FromArgMatches, Parser};
use infermark_machine::LONG_VERSION;
use infermark_processor::InstructionSet;
use std::ffi::OsString;
use std::process::ExitCode;

/// Trustworthy posteriors for hierarchical demand models, and how fast.
#[derive(Debug, Parser)]
#[command(
    name = "infermark",
    version,
    long_version = LONG_VERSION,
    about,
    after_help = "EXAMPLES:\n  \
        infermark fit sales.csv --method nuts --out fit/         elasticities with intervals, by NUTS\n  \
        infermark fit sales.parquet --product-column sku --period-column month --out fit/\n  \
        infermark bench --products 10000,100000 --out results/mine   the speedup table here\n\n\
        A sales file has one row per product and period, with columns product, category, week, price and units\n\
        (other names can be given). EXIT CODES: 0 done, 1 a gate failed, 2 usage or input,\n\
        3 interrupted (Ctrl-C, SIGTERM or SIGHUP) with partial results written."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Runs the command with the given arguments, the first of which is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    infermark_memory::spare_address_space();
    let parsed = Arguments::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, matches)));
    let (arguments, matches) = match parsed {
        Ok(parsed) => parsed,
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
    // A mistyped set would silently compare the best one with itself.
    let checked = InstructionSet::from_environment().map_err(anyhow::Error::from);
    match checked.and_then(|_| arguments.command.run(&matches)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let options = VerbOptions::of(matches.subcommand_name().unwrap_or_default());
            output::notify_from_any_rank(format_args!("error: {}", options.in_error(&error)));
            Exit::Usage.into()
        }
    }
}
