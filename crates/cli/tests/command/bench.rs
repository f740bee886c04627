//! `time`, `bench` and `report`.

use crate::{BACKENDS, code, command, json, run, text};
use infermark_test_support::data;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

#[test]
fn time_prints_the_agreed_json() {
    let panel = data("panel.csv");
    for method in ["svi", "gradient"] {
        let output = run(&[
            "time",
            panel.to_str().unwrap(),
            "--method",
            method,
            "--iterations",
            "20",
            "--repeats",
            "3",
            "--warmup",
            "5",
            "--threads",
            "2",
            "--json",
        ]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["seconds"].as_array().unwrap().len(), 3);
        // A panel this small has work for one thread.
        assert_eq!(
            (answer["threads"].as_u64(), answer["rows"].as_u64()),
            (Some(1), Some(465))
        );
        assert!(answer["iterations_per_second"].as_f64().unwrap() > 0.0);
    }
}

/// Settings of a benchmark that measures next to nothing.
const BRIEF: [&str; 12] = [
    "--repeats",
    "2",
    "--repeat-seconds",
    "0.02",
    "--warmup-seconds",
    "0.02",
    "--settle-seconds",
    "0",
    "--quality-seconds",
    "0.2",
    "--published-nuts-seconds",
    "0.2",
];

/// Records carry the likelihood, and what does not have it is left out with the reason.
#[test]
fn bench_of_negative_binomial_counts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let output = command(&["bench", "--products", "20", "--likelihood", "negative-binomial"])
        .args(["--threads", "1", "--warmup-iterations", "1"])
        .args(BRIEF)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let mut measured = Vec::new();
    for entry in std::fs::read_dir(out.join("runs")).unwrap() {
        let record: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        assert_eq!(record["request"]["likelihood"], "negative-binomial");
        // The published reference is of Poisson counts.
        assert_eq!(record["kind"], "speed", "{record}");
        let source = record["panel"]["source"].as_str().unwrap();
        assert!(source.contains("negative-binomial counts"), "{source}");
        if record["status"] == "not measured" {
            let reason = record["reason"].as_str().unwrap();
            assert!(reason.contains("negative-binomial"), "{reason}");
        } else {
            measured.push(record["backend"].as_str().unwrap().to_owned());
        }
    }
    for backend in BACKENDS {
        assert!(
            measured.iter().any(|name| name == backend),
            "{backend}: {measured:?}"
        );
    }
    let table = text(&output.stdout);
    assert!(table.contains("K = 4, negative-binomial, 1 thread"), "{table}");
    assert!(
        !table.contains("published CPU, K = 4, 1M iterations (estimate)"),
        "{table}"
    );
}

#[test]
fn bench_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let output = command(&[
        "bench",
        "--products",
        "40",
        "--backends",
        "all",
        "--threads",
        "1,2",
    ])
    .args(BRIEF)
    .arg("--out")
    .arg(&out)
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
    let header = "backend,device,products,rows,iterations,seconds,iterations_per_second,status";
    assert!(csv.starts_with(header), "{csv}");
    for backend in BACKENDS {
        assert!(csv.lines().any(|line| line.starts_with(backend)), "{csv}");
    }
    let is_fit = |line: &str| line.starts_with("laplace-cpu") && line.contains(",fit,");
    assert!(csv.lines().any(is_fit), "{csv}");
    for plot in ["coverage_40.png", "time_to_posterior.svg"] {
        assert!(out.join("plots").join(plot).exists(), "{plot}");
    }
    let table = text(&output.stdout);
    std::fs::remove_file(out.join("results.csv")).unwrap();
    let output = run(&["report", out.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let drawn = text(&output.stdout);
    for heading in [
        "## System",
        "## Measured on this machine",
        "## Speedups",
        "## Time to a posterior",
        "## Coverage of the true elasticities",
    ] {
        assert!(drawn.contains(heading), "{heading}: {drawn}");
    }
    assert!(table.starts_with(&drawn));
    assert_eq!(std::fs::read_to_string(out.join("results.csv")).unwrap(), csv);
}

/// Measures SVI on a small panel into `out`, with more arguments.
fn bench_svi(out: &Path, more: &[&str]) -> Output {
    command(&[
        "bench",
        "--products",
        "40",
        "--backends",
        "svi-cpu",
        "--threads",
        "1",
    ])
    .args([
        "--repeats",
        "5",
        "--repeat-seconds",
        "0.02",
        "--warmup-seconds",
        "0.02",
    ])
    .args([
        "--warmup-iterations",
        "1",
        "--settle-seconds",
        "0",
        "--quality-seconds",
        "0",
    ])
    .arg("--out")
    .arg(out)
    .args(more)
    .output()
    .unwrap()
}

/// Makes every repeat of a results folder last so many times as long.
fn slow_down(folder: &Path, factor: f64) {
    for entry in std::fs::read_dir(folder.join("runs")).unwrap() {
        let path = entry.unwrap().path();
        let mut record = json(&path);
        for repeat in record["repeats"].as_array_mut().unwrap() {
            repeat["seconds"] = (factor * repeat["seconds"].as_f64().unwrap()).into();
        }
        std::fs::write(&path, record.to_string()).unwrap();
    }
}

#[test]
fn bench_beside_a_baseline() {
    let base = tempfile::tempdir().unwrap();
    let (earlier, here) = (base.path().join("earlier"), base.path().join("here"));
    let arguments = |folder: &Path| ["--baseline".to_owned(), folder.to_str().unwrap().to_owned()];
    let beside =
        |folder: &Path, out: &Path| bench_svi(out, &arguments(folder).each_ref().map(String::as_str));
    // Before anything is measured.
    let output = beside(&earlier, &here);
    assert_eq!(code(&output), 2, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("earlier holds no results") && !here.exists());

    let output = bench_svi(&earlier, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    // Far beyond what any machine's noise is.
    slow_down(&earlier, 1000.0);
    let output = beside(&earlier, &here);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = std::fs::read_to_string(here.join("table.md")).unwrap();
    assert!(text(&output.stdout).starts_with(&table));
    assert!(
        table.contains("## Against the baseline") && table.contains(" 2 faster, 0 slower,"),
        "{table}"
    );
    let csv = || std::fs::read_to_string(here.join("baseline.csv")).unwrap();
    assert_eq!(csv().matches(",faster,").count(), 2, "{}", csv());

    // Two folders that there are: nothing is measured, and what is slower is no failure.
    slow_down(&earlier, 1e-6);
    let [option, path] = arguments(&earlier);
    let output = run(&["report", here.to_str().unwrap(), &option, &path]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(csv().matches(",slower,").count(), 2, "{}", csv());
    let drawn = text(&output.stdout);
    // Which the folder keeps.
    let output = run(&["report", here.to_str().unwrap()]);
    assert_eq!((code(&output), text(&output.stdout)), (0, drawn));
}

/// A peer that does not answer is waited for until a signal comes, and ends with the program.
#[cfg(unix)]
#[test]
fn a_signal_ends_the_wait_for_a_peer_and_the_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (script, id) = (folder.path().join("slow"), folder.path().join("id"));
    std::fs::write(&script, "echo $$ > $1.new && mv $1.new $1; exec sleep 600\n").unwrap();
    for signal in ["-INT", "-TERM"] {
        let peer = format!("slow=sh {} {}", script.display(), id.display());
        let bench = command(&[
            "bench",
            "--products",
            "20",
            "--backends",
            "laplace-cpu",
            "--peer",
            &peer,
        ])
        .arg("--out")
        .arg(folder.path().join("results"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
        let clock = Instant::now();
        while !id.exists() {
            assert!(clock.elapsed().as_secs() < 60, "the peer has not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        let peer = std::fs::read_to_string(&id).unwrap();
        std::fs::remove_file(&id).unwrap();
        let sent = Command::new("kill")
            .args([signal, &bench.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = bench.wait_with_output().unwrap();
        assert_eq!(code(&output), 3, "{signal}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("before there was anything to save"));
        assert!(!folder.path().join("results").exists());
        let left = Path::new("/proc").join(peer.trim());
        assert!(!left.exists(), "{signal}: the peer is left");
    }
}

/// A peer that is not installed is left out with what is missing, and is an error where CI is set; one that is no worker always is.
#[cfg(unix)]
#[test]
fn a_peer_that_is_missing_is_told_apart_from_one_that_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, reply: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("echo '{reply}'\n")).unwrap();
        format!("{name}=sh {}", path.display())
    };
    let missing = script("missing", "{\"unavailable\": \"no module named numpyro\"}");
    let broken = script("broken", "hello");
    let bench = |peer: &str, ci: bool| {
        let mut command = command(&["bench", "--products", "20", "--backends", "laplace-cpu"]);
        command
            .args(["--repeats", "1", "--threads", "1", "--settle-seconds", "0"])
            .args([
                "--repeat-seconds",
                "0.02",
                "--quality-seconds",
                "0",
                "--peer",
                peer,
                "--out",
            ])
            .arg(folder.path().join("results"));
        match ci {
            true => command.env("CI", "true"),
            false => command.env_remove("CI"),
        };
        command.output().unwrap()
    };
    let left_out = bench(&missing, false);
    let told = text(&left_out.stderr);
    assert_eq!(code(&left_out), 0, "{told}");
    assert!(
        told.contains("peer missing is left out: no module named numpyro"),
        "{told}"
    );
    assert!(text(&left_out.stdout).contains("laplace-cpu"));
    for (peer, ci, word) in [(&missing, true, "numpyro"), (&broken, false, "hello")] {
        let refused = bench(peer, ci);
        let told = text(&refused.stderr);
        assert_ne!(code(&refused), 0, "{told}");
        assert!(told.contains("--peer") && told.contains(word), "{told}");
    }
    for (peer, word) in [
        ("numpyro", "NAME=COMMAND"),
        ("a/b=x", "letters"),
        ("a=", "no command"),
    ] {
        let refused = bench(peer, false);
        let told = text(&refused.stderr);
        assert_eq!(code(&refused), 2, "{told}");
        assert!(told.contains(word), "{told}");
    }
    let taken = bench("svi-cpu=sh", false);
    assert!(text(&taken.stderr).contains("a backend of that name"));
}

/// Measured scaling, drawn again and projected; GPUs, which are not there, are not.
#[test]
fn scaling_is_measured_drawn_again_and_projected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("scaling");
    let output = command(&[
        "scaling",
        "--products",
        "40,80,320",
        "--products-per-rank",
        "60",
        "--ranks",
        "1,2",
    ])
    .args([
        "--repeats",
        "3",
        "--repeat-seconds",
        "0.05",
        "--warmup-seconds",
        "0.02",
    ])
    .args(["--warmup-iterations", "1", "--settle-seconds", "0"])
    .arg("--out")
    .arg(&out)
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for words in [
        "## Strong scaling, measured",
        "## Weak scaling, measured",
        "## All-reduces, measured",
        "not measured",
    ] {
        let is_there = table.contains(words) || infermark_threads::available() < 2;
        assert!(is_there, "{words}: {table}");
    }
    let csv = std::fs::read_to_string(out.join("scaling.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 3 * 2 + 2);
    std::fs::remove_file(out.join("scaling.csv")).unwrap();
    let drawn = run(&["report", out.to_str().unwrap()]);
    assert_eq!(code(&drawn), 0, "{}", text(&drawn.stderr));
    assert!(table.starts_with(&text(&drawn.stdout)));
    assert_eq!(std::fs::read_to_string(out.join("scaling.csv")).unwrap(), csv);

    let project = |more: &[&str]| {
        command(&["project", out.to_str().unwrap()])
            .args(more)
            .output()
            .unwrap()
    };
    let refused = project(&["--gpus", "8"]);
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains("no GPU was measured"),
        "{}",
        text(&refused.stderr)
    );
    assert!(!out.join("projection").exists());
    if infermark_threads::available() < 2 {
        return;
    }
    let projected = project(&["--nodes", "2,16", "--between", "5us:12GB/s"]);
    assert_eq!(code(&projected), 0, "{}", text(&projected.stderr));
    let words = text(&projected.stdout);
    assert!(
        words.starts_with("# Projection, not measured") && words.contains("16 nodes of 2 ranks"),
        "{words}"
    );
    assert!(words.contains("no GPU was measured") && words.contains("5us:12GB/s"));
    let record = json(&out.join("projection/projection.json"));
    assert_eq!(
        record["projections"].as_array().unwrap().len(),
        4 * 2,
        "four panels, two numbers of nodes"
    );
    // A projection is in no file of measurements.
    assert_eq!(std::fs::read_to_string(out.join("scaling.csv")).unwrap(), csv);
    let nothing = run(&["project", folder.path().to_str().unwrap()]);
    assert_eq!(code(&nothing), 2);
    assert!(text(&nothing.stderr).contains("holds no results"));
}
