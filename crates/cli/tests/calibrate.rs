//! `infermark calibrate` as a user meets it: files, verdict, exit codes.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn calibrate(out: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_infermark"))
        .args(["calibrate", "--methods", "structured-vi"])
        .args(["--products", "4", "--periods", "4"])
        .args(
            ["--replications", "60"]
                .iter()
                .filter(|_| !arguments.contains(&"--replications")),
        )
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn rows(file: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}

#[test]
fn every_likelihood_is_calibrated_with_its_own_parameter() {
    let folder = tempfile::tempdir().unwrap();
    for (likelihood, own) in [("poisson", None), ("negative-binomial", Some("log_shape"))] {
        let out = folder.path().join(likelihood);
        let output = calibrate(&out, &["--likelihood", likelihood, "--replications", "20"]);
        assert!(
            output.status.code().is_some_and(|code| code < 2),
            "{}",
            text(&output.stderr)
        );
        let table = text(&output.stdout);
        assert_eq!(table.contains("log_shape"), own.is_some(), "{table}");
        let record: Value =
            serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap();
        assert_eq!(record["design"]["likelihood"], likelihood);
    }
}

#[test]
fn a_calibrated_method_leaves_tables_pictures_and_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("first");
    let output = calibrate(&out, &["--threads", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("time_cat_effects") && !table.contains("NO"),
        "{table}"
    );
    // That the log joint is missing is said, not left to be noticed; so is which errors 60 replications find, before and after.
    let messages = text(&output.stderr);
    assert!(messages.contains("log joint is left out"));
    let promise = messages
        .find("With 60 replications, of a quantity with one latent per replication: an error of the sds by");
    let result = messages.find("with 60 replications: of ");
    assert!(promise.is_some() && promise < result, "{messages}");

    let placed = rows(&out.join("calibration.csv"));
    assert_eq!(placed.len(), 1 + 60 * 5);
    let pit = placed[0].iter().position(|c| c == "pit").unwrap();
    assert!(
        placed[1..]
            .iter()
            .all(|row| (0.0..=1.0).contains(&row[pit].parse::<f64>().unwrap()))
    );
    assert_eq!(rows(&out.join("summary.csv")).len(), 1 + 5);
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "finished");
    assert_eq!(record["methods"][0]["passes"], true);
    let sensitivity = &record["methods"][0]["sensitivity"]["product_a"];
    let found = sensitivity["sd_error_found"].as_f64().unwrap();
    assert!(found > 0.1 && found < 0.8, "{found}");
    assert_eq!(record["methods"][0]["backend"], "structured-vi-cpu");
    for picture in ["pit_histograms", "ecdf_difference", "coverage"] {
        for extension in ["svg", "png"] {
            assert!(out.join(picture).with_extension(extension).exists(), "{picture}");
        }
    }

    // The same on another number of threads; what is there is kept unless it is to be replaced.
    let again = folder.path().join("again");
    assert_eq!(calibrate(&again, &["--threads", "1"]).status.code(), Some(0));
    assert_eq!(rows(&again.join("calibration.csv")), placed);
    let refused = calibrate(&again, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--force"));
    assert_eq!(calibrate(&again, &["--force"]).status.code(), Some(0));
}

#[test]
fn the_likelihood_reaches_data_and_fits() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = calibrate(
        &out,
        &["--likelihood", "negative-binomial", "--replications", "20"],
    );
    assert!(output.status.code() < Some(2), "{}", text(&output.stderr));
    let summary = rows(&out.join("summary.csv"));
    assert!(summary.iter().any(|row| row[1] == "log_shape"), "{summary:?}");
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap();
    for likelihood in [&record["design"], &record["methods"][0]["request"]] {
        assert_eq!(likelihood["likelihood"], "negative-binomial");
    }
}

#[test]
fn another_prior_than_the_datas_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.json");
    std::fs::write(&wrong, r#"{"product_a_sd": 0.01}"#).unwrap();
    let out = folder.path().join("out");
    let output = calibrate(&out, &["--fit-priors", wrong.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("NO") && text(&output.stderr).contains("FAILS"));
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["methods"][0]["request"]["priors"]["product_a_sd"], 0.01);
    // What the file leaves out is as drawn from.
    assert_eq!(
        record["methods"][0]["request"]["priors"]["product_effect_mean"],
        record["design"]["priors"]["product_effect_mean"]
    );
}

#[test]
fn what_makes_no_sense_is_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let priors = folder.path().join("priors.json");
    for (content, word) in [
        (r#"{"product_a": 1}"#, "product_a"),
        (r#"{"product_a_sd": -1}"#, "product_a"),
    ] {
        std::fs::write(&priors, content).unwrap();
        let output = calibrate(folder.path(), &["--priors", priors.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let message = text(&output.stderr);
        assert!(
            message.contains(word) && message.contains("priors.json"),
            "{message}"
        );
    }
    for (arguments, word) in [
        (["--replications", "0"], "replications"),
        (["--level", "0"], "--level"),
        (["--threads", "0"], "threads is 0; give 1 to 1024"),
        (["--methods", "structured-vi"], "twice"),
        (["--draws", "7"], "--draws"),
    ] {
        let output = calibrate(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
}
