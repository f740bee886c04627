//! Processes that hold the rows of their own products only.

use super::{INFERMARK, Launcher, fit_of, output, posterior, short_fit};
use std::path::Path;
use std::process::{Command, Output};

/// The least and the most rows that a rank of a fit holds, and those of all.
fn held_rows(done: &Output) -> [usize; 3] {
    let told = String::from_utf8_lossy(&done.stderr);
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("each rank holds the rows of its own products: "));
    let numbers = line.unwrap_or_else(|| panic!("{told}")).split(' ');
    let numbers: Vec<usize> = numbers.filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap()
}

fn record(out: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap()
}

fn with(fit: &[String], more: &[&str]) -> Vec<String> {
    fit.iter()
        .cloned()
        .chain(more.iter().map(|word| (*word).to_owned()))
        .collect()
}

/// The rows of a file in another order, with gaps: no product has its rows next to each other.
fn shuffled(panel: &str, folder: &Path) -> String {
    let text = std::fs::read_to_string(panel).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    let step = 7919;
    let order = (0..rows.len()).map(|i| rows[i * step % rows.len()]);
    let kept: Vec<&str> = order
        .enumerate()
        .filter(|(i, _)| i % 9 != 4)
        .map(|(_, row)| row)
        .collect();
    let path = folder.join("shuffled.csv");
    std::fs::write(&path, format!("{header}\n{}\n", kept.join("\n"))).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn no_rank_holds_all_rows_and_all_write_what_one_process_writes() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(60) else {
        return;
    };
    let negative_binomial = ["--likelihood", "negative-binomial"];
    let published = ["--model", "published", "--coordinates", "published"];
    let bounded = ["--memory", "500MB"];
    for fit in [
        short_fit(&panel),
        short_fit(&shuffled(&panel, folder.path())),
        with(&short_fit(&panel), &negative_binomial),
        with(&short_fit(&panel), &published),
        with(&short_fit(&panel), &bounded),
        with(&fit_of(&panel, "laplace"), &negative_binomial),
        with(&fit_of(&panel, "structured-vi"), &bounded),
    ] {
        for ranks in [2, 4] {
            let out = folder.path().join("threads");
            let threads = with(&fit, &["--shards", &ranks.to_string()]);
            let threads = posterior(&out, &output(Command::new(INFERMARK), &threads, &out));
            let of_threads = record(&out);
            let out = folder.path().join("processes");
            let done = output(Launcher::Mpirun.command(ranks), &fit, &out);
            assert!(posterior(&out, &done) == threads, "{fit:?}, {ranks} ranks");
            let of_processes = record(&out);
            for key in [
                "panel",
                "dispersion",
                "constant_price_products",
                "below_lower_bound",
            ] {
                assert_eq!(
                    of_processes[key], of_threads[key],
                    "{fit:?}, {ranks} ranks: {key}"
                );
            }
            let [least, most, all] = held_rows(&done);
            assert_eq!(of_processes["panel"]["rows"], all);
            // A product has 30 rows.
            let even = all as f64 / ranks as f64;
            for held in [least, most] {
                assert!(
                    (held as f64 - even).abs() <= 30.0,
                    "{held} rows of {all}, {ranks} ranks"
                );
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_as_by_one_process() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(20) else {
        return;
    };
    let text = std::fs::read_to_string(&panel).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    // The first and the last product have a row twice, and one price is none.
    let bad = [&lines[..], &[lines[1], lines[lines.len() - 1], "x,y,1,-2,3"]].concat();
    let path = folder.path().join("bad.csv");
    std::fs::write(&path, bad.join("\n")).unwrap();
    let fit = short_fit(path.to_str().unwrap());
    let out = folder.path().join("out");
    let alone = output(Command::new(INFERMARK), &fit, &out);
    let defects = |of: &Output| -> Vec<String> {
        let told = String::from_utf8_lossy(&of.stderr).into_owned();
        let lines = told.lines().skip_while(|line| !line.contains("3 defects"));
        lines.take(4).map(str::to_owned).collect()
    };
    assert_eq!(defects(&alone).len(), 4);
    let refused = output(Launcher::Mpirun.command(3), &fit, &out);
    assert!(!refused.status.success());
    assert_eq!(defects(&refused), defects(&alone));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(told.matches("3 defects").count(), 1, "{told}");

    let pipe = folder.path().join("pipe.csv");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = output(
        Launcher::Mpirun.command(2),
        &short_fit(pipe.to_str().unwrap()),
        &out,
    );
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("save it as a file first and name that"), "{told}");
}

#[test]
fn what_needs_all_rows_has_them_in_every_process() {
    let Some((folder, panel)) = Launcher::Mpirun.panel(60) else {
        return;
    };
    let by_row = [
        "--cut",
        "row",
        "--model",
        "published",
        "--coordinates",
        "published",
    ];
    for fit in [with(&short_fit(&panel), &by_row), fit_of(&panel, "nuts")] {
        let out = folder.path().join("out");
        let done = output(Launcher::Mpirun.command(2), &fit, &out);
        posterior(&out, &done);
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(!told.contains("each rank holds"), "{told}");
    }
}
