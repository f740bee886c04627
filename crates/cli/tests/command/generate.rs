//! `generate`, and a fit against the truth beside it.

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
