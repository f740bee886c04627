//! The table to read: on the terminal, and as `table.md`.

pub(crate) mod agreement;
pub mod baseline;
mod by_device;
pub(crate) mod grid;
mod posterior_times;
pub mod projection;
pub mod scaling;

use crate::number_format::{count, duration, three_digits, with_prefix};
use crate::published::{self, ITERATIONS, SETS, set_of};
use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit, Status};
use crate::records::memory_limit::MemoryLimit;
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use crate::statistics::speedup::speedups;
use grid::Grid;
use infermark_backend::{DeviceId, DeviceKind, Method};
use infermark_machine::System;
use infermark_model::Coordinates;

/// Markdown of all measurements, with the published figures.
pub fn table(records: &[CaseRecord]) -> String {
    let mut sections = Vec::new();
    if let Some(record) = records.first() {
        sections.push(system_section(
            &record.system,
            record.memory_limit,
            &record.measured_at,
        ));
    }
    sections.push(measured(records));
    sections.extend(by_device::section(records));
    sections.push(published_figures());
    sections.extend(device_section(records));
    sections.extend(posterior_times::section(records));
    sections.extend(speedup_section(records));
    sections.extend(sampler_section(records));
    sections.extend(truth_section(records));
    sections.extend(agreement::coverage_section(records));
    sections.extend(agreement::section(records));
    sections.extend(parity_section(records));
    sections.extend(remarks(records));
    sections.join("\n")
}

/// The machine, how fast its memory is read, and the program.
fn system_section(system: &System, memory_limit: Option<MemoryLimit>, measured_at: &str) -> String {
    let System {
        device,
        memory_bytes,
        gpu,
        os,
        kernel,
        load_average,
        program,
        ..
    } = system;
    let memory_read = memory_limit.map_or(NOT_MEASURED.to_owned(), |m| {
        format!(
            "{}B/s with {} threads",
            with_prefix(m.read_bytes_per_second),
            m.threads
        )
    });
    format!(
        "## System\n\n{device}; {:.0} GiB of memory, read at {memory_read}; GPU {gpu}; {os}, kernel {kernel}; load {} before \
         the run.\ninfermark {} ({}), {}, commit {} ({}), measured {}.\n",
        *memory_bytes as f64 / (1u64 << 30) as f64,
        three_digits(*load_average),
        program.version,
        program.profile,
        program.rustc,
        program.git_commit.get(..12).unwrap_or(&program.git_commit),
        program.git_tree,
        measured_at,
    )
}

fn measured(records: &[CaseRecord]) -> String {
    let mut grid = Grid::new(&[
        ("backend", false),
        ("device", false),
        ("settings", false),
        ("products", true),
        ("rows", true),
        ("it/s (low to high)", true),
        ("time per it", true),
        ("row-particles/s", true),
        ("of limit", true),
        ("set-up", true),
        ("1M iterations, estimated", true),
        ("status", false),
    ]);
    let speed: Vec<&CaseRecord> = records.iter().filter(|r| r.kind == CaseKind::Speed).collect();
    let mut sizes: Vec<(usize, usize)> = speed.iter().map(|r| (r.panel.products, r.panel.rows)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for (products, rows) in &sizes {
        for record in speed.iter().filter(|r| r.panel.products == *products) {
            grid.push(measured_row(record));
        }
        let missing = |cells: [&str; 3]| {
            let mut row: Vec<String> = cells.iter().map(|c| c.to_string()).collect();
            row.extend([count(*products as u64), count(*rows as u64)]);
            row.extend((0..7).map(|_| NOT_MEASURED.to_owned()));
            row
        };
        let mut named: Vec<String> = Vec::new();
        for record in &speed {
            let side = record.side();
            if named.contains(&side) {
                continue;
            }
            let here = |r: &&&CaseRecord| r.panel.products == *products && r.side() == side;
            if !speed.iter().any(|r| here(&r)) && record.has_speed() {
                grid.push(missing([
                    &backend_name(record),
                    &record.device,
                    &record.settings(),
                ]));
            }
            named.push(side);
        }
        let has_gpu = speed
            .iter()
            .any(|r| r.request.devices.iter().any(|d| d.kind != DeviceKind::Cpu));
        if !has_gpu {
            grid.push(missing(["any", "GPU", "any"]));
        }
    }
    format!(
        "## Measured on this machine\n\nMedian of the repeats; an `it` of SVI is a complete iteration (noise, likelihood and \
         gradient of all particles, priors, optimizer), of NUTS a gradient; `(whole fits)`: from the loaded panel to all marginals, set-up within. Times for 1M iterations are estimated from the \
         timed iterations in brackets.\n\n{}",
        grid.render()
    )
}

fn backend_name(record: &CaseRecord) -> String {
    match record.unit {
        IterationUnit::Iterations if record.request.shards > record.request.devices.len() => {
            format!("{} ({} logical shards)", record.backend, record.request.shards)
        }
        IterationUnit::Iterations => record.backend.clone(),
        IterationUnit::Gradients => format!("{} (gradients)", record.backend),
        IterationUnit::Fits => format!("{} (whole fits)", record.backend),
    }
}

/// The backend, with its device's id unless it is the CPU: for sections without a column for the device.
pub(super) fn backend_and_device(record: &CaseRecord) -> String {
    match record.request.devices.as_slice() {
        [] | [DeviceId::CPU] => record.backend.clone(),
        [id] => format!("{} on {id}", record.backend),
        several => format!("{} on {} GPUs", record.backend, several.len()),
    }
}

fn measured_row(record: &CaseRecord) -> Vec<String> {
    let not_measured = || NOT_MEASURED.to_owned();
    // A figure that whole fits do not have.
    let none = || match record.unit {
        IterationUnit::Fits => NOT_APPLICABLE.to_owned(),
        _ => NOT_MEASURED.to_owned(),
    };
    let rate = record.iterations_per_second();
    let estimate = match (record.unit, record.estimated_seconds_1m()) {
        (IterationUnit::Gradients | IterationUnit::Fits, _) => NOT_APPLICABLE.to_owned(),
        _ if record.request.method.coordinates() != Coordinates::Published => NOT_APPLICABLE.to_owned(),
        (_, None) => not_measured(),
        (_, Some(seconds)) => {
            format!("{} ({})", duration(seconds), count(record.timed_iterations()))
        }
    };
    vec![
        backend_name(record),
        record.device.clone(),
        record.settings(),
        count(record.panel.products as u64),
        count(record.panel.rows as u64),
        rate.map_or_else(not_measured, |r| {
            format!(
                "{} ({} to {})",
                three_digits(r.median),
                three_digits(r.low),
                three_digits(r.high)
            )
        }),
        rate.map_or_else(not_measured, |r| duration(1.0 / r.median)),
        record.row_particles_per_second().map_or_else(none, with_prefix),
        record
            .fraction_of_limit()
            .map_or_else(none, |(share, limit)| format!("{:.0}% of {limit}", 100.0 * share)),
        record
            .setup_seconds
            .filter(|_| record.has_speed())
            .map_or_else(not_measured, duration),
        estimate,
        record.status.name().to_owned(),
    ]
}

/// The limits of the devices other than the CPU.
fn device_section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("device", false),
        ("particles", true),
        ("memory read", true),
        ("rows' arithmetic, row-particles/s", true),
        ("own exponential against polynomial", true),
        ("launch", true),
        ("launch and answer", true),
    ]);
    let mut told = Vec::new();
    for record in records {
        if let Some(limits) = &record.device_limits
            && !told.contains(&record.request.devices[0])
        {
            told.push(record.request.devices[0]);
            grid.push(vec![
                record.device.clone(),
                record.particles().to_string(),
                format!("{}B/s", with_prefix(limits.read_bytes_per_second)),
                with_prefix(limits.row_particles_per_second),
                format!("{:.2}x", limits.native_exp2_ratio),
                duration(limits.launch_seconds),
                duration(limits.round_trip_seconds),
            ]);
        }
    }
    grid.section("## Limits of the devices, measured\n")
}

fn published_figures() -> String {
    let mut grid = Grid::new(&[
        ("published system", false),
        ("products", true),
        ("rows", true),
        ("it/s", true),
        ("time per it", true),
        ("row-particles/s", true),
        ("1M iterations, published estimate", true),
        ("published speedup over its CPU", true),
    ]);
    for set in SETS {
        for time in set.times {
            let row_particles = (set.rows * published::PARTICLES) as f64;
            grid.push(vec![
                time.system.name().to_owned(),
                count(set.products as u64),
                count(set.rows as u64),
                three_digits(time.iterations_per_second),
                duration(time.seconds() / ITERATIONS),
                with_prefix(row_particles * time.iterations_per_second),
                duration(time.seconds()),
                time.factor
                    .map_or_else(|| "1, by definition".to_owned(), |f| format!("{f:.1}x")),
            ]);
        }
    }
    format!(
        "## Published figures, not measured here\n\nExpected times read off a progress bar, K = 4; no run was made to its end.\n\n{}",
        grid.render()
    )
}

fn speedup_section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("products", true),
        ("this", false),
        ("against", false),
        ("speedup (low to high)", true),
        ("is", false),
        ("status", false),
    ]);
    for s in speedups(records) {
        grid.push(vec![
            count(s.products as u64),
            s.this,
            s.against,
            match s.range {
                Some((low, high)) => format!(
                    "{}x ({} to {})",
                    three_digits(s.factor),
                    three_digits(low),
                    three_digits(high)
                ),
                None => format!("{}x", three_digits(s.factor)),
            },
            if s.estimated { "estimated" } else { "measured" }.to_owned(),
            s.status.name().to_owned(),
        ]);
    }
    grid.section(
        "## Speedups\n\nMedian over the repeats, each against the other side's repeat of the same turn; the status is the worse \
         of both sides'.\n",
    )
}

fn sampler_section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("sampler", false),
        ("products", true),
        ("chains", true),
        ("draws each", true),
        ("seconds", true),
        ("min bulk ESS", true),
        ("ESS/s", true),
        ("max R-hat", true),
        ("divergences", true),
        ("full trees", true),
    ]);
    let number = |v: Option<f64>| v.map_or_else(|| NOT_MEASURED.to_owned(), three_digits);
    let mut text = String::new();
    for record in records {
        if let Some(c) = &record.chain_quality {
            grid.push(vec![
                record.side(),
                count(record.panel.products as u64),
                c.chains.to_string(),
                format!("{} after {} warm-up", c.draws, c.warmup),
                three_digits(c.seconds),
                number(c.min_ess_bulk),
                number(c.ess_per_second()),
                c.max_rhat
                    .map_or_else(|| NOT_MEASURED.to_owned(), |r| format!("{r:.3}")),
                c.divergences.to_string(),
                c.saturated_trees.to_string(),
            ]);
        }
        if let Some(n) = &record.published_nuts {
            let (products, rows) = (record.panel.products, record.panel.rows);
            let other = if set_of(products, rows) == Some(&SETS[0]) {
                ""
            } else {
                " (the published set has 10,000 products and 1,560,000 rows)"
            };
            text.push_str(&format!(
                "\nPublished NUTS reference on {} products{other}: {} {} here; published: {}. {}: {}.\n",
                count(products as u64),
                match n.remaining_draws() {
                    0 => "measured,",
                    _ if n.is_upper_bound() => "at most",
                    _ => "estimated,",
                },
                duration(n.estimated_seconds()),
                published::NUTS_TIME,
                record.side(),
                n.assumptions(),
            ));
        }
    }
    match grid.section("## Samplers\n\nESS/s counts the whole run, warm-up included.\n") {
        Some(section) => Some(section + &text),
        None if text.is_empty() => None,
        None => Some(format!("## Samplers\n{text}")),
    }
}

fn truth_section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("backend", false),
        ("settings", false),
        ("products", true),
        ("after", true),
        ("mean absolute error", true),
        ("90% intervals cover", true),
        ("95% intervals cover", true),
    ]);
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    for record in records {
        if let Some(t) = &record.truth_quality {
            let steps = record.unit.quality_steps();
            grid.push(vec![
                backend_and_device(record),
                record.settings(),
                count(record.panel.products as u64),
                format!("{} {steps}, {}", count(t.after), duration(t.seconds)),
                three_digits(t.product_a_mae),
                percent(t.product_a_coverage_90),
                percent(t.product_a_coverage_95),
            ]);
        }
    }
    grid.section(&format!(
        "## Product elasticities against the truth\n\nOf SVI and NUTS after the iterations and draws that were made here, not after a whole fit. Published, \
         mean-field SVI: mean absolute error {}, 95% intervals cover {}.\n",
        published::PRODUCT_A_MAE,
        percent(published::PRODUCT_A_COVERAGE_95)
    ))
}

fn parity_section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("backend", false),
        ("settings", false),
        ("products", true),
        ("checked on", false),
        ("compared", false),
        ("log joint", true),
        ("gradient", true),
        ("loss", true),
        ("log-weight differences", true),
        ("parity", false),
    ]);
    for record in records.iter().filter(|r| r.kind == CaseKind::Speed) {
        if let Some(p) = &record.parity {
            let is_svi = matches!(record.request.method, Method::Svi(_));
            // The variational Gaussian methods are compared by their bound, in the column of the loss.
            let has_bound = matches!(
                record.request.method,
                Method::StructuredVi(_) | Method::Meanfield(_)
            );
            let absent = |compared: bool| if compared { "not finite" } else { NOT_APPLICABLE };
            let error =
                |e: Option<f64>, words: &str| e.map_or_else(|| words.to_owned(), |e| format!("{e:.1e}"));
            grid.push(vec![
                backend_and_device(record),
                record.settings(),
                count(record.panel.products as u64),
                p.panel.clone(),
                p.compared.clone(),
                error(p.log_joint_relative_error, absent(!has_bound)),
                error(p.gradient_relative_error, "not finite"),
                error(p.loss_relative_error, absent(is_svi || has_bound)),
                p.log_weight_error
                    .map_or_else(|| absent(is_svi).to_owned(), |e| format!("{e:.1e} nats")),
                if p.passed() { "passed" } else { "FAILED" }.to_owned(),
            ]);
        }
    }
    grid.section("## Parity with the f64 reference (relative errors)\n")
}

fn remarks(records: &[CaseRecord]) -> Option<String> {
    let lines: Vec<String> = records
        .iter()
        .filter(|r| r.status != Status::Ok)
        .map(|r| {
            format!(
                "- {}, {}, {} products: {}: {}\n",
                backend_and_device(r),
                match r.kind {
                    CaseKind::Speed => r.settings(),
                    CaseKind::PublishedNuts => "published NUTS reference".into(),
                },
                count(r.panel.products as u64),
                r.status.name(),
                r.reason
            )
        })
        .collect();
    (!lines.is_empty()).then(|| format!("## Remarks\n\n{}", lines.concat()))
}
