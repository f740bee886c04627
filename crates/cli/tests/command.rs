//! The command as a user meets it: verbs, files, messages, exit codes, interruption.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infermark"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().map(|v| v.as_f64().unwrap()).collect(),
        one => vec![one.as_f64().unwrap()],
    }
}

const SITES: [&str; 5] = [
    "global_a",
    "category_a",
    "product_a",
    "product_effect",
    "time_cat_effects",
];

#[test]
fn evaluate_equals_the_reference_vectors() {
    let vectors = json(&data("vectors.json"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point.json");
    for point in vectors["centered_log_joint"].as_array().unwrap() {
        std::fs::write(&file, point["z"].to_string()).unwrap();
        let panel = data("panel.csv");
        let output = run(&[
            "evaluate",
            panel.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (found, expected) = (
            answer["log_joint"].as_f64().unwrap(),
            point["log_joint"].as_f64().unwrap(),
        );
        // Both are float64 and differ in the order of their sums alone.
        assert!(
            (found - expected).abs() <= 1e-10 * expected.abs(),
            "{found} {expected}"
        );
        let gradient = |from: &Value| -> Vec<f64> { SITES.iter().flat_map(|s| numbers(&from[s])).collect() };
        let (found, expected) = (gradient(&answer["grad"]), gradient(&point["grad"]));
        assert_eq!(found.len(), expected.len());
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        assert!(difference <= 1e-9 * norm(&mut expected.iter().copied()));
    }
}

#[test]
fn a_point_that_does_not_fit_the_panel_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("point.json");
    let panel = data("panel.csv");
    for (content, word) in [
        ("{", "point.json"),
        ("{\"global_a\": 1}", "category_a"),
        ("{\"global_a\": [1, 2]}", "2 numbers"),
        ("{\"globl_a\": 1}", "globl_a"),
        ("{\"global_a\": \"x\"}", "not a number"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = run(&[
            "evaluate",
            panel.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 2);
        assert!(
            text(&output.stderr).contains(word),
            "{content}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    }
}

/// The header and the cells of `posterior.csv`.
fn posterior(folder: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = std::fs::read_to_string(folder.join("posterior.csv")).unwrap();
    let mut lines = text
        .lines()
        .map(|l| l.split(',').map(str::to_owned).collect::<Vec<_>>());
    (lines.next().unwrap(), lines.collect())
}

#[test]
fn fit_writes_what_the_contract_says() {
    let folder = tempfile::tempdir().unwrap();
    let panel = data("panel.csv");
    let latents = 1 + 4 + 40 + 40 + 52;
    for (method, extra, columns) in [
        ("svi", vec!["--iterations", "500"], "site,key,mean,sd,q05,q95"),
        (
            "nuts",
            vec!["--chains", "2", "--warmup", "100", "--draws", "60"],
            "site,key,mean,sd,q05,q95,mcse_mean,ess_bulk,ess_tail,rhat",
        ),
    ] {
        let out = folder.path().join(method);
        let mut arguments = vec![
            "fit",
            panel.to_str().unwrap(),
            "--method",
            method,
            "--out",
            out.to_str().unwrap(),
        ];
        arguments.extend(extra);
        let output = run(&arguments);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let (header, rows) = posterior(&out);
        assert_eq!(header.join(","), columns);
        assert_eq!(rows.len(), latents);
        let keys: Vec<String> = rows.iter().map(|r| format!("{} {}", r[0], r[1])).collect();
        assert_eq!(keys[0], "global_a ");
        assert_eq!(keys[1], "category_a cat-0");
        assert_eq!(keys[5], "product_a sku-000");
        assert_eq!(keys[85], "time_cat_effects cat-0@1");
        assert!(rows.iter().all(|r| {
            r[2..6]
                .iter()
                .all(|cell| cell.parse::<f64>().unwrap().is_finite())
        }));
        let record = json(&out.join("run.json"));
        assert_eq!(record["status"], "finished");
        assert!(record["panel"].to_string().contains("panel.csv"));
        assert!(out.join("elasticities_by_category.png").exists());
        assert_eq!(out.join("trace.csv").exists(), method == "svi");
        assert_eq!(out.join("draws.parquet").exists(), method == "nuts");
    }
    let trace = std::fs::read_to_string(folder.path().join("svi/trace.csv")).unwrap();
    assert!(trace.starts_with("iteration,seconds,loss,effective_particles,learning_rate\n1,"));
    // Sampling 60 draws does not converge, and the gate says so when it is asked.
    let out = folder.path().join("gate");
    let arguments = [
        "--method",
        "nuts",
        "--chains",
        "2",
        "--warmup",
        "20",
        "--draws",
        "20",
        "--require-convergence",
    ];
    let mut all = vec!["fit", panel.to_str().unwrap(), "--out", out.to_str().unwrap()];
    all.extend(arguments);
    assert_eq!(code(&run(&all)), 1);
}

#[test]
fn same_seed_same_posterior_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let panel = data("panel.csv");
    let fit = |name: &str, threads: &str, seed: &str| {
        let out = folder.path().join(name);
        let arguments = [
            "fit",
            panel.to_str().unwrap(),
            "--iterations",
            "300",
            "--threads",
            threads,
            "--seed",
            seed,
        ];
        let output = command(&arguments).arg("--out").arg(&out).output().unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        std::fs::read(out.join("posterior.csv")).unwrap()
    };
    let first = fit("a", "1", "7");
    assert_eq!(first, fit("b", "3", "7"));
    assert_ne!(first, fit("c", "1", "8"));
}

#[test]
fn generate_then_fit_against_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let (panel, truth) = (
        folder.path().join("panel.parquet"),
        folder.path().join("truth.csv"),
    );
    let output = command(&[
        "generate",
        "--products",
        "50",
        "--periods",
        "30",
        "--categories",
        "3",
        "--seed",
        "4",
    ])
    .args([Path::new("--out"), &panel, Path::new("--truth"), &truth])
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let output = command(&["fit", panel.to_str().unwrap(), "--iterations", "200"])
        .args([
            Path::new("--truth"),
            &truth,
            Path::new("--out"),
            &folder.path().join("fit"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("mean absolute error"));
}

#[test]
fn usage_and_input_errors_exit_with_two_and_help_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.csv");
    std::fs::write(&bad, "product,category,week,price,units\na,x,1,-3,5\n").unwrap();
    let out = folder.path().join("out");
    for (arguments, word) in [
        (
            vec!["fit", "nowhere.csv", "--out", out.to_str().unwrap()],
            "nowhere.csv",
        ),
        (
            vec!["fit", bad.to_str().unwrap(), "--out", out.to_str().unwrap()],
            "line 2",
        ),
        (vec!["fit", bad.to_str().unwrap()], "--out"),
        (
            vec!["fit", bad.to_str().unwrap(), "--out", "x", "--particles", "0"],
            "particles",
        ),
        (
            // Refused before the file is looked at.
            vec!["fit", "nowhere.csv", "--out", "x", "--device", "cuda"],
            "cannot run on cuda",
        ),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["report", "no-such-folder"], "no-such-folder"),
        (vec!["bench", "--backends", "gpu9"], "gpu9"),
    ] {
        let output = run(&arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(
            text(&output.stderr).contains(word),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert!(output.stdout.is_empty());
    }
    assert!(!out.exists(), "a refused fit leaves nothing");
    for arguments in [
        vec!["--help"],
        vec!["fit", "--help"],
        vec!["--version"],
        vec!["completions", "bash"],
    ] {
        let output = run(&arguments);
        assert_eq!(code(&output), 0);
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn devices_and_model() {
    let output = run(&["devices"]);
    assert_eq!(code(&output), 0);
    let listed = text(&output.stdout);
    assert!(listed.contains("svi-cpu") && listed.contains("nuts-cpu") && listed.contains("-core"));
    let json: Value = serde_json::from_slice(&run(&["devices", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["backend"], "svi-cpu");
    assert!(text(&run(&["model"]).stdout).starts_with("digraph"));
    assert!(text(&run(&["model", "--format", "svg"]).stdout).starts_with("<svg"));
}

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
            "--warm-up",
            "5",
            "--threads",
            "2",
            "--json",
        ]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["seconds"].as_array().unwrap().len(), 3);
        assert_eq!(
            (answer["threads"].as_u64(), answer["rows"].as_u64()),
            (Some(2), Some(465))
        );
        assert!(answer["iterations_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let output = command(&[
        "bench",
        "--products",
        "40,80",
        "--backends",
        "all",
        "--repeats",
        "2",
    ])
    .args(["--repeat-seconds", "0.02", "--warm-up-seconds", "0.02"])
    .args([
        "--quality-seconds",
        "0.2",
        "--published-nuts-seconds",
        "0.2",
        "--out",
    ])
    .arg(&out)
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
    let header = "backend,device,products,rows,iterations,seconds,iterations_per_second,status";
    assert!(csv.starts_with(header), "{csv}");
    for backend in ["svi-cpu", "nuts-cpu"] {
        assert!(csv.lines().any(|line| line.starts_with(backend)), "{csv}");
    }
    let table = text(&output.stdout);
    std::fs::remove_file(out.join("results.csv")).unwrap();
    let output = run(&["report", out.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(table.starts_with(&text(&output.stdout)));
    assert_eq!(std::fs::read_to_string(out.join("results.csv")).unwrap(), csv);
}

/// Every file of a fit, in one string.
#[cfg(unix)]
fn whole_fit(folder: &Path) -> Option<(Value, String)> {
    let record = std::fs::read_to_string(folder.join("run.json")).ok()?;
    let record: Value = serde_json::from_str(&record).expect("run.json is whole");
    let posterior = std::fs::read_to_string(folder.join("posterior.csv")).expect("posterior.csv is there");
    assert_eq!(posterior.lines().count(), 1 + 137, "posterior.csv is whole");
    Some((record, posterior))
}

#[cfg(unix)]
#[test]
fn a_kill_at_any_moment_leaves_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let fit = |seed: u32| {
        let mut command = command(&["fit", panel.to_str().unwrap(), "--iterations", "400"]);
        command.args(["--seed", &seed.to_string(), "--out"]).arg(&out);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        command
    };
    let clock = Instant::now();
    assert!(fit(0).status().unwrap().success());
    let whole = clock.elapsed();
    assert!(whole_fit(&out).is_some());
    // Kills spread over the life of the process, dense where files are written.
    for attempt in 0..24u32 {
        let mut child = fit(attempt + 1).spawn().unwrap();
        let share = if attempt % 2 == 0 {
            f64::from(attempt) / 24.0
        } else {
            0.8 + f64::from(attempt) / 80.0
        };
        std::thread::sleep(whole.mul_f64(share));
        let _ = child.kill();
        child.wait().unwrap();
        assert!(whole_fit(&out).is_some(), "attempt {attempt}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_there_is_and_marks_it_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let mut child = command(&[
        "fit",
        panel.to_str().unwrap(),
        "--iterations",
        "4000000000",
        "--out",
    ])
    .arg(&out)
    .stderr(std::process::Stdio::null())
    .spawn()
    .unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    assert_eq!(record["reason"], "interrupted");
}
