//! A kill or a signal in the middle, concurrent runs, and a driver that hangs.

use crate::{code, command, text, whole_fit};
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
fn of_runs_that_write_one_folder_at_once_one_is_done_and_the_others_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    for round in 0..6u32 {
        let mut seeds = Vec::new();
        let children: Vec<_> = (0..3u32)
            .map(|k| {
                let seed = 10 * round + k;
                seeds.push(seed);
                command(&["fit", panel.to_str().unwrap(), "--force", "--method", "svi"])
                    .args(["--iterations", "400", "--seed", &seed.to_string(), "--out"])
                    .arg(&out)
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let mut done = 0;
        for child in children {
            let output = child.wait_with_output().unwrap();
            match code(&output) {
                0 => done += 1,
                2 => assert!(
                    text(&output.stderr).contains("another run writes"),
                    "{}",
                    text(&output.stderr)
                ),
                other => panic!("{other}: {}", text(&output.stderr)),
            }
        }
        assert!(done >= 1);
        let (record, _) = whole_fit(&out).unwrap();
        let seed = record["request"]["seed"].as_u64().unwrap();
        assert!(seeds.iter().any(|s| u64::from(*s) == seed), "{seed} {seeds:?}");
    }
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["fit"], "nothing temporary is left");
}

#[cfg(unix)]
#[test]
fn a_driver_that_hangs_holds_no_result() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let driver = folder.path().join("nvidia-smi");
    std::fs::write(&driver, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&driver, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::join_paths(
        std::iter::once(folder.path().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let clock = Instant::now();
    let output = command(&["fit", panel.to_str().unwrap(), "--out"])
        .arg(&out)
        .env("PATH", path.unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(clock.elapsed().as_secs() < 60, "{:?}", clock.elapsed());
    let (record, _) = whole_fit(&out).unwrap();
    // Where the driver's library is there, the command is not asked.
    let gpu = record["system"]["gpu"].as_str().unwrap();
    assert!(
        gpu == "unknown: no answer in 2 s" || gpu.contains("NVIDIA"),
        "{gpu}"
    );
}

#[cfg(unix)]
#[test]
fn signals_keep_what_there_is_and_mark_it_unfinished() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        keeps_what_there_is(signal);
    }
}

#[cfg(unix)]
fn keeps_what_there_is(signal: &str) {
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
        .args([signal, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    // Read to its end, so that what the process still says finds a reader.
    lines.for_each(drop);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{signal}");
    let table = text(&output.stdout);
    assert!(table.contains("unfinished (interrupted)"), "{table}");
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    assert_eq!(record["reason"], "interrupted");
}

/// A category of so many periods that the search for the posterior's mode, which NUTS starts from, takes far longer than the test.
#[cfg(unix)]
#[test]
fn a_set_up_is_ended_by_a_signal_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (panel, out) = (folder.path().join("sales.csv"), folder.path().join("fit"));
    let mut sales = String::from("product,category,week,price,units\n");
    for week in 0..6000 {
        sales += &format!(
            "p{},c,{week},{},{}\n",
            week % 40,
            1.0 + f64::from(week % 7) / 10.0,
            week % 5
        );
    }
    std::fs::write(&panel, sales).unwrap();
    let mut fit = command(&["fit", panel.to_str().unwrap(), "--method", "nuts", "--out"]);
    let mut fit = fit
        .arg(&out)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The folder is there when the file is read and the signals are listened to, or about to be.
    while !out.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(700));
    let clock = Instant::now();
    let interrupted = Command::new("kill")
        .args(["-TERM", &fit.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    assert_eq!(fit.wait().unwrap().code(), Some(3));
    assert!(clock.elapsed().as_secs_f64() < 3.0, "{:?}", clock.elapsed());
    assert!(!out.exists());
}
