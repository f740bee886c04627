//! `gpu-check` on the GPU that is here, which may be software Vulkan.

use crate::gpu::{gpus, name_of, refused_without_a_gpu};
use crate::{code, command, run, text};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder as scripts/gpu_check.sh lays it out: the program with test binaries next to it.
struct Kit {
    folder: TempDir,
    device: String,
}

impl Kit {
    /// A kit whose test binaries are the given shell scripts, for the first GPU; `None` where there is none.
    fn with_tests(scripts: &[(&str, &str)]) -> Option<Self> {
        let gpus = gpus();
        let Some(gpu) = gpus.first() else {
            refused_without_a_gpu(&run(&["gpu-check"]));
            return None;
        };
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let program = folder.path().join("infermark");
        if std::fs::hard_link(env!("CARGO_BIN_EXE_infermark"), &program).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_infermark"), &program).unwrap();
        }
        std::fs::create_dir(folder.path().join("tests")).unwrap();
        for (name, script) in scripts {
            let file = folder.path().join("tests").join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Kit {
            folder,
            device: name_of(gpu),
        })
    }

    /// The check of one step.
    fn check(&self, step: &str) -> Command {
        let mut check = Command::new(self.folder.path().join("infermark"));
        check.args(["gpu-check", "--only", step, "--device", &self.device]);
        check.arg("--out").arg(self.folder.path().join("results"));
        check
    }

    /// The only archive, unpacked.
    fn unpacked(&self) -> PathBuf {
        let names = entries(&self.folder.path().join("results"));
        assert_eq!(names.len(), 1, "{names:?}");
        let name = names[0].strip_suffix(".tar.gz").expect("an archive");
        let status = Command::new("tar")
            .arg("-C")
            .arg(self.folder.path())
            .arg("-xf")
            .arg(self.folder.path().join("results").join(&names[0]))
            .status();
        assert!(status.unwrap().success());
        self.folder.path().join(name)
    }
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn failed(output: &Output) -> String {
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_a_gpu_there_is_nothing_to_check() {
    if gpus().iter().any(|gpu| gpu["software"] == false) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = command(&["gpu-check", "--out"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    let message = text(&output.stderr);
    assert!(message.contains("there is no GPU here"), "{message}");
    assert!(entries(folder.path()).is_empty());
}

#[test]
fn wrong_usage_is_refused() {
    for (arguments, word) in [
        (["--only", "speeds"], "speed, peer, tests"),
        (["--minutes", "0"], "--minutes"),
        (["--products", "100,0"], "--products"),
        (["--products", ","], "--products"),
        (["--device", "tpu"], "there is no device 'tpu'"),
    ] {
        let output = command(&["gpu-check"]).args(arguments).output().unwrap();
        assert_eq!(code(&output), 2, "{arguments:?}");
        let message = text(&output.stderr);
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn the_speed_of_a_device_is_measured_and_quoted() {
    let Some(kit) = Kit::with_tests(&[]) else { return };
    let refused = kit
        .check("speed")
        .args(["--products", "100,10"])
        .output()
        .unwrap();
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("ascending"));
    let output = kit
        .check("speed")
        .args(["--quick", "--products", "40"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", failed(&output));
    let folder = kit.unpacked();
    let summary = std::fs::read_to_string(folder.join("summary.md")).unwrap();
    assert_eq!(text(&output.stdout), summary);
    assert!(summary.starts_with("# speed of "), "{summary}");
    for found in [
        "- profile of 40 products: done in ",
        "\nlaunch: products ",
        "- bench of 40 products: parity, then speed, in ",
        "\n| svi-gpu |",
        "- Nsight Compute: not measured, ",
        "- laplace on the device, 40 products: ",
        ": all that ran passed; written to ",
    ] {
        assert!(summary.contains(found), "{found}: {summary}");
    }
    for file in ["system.txt", "profile-40.txt", "bench.log", "bench/table.md"] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    let system = std::fs::read_to_string(folder.join("system.txt")).unwrap();
    assert!(
        system.contains("svi-gpu ") && system.contains("infermark "),
        "{system}"
    );
}

#[test]
fn a_failing_test_binary_is_a_failure_and_quoted() {
    let Some(kit) = Kit::with_tests(&[
        (
            "svi-gpu-good",
            "echo \"test result: ok. 3 passed; 0 failed on $INFERMARK_TEST_DEVICE\"",
        ),
        (
            "svi-gpu-bad",
            "echo \"thread 'a' panicked at tests/a.rs:1:1:\"; echo 'no parity'; exit 101",
        ),
        ("svi-tensor-dead", "kill -9 $$"),
        ("another", "exit 1"),
    ]) else {
        return;
    };
    let output = kit.check("tests").output().unwrap();
    assert_eq!(code(&output), 1, "{}", failed(&output));
    let folder = kit.unpacked();
    let summary = std::fs::read_to_string(folder.join("summary.md")).unwrap();
    for found in [
        "- svi-gpu-good: 3 passed in 0 s\n",
        "- svi-gpu-bad: **failed** with exit status 101 after 0 s; the end of svi-gpu-bad.log:\n",
        "\nthread 'a' panicked at tests/a.rs:1:1:\nno parity\n",
        "- svi-tensor-dead: **failed** with signal 9",
        ": **something failed**; written to ",
    ] {
        assert!(summary.contains(found), "{found}: {summary}");
    }
    assert!(!summary.contains("another"), "{summary}");
    let log = std::fs::read_to_string(folder.join("svi-gpu-good.log")).unwrap();
    assert!(log.ends_with(&format!(" on {}\n", kit.device)), "{log}");
}

#[test]
fn what_is_not_here_is_no_failure_but_nothing_was_checked() {
    let Some(kit) = Kit::with_tests(&[]) else { return };
    let output = kit.check("tests").output().unwrap();
    assert_eq!(code(&output), 2, "{}", failed(&output));
    let summary = text(&output.stdout);
    assert!(
        summary.contains("- tests: not run, there are none in "),
        "{summary}"
    );
    assert!(summary.contains("**nothing could be measured**"), "{summary}");
    assert!(kit.unpacked().join("system.txt").is_file());
}

#[test]
fn a_signal_leaves_the_archive_and_no_child() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let Some(kit) = Kit::with_tests(&[
            ("svi-gpu-a", "echo 'test result: ok. 1 passed; 0 failed'"),
            ("svi-gpu-b", "echo started $$; exec sleep 600"),
        ]) else {
            return;
        };
        let mut check = kit.check("tests");
        let mut check = check
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(check.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("tests: svi-gpu-a: 1 passed")));
        // The second one is about to start, or has.
        std::thread::sleep(Duration::from_millis(500));
        let clock = Instant::now();
        let sent = Command::new("kill")
            .args([signal, &check.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        lines.for_each(drop);
        let output = check.wait_with_output().unwrap();
        assert_eq!(code(&output), 3, "{signal}");
        assert!(clock.elapsed().as_secs() < 8, "{:?}", clock.elapsed());
        let folder = kit.unpacked();
        let summary = std::fs::read_to_string(folder.join("summary.md")).unwrap();
        assert_eq!(text(&output.stdout), summary);
        assert!(summary.contains("- svi-gpu-a: 1 passed in 0 s"), "{summary}");
        assert!(
            summary.contains("- **interrupted** after ")
                && summary.contains(", in svi-gpu-b.log: what follows is missing"),
            "{summary}"
        );
        let log = std::fs::read_to_string(folder.join("svi-gpu-b.log")).unwrap();
        let id = log.trim().strip_prefix("started ").expect("its id");
        assert!(!Path::new("/proc").join(id).exists(), "{id} is left");
    }
}

#[test]
fn a_part_without_time_left_is_cut_short() {
    // Of a minute three quarters are for the parts, so that the first takes them all.
    let Some(kit) = Kit::with_tests(&[
        ("svi-gpu-a", "echo waiting; exec sleep 600"),
        ("svi-gpu-b", "echo 'test result: ok. 1 passed; 0 failed'"),
    ]) else {
        return;
    };
    let clock = Instant::now();
    let output = kit.check("tests").args(["--minutes", "1"]).output().unwrap();
    assert_eq!(code(&output), 1, "{}", failed(&output));
    assert!(clock.elapsed().as_secs() < 60, "{:?}", clock.elapsed());
    let summary = text(&output.stdout);
    assert!(
        summary.contains("- svi-gpu-a: **cut short** after 4"),
        "{summary}"
    );
    assert!(
        summary.contains("- svi-gpu-b: **cut short** after 0 s"),
        "{summary}"
    );
}
