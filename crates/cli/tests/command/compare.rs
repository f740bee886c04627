//! `compare`.

use crate::{code, command, text};
use infermark_test_support::data;
use std::path::Path;
use std::process::Output;

/// A panel of 60 products with its truth, and fits of it by the methods that are named.
fn fits_of_one_panel(folder: &Path, methods: &[&[&str]]) {
    let path = |name: &str| folder.join(name);
    let sizes = "--products 60 --periods 30 --categories 2 --seed 3";
    let output = command(&["generate"])
        .args(sizes.split(' '))
        .args([
            Path::new("--out"),
            &path("panel.csv"),
            Path::new("--truth"),
            &path("truth.csv"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    for method in methods {
        let output = command(&["fit"])
            .args([&path("panel.csv"), Path::new("--out"), &path(method[0])])
            .arg("--method")
            .args(*method)
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    }
}

#[test]
fn fits_are_compared_with_the_one_by_nuts_and_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Chains that have not converged, which the comparison reports; then another reference.
    let nuts = ["nuts", "--chains", "2", "--warmup", "100", "--draws", "100"];
    let svi = ["svi", "--iterations", "300"];
    fits_of_one_panel(folder.path(), &[&nuts, &["laplace"], &["structured-vi"], &svi]);
    let compare = |fits: &[&str], extra: &[(&str, &str)]| {
        let mut command = command(&["compare", "--out"]);
        command.arg(path("out")).args(fits.iter().map(|f| path(f)));
        for (option, file) in extra {
            command.arg(option).arg(path(file));
        }
        command.output().unwrap()
    };
    let output = compare(
        &["laplace", "nuts", "svi"],
        &[("--truth", "truth.csv"), ("--data", "panel.csv")],
    );
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("The reference is nuts") && table.contains("60 products"),
        "{table}"
    );
    assert_eq!(table.matches("time_cat_effects").count(), 2, "{table}");
    for file in [
        "coverage.svg",
        "coverage.png",
        "beside_reference.svg",
        "beside_reference.png",
    ] {
        assert!(path("out").join(file).exists(), "{file}");
    }
    let drawn = || std::fs::read_to_string(path("out").join("beside_reference.svg")).unwrap();
    assert!(drawn().contains("units of the product"));
    let read = || -> Vec<Vec<String>> {
        let csv = std::fs::read_to_string(path("out").join("comparison.csv")).unwrap();
        csv.lines()
            .map(|l| l.split(',').map(str::to_owned).collect())
            .collect()
    };
    let number = |rows: &[Vec<String>], fit: &str, column: &str| -> f64 {
        let place = rows[0].iter().position(|c| c == column).unwrap();
        let mut of_fit = rows.iter().filter(|r| r[0] == fit);
        let row = of_fit.find(|r| r.contains(&"product_a".to_owned())).unwrap();
        row[place]
            .parse()
            .unwrap_or_else(|_| panic!("{fit} {column}: {}", row[place]))
    };
    let rows = read();
    assert_eq!(rows.len(), 1 + 3 * 5);
    assert!(rows.iter().flatten().all(|cell| !cell.is_empty()), "{rows:?}");
    assert!(
        number(&rows, "laplace", "mae") < number(&rows, "svi", "mae"),
        "{rows:?}"
    );
    assert!(
        number(&rows, "nuts", "coverage_50") <= number(&rows, "nuts", "coverage_99"),
        "{rows:?}"
    );
    // Both are within a few hundredths of the exact posterior; 300 iterations from the published start are not.
    let output = compare(&["laplace", "svi"], &[("--reference", "structured-vi")]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let rows = read();
    assert!(
        number(&rows, "laplace", "mean_difference_median") < 0.1,
        "{rows:?}"
    );
    assert!(
        (0.9..1.1).contains(&number(&rows, "laplace", "sd_ratio_median")),
        "{rows:?}"
    );
    assert!(number(&rows, "svi", "mean_difference_median") > 1.0, "{rows:?}");
    assert_eq!(rows[1][15..], vec!["not applicable".to_owned(); 12]);

    // Without the data, products are drawn by what the reference knows of them.
    let output = compare(&["laplace", "nuts"], &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(drawn().contains("in the reference") && !drawn().contains("units of the product"));
    // No truth, no picture of what intervals cover: the one before was of other fits.
    assert!(!path("out").join("coverage.svg").exists() && !path("out").join("coverage.png").exists());
    // A reference that is named need not be named twice.
    let output = compare(&["svi", "nuts"], &[("--reference", "laplace")]);
    assert!(
        text(&output.stdout).contains("The reference is laplace"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn fits_under_two_likelihoods_are_compared_in_the_sites_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fits_of_one_panel(folder.path(), &[&["laplace"]]);
    for method in ["structured-vi", "meanfield"] {
        let output = command(&["fit"])
            .arg(path("panel.csv"))
            .args(["--likelihood", "negative-binomial", "--method", method, "--out"])
            .arg(path(method))
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    }
    let output = crate::compare(
        &["laplace", "structured-vi", "meanfield"].map(path),
        &path("structured-vi"),
        &path("out"),
    );
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("negative-binomial (structured-vi-cpu)"), "{table}");
    // Only the mean-field fit has the shapes of the reference.
    assert_eq!(table.matches("log_shape").count(), 1, "{table}");
    let csv = std::fs::read_to_string(path("out").join("comparison.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 5 + 6 + 6);

    let into_a_fit = crate::compare(
        &["laplace", "structured-vi"].map(path),
        &path("laplace"),
        &path("laplace"),
    );
    assert_eq!(code(&into_a_fit), 2);
    assert!(text(&into_a_fit.stderr).contains("holds a fit"));
}

#[test]
fn what_cannot_be_compared_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fits_of_one_panel(folder.path(), &[&["laplace"], &["structured-vi"]]);
    let small = data("panel.csv");
    let output = command(&["fit", small.to_str().unwrap(), "--method", "laplace", "--out"])
        .arg(path("other"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("edited")).unwrap();
    for name in ["run.json", "posterior.csv"] {
        let original = std::fs::read_to_string(path("laplace").join(name)).unwrap();
        std::fs::write(
            path("edited").join(name),
            original.replace("global_a,", "global_a, "),
        )
        .unwrap();
    }
    let truth = std::fs::read_to_string(path("truth.csv")).unwrap();
    let all_but_one: Vec<&str> = truth.lines().take(60).collect();
    std::fs::write(path("short.csv"), all_but_one.join("\n")).unwrap();
    let given = |arguments: &str| -> Output {
        let mut command = command(&["compare", "--out"]);
        command.arg(path("out"));
        for argument in arguments.split(' ') {
            if argument.starts_with("--") {
                command.arg(argument);
            } else {
                command.arg(path(argument));
            }
        }
        command.output().unwrap()
    };
    for (arguments, words) in [
        ("empty", "a fit was written to (fit --out)"),
        ("nowhere", "holds no fit"),
        ("laplace structured-vi", "none of the fits is by NUTS"),
        ("laplace edited --reference laplace", "fit again"),
        ("laplace other --reference laplace", "another panel"),
        ("laplace --truth nowhere.csv", "nowhere.csv"),
        ("laplace --truth short.csv", "the truth has not"),
        ("laplace --truth panel.csv", "neither product,category,elasticity"),
        ("laplace --truth truth.csv --data other", "other"),
        ("laplace --price-column p", "--price-column goes with --data"),
    ] {
        let output = given(arguments);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments}: {message}");
        assert!(message.contains(words), "{arguments}: {message}");
        assert!(!path("out").exists(), "{arguments}");
    }
    let output = command(&["compare", "--data", small.to_str().unwrap(), "--reference"])
        .args([
            path("laplace"),
            path("structured-vi"),
            "--out".into(),
            path("out"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("is not the data of"),
        "{}",
        text(&output.stderr)
    );
}
