//! Every picture is drawn, is what its name says, and is not empty.

use crate::synthetic::{categories, records, truth_quality};
use infermark_report::plots::{categories as forest, draw_all, elasticities, loss};
use std::path::{Path, PathBuf};

/// Elements that open and close in turn, attributes quoted, no stray `<` or `&`: what a parser would refuse.
fn well_formed(svg: &str) -> Result<usize, String> {
    let mut open: Vec<String> = Vec::new();
    let mut elements = 0;
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        for (i, _) in text.match_indices('&') {
            let entity = &text[i + 1..];
            let end = entity.find(';').ok_or("an ampersand that ends nowhere")?;
            let known =
                ["amp", "lt", "gt", "quot", "apos"].contains(&&entity[..end]) || entity.starts_with('#');
            if !known {
                return Err(format!("entity {entity}"));
            }
        }
        let end = at + rest[at..].find('>').ok_or("a tag that ends nowhere")?;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.starts_with('?') || tag.starts_with('!') {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop().as_deref() != Some(name.trim()) {
                return Err(format!("</{name}> closes nothing"));
            }
            continue;
        }
        if tag.matches('"').count() % 2 == 1 {
            return Err(format!("quotes of <{tag}>"));
        }
        elements += 1;
        if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or("").to_owned());
        }
    }
    if open.is_empty() {
        Ok(elements)
    } else {
        Err(format!("left open: {open:?}"))
    }
}

pub(crate) fn check(files: &[PathBuf]) {
    assert!(!files.is_empty() && files.len().is_multiple_of(2));
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        match file.extension().unwrap().to_str().unwrap() {
            "svg" => {
                let text = String::from_utf8(bytes).unwrap();
                let elements = well_formed(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
                assert!(elements > 30, "{}: {elements}", file.display());
                assert!(text.starts_with("<svg") && text.contains("<text"));
            }
            "png" => {
                assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
                // An empty page of this size compresses to some 10 KB.
                assert!(bytes.len() > 20_000, "{}: {}", file.display(), bytes.len());
            }
            other => panic!("{other}"),
        }
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/pictures"))
}

#[test]
fn the_pictures_of_a_benchmark() {
    let files = draw_all(folder(), &records()).unwrap();
    check(&files);
    let names: Vec<String> = files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    for stem in [
        "hours_for_1m_iterations",
        "iterations_per_second",
        "speedups",
        "time_to_posterior",
        "coverage_10000",
        "beside_nuts_10000",
        "elasticities_laplace-cpu_10000_008",
        "loss_against_time_10000",
        "elasticities_svi-cpu_10000_000",
    ] {
        for extension in ["svg", "png"] {
            assert!(
                names.contains(&format!("{stem}.{extension}")),
                "{stem}.{extension} of {names:?}"
            );
        }
    }
    let hours = std::fs::read_to_string(folder().join("hours_for_1m_iterations.svg")).unwrap();
    for words in [
        "32.3x",
        "102.4x",
        "22 h 05 min",
        "not measured",
        "published, 4x A10G",
        "estimate",
    ] {
        assert!(hours.contains(words), "{words}");
    }
}

#[test]
fn pictures_of_a_fit() {
    check(
        &forest::draw(
            &folder().join("elasticities_by_category"),
            &categories(),
            "brand",
            "A made-up fit.",
        )
        .unwrap(),
    );
    check(
        &elasticities::draw(
            &folder().join("against_truth"),
            &truth_quality(120),
            "A made-up fit.",
        )
        .unwrap(),
    );
}

#[test]
fn names_in_a_case_lead_to_no_other_folder() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("a/b/c");
    std::fs::create_dir_all(folder.join("elasticities_x")).unwrap();
    let mut records = records();
    for record in &mut records {
        record.backend = "x/../../../out\u{1b}[2J<&".to_owned();
        record.truth_quality = Some(truth_quality(120));
    }
    let files = draw_all(&folder, &records).unwrap();
    assert!(
        files
            .iter()
            .any(|file| file.to_string_lossy().contains("elasticities_x"))
    );
    for file in &files {
        assert_eq!(file.parent(), Some(folder.as_path()), "{}", file.display());
        if file.extension().is_some_and(|extension| extension == "svg") {
            let text = std::fs::read_to_string(file).unwrap();
            well_formed(&text).unwrap();
            assert!(!text.contains('\u{1b}'), "{}", file.display());
        }
    }
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
    assert!(!records[0].file_stem().contains(['/', '.']));
}

#[test]
fn figures_that_are_none_are_drawn_in_no_time() {
    let mut records = records();
    for (record, (seconds, iterations)) in records.iter_mut().zip(
        [(0.0, 1), (1e-308, u64::MAX), (-1.0, 0), (1e308, 1)]
            .into_iter()
            .cycle(),
    ) {
        record.panel.rows = usize::MAX;
        for repeat in &mut record.repeats {
            (repeat.seconds, repeat.iterations) = (seconds, iterations);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    draw_all(folder.path(), &records).unwrap();
}

#[test]
fn nothing_to_draw_draws_nothing() {
    let empty = tempfile::tempdir().unwrap();
    assert!(draw_all(empty.path(), &[]).unwrap().is_empty());
    assert!(
        forest::draw(&empty.path().join("x"), &[], "brand", "")
            .unwrap()
            .is_empty()
    );
    assert!(loss::draw(&empty.path().join("x"), &[], "").unwrap().is_empty());
    // A lone failed case has no speed, and so no bar.
    let failed = vec![records().remove(5)];
    assert!(draw_all(empty.path(), &failed).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
