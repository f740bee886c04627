//! Nsight Compute: what it reports of some consecutive launches of a warm run.

use super::Check;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The largest size that is measured: a report has every launch several times.
pub(super) const MOST_PRODUCTS: usize = 100_000;
/// Launches that are measured: as many as an iteration has, or more.
const LAUNCHES: &str = "6";
/// The metrics that the summary quotes; the first table that has one counts.
const METRICS: [&str; 6] = [
    "Duration",
    "Registers Per Thread",
    "Achieved Occupancy",
    "Compute (SM) Throughput",
    "DRAM Throughput",
    "Memory Throughput",
];

/// The `ncu` of the PATH, or of the folders that toolkits are installed to.
pub(super) fn find() -> Option<PathBuf> {
    let subfolders = |folder: &str, prefix: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    };
    let toolkits = subfolders("/usr/local", "cuda")
        .into_iter()
        .map(|toolkit| toolkit.join("bin"));
    let folders = toolkits.chain(subfolders("/opt/nvidia/nsight-compute", ""));
    super::on_the_path("ncu").or_else(|| folders.map(|folder| folder.join("ncu")).find(|ncu| ncu.is_file()))
}

/// `ncu` on consecutive launches of a warm run on `panel`, with its report in `export`.
pub(super) fn measuring(check: &Check, ncu: &Path, panel: &Path, export: &Path) -> Command {
    let (warmup, skipped) = if check.quick {
        ("20", "30")
    } else {
        ("600", "1000")
    };
    let mut measuring = check.command(ncu);
    // The card's clocks are left alone, as they are for the other figures.
    measuring.args(["--clock-control", "none", "--set", "full", "--force-overwrite"]);
    measuring.args(["--launch-skip", skipped, "--launch-count", LAUNCHES]);
    measuring.arg("--export").arg(export);
    measuring.arg(&check.program).arg("time").arg(panel);
    measuring.args(["--device", &check.device_name()]);
    measuring.args(["--warmup", warmup, "--iterations", "20", "--repeats", "1"]);
    measuring
}

/// A line for each launch of a report's page of details: the kernel, and the metrics of [`METRICS`] in the order of the page.
pub(super) fn kernels(details: &str) -> String {
    let mut kernels: Vec<String> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for line in details.lines() {
        if is_launch(line) {
            let name = line.trim_start().split(['(', ' ']).next().unwrap_or_default();
            kernels.push(format!("    {name}"));
            seen.clear();
        } else if let (Some(kernel), Some((metric, unit, value))) = (kernels.last_mut(), metric(line))
            && let Some(name) = METRICS.into_iter().find(|name| *name == metric)
            && !seen.contains(&name)
        {
            seen.push(name);
            *kernel += &format!("; {name} {value}");
            if !unit.contains("thread") {
                *kernel += &format!(" {unit}");
            }
        }
    }
    kernels.join("\n")
}

/// Whether a line begins what there is of a launch: `  name(types) (blocks)x(threads), Context 1, Stream 7, Device 0, CC 9.0`.
fn is_launch(line: &str) -> bool {
    let indented = line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with(' '));
    indented && line.contains(", Context ") && line.contains(", Stream ")
}

/// Name, unit and value of a row of a table.
fn metric(line: &str) -> Option<(String, &str, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name @ .., unit, value] = &words[..] else {
        return None;
    };
    Some((name.join(" "), unit, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DETAILS: &str = "\
[7] infermark@127.0.0.1
  products_kernel(unsigned int *, float *) (264, 1, 1)x(256, 1, 1), Context 1, Stream 13, Device 0, CC 9.0
    Section: GPU Speed Of Light Throughput
    ----------------------- ------------- ------------
    Metric Name               Metric Unit Metric Value
    ----------------------- ------------- ------------
    DRAM Frequency                    Ghz         3.20
    Memory Throughput                   %        23.01
    DRAM Throughput                     %         1.02
    Duration                           us        57.41
    Compute (SM) Throughput             %        40.10
    ----------------------- ------------- ------------

    Section: Memory Workload Analysis
    Memory Throughput        Gbyte/second       512.30

    Section: Launch Statistics
    Registers Per Thread   register/thread          128
    Achieved Occupancy                  %        24.90
  fold (8, 1, 1)x(128, 1, 1), Context 1, Stream 13, Device 0, CC 9.0
    Duration                           us         4.10
";

    #[test]
    fn launches_are_summed_up_by_the_first_of_each_metric() {
        assert_eq!(
            kernels(DETAILS),
            "    products_kernel; Memory Throughput 23.01 %; DRAM Throughput 1.02 %; Duration 57.41 us; \
             Compute (SM) Throughput 40.10 %; Registers Per Thread 128; Achieved Occupancy 24.90 %\n    fold; Duration 4.10 us"
        );
        assert_eq!(kernels("==ERROR== no permission\n"), "");
        assert_eq!(kernels("    Duration  us  4.10\n"), "", "of no launch");
    }
}
