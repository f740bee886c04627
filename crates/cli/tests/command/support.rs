//! What the tests of the command share.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infermark"));
    command.args(arguments);
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The backends that need no GPU.
pub(crate) const BACKENDS: [&str; 5] = [
    "svi-cpu",
    "nuts-cpu",
    "laplace-cpu",
    "structured-vi-cpu",
    "meanfield-cpu",
];

pub(crate) const SITES: [&str; 5] = [
    "global_a",
    "category_a",
    "product_a",
    "product_effect",
    "time_cat_effects",
];

/// The header and the cells of `posterior.csv`.
pub(crate) fn posterior(folder: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(folder.join("posterior.csv")).unwrap();
    let mut lines = text
        .lines()
        .map(|l| l.split(',').map(str::to_owned).collect::<Vec<_>>());
    (lines.next().unwrap(), lines.collect())
}

/// Compares fits into a folder.
pub(crate) fn compare(fits: &[PathBuf], reference: &Path, out: &Path) -> Output {
    command(&["compare"])
        .args(fits)
        .args([Path::new("--reference"), reference, Path::new("--out"), out])
        .output()
        .unwrap()
}

/// Counts whose variance is far above their mean: 3 or 300 at the same price.
pub(crate) fn over_dispersed_sales(folder: &Path) -> PathBuf {
    let file = folder.join("sales.csv");
    let mut text = String::from("product,category,week,price,units\n");
    for product in 0..6 {
        for week in 1..=20 {
            let units = if (product * 7 + week * 5) % 3 == 0 { 300 } else { 3 };
            let price = 1.0 + f64::from(week % 4) / 4.0;
            text += &format!("p{product},c{},{week},{price},{units}\n", product % 2);
        }
    }
    std::fs::write(&file, text).unwrap();
    file
}

/// Every file of a fit, in one string.
#[cfg(unix)]
pub(crate) fn whole_fit(folder: &Path) -> Option<(Value, String)> {
    let record = std::fs::read_to_string(folder.join("run.json")).ok()?;
    let record: Value = serde_json::from_str(&record).expect("run.json is whole");
    let posterior = std::fs::read_to_string(folder.join("posterior.csv")).expect("posterior.csv is there");
    assert_eq!(posterior.lines().count(), 1 + 137, "posterior.csv is whole");
    let record: Value = record;
    let files = record["files"].as_object().expect("the record names its files");
    for (name, digest) in files {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(digest["bytes"], bytes.len(), "{name}");
        assert_eq!(
            digest["sha256"],
            format!("{:x}", Sha256::digest(&bytes)),
            "{name}"
        );
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let belongs = name == "run.json" || name.starts_with('.') || files.contains_key(&name);
        assert!(belongs, "{name} is of another fit");
    }
    Some((record, posterior))
}
