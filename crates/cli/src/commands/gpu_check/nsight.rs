//! Nsight Compute: what it reports of some consecutive launches of a warm run.

use super::Check;
use super::child::{How, Interrupted};
use super::excerpts::{end_of, written};
use super::step_run::StepRun;
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

/// Measures at one size and reports it. What `ncu` cannot do here (it may need permissions) is no failure of the check.
pub(super) fn measure(run: &mut StepRun<'_>, ncu: &Path, products: usize) -> Result<(), Interrupted> {
    let check = run.check();
    let Some(panel) = panel(run, products)? else {
        return Ok(());
    };
    let name = format!("ncu-{products}");
    let report = run.folder().join(format!("{name}.ncu-rep"));
    let log = format!("{name}.log");
    let ended = run.start(
        &mut measuring(check, ncu, &panel, &run.folder().join(&name)),
        &log,
    )?;
    if !report.is_file() {
        let how = match ended.how {
            How::Passed => "ncu wrote no report".to_owned(),
            How::Failed(why) => format!("ncu ended with {why}"),
            How::CutShort => "it was cut short".to_owned(),
        };
        let end = end_of(&written(&run.folder().join(&log)), 4);
        run.report_with(
            &format!("Nsight Compute at {products} products: not measured, {how}; the end of {log}:"),
            &end,
            200,
        );
        return Ok(());
    }
    let details = format!("{name}.txt");
    let mut reading = Command::new(ncu);
    reading.arg("--import").arg(&report).args(["--page", "details"]);
    run.start(&mut reading, &details)?;
    let kernels = kernels(&written(&run.folder().join(&details)));
    run.report_with(
        &format!("Nsight Compute at {products} products, launches in a row ({details} has all of it):"),
        &kernels,
        300,
    );
    Ok(())
}

/// A file with so many products; `None`, which is reported, where it could not be made.
fn panel(run: &mut StepRun<'_>, products: usize) -> Result<Option<PathBuf>, Interrupted> {
    let check = run.check();
    let file = |name: &str, ending: &str| check.temporary.join(format!("{name}-{products}.{ending}"));
    let (panel, truth) = (file("published", "parquet"), file("truth", "csv"));
    if panel.is_file() {
        return Ok(Some(panel));
    }
    let mut generating = check.infermark(&["generate", "--process", "published", "--seed", "1"]);
    generating
        .args(["--products", &products.to_string(), "--out"])
        .arg(&panel);
    generating.arg("--truth").arg(truth);
    let log = format!("generate-{products}.log");
    let ended = run.start(&mut generating, &log)?;
    if ended.how != How::Passed {
        run.report_ended(&format!("generating {products} products"), &ended, "done");
        return Ok(None);
    }
    Ok(Some(panel))
}

fn measuring(check: &Check, ncu: &Path, panel: &Path, export: &Path) -> Command {
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
fn kernels(details: &str) -> String {
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
