//! The command as a user meets it: verbs, files, messages, exit codes, interruption.

mod bench;
mod compare;
mod evaluate;
mod fit;
mod generate;
mod gpu;
#[cfg(unix)]
mod gpu_check;
mod help;
mod interruption;
mod libraries;
mod memory;
mod models;
#[cfg(target_os = "linux")]
mod resumption;
mod support;
mod terminal;
mod usage;

use support::*;
