//! SVI on the CPU, on one GPU and on several, side by side.

use super::grid::Grid;
use crate::number_format::{count, three_digits};
use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit};
use crate::results_csv::NOT_MEASURED;
use infermark_backend::DeviceId;

/// Where a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Cpu,
    OneGpu,
    SeveralGpus,
}

impl Column {
    const ALL: [Column; 3] = [Column::Cpu, Column::OneGpu, Column::SeveralGpus];

    /// The column of a case. Logical shards, which share a device, stand in none, nor does what software plays.
    fn of(record: &CaseRecord) -> Option<Column> {
        let devices = &record.request.devices;
        if record.request.shards > devices.len() || record.is_software {
            return None;
        }
        Some(match devices.as_slice() {
            [DeviceId::CPU] => Column::Cpu,
            [_] => Column::OneGpu,
            _ => Column::SeveralGpus,
        })
    }
}

/// The fastest case of SVI in each column, a line for each panel and settings; what was not measured says so.
pub(super) fn section(records: &[CaseRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("products", true),
        ("settings", false),
        ("CPU, it/s", true),
        ("1 GPU, it/s", true),
        ("N GPUs, it/s", true),
    ]);
    let svi: Vec<&CaseRecord> = records
        .iter()
        .filter(|r| r.kind == CaseKind::Speed && r.unit == IterationUnit::Iterations)
        .filter(|r| Column::of(r).is_some())
        .collect();
    let mut lines: Vec<(usize, &str, String)> = Vec::new();
    for record in &svi {
        let line = (
            record.panel.products,
            record.panel.sha256.as_str(),
            record.settings_without_threads(),
        );
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|line| line.0);
    for (products, sha256, settings) in lines {
        let fastest = |column: Column| {
            let of_column = svi.iter().filter(|r| {
                Column::of(r) == Some(column)
                    && r.panel.sha256 == sha256
                    && r.settings_without_threads() == settings
            });
            of_column
                .filter_map(|r| Some((*r, r.iterations_per_second()?.median)))
                .max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let cells = Column::ALL.map(|column| {
            fastest(column).map_or_else(
                || NOT_MEASURED.to_owned(),
                |(record, rate)| format!("{} ({})", three_digits(rate), on(record, column)),
            )
        });
        grid.push(
            [count(products as u64), settings]
                .into_iter()
                .chain(cells)
                .collect(),
        );
    }
    grid.section(
        "## SVI on the CPU, one GPU and several GPUs, measured on this machine\n\nThe fastest backend on each; logical shards share one device and are in no column.\n",
    )
}

/// Backend and what it used.
fn on(record: &CaseRecord, column: Column) -> String {
    match column {
        Column::Cpu if record.threads == 1 => format!("{}, 1 thread", record.backend),
        Column::Cpu => format!("{}, {} threads", record.backend, record.threads),
        Column::OneGpu => format!("{}, {}", record.backend, record.request.devices[0]),
        Column::SeveralGpus => format!("{}, {} GPUs", record.backend, record.request.devices.len()),
    }
}
