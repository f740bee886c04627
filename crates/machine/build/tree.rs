//! Whether a tree is what its commit says.

use std::path::Path;
use std::process::Command;

/// `dirty` where tracked files outside `results/` differ from the commit that is checked out in `root`, else `clean`; none where
/// there is no tree. Takes no lock.
pub(crate) fn state(root: &Path) -> Option<&'static str> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .arg("--no-optional-locks")
        .args([
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            ".",
            ":!results",
        ])
        .output()
        .ok()?;
    match (output.status.success(), output.stdout.is_empty()) {
        (false, _) => None,
        (true, true) => Some("clean"),
        (true, false) => Some("dirty"),
    }
}
