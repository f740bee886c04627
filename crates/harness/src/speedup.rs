//! Ratios of times, each naming both of its sides.

use crate::case_record::{CaseKind, CaseRecord, IterationUnit};
use crate::published::{NUTS_HOURS, set_of};

/// How many times faster one thing is than another.
#[derive(Debug, Clone, PartialEq)]
pub struct Speedup {
    /// Products of the panel.
    pub products: usize,
    /// What is faster (or slower, below 1).
    pub this: String,
    /// What it is held against.
    pub against: String,
    /// Time of the other over time of this.
    pub factor: f64,
    /// Whether a side was estimated from fewer iterations than it stands for.
    pub estimated: bool,
    /// Whether the other side is a published figure, from another machine.
    pub against_published: bool,
}

/// All speedups that `records` and the published figures allow, by size.
///
/// Times for 1M iterations are compared with published ones only when the workload is the published one and the size is
/// the same. Measured cases of one size and one unit are compared with the first of them.
pub fn speedups(records: &[CaseRecord]) -> Vec<Speedup> {
    let mut found = Vec::new();
    for record in records {
        found.extend(against_published(record));
        let first = records.iter().find(|r| {
            r.kind == CaseKind::Speed
                && r.has_speed()
                && r.unit == record.unit
                && r.panel.sha256 == record.panel.sha256
        });
        if let (Some(first), Some(rate)) = (first, record.iterations_per_second())
            && first.sequence != record.sequence
            && let Some(base) = first.iterations_per_second()
        {
            found.push(Speedup {
                products: record.panel.products,
                this: record.side(),
                against: first.side(),
                factor: rate.median / base.median,
                estimated: false,
                against_published: false,
            });
        }
        if let (Some(estimate), Some(set)) = (&record.published_nuts, set_of(record.panel.products))
            && set.products == crate::published::SETS[0].products
        {
            found.push(Speedup {
                products: record.panel.products,
                this: format!("NUTS, 3,000 draws, {}", record.side()),
                against: "published NUTS, 3,000 draws, about 20 h on the published CPU".into(),
                factor: NUTS_HOURS * 3600.0 / estimate.estimated_seconds(),
                estimated: estimate.remaining_draws() > 0,
                against_published: true,
            });
        }
    }
    found
}

/// The speedups of one case over the published systems.
pub fn against_published(record: &CaseRecord) -> Vec<Speedup> {
    let (Some(set), Some(seconds)) = (set_of(record.panel.products), record.estimated_seconds_1m()) else {
        return Vec::new();
    };
    if !record.is_published_workload() || record.unit != IterationUnit::Iterations {
        return Vec::new();
    }
    set.times
        .iter()
        .map(|time| Speedup {
            products: record.panel.products,
            this: record.side(),
            against: format!(
                "published {}, K = 4, 1M iterations (estimate)",
                time.system.name()
            ),
            factor: time.seconds() / seconds,
            estimated: true,
            against_published: true,
        })
        .collect()
}
