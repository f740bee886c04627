//! Which case of an earlier run a case is compared with, and the differences if it is not the same.

use crate::number_format::count;
use crate::records::case_record::CaseRecord;
use infermark_backend::{DeviceId, Method};
use infermark_machine::System;
use infermark_model::{Likelihood, Parameterization, Priors};
use serde::Serialize;
use serde_json::{Map, Value};

/// The counterpart of a case in an earlier run.
#[derive(Debug)]
pub(super) enum Counterpart<'r> {
    /// The same case.
    Same(&'r CaseRecord),
    /// The closest case of the backend, and its differences, in words.
    Other {
        /// The case.
        record: &'r CaseRecord,
        /// At least one difference.
        differences: Vec<String>,
    },
    /// No case of the backend.
    Missing,
}

/// What `earlier` has for `record`: of the cases of its backend the one that agrees with it in the most important things, which are,
/// in order, the settings, the machine, the panel and the threads.
pub(super) fn counterpart<'r>(record: &CaseRecord, earlier: &[&'r CaseRecord]) -> Counterpart<'r> {
    let of_backend = earlier.iter().copied().filter(|r| r.backend == record.backend);
    let nearest = of_backend.min_by_key(|other| {
        (
            record.settings_without_threads() != other.settings_without_threads(),
            !is_same_machine(record, other),
            record.panel.sha256 != other.panel.sha256,
            record.panel.products != other.panel.products,
            record.threads != other.threads,
        )
    });
    let Some(other) = nearest else {
        return Counterpart::Missing;
    };
    let differences = differences(record, other);
    if differences.is_empty() {
        Counterpart::Same(other)
    } else {
        Counterpart::Other {
            record: other,
            differences,
        }
    }
}

/// Whether two cases ran on the same device of the same kind of machine. The speed of a card depends little
/// on its host.
fn is_same_machine(a: &CaseRecord, b: &CaseRecord) -> bool {
    let on_processors = a.request.devices.contains(&DeviceId::CPU);
    let is_same_host = a.system.cpu == b.system.cpu && a.system.cores == b.system.cores;
    a.device == b.device && (is_same_host || !on_processors)
}

/// The differences between two cases of one backend that affect a speed.
fn differences(record: &CaseRecord, other: &CaseRecord) -> Vec<String> {
    let mut found = Vec::new();
    if !is_same_machine(record, other) {
        found.push(format!(
            "other machine: the baseline was measured on {} ({})",
            other.device, other.system.cpu
        ));
    }
    if record.panel.sha256 != other.panel.sha256 {
        found.push(format!(
            "other panel: the baseline's has {} products and {} rows ({}, SHA-256 {}), this one {} and {} ({})",
            count(other.panel.products as u64),
            count(other.panel.rows as u64),
            other.panel.source,
            other.panel.sha256.get(..12).unwrap_or(&other.panel.sha256),
            count(record.panel.products as u64),
            count(record.panel.rows as u64),
            record.panel.sha256.get(..12).unwrap_or(&record.panel.sha256),
        ));
    }
    let mut settings = differing_settings(record, other);
    if record.threads != other.threads {
        settings.push(format!(
            "threads {} (baseline: {})",
            record.threads, other.threads
        ));
    }
    if !settings.is_empty() {
        found.push(format!("other settings: {}", settings.join(", ")));
    }
    found
}

/// The settings in which two requests differ, as `name value (baseline: value)`. Settings that affect no
/// speed are left out: the seed, and the number of steps of a run that is timed in pieces.
fn differing_settings(record: &CaseRecord, other: &CaseRecord) -> Vec<String> {
    let of = |record: &CaseRecord| {
        let mut request = record.request.clone();
        match &mut request.method {
            Method::Svi(svi) => svi.iterations = 0,
            Method::Nuts(nuts) => (nuts.warmup, nuts.draws) = (0, 0),
            Method::Laplace(_) | Method::StructuredVi(_) | Method::Meanfield(_) => {}
        }
        let settings = Settings {
            priors: &request.priors,
            likelihood: request.likelihood,
            parameterization: request.parameterization,
            method: &request.method,
        };
        serde_json::to_value(settings).unwrap_or(Value::Null)
    };
    let mut found = Vec::new();
    differing_values("", &of(record), &of(other), &mut found);
    found
}

/// The parts of a request that affect a speed.
#[derive(Serialize)]
struct Settings<'a> {
    priors: &'a Priors,
    likelihood: Likelihood,
    parameterization: Parameterization,
    method: &'a Method,
}

fn differing_values(name: &str, here: &Value, there: &Value, found: &mut Vec<String>) {
    match (here, there) {
        (Value::Object(here), Value::Object(there)) => {
            let more = there.keys().filter(|key| !here.contains_key(*key));
            for key in here.keys().chain(more) {
                let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or(Value::Null);
                let inner = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                differing_values(&inner, &value(here), &value(there), found);
            }
        }
        (here, there) if here != there => found.push(format!("{name} {here} (baseline: {there})")),
        _ => {}
    }
}

/// Differences between the systems of two runs that may change a speed, in sentences without their full stop.
pub(super) fn differing_runs(here: &System, baseline: &System) -> Vec<String> {
    let pairs = [
        ("machine", &here.device, &baseline.device),
        ("processor", &here.cpu, &baseline.cpu),
        ("operating system", &here.os, &baseline.os),
        ("kernel", &here.kernel, &baseline.kernel),
        ("compiler", &here.program.rustc, &baseline.program.rustc),
        ("build profile", &here.program.profile, &baseline.program.profile),
        (
            "compiler flags",
            &here.program.rustflags,
            &baseline.program.rustflags,
        ),
        ("target", &here.program.target, &baseline.program.target),
    ];
    let differing = pairs.into_iter().filter(|(_, here, there)| here != there);
    let mut found: Vec<String> = differing
        .map(|(what, here, there)| format!("Another {what} than the baseline's: {here}; there {there}"))
        .collect();
    if here.cores != baseline.cores {
        found.push(format!(
            "Another number of cores than the baseline's: {}; there {}",
            here.cores, baseline.cores
        ));
    }
    found
}
