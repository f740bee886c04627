//! The GPU backends through the command.

use crate::{code, posterior, run, text};
use infermark_test_support::data;
use serde_json::Value;
use std::process::Output;

/// What `devices` lists for `svi-gpu`.
pub(crate) fn gpus() -> Vec<Value> {
    gpus_of("svi-gpu")
}

/// What it lists for a backend.
fn gpus_of(backend: &str) -> Vec<Value> {
    let listed = run(&["devices", "--json"]);
    assert_eq!(code(&listed), 0, "{}", text(&listed.stderr));
    let devices: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    devices
        .into_iter()
        .filter(|entry| entry["backend"] == backend)
        .map(|mut entry| entry["device"].take())
        .collect()
}

/// How a listed device is asked for: `gpu` would not take software.
pub(crate) fn name_of(device: &Value) -> String {
    let kind = device["id"]["kind"].as_str().unwrap();
    match device["id"]["index"].as_u64().unwrap() {
        0 => kind.to_owned(),
        index => format!("{kind}:{index}"),
    }
}

/// What is said to a command that wants a GPU where there is none, which no machine that checks changes is.
pub(crate) fn refused_without_a_gpu(output: &Output) {
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
                message.contains("only a software rasterizer") && message.contains(&remedy),
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
    let fit = |device: &str, coordinates: &str| {
        let out = folder.path().join(format!("{device} {coordinates}"));
        let output = run(&[
            "fit",
            panel.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
            "--device",
            device,
            "--method",
            "svi",
            "--coordinates",
            coordinates,
            "--iterations",
            "50",
            "--objective",
            "elbo",
        ]);
        (output, out)
    };
    let gpus = gpus();
    let Some(gpu) = gpus.first() else {
        return refused_without_a_gpu(&fit("gpu", "published").0);
    };
    for coordinates in ["published", "orthogonal"] {
        let (output, on_gpu) = fit(&name_of(gpu), coordinates);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let (output, on_cpu) = fit("cpu", coordinates);
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
}

/// A list of devices: what does not go together is refused by name, and cards that are alike give the bits of as many shards on one.
#[test]
fn several_devices_share_a_fit() {
    let (folder, panel) = (tempfile::tempdir().unwrap(), data("panel.csv"));
    let fit = |devices: &str, more: &[&str]| {
        let out = folder.path().join(devices);
        let mut arguments = vec!["fit", panel.to_str().unwrap(), "--out", out.to_str().unwrap()];
        arguments.extend(["--device", devices, "--method", "svi", "--iterations", "30"]);
        arguments.extend(more);
        (run(&arguments), out)
    };
    let gpus = gpus();
    let Some(gpu) = gpus.first() else {
        return refused_without_a_gpu(&fit("gpu", &[]).0);
    };
    let name = name_of(gpu);
    for (devices, words) in [
        (
            format!("cpu,{name}"),
            format!("the devices cpu and {name} in one run; give devices of one kind"),
        ),
        (
            format!("{name},{name}"),
            format!("the device {name} twice in one run; ask for more shards (--shards)"),
        ),
    ] {
        let (refused, _) = fit(&devices, &[]);
        assert_eq!(code(&refused), 2);
        let message = text(&refused.stderr);
        assert!(message.contains(&words), "{message}");
    }
    let alike: Vec<String> = gpus
        .iter()
        .filter(|other| other["name"] == gpu["name"])
        .map(name_of)
        .collect();
    if alike.len() < 2 {
        eprintln!("skipped: one GPU");
        return;
    }
    let (output, on_all) = fit(&alike.join(","), &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let count = alike.len().to_string();
    let (output, on_one) = fit(&name, &["--shards", &count]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(posterior(&on_all), posterior(&on_one));
    let record: Value =
        serde_json::from_str(&std::fs::read_to_string(on_all.join("run.json")).unwrap()).unwrap();
    assert_eq!(
        record["request"]["devices"].as_array().unwrap().len(),
        alike.len()
    );
    assert_eq!(record["request"]["shards"], alike.len());
    let device = record["report"]["device"].as_str().unwrap();
    assert!(device.starts_with(&format!("{count} of ")), "{device}");
}

/// The exact method, where a GPU has double precision, through the command: mode, skewness and dispersion.
#[test]
fn a_gpu_finds_the_exact_posterior_of_the_processors() {
    let (folder, panel) = (tempfile::tempdir().unwrap(), data("panel.csv"));
    let fit = |device: &str, method: &str| {
        let out = folder.path().join(format!("{method} on {device}"));
        let mut arguments = vec!["fit", panel.to_str().unwrap(), "--out", out.to_str().unwrap()];
        arguments.extend(["--device", device, "--method", method]);
        (run(&arguments), out)
    };
    let gpus = gpus_of("laplace-gpu");
    let Some(gpu) = gpus.first() else {
        return refused_without_a_gpu(&fit("gpu", "laplace").0);
    };
    let of = |device: &str| {
        let (output, out) = fit(device, "laplace");
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let record = std::fs::read_to_string(out.join("run.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        (posterior(&out).1, record)
    };
    let (on_gpu, gpu_record) = of(&name_of(gpu));
    let (on_cpu, cpu_record) = of("cpu");
    assert_eq!(on_gpu.len(), on_cpu.len());
    for (g, c) in on_gpu.iter().zip(&on_cpu) {
        assert_eq!(g[..2], c[..2]);
        let number = |row: &[String], column: usize| row[column].parse::<f64>().unwrap();
        let sd = number(c, 3);
        // Both are within 4.5e-5 standard deviations of the mode.
        assert!((number(g, 2) - number(c, 2)).abs() < 1e-4 * sd, "{g:?} {c:?}");
        assert!((number(g, 3) - sd).abs() < 1e-4 * sd, "{g:?} {c:?}");
    }
    let dispersion = |record: &Value| record["dispersion"]["overall"]["dispersion"].as_f64().unwrap();
    let (g, c) = (dispersion(&gpu_record), dispersion(&cpu_record));
    assert!((g / c - 1.0).abs() < 1e-6, "{g} {c}");
    let (refused, _) = fit(&name_of(gpu), "structured-vi");
    assert_eq!(code(&refused), 2);
    let message = text(&refused.stderr);
    assert!(
        message.contains(
            "choose the method svi (--method svi), or choose the method laplace (--method laplace)"
        ),
        "{message}"
    );
}
