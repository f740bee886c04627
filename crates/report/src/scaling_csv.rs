//! `scaling.csv`: the flat table of scaling, one row per point. Nothing is blank.

use crate::records::scaling_record::ScalingRecord;
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use crate::scaling::series::{point_of, strong, weak};
use std::io::{self, Write};

/// The columns, in order.
pub const SCALING_COLUMNS: [&str; 24] = [
    "backend",
    "device",
    "on",
    "ranks",
    "devices",
    "logical",
    "threads_per_rank",
    "communicator",
    "products",
    "rows",
    "rows_of_largest_rank",
    "iterations_per_second",
    "iterations_per_second_low",
    "iterations_per_second_high",
    "strong_speedup",
    "strong_efficiency",
    "weak_efficiency",
    "bytes_per_iteration",
    "communication_seconds_per_iteration",
    "busy_share",
    "git_commit",
    "measured_at",
    "status",
    "reason",
];

/// Writes the flat table.
///
/// # Errors
/// When it cannot be written.
pub fn write_scaling_csv(out: &mut dyn Write, records: &[ScalingRecord]) -> io::Result<()> {
    let (strong, weak) = (strong(records), weak(records));
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(SCALING_COLUMNS)?;
    for record in records {
        let number = |value: Option<f64>| value.map_or_else(|| NOT_MEASURED.to_owned(), |v| format!("{v:?}"));
        let scaled = |value: Option<f64>| match record.placement.logical {
            true => NOT_APPLICABLE.to_owned(),
            false => number(value),
        };
        let of_several = |text: String| match record.placement.ranks {
            1 => NOT_APPLICABLE.to_owned(),
            _ => text,
        };
        let rate = record.iterations_per_second();
        let placement = &record.placement;
        csv.write_record([
            record.backend.clone(),
            record.device.clone(),
            record.place(),
            placement.ranks.to_string(),
            placement.devices.to_string(),
            placement.logical.to_string(),
            placement.threads_per_rank.to_string(),
            placement.communicator.clone(),
            record.panel.products.to_string(),
            record.panel.rows.to_string(),
            record.rows_of_largest().to_string(),
            number(rate.map(|r| r.median)),
            number(rate.map(|r| r.low)),
            number(rate.map(|r| r.high)),
            scaled(point_of(record, &strong).map(|p| p.speedup.median)),
            scaled(point_of(record, &strong).map(|p| p.efficiency())),
            scaled(point_of(record, &weak).map(|p| p.efficiency())),
            of_several(number(record.bytes_per_iteration)),
            of_several(number(record.communication_per_iteration())),
            number(record.busy_share),
            record.system.program.git_commit.clone(),
            record.measured_at.clone(),
            record.status.name().to_owned(),
            record.reason.clone(),
        ])?;
    }
    csv.flush()
}
