//! Little memory and a full disk: a method ends or refuses with figures, and what fits is there.

use crate::{code, command, text, whole_fit};
use infermark_test_support::data;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const METHODS: [&str; 5] = ["laplace", "structured-vi", "meanfield", "svi", "nuts"];

fn generate(folder: &Path, products: &str, periods: &str) -> std::path::PathBuf {
    let panel = folder.join(format!("{products}.parquet"));
    let mut command = command(&["generate", "--process", "model", "--products", products]);
    command.args(["--periods", periods, "--out"]).arg(&panel);
    command.arg("--truth").arg(folder.join(format!("{products}.csv")));
    assert!(command.output().unwrap().status.success());
    panel
}

fn few_steps(method: &str) -> &'static [&'static str] {
    match method {
        "svi" => &["--iterations", "50"],
        "nuts" => &["--warmup", "5", "--draws", "40", "--chains", "2"],
        _ => &[],
    }
}

/// A fit that a shell starts after `limits`.
fn fit_under(limits: &str, panel: &Path, method: &str, out: &Path) -> Output {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{limits} && exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_infermark"))
        .args(["fit", "--force", "--method", method])
        .args(few_steps(method))
        .arg("--out")
        .arg(out)
        .arg(panel)
        .stdout(Stdio::null())
        .output()
        .unwrap()
}

/// It ended, or refused with figures.
fn assert_ended_or_refused(output: &Output, what: &str) {
    let told = text(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(2) => assert!(
            told.contains(" needs ") && told.contains(" leaves "),
            "{what}: {told}"
        ),
        other => panic!("{what}: {other:?}: {told}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn under_a_limit_of_memory_every_method_ends_or_refuses_with_figures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("fit");
    let panels = [
        generate(folder.path(), "1000", "100"),
        generate(folder.path(), "30000", "40"),
    ];
    let (mut ended, mut refused) = (0, 0);
    for panel in &panels {
        for method in METHODS {
            for megabytes in [100, 115, 120, 130, 140, 200, 400] {
                let output = fit_under(&format!("ulimit -v {}", megabytes * 1000), panel, method, &out);
                assert_ended_or_refused(&output, &format!("{method}, {megabytes} MB, {}", panel.display()));
                match output.status.success() {
                    true => ended += 1,
                    false => refused += 1,
                }
            }
        }
    }
    // Both are seen.
    assert!(ended >= 10 && refused >= 2, "{ended} ended, {refused} refused");
}

#[cfg(target_os = "linux")]
#[test]
fn under_a_limit_of_memory_generators_and_benchmarks_end_or_refuse_with_figures() {
    let folder = tempfile::tempdir().unwrap();
    let under = |megabytes: u32, arguments: &str| {
        Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -v {}000 && exec \"$0\" {arguments}", megabytes))
            .arg(env!("CARGO_BIN_EXE_infermark"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .output()
            .unwrap()
    };
    let mut codes = Vec::new();
    for megabytes in [80, 150, 400] {
        for arguments in [
            "generate --process model --products 20000 --out p.parquet --truth t.csv --force",
            "bench --products 2000 --backends laplace-cpu --repeats 2 --repeat-seconds 0.01 --warm-up-seconds 0.01 \
             --settle-seconds 0 --quality-seconds 0.05 --published-nuts-seconds 0 --out results",
            "calibrate --methods laplace --replications 20 --products 3 --periods 4 --out calibration --force",
        ] {
            let output = under(megabytes, arguments);
            assert_ended_or_refused(&output, &format!("{megabytes} MB: {arguments}"));
            codes.push(code(&output));
        }
    }
    assert!(codes.contains(&0) && codes.contains(&2), "{codes:?}");
}

/// A control group of the memory controller that this process may make, of version 1 or 2.
#[cfg(target_os = "linux")]
fn control_group(megabytes: u64) -> Option<std::path::PathBuf> {
    for (parent, limit) in [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ] {
        let group = Path::new(parent).join(format!("infermark-test-{}", std::process::id()));
        if std::fs::create_dir(&group).is_ok() {
            if std::fs::write(group.join(limit), format!("{}", megabytes << 20)).is_ok() {
                return Some(group);
            }
            let _ = std::fs::remove_dir(&group);
        }
    }
    None
}

#[cfg(target_os = "linux")]
#[test]
fn under_a_control_group_every_method_ends_or_refuses_with_figures() {
    let folder = tempfile::tempdir().unwrap();
    let panel = generate(folder.path(), "40000", "50");
    let out = folder.path().join("fit");
    let mut codes = Vec::new();
    for megabytes in [60, 400] {
        let Some(group) = control_group(megabytes) else {
            eprintln!("skipped: no control group of memory can be made here");
            return;
        };
        let enter = format!("echo $$ > {}/cgroup.procs", group.display());
        let outputs = METHODS.map(|method| (method, fit_under(&enter, &panel, method, &out)));
        let _ = std::fs::remove_dir(&group);
        for (method, output) in &outputs {
            assert_ended_or_refused(output, method);
            if code(output) == 2 {
                assert!(
                    text(&output.stderr).contains("control group"),
                    "{}",
                    text(&output.stderr)
                );
            }
            codes.push(code(output));
        }
    }
    assert!(codes.contains(&0) && codes.contains(&2), "{codes:?}");
}

/// Runs `script` in a mount namespace of its own with a file system of `kilobytes` at `disk`.
#[cfg(target_os = "linux")]
fn on_a_small_disk(kilobytes: u32, disk: &Path, script: &str) -> Option<Output> {
    let may = Command::new("unshare").args(["-m", "true"]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: a file system can be mounted by root alone");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k none {} && cd {} && {script}",
        disk.display(),
        disk.display()
    );
    Some(
        Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .unwrap(),
    )
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_what_fits_is_kept_and_an_old_fit_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, kept) = (folder.path().join("disk"), folder.path().join("kept"));
    std::fs::create_dir(&disk).unwrap();
    let binary = env!("CARGO_BIN_EXE_infermark");
    let panel = data("panel.csv");
    let (mut none, mut some, mut all) = (0, 0, 0);
    for kilobytes in [8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 400, 1000] {
        for method in ["svi", "nuts"] {
            let _ = std::fs::remove_dir_all(&kept);
            let steps = few_steps(method).join(" ");
            let script = format!(
                "{binary} fit {} --method {method} {steps} --out fit; code=$?; cp -r fit {}; exit $code",
                panel.display(),
                kept.display()
            );
            let Some(output) = on_a_small_disk(kilobytes, &disk, &script) else {
                return;
            };
            let told = text(&output.stderr);
            let what = format!("{method}, {kilobytes} kB: {told}");
            match (output.status.code(), whole_fit(&kept)) {
                (Some(0), Some(_)) => all += 1,
                // The posterior is there, what is missing is named.
                (Some(1), Some((record, _))) => {
                    assert_eq!(record["status"], "unfinished", "{what}");
                    some += 1;
                }
                (Some(2), None) => {
                    assert!(told.contains("No space left"), "{what}");
                    none += 1;
                }
                (code, fit) => panic!("{code:?}, a fit: {}; {what}", fit.is_some()),
            }
        }
    }
    assert!(none > 0 && some > 0 && all > 0, "{none} {some} {all}");

    // A new fit that does not fit on the disk next to an old one leaves the old one unchanged.
    let script = format!(
        "{binary} fit {panel} --method laplace --out fit && cp fit/run.json {kept}.json && \
         dd if=/dev/zero of=filler bs=1k 2>/dev/null; {binary} fit {panel} --method laplace --force --out fit; \
         cmp fit/run.json {kept}.json && cp -r fit {kept}",
        panel = panel.display(),
        kept = kept.display()
    );
    let _ = std::fs::remove_dir_all(&kept);
    let output = on_a_small_disk(1000, &disk, &script).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(whole_fit(&kept).is_some());
}
