//! Fits under a bound of the memory, with rows in a scratch folder.

use crate::{code, command, run, text};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Mebibytes that the largest fit may have.
const BOUND: u64 = 96;

/// A synthetic panel.
fn generate(folder: &Path, products: u32, periods: u32) -> String {
    let panel = folder.join("panel.parquet").to_str().unwrap().to_owned();
    let truth = folder.join("truth.csv").to_str().unwrap().to_owned();
    let [products, periods] = [products, periods].map(|n| n.to_string());
    let made = run(&[
        "generate",
        "--products",
        &products,
        "--periods",
        &periods,
        "--out",
        &panel,
        "--truth",
        &truth,
    ]);
    assert_eq!(code(&made), 0, "{}", text(&made.stderr));
    panel
}

fn posterior(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("posterior.csv")).unwrap()
}

/// Peak of the resident memory of a child, in bytes, read until it ends.
#[cfg(target_os = "linux")]
fn peak(child: &mut Child) -> u64 {
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kibibytes) = kibibytes {
            peak = 1024 * kibibytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

#[cfg(target_os = "linux")]
#[test]
fn a_fit_keeps_its_bound_of_memory_and_finds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // 8.1 million rows: 97 MB in the panel's form, 130 MB as they are read.
    let panel = generate(folder.path(), 45_000, 180);
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let bound = format!("{BOUND}MiB");
    for (method, settings) in [
        ("svi", &["--iterations", "4", "--model", "published"][..]),
        ("laplace", &["--plain"]),
    ] {
        let fit = |out: &str| {
            let mut command = command(&["fit", &panel, "--method", method, "--threads", "2"]);
            command.args(settings).arg("--out").arg(folder.path().join(out));
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command
        };
        let (held, stored) = (format!("{method}-held"), format!("{method}-stored"));
        let mut child = fit(&held).spawn().unwrap();
        let of_held = peak(&mut child);
        let mut bounded = fit(&stored);
        bounded.args(["--memory", &bound, "--scratch"]).arg(&scratch);
        let mut child = bounded.spawn().unwrap();
        let of_stored = peak(&mut child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        assert!(
            of_stored <= BOUND << 20,
            "{method}: {of_stored} bytes under {bound}"
        );
        assert!(
            of_held > BOUND << 20,
            "{method}: {of_held} bytes without a bound, so that it shows nothing"
        );
        assert!(
            posterior(&folder.path().join(held)) == posterior(&folder.path().join(stored)),
            "the posteriors of {method} differ"
        );
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    }
}

#[test]
fn what_does_not_fit_the_bound_is_refused_with_figures() {
    let folder = tempfile::tempdir().unwrap();
    let panel = generate(folder.path(), 30_000, 60);
    let out = folder.path().join("fit").to_str().unwrap().to_owned();
    // Chains hold their draws, and their panel is in memory.
    for (method, settings) in [
        ("nuts", &["--draws", "5000"][..]),
        ("svi", &["--particles", "64"]),
    ] {
        let mut arguments = vec![
            "fit", &panel, "--method", method, "--out", &out, "--memory", "64MiB",
        ];
        arguments.extend(settings);
        let output = run(&arguments);
        let told = text(&output.stderr);
        assert_eq!(code(&output), 2, "{method}: {told}");
        assert!(
            told.contains("the memory that it was given leaves"),
            "{method}: {told}"
        );
    }
    for (bound, told) in [("1MB", "64MiB"), ("much", "such as 1GiB")] {
        let output = run(&["fit", &panel, "--out", &out, "--memory", bound]);
        assert_eq!(code(&output), 2);
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
    let missing = folder.path().join("none");
    let output = run(&[
        "fit",
        &panel,
        "--out",
        &out,
        "--memory",
        "1GiB",
        "--scratch",
        missing.to_str().unwrap(),
    ]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains(missing.to_str().unwrap()),
        "{}",
        text(&output.stderr)
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_with_the_folder_and_the_space() {
    let folder = tempfile::tempdir().unwrap();
    let panel = generate(folder.path(), 3_000, 60);
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    // No file may have more than 256 blocks of 512 bytes or KiB: as a file system that is full, it ends a write with an error.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_infermark"), "fit", &panel])
        .args(["--memory", "1GiB", "--method", "laplace", "--scratch"])
        .arg(&scratch)
        .arg("--out")
        .arg(folder.path().join("fit"))
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(code(&output), 2, "{told}");
    assert!(told.contains(scratch.to_str().unwrap()), "{told}");
    // 180,000 rows of 16 bytes.
    assert!(told.contains("takes 0.003 GB there"), "{told}");
    assert_eq!(told.matches("choose another").count(), 1, "{told}");
    assert!(told.contains("choose another scratch folder"), "{told}");
    assert!(!folder.path().join("fit").join("posterior.csv").exists());
}

#[cfg(unix)]
#[test]
fn no_end_of_a_fit_leaves_rows_behind() {
    let folder = tempfile::tempdir().unwrap();
    let panel = generate(folder.path(), 2_000, 60);
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    for signal in ["-INT", "-TERM", "-KILL"] {
        let out = folder.path().join(signal);
        let mut child = command(&["fit", &panel, "--method", "svi", "--iterations", "100000000"])
            .args(["--memory", "1GiB", "--scratch"])
            .arg(&scratch)
            .arg("--out")
            .arg(&out)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Rows are open, and none has a name.
        let start = Instant::now();
        let opened = || {
            let files = fs::read_dir(format!("/proc/{}/fd", child.id())).ok()?;
            let names = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            Some(names.filter(|name| name.starts_with(&scratch)).count())
        };
        while opened().is_some_and(|count| count < 3) && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "before {signal}");
        let id = child.id().to_string();
        // More than once: where the tests were started in the background, the first may come while SIGINT is ignored.
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(90), "{signal} ends nothing");
            let sent = std::process::Command::new("kill").args([signal, &id]).output();
            drop(sent.unwrap());
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "after {signal}");
    }
}
