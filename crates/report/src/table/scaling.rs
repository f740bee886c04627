//! The table of scaling, as measured.

use super::grid::Grid;
use super::system_section;
use crate::number_format::{count, duration, three_digits, with_prefix};
use crate::records::case_record::{QUIET, Status};
use crate::records::scaling_record::{CollectiveRecord, ScalingRecord};
use crate::results_csv::{NOT_APPLICABLE, NOT_MEASURED};
use crate::scaling::series::{Point, Series, point_of, strong, weak};
use crate::spread::Spread;

/// Markdown of all measured points and all-reduces.
pub fn scaling_table(records: &[ScalingRecord], collectives: &[CollectiveRecord]) -> String {
    let mut sections = Vec::new();
    if let Some(record) = records.first() {
        sections.push(system_section(&record.system, None, &record.measured_at));
    }
    sections.push(strong_section(records));
    sections.extend(weak_section(records));
    sections.extend(collective_section(collectives));
    sections.extend(remarks(records, collectives));
    sections.join("\n")
}

const COLUMNS: [(&str, bool); 13] = [
    ("products", true),
    ("rows", true),
    ("on", false),
    ("threads per rank", true),
    ("it/s (low to high)", true),
    ("time per it", true),
    ("speedup (low to high)", true),
    ("ideal", true),
    ("efficiency", true),
    ("bytes per it", true),
    ("in communication per it", true),
    ("settings", false),
    ("status", false),
];

fn strong_section(records: &[ScalingRecord]) -> String {
    let mut grid = Grid::new(&COLUMNS);
    let series = strong(records);
    let mut ordered: Vec<&ScalingRecord> = records.iter().collect();
    ordered.sort_by_key(|r| (r.panel.rows, r.placement.ranks));
    // What is of weak scaling alone has a table of its own.
    let weak = weak(records);
    let is_strong =
        |record: &&ScalingRecord| point_of(record, &series).is_some() || point_of(record, &weak).is_none();
    for record in ordered.into_iter().filter(is_strong) {
        grid.push(row(record, point_of(record, &series)));
    }
    let gpus = |several: bool| {
        records.iter().any(|r| {
            let several_here = r.placement.devices > 1;
            r.is_on_gpu() && several_here == several && !r.placement.logical && !r.placement.software
        })
    };
    for (several, name) in [(false, "1 GPU"), (true, "several GPUs")] {
        if !gpus(several) {
            let mut cells = vec![
                "any".to_owned(),
                "any".to_owned(),
                name.to_owned(),
                NOT_APPLICABLE.to_owned(),
            ];
            cells.resize(COLUMNS.len() - 2, NOT_MEASURED.to_owned());
            cells.extend(["any".to_owned(), NOT_MEASURED.to_owned()]);
            grid.push(cells);
        }
    }
    format!(
        "## Strong scaling, measured on this machine\n\nOne panel on more ranks, each with as many threads. Median of the repeats; a speedup is over one rank \
         without shards, each repeat against that of the same turn. Efficiency: speedup per rank. Bytes: the buffer that a rank brings to the all-reduces of an \
         iteration. In communication: of the rank that waits least, with its share of the iteration. Logical shards share a device, or cores, and have no \
         efficiency.\n\n{}",
        grid.render()
    )
}

fn weak_section(records: &[ScalingRecord]) -> Option<String> {
    let mut grid = Grid::new(&COLUMNS);
    for Series { points, .. } in weak(records) {
        for point in points {
            grid.push(row(point.record, Some(point)));
        }
    }
    grid.section(
        "## Weak scaling, measured on this machine\n\nThe panel grows with the ranks, so that each has as many rows. A speedup is in rows per second, over one rank \
         with its share; panels of different sizes are not measured in turns.\n",
    )
}

fn row(record: &ScalingRecord, point: Option<Point<'_>>) -> Vec<String> {
    let rate = record.iterations_per_second();
    let not_measured = || NOT_MEASURED.to_owned();
    let none = || match record.placement.logical && record.has_speed() {
        true => NOT_APPLICABLE.to_owned(),
        false => NOT_MEASURED.to_owned(),
    };
    let several = record.placement.ranks > 1;
    let of_several = |text: Option<String>| match several {
        true => text.unwrap_or_else(not_measured),
        false => NOT_APPLICABLE.to_owned(),
    };
    vec![
        count(record.panel.products as u64),
        count(record.panel.rows as u64),
        record.place(),
        match record.is_on_gpu() {
            true => NOT_APPLICABLE.to_owned(),
            false => record.placement.threads_per_rank.to_string(),
        },
        rate.map_or_else(not_measured, spread),
        rate.map_or_else(not_measured, |r| duration(1.0 / r.median)),
        point.map_or_else(none, |p| match several {
            true => format!(
                "{}x ({} to {})",
                three_digits(p.speedup.median),
                three_digits(p.speedup.low),
                three_digits(p.speedup.high)
            ),
            false => "1, by definition".to_owned(),
        }),
        match record.placement.logical {
            true => NOT_APPLICABLE.to_owned(),
            false => format!("{}x", record.placement.ranks),
        },
        point.map_or_else(none, |p| format!("{:.0}%", 100.0 * p.efficiency())),
        of_several(
            record
                .bytes_per_iteration
                .map(|bytes| count(bytes.round() as u64)),
        ),
        of_several(
            record
                .communication_per_iteration()
                .zip(record.seconds_per_iteration())
                .map(|(communication, all)| {
                    format!(
                        "{} ({:.1}%)",
                        duration(communication),
                        100.0 * communication / all
                    )
                }),
        ),
        record
            .request
            .method
            .short_settings(record.request.parameterization),
        record.status.name().to_owned(),
    ]
}

fn spread(of: Spread) -> String {
    format!(
        "{} ({} to {})",
        three_digits(of.median),
        three_digits(of.low),
        three_digits(of.high)
    )
}

fn collective_section(collectives: &[CollectiveRecord]) -> Option<String> {
    let mut grid = Grid::new(&[
        ("communicator", false),
        ("ranks", true),
        ("bytes", true),
        ("time (low to high)", true),
        ("algorithm bandwidth", true),
        ("bus bandwidth", true),
        ("is", false),
    ]);
    for record in collectives {
        let Some(seconds) = record.seconds() else {
            continue;
        };
        let ranks = record.placement.ranks as f64;
        let bandwidth = record.bytes as f64 / seconds.median;
        grid.push(vec![
            record.placement.communicator.clone(),
            record.placement.ranks.to_string(),
            count(record.bytes),
            format!(
                "{} ({} to {})",
                duration(seconds.median),
                duration(seconds.low),
                duration(seconds.high)
            ),
            format!("{}B/s", with_prefix(bandwidth)),
            format!("{}B/s", with_prefix(bandwidth * 2.0 * (ranks - 1.0) / ranks)),
            if record.placement.logical {
                "more ranks than cores"
            } else {
                "each rank on a core of its own"
            }
            .to_owned(),
        ]);
    }
    grid.section(
        "## All-reduces, measured on this machine\n\nOne after another, nothing else between them. Bandwidths as NCCL's tests define them: the buffer's bytes over \
         the time, and that times 2 (R - 1) / R.\n",
    )
}

fn remarks(records: &[ScalingRecord], collectives: &[CollectiveRecord]) -> Option<String> {
    let mut lines: Vec<String> = records
        .iter()
        .filter(|r| r.status != Status::Ok)
        .map(|r| {
            let products = count(r.panel.products as u64);
            format!(
                "- {products} products on {}: {}: {}\n",
                r.place(),
                r.status.name(),
                r.reason
            )
        })
        .collect();
    let busy = collectives.iter().filter_map(|c| c.busy_share).reduce(f64::max);
    if let Some(busy) = busy.filter(|busy| *busy > QUIET) {
        lines.push(format!(
            "- all-reduces: the machine was busy: other programs used {:.0}% of it before the timing\n",
            100.0 * busy
        ));
    }
    (!lines.is_empty()).then(|| format!("## Remarks\n\n{}", lines.concat()))
}
