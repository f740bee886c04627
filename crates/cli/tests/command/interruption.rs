//! A kill or Ctrl-C in the middle.

use crate::{command, whole_fit};
use infermark_test_support::data;
use std::process::Command;
use std::time::{Duration, Instant};

#[cfg(unix)]
#[test]
fn a_kill_at_any_moment_leaves_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let fit = |seed: u32| {
        let mut command = command(&["fit", panel.to_str().unwrap(), "--force", "--iterations", "400"]);
        command.args(["--seed", &seed.to_string(), "--out"]).arg(&out);
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
        "--iterations",
        "4000000000",
        "--out",
    ])
    .arg(&out)
    .stderr(std::process::Stdio::null())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    assert_eq!(record["reason"], "interrupted");
}
