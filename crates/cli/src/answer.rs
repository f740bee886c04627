//! Answers on stdout and messages on stderr. A reader that closes the pipe early (`| head`) has what it wanted: that is no
//! error, and changes no exit code.

use anyhow::Context;
use std::io::{self, ErrorKind, Write};

/// Writes an answer to stdout.
///
/// # Errors
/// When stdout cannot be written to, unless its reader is gone.
pub fn answer(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            // What is left in the buffer must not be tried again when it is dropped.
            let _ = out.into_parts();
            Ok(())
        }
        written => written.context("cannot write to stdout"),
    }
}

/// Writes a line to stderr. Nobody can be told when that fails.
pub fn say(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{message}");
}
