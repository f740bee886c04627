//! A kill or Ctrl-C in the middle.

use crate::{command, text, whole_fit};
use infermark_test_support::data;
use std::process::Command;
use std::time::{Duration, Instant};

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
    let child = command(&[
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
    // Past the first plain line of progress, which is due after three seconds, and short of the second.
    std::thread::sleep(Duration::from_millis(5000));
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (table, told) = (text(&output.stdout), text(&output.stderr));
    let progress = told
        .lines()
        .filter(|line| line.contains("/4,000,000,000 iterations ("));
    assert_eq!(progress.count(), 1, "{told}");
    assert!(
        told.contains(" per second, ") && told.contains(" left; "),
        "{told}"
    );
    assert!(table.contains("unfinished (interrupted)"), "{table}");
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    assert_eq!(record["reason"], "interrupted");
}
