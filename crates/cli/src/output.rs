//! Answers on stdout and messages on stderr. A reader that closes the pipe early (`| head`) has what it
//! needs: that is not an error, and changes no exit code.

use anyhow::Context;
use infermark_model::printable_lines;
use std::io::{self, ErrorKind, Write};

/// Writes an answer to stdout, with control characters escaped: it may contain names of files and of their
/// products.
///
/// # Errors
/// When stdout cannot be written to, unless its reader is gone.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
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
    let _ = writeln!(
        io::stderr(),
        "{}",
        shortened(printable_lines(&message.to_string()).into_owned())
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
