//! The `infermark` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "cuda")]
    // SAFETY: no thread was started yet.
    unsafe {
        infermark::choose_header();
    }
    infermark_cli::run(std::env::args_os())
}
