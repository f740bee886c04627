//! Checkpoints: kills and signals in the middle, and fits that go on from what they left.

use crate::{code, command, json, posterior, text, whole_fit};
use infermark_test_support::data;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CHECKPOINT: &str = "checkpoint.bin";

/// A fit of a small panel that takes a second or two, with checkpoints when a signal asks for them.
const SVI: &[&str] = &["--method", "svi", "--iterations", "100000"];
const SVI_OF_TWO_SHARDS: &[&str] = &["--method", "svi", "--iterations", "50000", "--shards", "2"];
const NUTS: &[&str] = &[
    "--method", "nuts", "--warmup", "300", "--draws", "3000", "--chains", "3",
];

fn fit(options: &[&str], out: &Path) -> Command {
    let mut command = command(&["fit", data("panel.csv").to_str().unwrap(), "--out"]);
    command.arg(out).args(options);
    command
}

/// The same fit with checkpoints, begun or gone on with.
fn start(options: &[&str], out: &Path) -> Child {
    let mut fit = fit(options, out);
    fit.args(["--checkpoint-every", "1h"]);
    if out.join(CHECKPOINT).exists() {
        fit.arg("--resume");
    }
    fit.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Which file is at a path: each checkpoint is a new one.
fn file_at(path: &Path) -> Option<(u64, i64, i64)> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.ino(), of.mtime(), of.mtime_nsec()))
}

/// Asks for checkpoints until there is a new one; false if the fit has ended.
fn wait_for_checkpoint(child: &mut Child, out: &Path) -> bool {
    let path = out.join(CHECKPOINT);
    let before = file_at(&path);
    let clock = Instant::now();
    // Before the program listens, the signal would end it: its first act in the folder comes later than that.
    while clock.elapsed() < Duration::from_secs(60) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if listens(child.id()) {
            signal(child, "-USR1");
        }
        std::thread::sleep(Duration::from_millis(10));
        if file_at(&path) != before {
            return true;
        }
    }
    panic!("no checkpoint is written");
}

/// Whether a process catches SIGUSR1.
fn listens(process: u32) -> bool {
    const SIGUSR1: u32 = 10;
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() >> (SIGUSR1 - 1) & 1 == 1)
}

fn finish(child: Child) -> Output {
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    output
}

fn posterior_bytes(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("posterior.csv")).unwrap()
}

/// Kills a fit so many times, at moments spread over the time between a checkpoint and the next; the end has the bytes of an
/// unbroken fit.
fn survives_kills(options: &[&str], kills: u32) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    assert_eq!(code(&fit(options, &whole).output().unwrap()), 0);
    let mut kill = 0;
    while kill < kills {
        if is_finished(&out) {
            assert_eq!(posterior_bytes(&out), posterior_bytes(&whole));
            std::fs::remove_dir_all(&out).unwrap();
        }
        let mut child = start(options, &out);
        if !wait_for_checkpoint(&mut child, &out) {
            // It came to its end before it could be killed.
            finish(child);
            continue;
        }
        kill += 1;
        let share = (f64::from(kill) * 0.618).fract();
        std::thread::sleep(Duration::from_secs_f64(0.06 * share));
        if kill % 2 == 0 {
            // Another one may be half written.
            signal(&child, "-USR1");
            std::thread::sleep(Duration::from_secs_f64(0.004 * share));
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    if !is_finished(&out) {
        finish(start(options, &out));
        assert!(
            !out.join(CHECKPOINT).exists(),
            "a finished fit keeps no checkpoint"
        );
        assert!(whole_fit(&out).is_some());
    }
    assert_eq!(posterior_bytes(&out), posterior_bytes(&whole));
}

fn is_finished(out: &Path) -> bool {
    out.join("run.json").exists() && json(&out.join("run.json"))["status"] == "finished"
}

#[test]
fn a_fit_that_was_killed_goes_on_to_the_bits_of_the_unbroken_one() {
    for options in [SVI, SVI_OF_TWO_SHARDS, NUTS] {
        survives_kills(options, 4);
    }
}

#[test]
#[ignore = "minutes; run before a release"]
fn fifty_kills() {
    for options in [SVI, SVI_OF_TWO_SHARDS, NUTS] {
        survives_kills(options, 50);
    }
}

/// A fit of half the time, its checkpoint and partial results in the folder.
fn interrupted(options: &[&str], out: &Path) {
    let mut child = start(options, out);
    assert!(wait_for_checkpoint(&mut child, out), "it was interrupted in time");
    let before = file_at(&out.join(CHECKPOINT));
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 3, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--resume"));
    assert_ne!(
        file_at(&out.join(CHECKPOINT)),
        before,
        "the signal writes one too"
    );
    assert!(out.join("run.json").exists());
}

#[test]
fn an_interrupted_fit_goes_on_and_replaces_its_partial_results() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options) in [("svi", SVI), ("nuts", NUTS)] {
        let (whole, out) = (
            folder.path().join(format!("{name}-whole")),
            folder.path().join(name),
        );
        assert_eq!(code(&fit(options, &whole).output().unwrap()), 0);
        interrupted(options, &out);
        let output = finish(start(options, &out));
        assert!(text(&output.stderr).contains("going on from the checkpoint of"));
        assert_eq!(posterior_bytes(&out), posterior_bytes(&whole));
        assert!(!out.join(CHECKPOINT).exists());
    }
}

/// The largest distance of means, and of standard deviations, in standard deviations.
fn distance(one: &Path, other: &Path) -> f64 {
    let number = |cell: &String| cell.parse::<f64>().unwrap();
    let (one, other) = (posterior(one).1, posterior(other).1);
    assert_eq!(one.len(), other.len());
    one.iter().zip(&other).fold(0.0, |worst: f64, (one, other)| {
        let sd = number(&other[3]);
        let off = |column: usize| (number(&one[column]) - number(&other[column])).abs() / sd;
        worst.max(off(2)).max(off(3))
    })
}

#[test]
fn a_fit_goes_on_with_other_shards_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let svi = [SVI, &["--precision", "f64"]].concat();
    assert_eq!(code(&fit(&svi, &whole).output().unwrap()), 0);
    for (from, to) in [("1", "3"), ("3", "1"), ("2", "4")] {
        let out = folder.path().join(format!("{from}-{to}"));
        interrupted(&[&svi[..], &["--shards", from]].concat(), &out);
        finish(start(
            &[&svi[..], &["--shards", to, "--threads", "3"]].concat(),
            &out,
        ));
        // Sums in another order, in double precision, over tens of thousands of iterations.
        let off = distance(&out, &whole);
        assert!(off < 1e-6, "{from} shards, then {to}: {off}");
    }
}

fn refused(arguments: &mut Command, words: &[&str]) {
    let output = arguments.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(&output), 2, "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
}

#[test]
fn what_a_fit_cannot_go_on_from_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let resumed = |options: &[&str]| {
        let mut fit = fit(options, &out);
        fit.arg("--resume");
        fit
    };
    refused(
        &mut resumed(SVI),
        &["checkpoint.bin is missing", "leave out --resume"],
    );
    assert!(!out.exists());
    interrupted(SVI, &out);
    let kept = std::fs::read(out.join(CHECKPOINT)).unwrap();
    refused(
        &mut resumed(&[SVI, &["--seed", "9"]].concat()),
        &["another request", "its seed is 0, this one is 9"],
    );
    refused(&mut resumed(NUTS), &["another request", "--force"]);
    let other: PathBuf = folder.path().join("other.csv");
    let sales = std::fs::read_to_string(data("panel.csv")).unwrap();
    let (last, _) = sales.trim_end().rsplit_once('\n').unwrap();
    std::fs::write(&other, last).unwrap();
    let mut of_other = command(&["fit", other.to_str().unwrap(), "--out"]);
    refused(
        of_other.arg(&out).args(SVI).arg("--resume"),
        &["another panel", "other.csv"],
    );
    // Begun anew without a word about the checkpoint.
    refused(
        &mut fit(SVI, &out),
        &["the checkpoint of an unfinished fit", "--resume, or --force"],
    );
    for (damaged, word) in [
        (kept[..kept.len() - 1].to_vec(), "truncated"),
        (kept[..40].to_vec(), "truncated"),
        (b"hello".to_vec(), "is no checkpoint"),
        (flipped(&kept, kept.len() / 2), "damaged"),
        (flipped(&kept, 60), "damaged"),
    ] {
        std::fs::write(out.join(CHECKPOINT), damaged).unwrap();
        refused(&mut resumed(SVI), &[word, "checkpoint.bin", "--force"]);
    }
    // A fit that replaces it leaves nothing of it.
    let mut anew = fit(&["--method", "laplace", "--force"], &out);
    assert_eq!(code(&anew.output().unwrap()), 0);
    assert!(!out.join(CHECKPOINT).exists());
    let diagonal = [NUTS, &["--metric", "diagonal", "--checkpoint-every", "1h"]].concat();
    refused(
        &mut fit(&diagonal, &folder.path().join("diagonal")),
        &["writes no checkpoints"],
    );
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 4;
    flipped
}
