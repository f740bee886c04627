//! Kills at fifty moments of every verb that writes: what lies there is whole, and the next run removes what a dead one left.

use crate::{command, text};
use infermark_test_support::data;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const MOMENTS: u32 = 50;

/// Kills the command that `verb` makes for an output at moments spread over its life, most of them in its last fifth, where it writes.
/// After each kill the files below the folder of the output are whole; after a run to the end nothing else is left.
fn kill_at_every_moment(verb: impl Fn(&Path) -> Command, output: &str) {
    let folder = tempfile::tempdir().unwrap();
    let start = |out: &Path| {
        let mut command = verb(out);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let finish = |out: &Path| {
        let output = start(out).wait_with_output().unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}",
            text(&output.stderr)
        );
    };
    let reference = folder.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    finish(&reference.join(output));
    let clock = Instant::now();
    let timed = folder.path().join("timed");
    std::fs::create_dir(&timed).unwrap();
    finish(&timed.join(output));
    let whole = clock.elapsed();
    let expected = files(&reference);

    let place = folder.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let out = place.join(output);
    for moment in 0..MOMENTS {
        let mut child = start(&out);
        let share = f64::from(moment) / f64::from(MOMENTS);
        std::thread::sleep(whole.mul_f64(if moment % 3 == 0 { share } else { 0.8 + 0.3 * share }));
        let _ = child.kill();
        child.wait().unwrap();
        for (name, path) in files(&place) {
            let reference = expected
                .get(&of_complete_run(&name, output))
                .unwrap_or_else(|| panic!("moment {moment}: {name} is of no complete run"));
            assert_whole(&path, reference);
        }
    }
    finish(&out);
    let names = |folder: &Path| everything(folder).into_keys().collect::<Vec<_>>();
    if place.join(format!("{output}-2")).exists() {
        // Runs that do not replace what is there leave it, and each a place of its own; of the last one nothing is left behind.
        return;
    }
    assert_eq!(names(&place), names(&reference));
}

/// The name that a file has in a complete run: `results-3/table.md` is one of `results`.
fn of_complete_run(name: &str, output: &str) -> String {
    match name.strip_prefix(output).and_then(|rest| rest.split_once('/')) {
        Some((number, rest)) if number.starts_with('-') => format!("{output}/{rest}"),
        _ => name.to_owned(),
    }
}

/// The files below a folder that are not marked as being written, by their path in it.
fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = everything(folder);
    found.retain(|name, path| path.is_file() && !name.split('/').any(|part| part.starts_with('.')));
    found
}

/// Files and folders below a folder, by their path in it.
fn everything(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut below = vec![folder.to_owned()];
    while let Some(next) = below.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                below.push(path.clone());
            }
            found.insert(name, path);
        }
    }
    found
}

/// Whether a file ends as its kind does, and a table has as many lines as that of a complete run.
fn assert_whole(path: &Path, reference: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let shown = path.display();
    match path.extension().and_then(OsStr::to_str) {
        Some("json") => {
            let parsed = serde_json::from_slice::<serde_json::Value>(&bytes);
            assert!(parsed.is_ok(), "{shown}: {parsed:?}");
        }
        Some("svg") => assert!(text(&bytes).trim_end().ends_with("</svg>"), "{shown}"),
        Some("png") => assert!(bytes.ends_with(b"IEND\xaeB`\x82"), "{shown}"),
        // What it says grows from case to case.
        Some("md") => assert!(bytes.ends_with(b"\n"), "{shown}"),
        Some("parquet") => assert!(bytes.ends_with(b"PAR1"), "{shown}"),
        _ => {
            let lines = |bytes: &[u8]| text(bytes).lines().count();
            let whole = lines(&std::fs::read(reference).unwrap());
            assert_eq!(lines(&bytes), whole, "{shown}");
        }
    }
}

#[test]
fn fit() {
    let panel = data("panel.csv");
    kill_at_every_moment(
        |out| {
            let mut command = command(&["fit", panel.to_str().unwrap(), "--force", "--method", "nuts"]);
            command
                .args(["--warmup", "20", "--draws", "20", "--chains", "2", "--out"])
                .arg(out);
            command
        },
        "fit",
    );
}

#[test]
fn generate() {
    for name in ["panel.csv", "panel.parquet"] {
        kill_at_every_moment(
            |out| {
                let mut command =
                    command(&["generate", "--process", "model", "--products", "600", "--force"]);
                command
                    .arg("--out")
                    .arg(out)
                    .arg("--truth")
                    .arg(out.with_file_name("truth.csv"));
                command
            },
            name,
        );
    }
}

#[test]
fn calibrate() {
    kill_at_every_moment(
        |out| {
            let mut command = command(&[
                "calibrate",
                "--methods",
                "laplace",
                "--replications",
                "20",
                "--force",
            ]);
            command
                .args(["--products", "3", "--periods", "4", "--out"])
                .arg(out);
            command
        },
        "calibration",
    );
}

#[test]
fn compare() {
    let folder = tempfile::tempdir().unwrap();
    let panel = data("panel.csv");
    let fits = ["laplace", "meanfield"].map(|method| {
        let out = folder.path().join(method);
        let status = command(&["fit", panel.to_str().unwrap(), "--method", method, "--out"])
            .arg(&out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        out
    });
    kill_at_every_moment(
        |out| {
            let mut command = command(&["compare"]);
            command.args(&fits).arg("--reference").arg(&fits[0]);
            command.arg("--out").arg(out);
            command
        },
        "comparison",
    );
}

#[test]
fn bench_and_report() {
    let bench = |out: &Path| {
        let mut command = command(&[
            "bench",
            "--products",
            "30",
            "--backends",
            "laplace-cpu",
            "--repeats",
            "2",
        ]);
        command.args([
            "--repeat-seconds",
            "0.01",
            "--warm-up-seconds",
            "0.01",
            "--settle-seconds",
            "0",
        ]);
        command.args([
            "--quality-seconds",
            "0.05",
            "--published-nuts-seconds",
            "0.05",
            "--out",
        ]);
        command.arg(out);
        command
    };
    kill_at_every_moment(bench, "results");
    // What is drawn again of a whole folder of results.
    let results = tempfile::tempdir().unwrap();
    let whole = results.path().join("results");
    assert!(bench(&whole).output().unwrap().status.success());
    kill_at_every_moment(
        |out| {
            for (name, path) in files(&whole) {
                let to = out.join(&name);
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                if !to.exists() {
                    std::fs::copy(path, to).unwrap();
                }
            }
            let mut command = command(&["report"]);
            command.arg(out);
            command
        },
        "results",
    );
}
