//! Libraries name settings by their own terms: the options are the command's, and `remedies.rs` names them.

use std::path::{Path, PathBuf};

/// Whether a line of source names an option: two dashes and a letter, at the start of a word.
fn names_an_option(line: &str) -> bool {
    line.match_indices("--").any(|(at, dashes)| {
        let before = line[..at].chars().next_back();
        let after = line[at + dashes.len()..].chars().next();
        after.is_some_and(|c| c.is_ascii_lowercase())
            && !before.is_some_and(|c| c.is_alphanumeric() || c == '-')
    })
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_library_names_an_option_of_the_command() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for entry in crates.read_dir().unwrap() {
        let library = entry.unwrap().path();
        // `machine` starts nvidia-smi and git, which have options of their own.
        if library.join("src").is_dir() && !["cli", "machine"].iter().any(|name| library.ends_with(name)) {
            sources(&library.join("src"), &mut files);
        }
    }
    assert!(files.len() > 100, "sources are not found in {}", crates.display());
    let mut named = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| names_an_option(line));
        named.extend(lines.map(|(i, line)| format!("{}:{}: {}", file.display(), i + 1, line.trim())));
    }
    assert!(
        named.is_empty(),
        "libraries name a setting by its own term, and crates/cli/src/remedies.rs adds the option:\n{}",
        named.join("\n")
    );
}

#[test]
fn an_option_is_recognized() {
    for line in [
        "raise `--draws`",
        "\"--force to replace it\"",
        "/// (--metric diagonal)",
    ] {
        assert!(names_an_option(line), "{line}");
    }
    for line in ["i--; // less", "\"a--b\"", "// ------ tests", "x - -y", "|---|"] {
        assert!(!names_an_option(line), "{line}");
    }
}
