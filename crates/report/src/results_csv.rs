//! `results.csv`: the flat table, one row per case. Nothing is blank: what was not measured says so.

use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit, objective_in_words};
use crate::statistics::speedup::against_published;
use crate::statistics::time_to_posterior::time_of;
use infermark_backend::{Detail, Method};
use infermark_model::{Coordinates, Site};
use std::io::{self, Write};

/// The words for a missing figure.
pub const NOT_MEASURED: &str = "not measured";
/// The words for a figure that the method does not have.
pub const NOT_APPLICABLE: &str = "not applicable";

/// The columns, in order.
pub const COLUMNS: [&str; 75] = [
    "backend",
    "device",
    "products",
    "rows",
    "iterations",
    "seconds",
    "iterations_per_second",
    "status",
    "case",
    "iteration_is",
    "threads",
    "precision",
    "objective",
    "particles",
    "parameterization",
    "coordinates",
    "seed",
    "setup_seconds",
    "warmup_iterations",
    "repeats",
    "iterations_per_second_low",
    "iterations_per_second_high",
    "iterations_per_second_mad",
    "row_particles_per_second",
    "fraction_of_limit",
    "limit",
    "kernel_row_particles_per_second",
    "memory_read_bytes_per_second",
    "device_row_particles_per_second",
    "device_read_bytes_per_second",
    "device_launch_seconds",
    "device_round_trip_seconds",
    "estimated_seconds_1m",
    "estimated_from_iterations",
    "speedup",
    "speedup_low",
    "speedup_high",
    "speedup_against",
    "estimated_seconds_nuts_reference",
    "ess_per_second",
    "min_ess_bulk",
    "min_ess_tail",
    "max_rhat",
    "divergences",
    "chains",
    "draws",
    "effective_particles",
    "steps",
    "converged",
    "seconds_to_posterior",
    "seconds_to_posterior_is",
    "times_published_svi",
    "times_published_nuts",
    "product_a_mae",
    "product_a_coverage_50",
    "product_a_coverage_90",
    "product_a_coverage_95",
    "product_a_coverage_99",
    "quality_after",
    "reference",
    "product_a_mean_difference_median",
    "product_a_mean_difference_largest",
    "product_a_sd_ratio_median",
    "log_joint_relative_error",
    "gradient_relative_error",
    "loss_relative_error",
    "log_weight_error",
    "parity_rows",
    "busy_share",
    "peak_memory_bytes",
    "data_sha256",
    "git_commit",
    "git_tree",
    "measured_at",
    "reason",
];

/// The row of a case: columns with their values, the columns the same for every case.
pub fn row(record: &CaseRecord) -> Vec<(&'static str, String)> {
    let number = |value: Option<f64>| match value {
        Some(value) if value.is_finite() => format!("{value:?}"),
        _ => NOT_MEASURED.to_owned(),
    };
    let whole = |value: Option<u64>| value.map_or_else(|| NOT_MEASURED.to_owned(), |v| v.to_string());
    let nuts_reference = record.published_nuts.as_ref();
    let rate = record.iterations_per_second();
    let measured = record.has_speed();
    let (iterations, seconds, per_second) = match nuts_reference {
        Some(n) => (
            Some(n.measured_gradients),
            Some(n.measured_seconds),
            Some(1.0 / n.seconds_per_gradient()),
        ),
        None => (
            measured.then(|| record.timed_iterations()),
            measured.then(|| record.timed_seconds()),
            rate.map(|r| r.median),
        ),
    };
    let fraction = record.fraction_of_limit();
    let limits = record.device_limits.as_ref();
    let speedup = against_published(record).into_iter().next();
    let parity = record.parity.as_ref();
    let chains = record.chain_quality.as_ref();
    let truth = record.truth_quality.as_ref();
    let coverage = |level: f64| {
        let points = truth.map_or(&[][..], |t| &t.coverage);
        points.iter().find(|p| p.nominal == level).map(|p| p.actual)
    };
    let agreement = record.agreement.as_ref();
    let elasticities = agreement.and_then(|a| a.site(Site::ProductA));
    let posterior_time = time_of(record);
    let gaussian = match record.report.as_ref().map(|r| &r.detail) {
        Some(Detail::Gaussian(gaussian)) => Some(gaussian),
        _ => None,
    };
    let is_fits = record.unit == IterationUnit::Fits;
    // Columns that only whole fits have, or only they lack.
    let of_fits = |text: Option<String>| {
        text.unwrap_or_else(|| if is_fits { NOT_MEASURED } else { NOT_APPLICABLE }.to_owned())
    };
    let not_of_fits = |text: String| if is_fits { NOT_APPLICABLE.to_owned() } else { text };
    let svi_only = |text: Option<String>| text.unwrap_or_else(|| NOT_APPLICABLE.to_owned());
    let svi = match &record.request.method {
        Method::Svi(svi) => Some(svi),
        _ => None,
    };
    let particles_effective = match record.report.as_ref().map(|r| &r.detail) {
        // 0 where the backend does not tell them.
        Some(Detail::Svi(svi)) => Some(svi.mean_effective_particles).filter(|mean| *mean > 0.0),
        _ => None,
    };
    vec![
        ("backend", record.backend.clone()),
        ("device", record.device.clone()),
        ("products", record.panel.products.to_string()),
        ("rows", record.panel.rows.to_string()),
        ("iterations", whole(iterations)),
        ("seconds", number(seconds)),
        ("iterations_per_second", number(per_second)),
        ("status", record.status.name().to_owned()),
        (
            "case",
            match record.kind {
                CaseKind::Speed => "speed",
                CaseKind::PublishedNuts => "published NUTS reference",
            }
            .to_owned(),
        ),
        (
            "iteration_is",
            match record.unit {
                IterationUnit::Iterations => "iteration",
                IterationUnit::Gradients => "gradient",
                IterationUnit::Fits => "fit",
            }
            .to_owned(),
        ),
        ("threads", record.threads.to_string()),
        ("precision", svi.map_or("f64", |s| s.precision.name()).to_owned()),
        (
            "objective",
            svi_only(svi.map(|s| objective_in_words(&s.objective))),
        ),
        ("particles", svi_only(svi.map(|s| s.particles.to_string()))),
        (
            "parameterization",
            record.request.parameterization.name().to_owned(),
        ),
        (
            "coordinates",
            record.request.method.coordinates().name().to_owned(),
        ),
        ("seed", record.request.seed.to_string()),
        ("setup_seconds", number(record.setup_seconds)),
        ("warmup_iterations", whole(record.warmup.map(|w| w.iterations))),
        ("repeats", record.repeats.len().to_string()),
        ("iterations_per_second_low", number(rate.map(|r| r.low))),
        ("iterations_per_second_high", number(rate.map(|r| r.high))),
        ("iterations_per_second_mad", number(rate.map(|r| r.mad))),
        (
            "row_particles_per_second",
            not_of_fits(number(record.row_particles_per_second())),
        ),
        ("fraction_of_limit", not_of_fits(number(fraction.map(|f| f.0)))),
        (
            "limit",
            not_of_fits(fraction.map_or(NOT_MEASURED, |f| f.1).to_owned()),
        ),
        (
            "kernel_row_particles_per_second",
            not_of_fits(number(record.kernel_row_particles_per_second)),
        ),
        (
            "memory_read_bytes_per_second",
            number(record.memory_limit.map(|m| m.read_bytes_per_second)),
        ),
        (
            "device_row_particles_per_second",
            number(limits.map(|l| l.row_particles_per_second)),
        ),
        (
            "device_read_bytes_per_second",
            number(limits.map(|l| l.read_bytes_per_second)),
        ),
        ("device_launch_seconds", number(limits.map(|l| l.launch_seconds))),
        (
            "device_round_trip_seconds",
            number(limits.map(|l| l.round_trip_seconds)),
        ),
        (
            "estimated_seconds_1m",
            match record.unit {
                IterationUnit::Iterations
                    if record.request.method.coordinates() == Coordinates::Orthogonal =>
                {
                    NOT_APPLICABLE.to_owned()
                }
                IterationUnit::Iterations => number(record.estimated_seconds_1m()),
                IterationUnit::Gradients | IterationUnit::Fits => NOT_APPLICABLE.to_owned(),
            },
        ),
        (
            "estimated_from_iterations",
            not_of_fits(whole(measured.then(|| record.timed_iterations()))),
        ),
        ("speedup", number(speedup.as_ref().map(|s| s.factor))),
        (
            "speedup_low",
            number(speedup.as_ref().and_then(|s| s.range).map(|r| r.0)),
        ),
        (
            "speedup_high",
            number(speedup.as_ref().and_then(|s| s.range).map(|r| r.1)),
        ),
        (
            "speedup_against",
            speedup.map_or_else(|| NOT_MEASURED.to_owned(), |s| s.against),
        ),
        (
            "estimated_seconds_nuts_reference",
            number(nuts_reference.map(|n| n.estimated_seconds())),
        ),
        ("ess_per_second", number(chains.and_then(|c| c.ess_per_second()))),
        ("min_ess_bulk", number(chains.and_then(|c| c.min_ess_bulk))),
        ("min_ess_tail", number(chains.and_then(|c| c.min_ess_tail))),
        ("max_rhat", number(chains.and_then(|c| c.max_rhat))),
        ("divergences", whole(chains.map(|c| c.divergences))),
        ("chains", whole(chains.map(|c| c.chains as u64))),
        ("draws", whole(chains.map(|c| c.draws))),
        ("effective_particles", number(particles_effective)),
        (
            "steps",
            of_fits(gaussian.map(|g| (g.newton_steps + g.variational_steps).to_string())),
        ),
        ("converged", of_fits(gaussian.map(|g| g.converged.to_string()))),
        (
            "seconds_to_posterior",
            number(posterior_time.as_ref().map(|t| t.seconds)),
        ),
        (
            "seconds_to_posterior_is",
            posterior_time
                .as_ref()
                .map_or(NOT_MEASURED, |t| t.basis.name())
                .to_owned(),
        ),
        (
            "times_published_svi",
            number(posterior_time.as_ref().and_then(|t| t.times.as_published_svi)),
        ),
        (
            "times_published_nuts",
            number(posterior_time.as_ref().and_then(|t| t.times.as_published_nuts)),
        ),
        ("product_a_mae", number(truth.map(|t| t.product_a_mae))),
        ("product_a_coverage_50", number(coverage(0.5))),
        (
            "product_a_coverage_90",
            number(truth.map(|t| t.product_a_coverage_90)),
        ),
        (
            "product_a_coverage_95",
            number(truth.map(|t| t.product_a_coverage_95)),
        ),
        ("product_a_coverage_99", number(coverage(0.99))),
        ("quality_after", whole(truth.map(|t| t.after))),
        (
            "reference",
            agreement.map_or_else(|| NOT_MEASURED.to_owned(), |a| a.reference.name.clone()),
        ),
        (
            "product_a_mean_difference_median",
            number(elasticities.map(|s| s.mean_difference_median)),
        ),
        (
            "product_a_mean_difference_largest",
            number(elasticities.map(|s| s.mean_difference_largest)),
        ),
        (
            "product_a_sd_ratio_median",
            number(elasticities.map(|s| s.sd_ratio_median)),
        ),
        (
            "log_joint_relative_error",
            number(parity.and_then(|p| p.log_joint_relative_error)),
        ),
        (
            "gradient_relative_error",
            number(parity.and_then(|p| p.gradient_relative_error)),
        ),
        (
            "loss_relative_error",
            number(parity.and_then(|p| p.loss_relative_error)),
        ),
        (
            "log_weight_error",
            number(parity.and_then(|p| p.log_weight_error)),
        ),
        ("parity_rows", whole(parity.map(|p| p.rows as u64))),
        ("busy_share", number(record.busy_share)),
        ("peak_memory_bytes", whole(record.peak_memory_bytes)),
        ("data_sha256", record.panel.sha256.clone()),
        ("git_commit", record.system.program.git_commit.clone()),
        ("git_tree", record.system.program.git_tree.clone()),
        ("measured_at", record.measured_at.clone()),
        ("reason", record.reason.clone()),
    ]
}

/// Writes the table.
///
/// # Errors
/// When `out` fails.
pub fn write_results_csv(out: impl Write, records: &[CaseRecord]) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(COLUMNS)?;
    for record in records {
        csv.write_record(row(record).iter().map(|c| &c.1))?;
    }
    csv.flush()
}
