//! The table of a projection, apart from all measurements.

use super::grid::Grid;
use crate::number_format::{count, duration, three_digits};
use crate::records::projection_record::ProjectionRecord;
use crate::results_csv::NOT_MEASURED;
use crate::scaling::model::ScalingModel;
use crate::scaling::projection::{Projection, Range};

/// Markdown of a projection: what it says, what it was fitted on, how well it predicts that, and what it assumes.
pub fn projection_table(record: &ProjectionRecord) -> String {
    let mut sections = vec![
        "# Projection, not measured\n\nNothing in this file was measured on the machines that it names. It follows from a model that was fitted on \
         measurements of smaller ones, and from links whose figures are assumed.\n"
            .to_owned(),
    ];
    let mut grid = Grid::new(&[
        ("products", true),
        ("projected for", false),
        ("within a node", false),
        ("between nodes", false),
        ("projected it/s (slow to fast)", true),
        ("collective", true),
        ("projected speedup (slow to fast)", true),
        ("efficiency", true),
        ("fitted on", false),
        ("rows per device", false),
    ]);
    for (number, model) in record.models.iter().enumerate() {
        for projection in record
            .projections
            .iter()
            .filter(|p| p.configuration == model.configuration && p.communicator == model.communicator)
        {
            grid.push(projected(projection, number + 1));
        }
    }
    sections.extend(grid.section("## Projected speeds\n\nIn a figure and at its slow end no two messages overlap; at its fast end all of a phase do. Both ends are widened by the model's largest error.\n"));
    if !record.not_projected.is_empty() {
        let lines: Vec<String> = record
            .not_projected
            .iter()
            .map(|why| format!("- {why}\n"))
            .collect();
        sections.push(format!("## Not projected\n\n{}", lines.concat()));
    }
    for (number, model) in record.models.iter().enumerate() {
        sections.push(fitted(model, number + 1));
    }
    let lines: Vec<String> = record
        .assumptions()
        .iter()
        .map(|line| format!("- {line}\n"))
        .collect();
    sections.push(format!("## Assumptions\n\n{}", lines.concat()));
    sections.join("\n")
}

fn range(of: Range, unit: &str) -> String {
    format!(
        "{}{unit} ({} to {})",
        three_digits(of.value),
        three_digits(of.low),
        three_digits(of.high)
    )
}

/// `+4.2%`, `0.0%`.
fn signed_percent(share: f64) -> String {
    match (1000.0 * share).round() / 10.0 {
        0.0 => "0.0%".to_owned(),
        percent => format!("{percent:+.1}%"),
    }
}

fn projected(projection: &Projection, model: usize) -> Vec<String> {
    vec![
        count(projection.products as u64),
        projection.place.clone(),
        projection.within.clone(),
        projection.between.clone(),
        range(projection.seconds.inverse(1.0), ""),
        format!(
            "{} to {}",
            duration(projection.collective.low),
            duration(projection.collective.high)
        ),
        range(projection.speedup, "x"),
        format!("{:.0}%", 100.0 * projection.efficiency()),
        format!("model {model}"),
        match projection.is_extrapolated {
            true => "outside what was measured",
            false => "within what was measured",
        }
        .to_owned(),
    ]
}

fn fitted(model: &ScalingModel, number: usize) -> String {
    let mut grid = Grid::new(&[
        ("products", true),
        ("on", false),
        ("rows of a device", true),
        ("measured", true),
        ("model", true),
        ("predicted without this point", true),
        ("error of that", true),
    ]);
    for point in &model.points {
        grid.push(vec![
            count(point.products as u64),
            point.place.clone(),
            count(point.rows as u64),
            duration(point.measured_seconds),
            duration(point.fitted_seconds),
            point
                .predicted_without_seconds
                .map_or_else(|| NOT_MEASURED.to_owned(), duration),
            point.error().map_or_else(|| "unknown".to_owned(), signed_percent),
        ]);
    }
    let compute = &model.compute;
    let collective = &model.collective;
    let remarks = match model.points_with_remarks {
        0 => String::new(),
        n => format!(" {n} of the points carry a remark (see the table of scaling)."),
    };
    format!(
        "## Model {number}, and what it was fitted on\n\n{}, ranks connected by {}; infermark {} ({}), commit {} ({}).{remarks}\n\n\
         - time per row: {} ns; hierarchy and other fixed work of every rank: {}; folding sums, and waiting, of every rank of several: {}\n\
         - all-reduce of {} bytes: {} per operation + {} for each of 2 (R - 1) messages + {} ns per kB of copies and sums, fitted on {} ranks \
         within {:.0}%\n\
         - largest error of a point predicted without it: {:.1}%\n\n{}",
        model.configuration,
        model.communicator,
        model.program.version,
        model.program.profile,
        model
            .program
            .git_commit
            .get(..12)
            .unwrap_or(&model.program.git_commit),
        model.program.git_tree,
        three_digits(1e9 * compute.seconds_per_row),
        duration(compute.hierarchy_seconds),
        duration(compute.fold_seconds),
        count(model.bytes.round() as u64),
        duration(collective.operation_seconds),
        duration(collective.message_seconds),
        three_digits(1e12 * collective.seconds_per_byte),
        collective
            .ranks
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        100.0 * collective.largest_error,
        100.0 * model.error(),
        grid.render()
    )
}
