//! Cases that differ only in their size form a series.

use crate::number_format::count;
use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit};

/// A series: its name in the legend, and its cases by size.
pub(super) struct Series<'r> {
    pub(super) name: String,
    pub(super) unit: IterationUnit,
    pub(super) records: Vec<&'r CaseRecord>,
}

/// The series among the cases that have a speed, in order of first appearance; `None` for every unit.
pub(super) fn series(records: &[CaseRecord], unit: Option<IterationUnit>) -> Vec<Series<'_>> {
    let mut found: Vec<Series<'_>> = Vec::new();
    for record in records {
        if record.kind != CaseKind::Speed || !record.has_speed() || unit.is_some_and(|u| u != record.unit) {
            continue;
        }
        let name = record.side();
        match found.iter_mut().find(|s| s.name == name) {
            Some(series) => series.records.push(record),
            None => found.push(Series {
                name,
                unit: record.unit,
                records: vec![record],
            }),
        }
    }
    for series in &mut found {
        series.records.sort_by_key(|r| r.panel.products);
    }
    found
}

/// The size of the panel of `records`, which is the first one's: `10,000 products, 1,560,000 rows.`
pub(super) fn size_in_words(records: &[&CaseRecord]) -> String {
    records.first().map_or(String::new(), |r| {
        format!(
            "{} products, {} rows.",
            count(r.panel.products as u64),
            count(r.panel.rows as u64)
        )
    })
}
