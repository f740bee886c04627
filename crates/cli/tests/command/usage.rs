//! What every verb has in common: usage, help, messages, exit codes; `devices` and `model`.

use crate::{BACKENDS, code, command, run, text};
use serde_json::Value;
use std::process::Command;

#[test]
fn usage_and_input_errors_exit_with_two_and_help_with_zero() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "product,category,week,price,units\na,x,1,-3,5\n";
    std::fs::write(folder.path().join("bad.csv"), bad).unwrap();
    let renamed = "product,category,Week No,prices,units\na,x,1,3,5\n";
    std::fs::write(folder.path().join("renamed.csv"), renamed).unwrap();
    for (arguments, word) in [
        ("fit nowhere.csv --out out", "nowhere.csv"),
        ("fit bad.csv --out out", "line 2"),
        ("fit bad.csv", "--out"),
        (
            "fit renamed.csv --out out",
            r#"did you mean --period-column "Week No" --price-column "prices"?"#,
        ),
        (
            "fit renamed.csv --period-column units --price-column prices --out out",
            "name a different column for each: --period-column and --units-column",
        ),
        (
            "fit bad.csv --out x --method svi --particles 0",
            "particles is 0; give 1 to",
        ),
        // Refused before the file is looked at.
        (
            "fit nowhere.csv --out x --device cuda",
            "choose the method svi (--method svi), or choose the method laplace (--method laplace)",
        ),
        ("time nowhere.csv --device cuda:99", "cannot run on cuda:99"),
        ("profile nowhere.csv --device cuda:99", "cannot run on cuda:99"),
        (
            "time nowhere.csv --device cuda --method gradient",
            "gradients run on the CPU",
        ),
        (
            "bench --backends svi-gpu --devices cuda:99",
            "svi-gpu cannot run on cuda:99",
        ),
        ("scaling --threads-per-rank 0", "--threads-per-rank is 0"),
        ("scaling --ranks 1,0", "number of ranks"),
        ("scaling --ranks 2000", "shards is 2000; give 1 to 1024"),
        ("scaling --devices cpu,cuda", "give the CPU alone, or GPUs"),
        ("scaling --devices cuda:99", "cuda:99"),
        ("project no-such-folder", "no-such-folder"),
        ("project x --between 5us", "as in 5us:12GB/s"),
        ("project x --nodes 0", "--nodes has a 0"),
        ("frobnicate", "frobnicate"),
        ("report no-such-folder", "no-such-folder"),
        ("bench --backends gpu9", "gpu9"),
        ("bench --backends all,svi-cpuu", "svi-cpuu"),
        (
            "bench --backends svi-cpu --devices cuda",
            "or leave the GPUs out (--backends, --devices)",
        ),
        (
            "bench --backends laplace-cpu --particles 8",
            "--particles goes with SVI",
        ),
        // Refused before the first size is measured.
        ("bench --products 10,100000000", "--products 100000000"),
        (
            "calibrate --methods laplace --draws 500 --out x",
            "--draws goes with nuts among the --methods",
        ),
        // Every verb has the same limit, and the same words.
        (
            "calibrate --threads 100000 --out x",
            "threads is 100000; give 1 to 1024",
        ),
        (
            "generate --threads 1025 --out x.csv --truth t.csv",
            "threads is 1025; give 1 to 1024",
        ),
        (
            "fit panel.csv --threads 1025 --out x",
            "threads is 1025; give 1 to 1024",
        ),
        (
            "evaluate panel.csv --point p --threads 1025",
            "threads is 1025; give 1 to 1024",
        ),
        ("time panel.csv --threads 1025", "threads is 1025; give 1 to 1024"),
        (
            "bench --threads 1,1025 --out x",
            "threads is 1025; give 1 to 1024",
        ),
        ("bench --threads 0 --out x", "threads is 0; give 1 to 1024"),
        // Their product, and the sum, are beyond 64 bits.
        (
            "time panel.csv --iterations 4294967296 --repeats 4294967296",
            "--iterations times --repeats",
        ),
        (
            "time panel.csv --method gradient --iterations 2 --warmup 18446744073709551615",
            "--iterations times --repeats",
        ),
        (
            "time nowhere.csv --method gradient --particles 2",
            "--particles goes with --method svi",
        ),
        ("bench --repeats 0 --out out", "repeats"),
        ("fit x.csv --out x --draws 5", "--draws goes with --method nuts"),
        (
            "fit x.csv --out x --method nuts --trace-every 5",
            "--trace-every goes with --method svi",
        ),
        (
            "fit x.csv --out x --method nuts --parameterization learned",
            "--metric diagonal",
        ),
        (
            "fit x.csv --out x --method svi --objective elbo --alpha 0.5",
            "--alpha goes with",
        ),
        (
            "fit x.csv --out x --method svi --batch-products 5",
            "--batch-products goes with --objective elbo",
        ),
        (
            "fit x.csv --out x --method laplace --batch-products 5",
            "--batch-products goes with --method svi",
        ),
        (
            "fit x.csv --out x --method meanfield --shards 2",
            "cannot serve 2 shards in one run; give 1",
        ),
        (
            "fit x.csv --out x --method svi --objective elbo --batch-products 5 --shards 2",
            "mini-batches",
        ),
        (
            "fit x.csv --out x --rank-timeout 5",
            "--rank-timeout goes with several processes",
        ),
        (
            "fit x.csv --out x --method svi --shards 0",
            "shards is 0; give 1 to 1024",
        ),
        (
            "fit nowhere.csv --out x --method svi --device cpu,cpu",
            "the device cpu twice in one run; ask for more shards (--shards)",
        ),
        (
            "fit nowhere.csv --out x --method svi --device cpu,cuda:99",
            "svi-sharded cannot run on cuda:99; devices: cpu",
        ),
        (
            "fit nowhere.csv --out x --method svi --device cuda,cuda:1 --shards 3",
            "--shards is 3, and --device names 2; give as many shards for each, or leave --shards out",
        ),
        (
            "fit nowhere.csv --out x --method svi --device cuda,",
            "there is no device ''",
        ),
        (
            "fit nowhere.csv --out x --device cpu,cpu",
            "cannot serve 2 devices in one run; give 1",
        ),
        (
            "fit nowhere.csv --out x --method svi --cut row",
            "--cut row needs several shards; see --shards",
        ),
        (
            "fit nowhere.csv --out x --method laplace --cut row --shards 2",
            "cannot serve shards that are cut by row; choose the cut by product (--cut product)",
        ),
        (
            "fit nowhere.csv --out x --method svi --cut row --shards 2 --objective elbo --batch-products 5",
            "mini-batches are of products, and the panel is cut by row; choose the cut by product (--cut product)",
        ),
        (
            "fit nowhere.csv --out x --method svi --communicator nccl",
            "--communicator nccl connects CUDA devices, and --device names cpu",
        ),
        (
            "fit nowhere.csv --out x --method svi --rendezvous x",
            "--rendezvous goes with several processes that NCCL connects",
        ),
        (
            "fit x.csv --out x --method svi --coordinates published --window 500",
            "--early-stop",
        ),
        ("fit x.csv --out x --method svi --window 500", "--early-stop"),
        (
            "fit x.csv --out x --method svi --early-stop --iterations 1999",
            "at least 2000 --iterations; these are 1999",
        ),
        (
            "fit x.csv --out x --method svi --coordinates published --require-convergence",
            "--early-stop",
        ),
        (
            "fit x.csv --out x --method svi --parameterization learned",
            "--coordinates published",
        ),
        (
            "fit x.csv --out x --coordinates published",
            "--coordinates goes with --method svi or meanfield; this is --method structured-vi",
        ),
        (
            "calibrate --out x --methods laplace --coordinates published",
            "svi or meanfield",
        ),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = command(&words).current_dir(&folder).output().unwrap();
        assert_eq!(code(&output), 2, "{arguments}");
        let message = text(&output.stderr);
        assert!(message.contains(word), "{arguments}: {message}");
        assert!(output.stdout.is_empty());
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "what is refused leaves nothing next to the panels");
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

/// Without NCCL, or without what its processes find each other by, a fit says what to do.
#[test]
fn nccl_that_cannot_connect_says_what_to_do() {
    let arguments = [
        "fit",
        "x.csv",
        "--out",
        "x",
        "--method",
        "svi",
        "--device",
        "cuda",
        "--communicator",
        "nccl",
    ];
    let refused = |variables: &[(&str, &str)]| {
        let output = command(&arguments)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert_eq!(code(&output), 2);
        text(&output.stderr)
    };
    let several = refused(&[("RANK", "1"), ("WORLD_SIZE", "2")]);
    assert!(
        several
            .contains("this is rank 1 of 2 (torchrun: RANK, WORLD_SIZE), which NCCL connects: name a file")
            && several.contains("(--rendezvous FILE)"),
        "{several}"
    );
    let known = Command::new("ldconfig").arg("-p").output();
    if known.is_ok_and(|known| text(&known.stdout).contains("libnccl.so")) {
        return;
    }
    let missing = refused(&[("LD_LIBRARY_PATH", "")]);
    assert!(
        missing.contains("NCCL (libnccl.so.2) is not here")
            && missing.contains("pip install nvidia-nccl-cu13"),
        "{missing}"
    );
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
    assert!(text(&run(&["model"]).stdout).contains("usual_price"));
    let published = text(&run(&["model", "--model", "published"]).stdout);
    assert!(
        !published.contains("usual_price") && published.contains("-4, 20"),
        "{published}"
    );
    assert!(!published.contains("log_shape") && published.contains("Poisson("));
    for format in ["dot", "svg"] {
        let output = run(&["model", "--likelihood", "negative-binomial", "--format", format]);
        let drawn = text(&output.stdout);
        assert!(drawn.contains("log_shape[c] ~ Normal(3, 3)"), "{drawn}");
        assert!(drawn.contains("units[i,t] ~ NegativeBinomial(") && !drawn.contains("Poisson"));
    }
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
