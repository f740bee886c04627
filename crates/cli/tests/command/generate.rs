//! `generate`, and a fit compared with the truth.

use crate::{code, command, text};
use std::path::Path;

#[test]
fn generate_then_fit_against_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let (panel, truth) = (
        folder.path().join("panel.parquet"),
        folder.path().join("truth.csv"),
    );
    let output = command(&[
        "generate",
        "--products",
        "50",
        "--periods",
        "30",
        "--categories",
        "3",
        "--seed",
        "4",
    ])
    .args([Path::new("--out"), &panel, Path::new("--truth"), &truth])
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let output = command(&["fit", panel.to_str().unwrap()])
        .args([
            Path::new("--truth"),
            &truth,
            Path::new("--out"),
            &folder.path().join("fit"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("mean absolute error"));
}

#[test]
fn negative_binomial_panels_are_generated_and_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for process in ["published", "model"] {
        let output = command(&[
            "generate",
            "--process",
            process,
            "--likelihood",
            "negative-binomial",
        ])
        .args([
            "--products",
            "30",
            "--periods",
            "20",
            "--categories",
            "2",
            "--force",
        ])
        .args([
            Path::new("--out"),
            &path("panel.csv"),
            Path::new("--truth"),
            &path("truth.csv"),
        ])
        .output()
        .unwrap();
        assert_eq!(code(&output), 0, "{process}: {}", text(&output.stderr));
        let truth = std::fs::read_to_string(path("truth.csv")).unwrap();
        assert_eq!(truth.matches("\nlog_shape,").count(), 2, "{truth}");
    }
    let output = command(&[
        "generate",
        "--likelihood",
        "negative-binomial",
        "--products",
        "30",
    ])
    .args(["--periods", "20", "--categories", "2", "--force"])
    .args([
        Path::new("--out"),
        &path("panel.csv"),
        Path::new("--truth"),
        &path("truth.csv"),
    ])
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let output = command(&[
        "fit",
        path("panel.csv").to_str().unwrap(),
        "--likelihood",
        "negative-binomial",
    ])
    .args([
        Path::new("--truth"),
        &path("truth.csv"),
        Path::new("--out"),
        &path("fit"),
    ])
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("mean absolute error"));
}

#[test]
fn files_that_are_there_are_replaced_on_request_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (panel, truth) = (folder.path().join("panel.csv"), folder.path().join("truth.csv"));
    let generate = |truth: &Path, seed: &str, more: &[&str]| {
        command(&["generate", "--products", "20", "--periods", "12", "--seed", seed])
            .args([Path::new("--out"), &panel, Path::new("--truth"), truth])
            .args(more)
            .output()
            .unwrap()
    };
    assert_eq!(code(&generate(&truth, "1", &[])), 0);
    let first = std::fs::read(&panel).unwrap();
    let output = generate(&truth, "2", &[]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("--force"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read(&panel).unwrap(), first);
    assert_eq!(code(&generate(&truth, "2", &["--force"])), 0);
    assert_ne!(std::fs::read(&panel).unwrap(), first);
    // By another name of the folder, which is not there yet.
    let same = folder.path().join("new/../panel.csv");
    let output = generate(&same, "3", &["--force"]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("cannot be one file"),
        "{}",
        text(&output.stderr)
    );
}
