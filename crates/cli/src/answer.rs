//! Answers on stdout and messages on stderr. A reader that closes the pipe early (`| head`) has what it wanted: that is no
//! error, and changes no exit code.

use anyhow::Context;
use infermark_model::printable::printable_lines;
use std::io::{self, ErrorKind, Write};

/// Writes an answer to stdout, with what would be a command to a terminal written out: it may hold names of files and of
/// their products.
///
/// # Errors
/// When stdout cannot be written to, unless its reader is gone.
pub fn answer(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut out = io::stdout().lock();
    let written = write(&mut text).and_then(|()| {
        out.write_all(printable_lines(&String::from_utf8_lossy(&text)).as_bytes())?;
        out.flush()
    });
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Writes a line to stderr, as [`answer`] does. Nobody can be told when that fails.
pub fn say(message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", printable_lines(&message.to_string()));
}
