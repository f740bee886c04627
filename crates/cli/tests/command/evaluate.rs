//! `evaluate`: the log joint and its gradient at a point.

use crate::{SITES, code, over_dispersed_sales, run, text};
use infermark_test_support::{data, numbers, vectors};
use serde_json::Value;

#[test]
fn evaluate_equals_the_reference_vectors() {
    let vectors = vectors();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point.json");
    for point in vectors["centered_log_joint"].as_array().unwrap() {
        std::fs::write(&file, point["z"].to_string()).unwrap();
        let panel = data("panel.csv");
        let output = run(&[
            "evaluate",
            panel.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (found, expected) = (
            answer["log_joint"].as_f64().unwrap(),
            point["log_joint"].as_f64().unwrap(),
        );
        // Both are float64 and differ in the order of their sums alone.
        assert!(
            (found - expected).abs() <= 1e-10 * expected.abs(),
            "{found} {expected}"
        );
        let gradient = |from: &Value| -> Vec<f64> { SITES.iter().flat_map(|s| numbers(&from[s])).collect() };
        let (found, expected) = (gradient(&answer["grad"]), gradient(&point["grad"]));
        assert_eq!(found.len(), expected.len());
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(difference <= 1e-9 * norm(&mut expected.iter().copied()));
    }
}

#[test]
fn a_point_that_does_not_fit_the_panel_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point.json");
    let panel = data("panel.csv");
    for (content, word) in [
        ("{", "point.json"),
        ("[1, [2]]", "an array; give a JSON object"),
        ("{\"global_a\": 1}", "category_a"),
        ("{\"global_a\": [1, 2]}", "2 numbers"),
        ("{\"globl_a\": 1}", "globl_a"),
        ("{\"global_a\": \"x\"}", "not a number"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = run(&[
            "evaluate",
            panel.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 2);
        assert!(
            text(&output.stderr).contains(word),
            "{content}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_point_beyond_double_precision_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let sales = over_dispersed_sales(folder.path());
    let file = folder.path().join("point.json");
    let point = serde_json::json!({
        "global_a": -1.0,
        "category_a": [-1.0, -1.0],
        "product_a": [-1.0, -1.0, 1e300, -1.0, -1.0, -1.0],
        "product_effect": vec![1.0; 6],
        "time_cat_effects": vec![1.0; 40],
    });
    std::fs::write(&file, point.to_string()).unwrap();
    let output = run(&[
        "evaluate",
        sales.to_str().unwrap(),
        "--point",
        file.to_str().unwrap(),
    ]);
    let message = text(&output.stderr);
    assert_eq!(code(&output), 1, "{message}");
    assert!(output.stdout.is_empty());
    assert!(message.contains("product_a of 'p2'"), "{message}");
}

#[test]
fn evaluate_takes_the_shapes_of_negative_binomial_counts() {
    let folder = tempfile::tempdir().unwrap();
    let sales = over_dispersed_sales(folder.path());
    let file = folder.path().join("point.json");
    let mut point = serde_json::json!({
        "global_a": -1.0,
        "category_a": [-1.0, -1.0],
        "product_a": [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0],
        "product_effect": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "time_cat_effects": vec![1.0; 40],
        "log_shape": [0.5, 1.0],
    });
    let evaluate = |point: &Value, likelihood: &str| {
        std::fs::write(&file, point.to_string()).unwrap();
        run(&[
            "evaluate",
            sales.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
            "--likelihood",
            likelihood,
        ])
    };
    let output = evaluate(&point, "negative-binomial");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(numbers(&answer["grad"]["log_shape"]).len(), 2);
    let refused = evaluate(&point, "poisson");
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("log_shape"));
    point.as_object_mut().unwrap().remove("log_shape");
    let poisson = evaluate(&point, "poisson");
    assert_eq!(code(&poisson), 0, "{}", text(&poisson.stderr));
    let refused = evaluate(&point, "negative-binomial");
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("\"log_shape\" is missing"));
}
