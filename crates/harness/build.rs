//! Records what the program was built with: compiler, profile, commit, and the versions of the crates that matter to a
//! measurement. Whatever cannot be told is `unknown`.

use std::path::Path;
use std::process::Command;

/// Crates that decide what a measurement means.
const CRATES: [&str; 14] = [
    "arrow",
    "burn",
    "criterion",
    "cubecl",
    "cudarc",
    "nuts-rs",
    "parquet",
    "plotters",
    "rand",
    "rand_chacha",
    "rand_distr",
    "rayon",
    "serde_json",
    "wgpu",
];

fn main() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest).join("../..");
    println!("cargo::rerun-if-changed=build.rs");

    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    emit("RUSTC", output(Command::new(rustc).arg("--version")));
    emit("PROFILE", std::env::var("PROFILE").ok());
    emit("OPT_LEVEL", std::env::var("OPT_LEVEL").ok());
    emit("TARGET", std::env::var("TARGET").ok());
    emit(
        "RUSTFLAGS",
        std::env::var("CARGO_ENCODED_RUSTFLAGS")
            .ok()
            .map(|f| f.replace('\u{1f}', " "))
            .map(|f| if f.is_empty() { "none".into() } else { f }),
    );

    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(&root).args(arguments));
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    emit("COMMIT", git(&["rev-parse", "HEAD"]));

    let lock = root.join("Cargo.lock");
    let mut versions = Vec::new();
    if let Ok(text) = std::fs::read_to_string(&lock) {
        println!("cargo::rerun-if-changed={}", lock.display());
        let mut name = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("name = ") {
                name = rest.trim_matches('"');
            } else if let Some(rest) = line.strip_prefix("version = ")
                && CRATES.contains(&name)
            {
                versions.push(format!("{name} {}", rest.trim_matches('"')));
            }
        }
    }
    emit("CRATES", Some(versions.join(";")));
}

fn emit(name: &str, value: Option<String>) {
    let value = value
        .filter(|v| !v.is_empty())
        .unwrap_or_else(|| "unknown".into());
    println!("cargo::rustc-env=INFERMARK_BUILD_{name}={value}");
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
