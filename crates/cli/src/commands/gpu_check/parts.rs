//! What a step does, as data: its parts in their order.

use super::{Check, Step, nsight};
use infermark::DeviceKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A part of a step.
pub(super) struct Part {
    /// How the summary calls it.
    pub(super) title: String,
    /// What it does.
    pub(super) work: Work,
}

/// What a part does.
pub(super) enum Work {
    /// Nothing, for this reason, which is no failure: the machine lacks what it needs.
    Omitted(String),
    /// Runs a program.
    Program(Box<Program>),
    /// Reads some launches at one size with Nsight Compute.
    Launches {
        /// The command `ncu`.
        ncu: PathBuf,
        /// The size.
        products: usize,
    },
}

/// A program and what to make of it.
pub(super) struct Program {
    /// The program with its arguments.
    pub(super) command: Command,
    /// File of the step's folder that takes what it writes.
    pub(super) log: String,
    /// What the summary quotes.
    pub(super) finding: Finding,
}

/// What the summary quotes of a program.
pub(super) enum Finding {
    /// All that it wrote, where it passed.
    Output,
    /// Of the table of a benchmark what was measured, and why the rest was not; however it ended.
    Table {
        /// The table.
        file: PathBuf,
        /// The beginnings of the headings that it is quoted under.
        sections: &'static [&'static str],
        /// What a benchmark that passed did.
        passed: &'static str,
        /// The peer without which there is nothing to find.
        peer: Option<&'static str>,
    },
    /// The number of tests that passed, or where others panicked.
    Tests,
}

impl Part {
    fn omitted(title: impl Into<String>, reason: impl Into<String>) -> Self {
        Part {
            title: title.into(),
            work: Work::Omitted(reason.into()),
        }
    }

    fn program(title: String, command: Command, log: String, finding: Finding) -> Self {
        Part {
            title,
            work: Work::Program(Box::new(Program {
                command,
                log,
                finding,
            })),
        }
    }
}

impl Step {
    /// The parts of the step, whose results go to `folder`.
    pub(super) fn parts(self, check: &Check, folder: &Path) -> Vec<Part> {
        match self {
            Step::Speed => speed(check, folder),
            Step::Peer => vec![peer(check, folder)],
            Step::Tests => tests(check),
        }
    }
}

fn speed(check: &Check, folder: &Path) -> Vec<Part> {
    let sizes = check.sizes(&[10_000, 100_000, 1_000_000]);
    let listed = comma_separated(&sizes);
    let device = check.device_name();
    let mut parts: Vec<Part> = sizes
        .iter()
        .map(|products| {
            let mut command = check.infermark(&["profile", "--device", &device]);
            command.args(["--products", &products.to_string()]);
            let log = format!("profile-{products}.txt");
            Part::program(
                format!("profile of {products} products"),
                command,
                log,
                Finding::Output,
            )
        })
        .collect();
    let options: &[&str] = if check.quick {
        &[
            "--repeats=2",
            "--repeat-seconds=0.2",
            "--warmup-seconds=0.2",
            "--warmup-iterations=20",
            "--settle-seconds=0",
        ]
    } else {
        &[
            "--repeats=5",
            "--repeat-seconds=1",
            "--warmup-seconds=1",
            "--settle-seconds=20",
        ]
    };
    parts.push(Part::program(
        format!("bench of {listed} products"),
        benchmark(check, "svi-gpu", &listed, options, &folder.join("bench")),
        "bench.log".to_owned(),
        table(folder, "bench", "parity, then speed,"),
    ));
    parts.extend(launches(check, &sizes));
    // Last, for what it takes on the CPU: the exact method.
    let title = format!("laplace on the device, {listed} products");
    parts.push(if check.has_doubles {
        let options = ["--repeats=3", "--settle-seconds=0"];
        Part::program(
            title,
            benchmark(check, "laplace-gpu", &listed, &options, &folder.join("laplace")),
            "laplace.log".to_owned(),
            table(folder, "laplace", "parity, then whole fits,"),
        )
    } else {
        Part::omitted(title, "not measured, the device has no double precision")
    });
    parts
}

/// Nsight Compute's part in the speed.
fn launches(check: &Check, sizes: &[usize]) -> Vec<Part> {
    let omitted = |reason| vec![Part::omitted("Nsight Compute", format!("not measured, {reason}"))];
    if check.device.id.kind != DeviceKind::Cuda {
        return omitted("it sees CUDA alone");
    }
    let Some(ncu) = nsight::find() else {
        return omitted("there is no ncu on the PATH or in the usual folders");
    };
    sizes
        .iter()
        .filter(|products| **products <= nsight::MOST_PRODUCTS)
        .map(|&products| Part {
            title: "Nsight Compute".to_owned(),
            work: Work::Launches {
                ncu: ncu.clone(),
                products,
            },
        })
        .collect()
}

/// Through CUDA, the only way to a card that JAX and svi-gpu share.
fn peer(check: &Check, folder: &Path) -> Part {
    let not_measured = |reason: String| Part::omitted("NumPyro", format!("**not measured**, {reason}"));
    if check.device.id.kind != DeviceKind::Cuda {
        return not_measured(format!("JAX does not reach {}", check.device.id));
    }
    let worker = check.folder.join("peers/numpyro/worker.sh");
    if !worker.is_file() {
        return not_measured(format!("there is no {}", worker.display()));
    }
    let worker = worker.display().to_string();
    if worker.contains(char::is_whitespace) {
        return not_measured(format!("the path {worker} has a space in it"));
    }
    let sizes = comma_separated(&check.sizes(&[10_000, 100_000]));
    let options: &[&str] = if check.quick {
        &[
            "--repeats=2",
            "--repeat-seconds=0.2",
            "--warmup-iterations=20",
            "--settle-seconds=0",
        ]
    } else {
        &["--repeats=5", "--settle-seconds=20"]
    };
    let mut command = benchmark(check, "svi-gpu", &sizes, options, &folder.join("peer"));
    command.arg(format!("--peer=numpyro={worker} --platforms gpu"));
    command.arg(format!(
        "--peer=numpyro-dense={worker} --platforms gpu --form dense"
    ));
    // Where CI is set, a peer that is not installed is an error.
    command.env_remove("CI");
    Part::program(
        format!("NumPyro and svi-gpu, {sizes} products"),
        command,
        "peer.log".to_owned(),
        Finding::Table {
            file: folder.join("peer/table.md"),
            sections: &["Measured", "Speedups", "Remarks"],
            passed: "parity, then speed in turns,",
            peer: Some("numpyro"),
        },
    )
}

fn tests(check: &Check) -> Vec<Part> {
    let folder = check.folder.join("tests");
    let binaries = test_binaries(&folder);
    if binaries.is_empty() {
        let reason = format!(
            "not run, there are none in {}; scripts/gpu_check.sh of the sources builds them",
            folder.display()
        );
        return vec![Part::omitted("tests", reason)];
    }
    binaries
        .into_iter()
        .map(|name| {
            let needs_doubles = name.starts_with("gaussian-gpu-");
            if needs_doubles && !check.has_doubles {
                return Part::omitted(name, "not run, the device has no double precision");
            }
            // With the header that this program wrote when it looked for devices: its own environment names it.
            let mut command = Command::new(folder.join(&name));
            command
                .env("INFERMARK_TEST_DATA", check.folder.join("data"))
                .env("INFERMARK_TEST_DEVICE", check.device_name());
            let log = format!("{name}.log");
            Part::program(name, command, log, Finding::Tests)
        })
        .collect()
}

/// The names of the test binaries in a folder: those of `svi-gpu`, of `gaussian-gpu`, then of `svi-tensor`.
fn test_binaries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    ["svi-gpu-", "gaussian-gpu-", "svi-tensor-"]
        .iter()
        .flat_map(|package| names.iter().filter(move |name| name.starts_with(package)))
        .cloned()
        .collect()
}

/// A benchmark of one backend on the device, of its speed alone.
fn benchmark(check: &Check, backend: &str, sizes: &str, options: &[&str], out: &Path) -> Command {
    let mut command = check.infermark(&["bench", "--backends", backend, "--products", sizes]);
    command.args(["--devices", &check.device_name(), "--quality-seconds", "0"]);
    command.args(options).arg("--out").arg(out);
    command
}

fn table(folder: &Path, benchmark: &str, passed: &'static str) -> Finding {
    Finding::Table {
        file: folder.join(benchmark).join("table.md"),
        sections: &["Measured", "Remarks"],
        passed,
        peer: None,
    }
}

fn comma_separated(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
    sizes.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_ordered_by_what_they_test() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "svi-tensor-unit",
            "svi-gpu-unit",
            "gaussian-gpu-unit",
            "svi-gpu-against_cpu",
            "notes",
        ] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        assert_eq!(
            test_binaries(folder.path()),
            [
                "svi-gpu-against_cpu",
                "svi-gpu-unit",
                "gaussian-gpu-unit",
                "svi-tensor-unit"
            ]
        );
        assert!(test_binaries(&folder.path().join("absent")).is_empty());
    }
}
