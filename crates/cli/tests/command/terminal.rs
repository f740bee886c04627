//! What a file's names do to a terminal and in a picture: nothing. And errors that name what a file is wrong in.

use crate::{code, command, run, text};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

/// Sales of four products in two categories over ten weeks. `price` is that of the third product in the fifth week.
fn sales(folder: &Path, name: &str, prefix: &str, price: &str) -> PathBuf {
    let file = folder.join(name);
    let mut rows = String::from("product,category,week,price,units\n");
    for product in 0..20 {
        for week in 1..=10 {
            let usual = format!("{:.2}", 2.0 + f64::from((product + 3 * week) % 7) / 5.0);
            let price = if (product, week) == (3, 5) { price } else { &usual };
            let units = 1 + (product * 5 + week * 3) % 11;
            writeln!(
                rows,
                "{prefix}p{product},{prefix}c{},{week},{price},{units}",
                product % 2
            )
            .unwrap();
        }
    }
    std::fs::write(&file, rows).unwrap();
    file
}

fn fit(file: &Path, method: &str, more: &str, out: &Path) -> Output {
    command(&["fit", "--method", method, more, "--out"])
        .args([out, file])
        .output()
        .unwrap()
}

#[test]
fn names_with_commands_to_a_terminal_are_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let name = if cfg!(windows) {
        "sales.csv"
    } else {
        "sa\u{1b}[2Jles.csv"
    };
    let file = sales(folder.path(), name, "\u{1b}]0;x\u{7}<&", "2.5");
    for (method, more) in [
        ("laplace", "--plain"),
        ("nuts", "--draws=20"),
        ("svi", "--iterations=200"),
    ] {
        let out = folder.path().join(method);
        let output = fit(&file, method, more, &out);
        let (answer, message) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(code(&output), 0, "{message}");
        assert!(answer.contains("\\u{1b}]0;x\\u{7}<&c0"), "{answer}");
        for shown in [answer, message] {
            assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
        }
        let picture = std::fs::read_to_string(out.join("elasticities_by_category.svg")).unwrap();
        assert!(!picture.contains(['\u{1b}', '\u{7}']) && picture.contains("&lt;&amp;c0"));
    }
    let missing = run(&[
        "fit",
        "no\u{1b}[2J.csv",
        "--out",
        folder.path().join("x").to_str().unwrap(),
    ]);
    assert_eq!(code(&missing), 2);
    let message = text(&missing.stderr);
    assert!(
        !message.contains('\u{1b}') && message.contains("no\\u{1b}[2J.csv"),
        "{message}"
    );
}

#[test]
fn a_wild_price_is_named_with_its_product_and_period() {
    let folder = tempfile::tempdir().unwrap();
    let file = sales(folder.path(), "wild.csv", "", "1e-300");
    for (method, more) in [
        ("laplace", "--plain"),
        ("structured-vi", "--plain"),
        ("meanfield", "--threads=1"),
        ("nuts", "--draws=20"),
        ("svi", "--iterations=200"),
    ] {
        let output = fit(&file, method, more, &folder.path().join(method));
        let message = text(&output.stderr);
        assert!(
            message.contains("the price of product 'p3' in period '5' is about 1e-300 times"),
            "{method}: {message}"
        );
        assert!(!message.contains("product 13"), "{method}: {message}");
    }
}

#[test]
fn priors_that_are_no_settings_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("priors.json");
    for (content, word) in [
        ("[-2, 1]", "is an array; give a JSON object"),
        ("3", "is a single value; give a JSON object"),
        ("{", "is no JSON"),
        (
            "{\"global_a_sd\": [1]}",
            "\"global_a_sd\" is an array; give a number",
        ),
        (
            "{\"global_a_sd\": \"1\"}",
            "\"global_a_sd\" is \"1\"; give a number",
        ),
        ("{\"global_b_sd\": 1}", "global_b_sd"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = run(&["model", "--priors", file.to_str().unwrap()]);
        assert_eq!(code(&output), 2, "{content}");
        let message = text(&output.stderr);
        assert!(
            message.contains(word) && message.contains("priors.json"),
            "{message}"
        );
    }
}
