//! The command as a user meets it: verbs, files, messages, exit codes, interruption.

use infermark_test_support::{data, numbers, vectors};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

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

/// The backends that need no GPU.
const BACKENDS: [&str; 5] = [
    "svi-cpu",
    "nuts-cpu",
    "laplace-cpu",
    "structured-vi-cpu",
    "meanfield-cpu",
];

const SITES: [&str; 5] = [
    "global_a",
    "category_a",
    "product_a",
    "product_effect",
    "time_cat_effects",
];

#[test]
fn evaluate_equals_the_reference_vectors() {
    let vectors = vectors();
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

/// Counts whose variance is far above their mean: 3 or 300 at the same price.
fn over_dispersed_sales(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("sales.csv");
    let mut text = String::from("product,category,week,price,units\n");
    for product in 0..6 {
        for week in 1..=20 {
            let units = if (product * 7 + week * 5) % 3 == 0 { 300 } else { 3 };
            let price = 1.0 + f64::from(week % 4) / 4.0;
            text += &format!("p{product},c{},{week},{price},{units}\n", product % 2);
        }
    }
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn over_dispersed_counts_are_told_and_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let sales = over_dispersed_sales(folder.path());
    let fit = |likelihood: &str, out: &Path| {
        let output = run(&[
            "fit",
            sales.to_str().unwrap(),
            "--likelihood",
            likelihood,
            "--iterations",
            "3000",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        (text(&output.stderr), json(&out.join("run.json")))
    };
    let dispersion = |record: &Value| record["dispersion"]["overall"]["dispersion"].as_f64().unwrap();

    let (told, poisson) = fit("poisson", &folder.path().join("poisson"));
    assert!(told.contains("Poisson is refuted"), "{told}");
    assert!(told.contains("dispersion by category: "), "{told}");
    assert!(told.contains("--likelihood negative-binomial"), "{told}");
    assert_eq!(poisson["request"]["likelihood"], "poisson");
    assert!(dispersion(&poisson) > 50.0, "{}", poisson["dispersion"]);

    let out = folder.path().join("negative-binomial");
    let (told, record) = fit("negative-binomial", &out);
    assert!(!told.contains("refuted"), "{told}");
    assert_eq!(record["request"]["likelihood"], "negative-binomial");
    assert!(dispersion(&record) < 5.0, "{}", record["dispersion"]);
    assert!(
        record["dispersion"]["by_category"]["c1"]["limit"]
            .as_f64()
            .unwrap()
            > 1.0
    );
    let (_, rows) = posterior(&out);
    let shapes: Vec<&Vec<String>> = rows.iter().filter(|row| row[0] == "log_shape").collect();
    let keys: Vec<&str> = shapes.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(keys, ["c0", "c1"]);
    // Most of the variance is the counts' own: shapes below e^1.5.
    assert!(
        shapes.iter().all(|row| row[2].parse::<f64>().unwrap() < 1.5),
        "{shapes:?}"
    );

    // Where there is no such likelihood that is said before anything is read.
    let refused = run(&[
        "fit",
        sales.to_str().unwrap(),
        "--likelihood",
        "negative",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(code(&refused), 2);
}

#[test]
fn evaluate_takes_the_shapes_of_negative_binomial_counts() {
    let folder = tempfile::tempdir().unwrap();
    let sales = over_dispersed_sales(folder.path());
    let file = folder.path().join("point.json");
    let mut point = serde_json::json!({
        "global_a": -1.0,
        "category_a": [-1.0, -1.0],
        "product_a": [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0],
        "product_effect": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "time_cat_effects": vec![1.0; 40],
        "log_shape": [0.5, 1.0],
    });
    let evaluate = |point: &Value, likelihood: &str| {
        std::fs::write(&file, point.to_string()).unwrap();
        run(&[
            "evaluate",
            sales.to_str().unwrap(),
            "--point",
            file.to_str().unwrap(),
            "--likelihood",
            likelihood,
        ])
    };
    let output = evaluate(&point, "negative-binomial");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(numbers(&answer["grad"]["log_shape"]).len(), 2);
    let refused = evaluate(&point, "poisson");
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("log_shape"));
    point.as_object_mut().unwrap().remove("log_shape");
    let poisson = evaluate(&point, "poisson");
    assert_eq!(code(&poisson), 0, "{}", text(&poisson.stderr));
    let refused = evaluate(&point, "negative-binomial");
    assert_eq!(code(&refused), 2);
    assert!(text(&refused.stderr).contains("\"log_shape\" is missing"));
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
        (
            vec!["time", "nowhere.csv", "--device", "cuda:99"],
            "cannot run on cuda:99",
        ),
        (
            vec!["profile", "nowhere.csv", "--device", "cuda:99"],
            "cannot run on cuda:99",
        ),
        (
            vec!["time", "nowhere.csv", "--device", "cuda", "--method", "gradient"],
            "gradients run on the processors",
        ),
        (
            vec!["bench", "--backends", "svi-gpu", "--devices", "cuda:99"],
            "svi-gpu cannot run on cuda:99",
        ),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["report", "no-such-folder"], "no-such-folder"),
        (vec!["bench", "--backends", "gpu9"], "gpu9"),
        (
            vec!["bench", "--repeats", "0", "--out", out.to_str().unwrap()],
            "repeats",
        ),
        (
            vec!["fit", "x.csv", "--out", "x", "--draws", "5"],
            "--draws goes with --method nuts",
        ),
        (
            vec![
                "fit",
                "x.csv",
                "--out",
                "x",
                "--method",
                "nuts",
                "--trace-every",
                "5",
            ],
            "--trace-every goes with --method svi",
        ),
        (
            vec![
                "fit",
                "x.csv",
                "--out",
                "x",
                "--method",
                "nuts",
                "--parameterization",
                "learned",
            ],
            "--metric diagonal",
        ),
        (
            vec![
                "fit",
                "x.csv",
                "--out",
                "x",
                "--objective",
                "elbo",
                "--alpha",
                "0.5",
            ],
            "--alpha goes with",
        ),
        (
            vec!["fit", "x.csv", "--out", "x", "--window", "500"],
            "--early-stop",
        ),
        (
            vec!["fit", "x.csv", "--out", "x", "--require-convergence"],
            "--early-stop",
        ),
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
    for backend in BACKENDS {
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{backend} ")));
        assert!(
            line.is_some_and(|line| line.contains("-core")),
            "{backend}: {listed}"
        );
    }
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
            "--warmup",
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
        "40",
        "--backends",
        "all",
        "--repeats",
        "2",
        "--threads",
        "1,2",
    ])
    .args([
        "--repeat-seconds",
        "0.02",
        "--warm-up-seconds",
        "0.02",
        "--settle-seconds",
        "0",
    ])
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

/// A panel of 60 products with its truth, and fits of it by the methods that are named.
fn fits_of_one_panel(folder: &Path, methods: &[&[&str]]) {
    let path = |name: &str| folder.join(name);
    let sizes = "--products 60 --periods 30 --categories 2 --seed 3";
    let output = command(&["generate"])
        .args(sizes.split(' '))
        .args([
            Path::new("--out"),
            &path("panel.csv"),
            Path::new("--truth"),
            &path("truth.csv"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    for method in methods {
        let output = command(&["fit"])
            .args([&path("panel.csv"), Path::new("--out"), &path(method[0])])
            .arg("--method")
            .args(*method)
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    }
}

#[test]
fn fits_are_compared_with_the_one_by_nuts_and_with_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Chains that have not converged, which the comparison tells; another reference than them follows.
    let nuts = ["nuts", "--chains", "2", "--warmup", "100", "--draws", "100"];
    let svi = ["svi", "--iterations", "300"];
    fits_of_one_panel(folder.path(), &[&nuts, &["laplace"], &["structured-vi"], &svi]);
    let compare = |fits: &[&str], extra: &[(&str, &str)]| {
        let mut command = command(&["compare", "--out"]);
        command.arg(path("out")).args(fits.iter().map(|f| path(f)));
        for (option, file) in extra {
            command.arg(option).arg(path(file));
        }
        command.output().unwrap()
    };
    let output = compare(
        &["laplace", "nuts", "svi"],
        &[("--truth", "truth.csv"), ("--data", "panel.csv")],
    );
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("The reference is nuts") && table.contains("60 products"),
        "{table}"
    );
    assert_eq!(table.matches("time_cat_effects").count(), 2, "{table}");
    for file in [
        "coverage.svg",
        "coverage.png",
        "beside_reference.svg",
        "beside_reference.png",
    ] {
        assert!(path("out").join(file).exists(), "{file}");
    }
    let drawn = || std::fs::read_to_string(path("out").join("beside_reference.svg")).unwrap();
    assert!(drawn().contains("units of the product"));
    let read = || -> Vec<Vec<String>> {
        let csv = std::fs::read_to_string(path("out").join("comparison.csv")).unwrap();
        csv.lines()
            .map(|l| l.split(',').map(str::to_owned).collect())
            .collect()
    };
    let number = |rows: &[Vec<String>], fit: &str, column: &str| -> f64 {
        let place = rows[0].iter().position(|c| c == column).unwrap();
        let mut of_fit = rows.iter().filter(|r| r[0] == fit);
        let row = of_fit.find(|r| r.contains(&"product_a".to_owned())).unwrap();
        row[place]
            .parse()
            .unwrap_or_else(|_| panic!("{fit} {column}: {}", row[place]))
    };
    let rows = read();
    assert_eq!(rows.len(), 1 + 3 * 5);
    assert!(rows.iter().flatten().all(|cell| !cell.is_empty()), "{rows:?}");
    assert!(
        number(&rows, "laplace", "mae") < number(&rows, "svi", "mae"),
        "{rows:?}"
    );
    assert!(
        number(&rows, "nuts", "coverage_50") <= number(&rows, "nuts", "coverage_99"),
        "{rows:?}"
    );
    // Both are within a few hundredths of the exact posterior; 300 iterations from the published start are not.
    let output = compare(&["laplace", "svi"], &[("--reference", "structured-vi")]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let rows = read();
    assert!(
        number(&rows, "laplace", "mean_difference_median") < 0.1,
        "{rows:?}"
    );
    assert!(
        (0.9..1.1).contains(&number(&rows, "laplace", "sd_ratio_median")),
        "{rows:?}"
    );
    assert!(number(&rows, "svi", "mean_difference_median") > 1.0, "{rows:?}");
    assert_eq!(rows[1][13..], vec!["not applicable".to_owned(); 12]);

    // Without the data, products are drawn by what the reference knows of them.
    let output = compare(&["laplace", "nuts"], &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(drawn().contains("in the reference") && !drawn().contains("units of the product"));
    // A reference that is named need not be named twice.
    let output = compare(&["svi", "nuts"], &[("--reference", "laplace")]);
    assert!(
        text(&output.stdout).contains("The reference is laplace"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn what_cannot_be_compared_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fits_of_one_panel(folder.path(), &[&["laplace"], &["structured-vi"]]);
    let small = data("panel.csv");
    let output = command(&["fit", small.to_str().unwrap(), "--method", "laplace", "--out"])
        .arg(path("other"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    std::fs::create_dir(path("empty")).unwrap();
    std::fs::create_dir(path("edited")).unwrap();
    for name in ["run.json", "posterior.csv"] {
        let original = std::fs::read_to_string(path("laplace").join(name)).unwrap();
        std::fs::write(
            path("edited").join(name),
            original.replace("global_a,", "global_a, "),
        )
        .unwrap();
    }
    let truth = std::fs::read_to_string(path("truth.csv")).unwrap();
    let all_but_one: Vec<&str> = truth.lines().take(60).collect();
    std::fs::write(path("short.csv"), all_but_one.join("\n")).unwrap();
    let given = |arguments: &str| -> Output {
        let mut command = command(&["compare", "--out"]);
        command.arg(path("out"));
        for argument in arguments.split(' ') {
            if argument.starts_with("--") {
                command.arg(argument);
            } else {
                command.arg(path(argument));
            }
        }
        command.output().unwrap()
    };
    for (arguments, words) in [
        ("empty", "holds no fit"),
        ("nowhere", "holds no fit"),
        ("laplace structured-vi", "none of the fits is by NUTS"),
        ("laplace edited --reference laplace", "fit again"),
        ("laplace other --reference laplace", "another panel"),
        ("laplace --truth nowhere.csv", "nowhere.csv"),
        ("laplace --truth short.csv", "the truth has not"),
        ("laplace --truth panel.csv", "neither product,category,elasticity"),
        ("laplace --truth truth.csv --data other", "other"),
        ("laplace --price-column p", "--price-column goes with --data"),
    ] {
        let output = given(arguments);
        let message = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments}: {message}");
        assert!(message.contains(words), "{arguments}: {message}");
        assert!(!path("out").exists(), "{arguments}");
    }
    let output = command(&["compare", "--data", small.to_str().unwrap(), "--reference"])
        .args([
            path("laplace"),
            path("structured-vi"),
            "--out".into(),
            path("out"),
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    assert!(
        text(&output.stderr).contains("is not the data of"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_second_fit_into_a_folder_needs_force() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let fit = |extra: &[&str]| {
        let mut command = command(&["fit", panel.to_str().unwrap(), "--iterations", "50", "--out"]);
        command.arg(&out).args(extra).output().unwrap()
    };
    assert_eq!(code(&fit(&[])), 0);
    let first = std::fs::read(out.join("run.json")).unwrap();
    let files = json(&out.join("run.json"))["files"].clone();
    for name in [
        "posterior.csv",
        "trace.csv",
        "elasticities_by_category.svg",
        "elasticities_by_category.png",
    ] {
        assert_eq!(
            files[name]["bytes"],
            out.join(name).metadata().unwrap().len(),
            "{name}"
        );
    }
    let refused = fit(&["--seed", "2"]);
    assert_eq!(code(&refused), 2);
    assert!(
        text(&refused.stderr).contains("--force"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(first, std::fs::read(out.join("run.json")).unwrap());
    assert_eq!(code(&fit(&["--seed", "2", "--force"])), 0);
    assert_ne!(first, std::fs::read(out.join("run.json")).unwrap());
}

#[test]
fn chains_of_a_fit_work_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let output = command(&[
        "generate",
        "--products",
        "1000",
        "--periods",
        "40",
        "--categories",
        "2",
        "--out",
    ])
    .args([path("panel.parquet"), "--truth".into(), path("truth.csv")])
    .output()
    .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let busy_over_wall = || {
        // Trees so short that all are full: the chains' draws cost the same.
        let settings = "--method nuts --chains 2 --threads 2 --warmup 100 --draws 100 --max-depth 4 --force";
        let output = command(&["fit", path("panel.parquet").to_str().unwrap(), "--out"])
            .arg(path("fit"))
            .args(settings.split(' '))
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let report = json(&path("fit").join("run.json"))["report"].clone();
        let seconds = |chain: &Value, name: &str| chain[name].as_f64().unwrap();
        let chains = report["detail"]["chains"].as_array().unwrap();
        let busy: f64 = chains
            .iter()
            .map(|chain| seconds(chain, "seconds") + seconds(chain, "warmup_seconds"))
            .sum();
        busy / seconds(&report, "run_seconds")
    };
    // One after the other, chains are never busy for longer than the clock runs; side by side they may seem so while
    // others crowd the machine, but not each time.
    let found: Vec<f64> = (0..3).map(|_| busy_over_wall()).collect();
    assert!(found.iter().any(|ratio| *ratio > 1.3), "{found:?}");
}

/// A pipe whose reader is gone before the command writes.
#[cfg(unix)]
fn with_closed_stdout(mut command: Command) -> i32 {
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.wait().unwrap().code().expect("it ends by itself")
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_changes_no_exit_code() {
    for arguments in [
        vec!["model", "--format", "svg"],
        vec!["completions", "bash"],
        vec!["devices", "--json"],
    ] {
        assert_eq!(with_closed_stdout(command(&arguments)), 0, "{arguments:?}");
    }
    // A gate that failed has failed, whoever reads the table.
    let folder = tempfile::tempdir().unwrap();
    let mut bench = command(&[
        "bench",
        "--products",
        "20",
        "--backends",
        "nuts-cpu",
        "--nuts-most-products",
        "10",
    ]);
    bench
        .args(["--settle-seconds", "0", "--out"])
        .arg(folder.path().join("r"));
    assert_eq!(with_closed_stdout(bench), 1);
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_for_the_draws_keeps_the_posterior() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    // A limit on the size of a file stands for a full disk: 100 blocks are 50 or 100 KiB, depending on the shell. The
    // posterior takes half of the one, the draws twice the other.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh"])
        .args([
            env!("CARGO_BIN_EXE_infermark"),
            "fit",
            panel.to_str().unwrap(),
            "--out",
        ])
        .arg(&out)
        .args([
            "--method", "nuts", "--chains", "2", "--warmup", "50", "--draws", "100",
        ])
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    let (record, _) = whole_fit(&out).unwrap();
    assert_eq!(record["status"], "unfinished");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("draws.parquet was not written"), "{reason}");
    assert!(!reason.contains(&*folder.path().to_string_lossy()), "{reason}");
    assert!(!out.join("draws.parquet").exists());
    assert!(record["files"].get("posterior.csv").is_some());
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
        let mut command = command(&["fit", panel.to_str().unwrap(), "--force", "--iterations", "400"]);
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

#[test]
fn an_instruction_set_that_is_not_here_is_refused_by_every_verb() {
    for verb in [vec!["devices"], vec!["time", "absent.csv"]] {
        let output = command(&verb)
            .env("INFERMARK_INSTRUCTION_SET", "avx-512")
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{verb:?}");
        let message = text(&output.stderr);
        assert!(
            message.contains("avx-512") && message.contains("portable"),
            "{message}"
        );
    }
}

/// What `devices` lists for `svi-gpu`.
fn gpus() -> Vec<Value> {
    let listed = run(&["devices", "--json"]);
    assert_eq!(code(&listed), 0, "{}", text(&listed.stderr));
    let devices: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    devices
        .into_iter()
        .filter(|entry| entry["backend"] == "svi-gpu")
        .map(|mut entry| entry["device"].take())
        .collect()
}

/// How a listed device is asked for: `gpu` would not take software.
fn name_of(device: &Value) -> String {
    let kind = device["id"]["kind"].as_str().unwrap();
    match device["id"]["index"].as_u64().unwrap() {
        0 => kind.to_owned(),
        index => format!("{kind}:{index}"),
    }
}

/// What is said to a command that wants a GPU where there is none, which no machine that checks changes is.
fn refused_without_a_gpu(output: &Output) {
    assert!(std::env::var_os("CI").is_none(), "no GPU and no software Vulkan");
    assert_eq!(code(output), 2);
    let message = text(&output.stderr);
    assert!(message.contains("there is no GPU here"), "{message}");
}

/// `infermark time` on a device.
fn time_on(device: &str) -> Output {
    let panel = data("panel.csv");
    let mut arguments = vec!["time", panel.to_str().unwrap(), "--device", device];
    arguments.extend(["--iterations", "20", "--repeats", "2", "--warmup", "5", "--json"]);
    run(&arguments)
}

#[test]
fn gpu_is_a_card_and_never_software() {
    let (output, gpus) = (time_on("gpu"), gpus());
    let Some(first) = gpus.first() else {
        return refused_without_a_gpu(&output);
    };
    match gpus.iter().find(|gpu| gpu["software"] == false) {
        Some(card) => {
            assert_eq!(code(&output), 0, "{}", text(&output.stderr));
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(answer["device"], card["name"]);
        }
        None => {
            assert_eq!(code(&output), 2);
            let message = text(&output.stderr);
            let remedy = format!("--device {}", name_of(first));
            assert!(
                message.contains("only software") && message.contains(&remedy),
                "{message}"
            );
        }
    }
}

#[test]
fn a_gpu_is_timed_under_its_own_name() {
    let gpus = gpus();
    let Some(gpu) = gpus.first() else {
        return refused_without_a_gpu(&time_on("gpu"));
    };
    let output = time_on(&name_of(gpu));
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["backend"], "svi-gpu");
    assert_eq!(answer["device"], gpu["name"]);
    assert_eq!(answer["seconds"].as_array().unwrap().len(), 2);
    assert!(answer["iterations_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_gpu_fits_as_the_processors_do() {
    let (folder, panel) = (tempfile::tempdir().unwrap(), data("panel.csv"));
    let fit = |device: &str| {
        let out = folder.path().join(device);
        let output = run(&[
            "fit",
            panel.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--device",
            device,
            "--iterations",
            "50",
            "--objective",
            "elbo",
        ]);
        (output, out)
    };
    let gpus = gpus();
    let Some(gpu) = gpus.first() else {
        return refused_without_a_gpu(&fit("gpu").0);
    };
    let (output, on_gpu) = fit(&name_of(gpu));
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let (output, on_cpu) = fit("cpu");
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let (_, gpu_rows) = posterior(&on_gpu);
    let (_, cpu_rows) = posterior(&on_cpu);
    assert_eq!(gpu_rows.len(), cpu_rows.len());
    for (g, c) in gpu_rows.iter().zip(&cpu_rows) {
        assert_eq!(g[..2], c[..2]);
        let mean = |row: &[String]| row[2].parse::<f64>().unwrap();
        // Fifty steps of 0.01 in single precision on both sides.
        assert!((mean(g) - mean(c)).abs() < 2e-3, "{g:?} {c:?}");
    }
}
