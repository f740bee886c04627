//! What a summary quotes: parts of logs and tables.

use std::path::Path;

/// What a program wrote, or nothing where it wrote no such file; bytes that are no text are replaced.
pub(super) fn written(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last `count` lines.
pub(super) fn end_of(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The rows and remarks of a benchmark's `table.md` that stand in `sections`, given by the beginnings of their headings.
pub(super) fn sections_of(table: &str, sections: &[&str]) -> String {
    let mut is_quoted = false;
    let mut quoted = Vec::new();
    for line in table.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            is_quoted = sections.iter().any(|section| heading.starts_with(section));
        } else if is_quoted && (line.starts_with('|') || line.starts_with("- ")) {
            quoted.push(line);
        }
    }
    quoted.join("\n")
}

/// `12 passed`, from the output of a test binary all of whose tests passed.
pub(super) fn passed_tests(log: &str) -> Option<&str> {
    let result = log
        .lines()
        .find_map(|line| line.strip_prefix("test result: ok. "))?;
    result.split(';').next()
}

/// Where tests panicked, each with the first line of what it said.
pub(super) fn panics(log: &str) -> String {
    /// Lines at most.
    const MOST: usize = 20;
    let mut lines = log.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.contains(" panicked at ") {
            found.push(line);
            found.extend(lines.peek());
        }
    }
    found.truncate(MOST);
    found.join("\n")
}

/// The line in which `bench` says that it left a peer out, and why.
pub(super) fn left_out<'a>(log: &'a str, peer: &str) -> Option<&'a str> {
    let beginning = format!("peer {peer} is left out");
    log.lines().find(|line| line.starts_with(&beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        assert_eq!(end_of("a\nb\nc\n", 2), "b\nc");
        assert_eq!(end_of("a", 12), "a");
        assert_eq!(end_of("", 12), "");
    }

    #[test]
    fn a_table_is_quoted_by_its_sections() {
        let table = "## System\n\n- not this\n\n## Measured on this machine\n\nWords.\n\n| backend |\n| ------- |\n| svi-gpu |\n\n\
                     ## Speedups\n\n| products |\n\n## Remarks\n\n- svi-gpu: no memory\n";
        assert_eq!(
            sections_of(table, &["Measured", "Remarks"]),
            "| backend |\n| ------- |\n| svi-gpu |\n- svi-gpu: no memory"
        );
        assert_eq!(sections_of(table, &["Speedups"]), "| products |");
        assert_eq!(sections_of("", &["Measured"]), "");
    }

    #[test]
    fn tests_are_counted_and_panics_quoted() {
        let passed =
            "running 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 1 ignored; finished in 0.10s\n";
        assert_eq!(passed_tests(passed), Some("2 passed"));
        let failed = "running 2 tests\n\nthread 'a' (7) panicked at tests/a.rs:3:5:\nassertion failed: x\nnote: more\n\
                      test result: FAILED. 1 passed; 1 failed\n";
        assert_eq!(passed_tests(failed), None);
        assert_eq!(
            panics(failed),
            "thread 'a' (7) panicked at tests/a.rs:3:5:\nassertion failed: x"
        );
        assert_eq!(panics(&failed.repeat(100)).lines().count(), 20);
        assert_eq!(panics("all is well"), "");
    }

    #[test]
    fn a_peer_that_is_left_out_is_found_by_its_name() {
        let log = "waiting\npeer numpyro-dense is left out: no jax\npeer numpyro is left out: no module\n";
        assert_eq!(
            left_out(log, "numpyro"),
            Some("peer numpyro is left out: no module")
        );
        assert_eq!(left_out(log, "stan"), None);
    }
}
