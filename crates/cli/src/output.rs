//! Answers on stdout and messages on stderr. A reader that closes the pipe early (`| head`) has what it
//! needs: that is not an error, and changes no exit code.

use anyhow::Context;
use infermark_model::printable_lines;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// The rank of this process, if it is not the first of several.
static RANK: OnceLock<usize> = OnceLock::new();

/// From here on this process, which has this rank, writes nothing to the terminal but what only it may know: the first rank writes the
/// rest.
pub fn silence(rank: usize) {
    // A process has one rank.
    let _ = RANK.set(rank);
}

fn is_silent() -> bool {
    RANK.get().is_some()
}

/// Writes an answer to stdout, with control characters escaped: it may contain names of files and of their
/// products.
///
/// # Errors
/// When stdout cannot be written to, unless its reader is gone.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    if is_silent() {
        return Ok(());
    }
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

/// Largest number of bytes of a message, which may quote contents of a file of any length.
const LONGEST: usize = 8 << 10;

/// Writes a line to stderr, as [`print()`] does. A failure cannot be reported.
pub fn notify(message: impl std::fmt::Display) {
    if !is_silent() {
        notify_from_any_rank(message);
    }
}

/// [`notify`] from any rank: what only it may know.
pub fn notify_from_any_rank(message: impl std::fmt::Display) {
    let message = match RANK.get() {
        Some(rank) => format!("rank {rank}: {message}"),
        None => message.to_string(),
    };
    let _ = writeln!(
        io::stderr(),
        "{}",
        shortened(printable_lines(&message).into_owned())
    );
}

/// The message, or its beginning and its end, which has the remedy.
fn shortened(message: String) -> String {
    const CUT: &str = " .. ";
    if message.len() <= LONGEST {
        return message;
    }
    let half = (LONGEST - CUT.len()) / 2;
    let start = message.floor_char_boundary(half);
    let end = message.ceil_char_boundary(message.len() - half);
    format!("{}{CUT}{}", &message[..start], &message[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_keep_their_beginning_and_their_end() {
        assert_eq!(shortened("short".into()), "short");
        for letter in ["a", "\u{e9}", "\u{1f600}"] {
            let long = shortened(format!("error: {}; do this", letter.repeat(1 << 20)));
            assert!(long.len() <= LONGEST && long.len() > LONGEST - 16);
            assert!(long.starts_with("error: ") && long.ends_with("; do this"));
        }
    }
}
