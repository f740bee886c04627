//! `fit`: the files, their figures, threads, folders and disks.

use crate::{code, command, json, over_dispersed_sales, posterior, run, text, whole_fit};
use infermark_test_support::data;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

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
fn over_dispersed_counts_are_told_and_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let sales = over_dispersed_sales(folder.path());
    let fit = |likelihood: &str, out: &Path| {
        let output = run(&[
            "fit",
            sales.to_str().unwrap(),
            "--likelihood",
            likelihood,
            "--method",
            "svi",
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
    // The guide's means move with the noise of the last iterations: the figure is stated, a level is not.
    assert!(told.contains("the counts vary more about this fit"), "{told}");
    assert!(!told.contains("Poisson is refuted by"), "{told}");
    assert!(poisson["dispersion"]["overall"]["excess"].is_null());
    assert!(told.contains("dispersion by category: "), "{told}");
    assert!(told.contains("--likelihood negative-binomial"), "{told}");
    assert_eq!(poisson["request"]["likelihood"], "poisson");
    assert!(dispersion(&poisson) > 50.0, "{}", poisson["dispersion"]);

    // Where the fit is an optimum a level is stated.
    let out = folder.path().join("laplace");
    let output = run(&[
        "fit",
        sales.to_str().unwrap(),
        "--method",
        "laplace",
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let told = text(&output.stderr);
    assert!(told.contains("Poisson is refuted by these data"), "{told}");
    let excess = json(&out.join("run.json"))["dispersion"]["overall"]["excess"].clone();
    assert!(excess["value"].as_f64().unwrap() > 10.0 * excess["limit"].as_f64().unwrap());

    let out = folder.path().join("negative-binomial");
    let (told, record) = fit("negative-binomial", &out);
    assert!(!told.contains("refuted"), "{told}");
    assert_eq!(record["request"]["likelihood"], "negative-binomial");
    assert!(dispersion(&record) < 5.0, "{}", record["dispersion"]);
    assert!(
        record["dispersion"]["by_category"]["c1"]["degrees_of_freedom"]
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
fn same_seed_same_posterior_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let panel = data("panel.csv");
    let fit = |name: &str, threads: &str, seed: &str| {
        let out = folder.path().join(name);
        let arguments = [
            "fit",
            panel.to_str().unwrap(),
            "--method",
            "svi",
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
fn a_second_fit_into_a_folder_needs_force() {
    let folder = tempfile::tempdir().unwrap();
    let (out, panel) = (folder.path().join("fit"), data("panel.csv"));
    let fit = |extra: &[&str]| {
        let mut command = command(&["fit", panel.to_str().unwrap(), "--method", "svi"]);
        command
            .args(["--iterations", "50", "--out"])
            .arg(&out)
            .args(extra)
            .output()
            .unwrap()
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
        // Trees so short that all are full: the chains' draws cost the same. Draws for half a second, in which what else the machine does
        // is shared out evenly.
        let settings = "--method nuts --chains 2 --threads 2 --warmup 100 --draws 1000 --max-depth 4 --force";
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
