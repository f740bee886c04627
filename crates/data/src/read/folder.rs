//! The message for a folder given instead of a file.

use crate::shell::{quoted_text, quoted_word};
use std::path::Path;

/// How many entries are examined.
const LOOKED_AT: usize = 10_000;
/// How deep folders are searched.
const DEPTH: usize = 6;

#[derive(Default)]
struct Found {
    csv: usize,
    parquet: usize,
    /// Whether names of folders hold a column, as in `category=C1`.
    partitioned: bool,
    entries: usize,
}

/// What is in a folder, and how to join its parts into one file.
pub(crate) fn describe(folder: &Path) -> String {
    let mut found = Found::default();
    look(folder, 0, &mut found);
    let name = folder.to_string_lossy();
    let name = name.trim_end_matches('/');
    let (all, kind, count) = match (found.csv, found.parquet) {
        (0, 0) => return "no .csv or .parquet file is in it: name the file itself".into(),
        (csv, 0) => ("read_csv", "csv", csv),
        (0, parquet) => ("read_parquet", "parquet", parquet),
        (csv, parquet) => {
            return format!(
                "it holds {csv} .csv and {parquet} .parquet files: name one that holds all the sales"
            );
        }
    };
    if count == 1 && !found.partitioned {
        return format!("it holds one .{kind} file: name that file");
    }
    let held = if found.partitioned {
        "in folders whose names hold a column (name=value)"
    } else {
        "which may be parts of one table"
    };
    let sources = format!("{name}/**/*.{kind}").replace('\'', "''");
    let query = if found.partitioned {
        format!("COPY (FROM {all}('{sources}', hive_partitioning = true)) TO 'joined.{kind}'")
    } else {
        format!("COPY (FROM {all}('{sources}')) TO 'joined.{kind}'")
    };
    let command = if kind == "csv" && !found.partitioned {
        // The header is kept once, whether or not each part has it. The output file is excluded from the
        // parts.
        format!(
            "find {} ! -type d -iname '*.csv' ! -name joined.csv -exec awk 'NR == 1 {{ header = $0 }} NR == 1 || $0 != header' {{}} + \
             > joined.csv",
            quoted_word(name)
        )
    } else {
        format!("duckdb -c {}", quoted_text(&query))
    };
    format!("it holds {count} .{kind} files, {held}: join them with\n  {command}\nand name joined.{kind}")
}

fn look(folder: &Path, depth: usize, found: &mut Found) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        found.entries += 1;
        if found.entries > LOOKED_AT {
            return;
        }
        let path = entry.path();
        // A link may lead back to a folder above.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < DEPTH {
                let before = found.csv + found.parquet;
                look(&path, depth + 1, found);
                let holds_parts = found.csv + found.parquet > before;
                found.partitioned |= holds_parts && entry.file_name().to_string_lossy().contains('=');
            }
            continue;
        }
        match path
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase())
            .as_deref()
        {
            Some("csv") => found.csv += 1,
            Some("parquet") => found.parquet += 1,
            _ => {}
        }
    }
}
