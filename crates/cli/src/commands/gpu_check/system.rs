//! `system.txt`: what a step states of the machine and of the program.

use super::Check;
use super::child::{How, Interrupted};
use crate::commands::devices;
use infermark_machine::{LONG_VERSION, System};
use infermark_report::number_format::three_digits;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The file's name.
pub(super) const FILE: &str = "system.txt";
/// How long the driver's own program may take.
const MOST: Duration = Duration::from_secs(60);

/// Writes [`FILE`] to `folder`, and returns what the summary states: program, cores and load.
pub(super) fn describe(check: &Check, folder: &Path) -> Result<String, Interrupted> {
    let system = System::describe();
    let short = format!(
        "infermark {LONG_VERSION}, {} cores, load {}",
        system.cores,
        three_digits(system.load_average)
    );
    let path = folder.join(FILE);
    let text = text(check, &system, &short);
    // Without the file the step is as good: the table of a benchmark names machine and program too.
    let written = File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    if let Ok(output) = written.and_then(|()| OpenOptions::new().append(true).open(&path)) {
        let ended = check
            .children
            .run(&mut Command::new("nvidia-smi"), output, MOST, || {})?;
        if let (How::Failed(why), Ok(mut file)) = (ended.how, OpenOptions::new().append(true).open(&path)) {
            let _ = writeln!(file, "nvidia-smi: {why}");
        }
    }
    Ok(short)
}

fn text(check: &Check, system: &System, short: &str) -> String {
    let program = &system.program;
    let build = std::fs::read_to_string(check.folder.join("BUILD")).unwrap_or_default();
    let mut text = format!(
        "{}, kernel {}\n{}; {}\n{:.1} GiB of memory\nGPU {}\n{short}\n{}, {}, {}\n{build}\n{}",
        system.os,
        system.kernel,
        system.cpu,
        system.instruction_sets.join(", "),
        system.memory_bytes as f64 / (1u64 << 30) as f64,
        system.gpu,
        program.profile,
        program.rustc,
        program.target,
        devices::listing(),
    );
    for missing in devices::missing() {
        text += &missing;
        text.push('\n');
    }
    text.push('\n');
    text
}
