//! `trace.csv`: the loss of an SVI run against iterations and seconds.

use infermark_backend::TracePoint;
use std::io::{self, Write};

/// Columns of the file.
pub const COLUMNS: [&str; 5] = [
    "iteration",
    "seconds",
    "loss",
    "effective_particles",
    "learning_rate",
];

/// Writes the trace, one row per entry; numbers are the shortest that read back to the same `f64`.
///
/// # Errors
/// When `out` fails.
pub fn write_trace_csv(mut out: impl Write, trace: &[TracePoint]) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))?;
    for p in trace {
        writeln!(
            out,
            "{},{:?},{:?},{:?},{:?}",
            p.iteration, p.seconds, p.loss, p.effective_particles, p.learning_rate
        )?;
    }
    Ok(())
}
