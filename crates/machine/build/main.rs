//! Records what the program was built with: compiler, profile, commit, and the versions of the crates that
//! the workspace names. Whatever is unknown is `unknown`.

mod tree;

use std::path::Path;
use std::process::Command;

/// Crates that a measurement depends on and that may come through others, besides those that the workspace names.
const ALSO: [&str; 4] = ["burn", "cubecl", "cudarc", "wgpu"];

fn main() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest).join("../..");
    println!("cargo::rerun-if-changed=build");

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
    // Whatever makes a tree dirty that the program is built from: its sources, not its tests.
    for folder in std::fs::read_dir(root.join("crates"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let sources = folder.path().join("src");
        if sources.is_dir() {
            println!("cargo::rerun-if-changed={}", sources.display());
        }
    }
    emit("TREE", tree::state(&root).map(str::to_owned));

    let read = |name: &str| {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).ok()?;
        println!("cargo::rerun-if-changed={}", path.display());
        Some(text)
    };
    let manifest = read("Cargo.toml").unwrap_or_default();
    let named = dependencies(&manifest);
    let mut versions = Vec::new();
    let mut name = "";
    let lock = read("Cargo.lock").unwrap_or_default();
    for line in lock.lines() {
        if let Some(rest) = line.strip_prefix("name = ") {
            name = rest.trim_matches('"');
        } else if let Some(rest) = line.strip_prefix("version = ")
            && (named.contains(&name) || ALSO.contains(&name))
        {
            versions.push(format!("{name} {}", rest.trim_matches('"')));
        }
    }
    emit("CRATES", Some(versions.join(";")));
}

/// Names in the table `[workspace.dependencies]`, the workspace's own crates apart.
fn dependencies(manifest: &str) -> Vec<&str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path ="))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect()
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
