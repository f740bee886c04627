//! A kill or Ctrl-C in the middle.

use crate::{command, text, whole_fit};
use infermark_test_support::data;
use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Instant;

#[cfg(unix)]
#[test]
fn a_kill_at_any_moment_leaves_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let fit = |seed: u32| {
        let mut command = command(&["fit", panel.to_str().unwrap(), "--force", "--method", "svi"]);
        command
            .args(["--iterations", "400", "--seed", &seed.to_string(), "--out"])
            .arg(&out);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    };
    let clock = Instant::now();
    assert!(fit(0).status().unwrap().success());
    let whole = clock.elapsed();
    assert!(whole_fit(&out).is_some());
    // Kills spread over the life of the process, dense where files are written.
    for attempt in 0..24u32 {
        let mut child = fit(attempt + 1).spawn().unwrap();
        let share = if attempt % 2 == 0 {
            f64::from(attempt) / 24.0
        } else {
            0.8 + f64::from(attempt) / 80.0
        };
        std::thread::sleep(whole.mul_f64(share));
        let _ = child.kill();
        child.wait().unwrap();
        assert!(whole_fit(&out).is_some(), "attempt {attempt}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_there_is_and_marks_it_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let mut child = command(&[
        "fit",
        panel.to_str().unwrap(),
        "--method",
        "svi",
        "--iterations",
        "4000000000",
        "--out",
    ])
    .arg(&out)
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    // The first plain line of progress, which is due after three seconds, and later on a busy machine.
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let progress = lines.find(|line| line.as_ref().unwrap().contains("/4,000,000,000 iterations ("));
    let progress = progress.expect("it reports progress before it ends").unwrap();
    assert!(
        progress.contains(" per second, ") && progress.contains(" left; "),
        "{progress}"
    );
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    // Read to its end, so that what the process still says finds a reader.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    assert!(table.contains("unfinished (interrupted)"), "{table}");
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    assert_eq!(record["reason"], "interrupted");
}
