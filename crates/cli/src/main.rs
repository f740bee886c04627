//! The `infermark` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    infermark::run(std::env::args_os())
}
