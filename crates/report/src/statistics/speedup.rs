//! Ratios of times, each naming both of its sides.

use crate::published::{NUTS_HOURS, NUTS_TIME, SETS, set_of};
use crate::records::case_record::{CaseKind, CaseRecord, IterationUnit, Sample, Status};
use crate::spread::Spread;

/// How many times faster one thing is than another.
#[derive(Debug, Clone, PartialEq)]
pub struct Speedup {
    /// Products of the panel.
    pub products: usize,
    /// What is faster (or slower, below 1).
    pub this: String,
    /// What it is compared with.
    pub against: String,
    /// Time of the other over time of this: the median over the repeats. If both sides were measured, a
    /// repeat is compared with the other side's repeat of the same turn, so that disturbances of both cancel.
    pub factor: f64,
    /// Smallest and largest over the repeats, where there were any.
    pub range: Option<(f64, f64)>,
    /// Whether a side was extrapolated from fewer iterations.
    pub estimated: bool,
    /// Whether the other side is a published figure, from another machine.
    pub against_published: bool,
    /// Whether it is reliable: the worse of its two sides.
    pub status: Status,
}

/// All speedups that `records` and the published figures allow, by size.
///
/// Times for 1M iterations are compared with published ones only when the workload is the published one and the panel has
/// the same size, in products and rows. Measured cases of one panel and one unit are compared with the first of them, whole
/// fits with the first of their method: another method's fit is another posterior ([`crate::statistics::time_to_posterior`]).
pub fn speedups(records: &[CaseRecord]) -> Vec<Speedup> {
    let mut found = Vec::new();
    for record in records {
        found.extend(against_published(record));
        let first = records.iter().find(|r| {
            r.kind == CaseKind::Speed
                && r.has_speed()
                && r.unit == record.unit
                && (r.unit != IterationUnit::Fits || r.backend == record.backend)
                && r.panel.sha256 == record.panel.sha256
        });
        if let Some(first) = first
            && first.sequence != record.sequence
        {
            found.extend(measured(record, first));
        }
        // Over an upper bound no factor is taken.
        if let Some(estimate) = &record.published_nuts
            && !estimate.is_upper_bound()
            && set_of(record.panel.products, record.panel.rows) == Some(&SETS[0])
        {
            found.push(Speedup {
                products: record.panel.products,
                this: format!("NUTS, 3,000 draws, {}", record.side()),
                against: format!("published NUTS, 3,000 draws: {NUTS_TIME}"),
                factor: NUTS_HOURS * 3600.0 / estimate.estimated_seconds(),
                range: None,
                estimated: estimate.remaining_draws() > 0,
                against_published: true,
                status: record.status,
            });
        }
    }
    found
}

/// One case over another of the same panel, repeat by repeat.
fn measured(record: &CaseRecord, first: &CaseRecord) -> Option<Speedup> {
    if !record.has_speed() {
        return None;
    }
    let pairs = record.repeats.iter().zip(&first.repeats);
    let ratios: Vec<f64> = pairs.map(|(this, other)| this.rate() / other.rate()).collect();
    let spread = Spread::of(&ratios)?;
    Some(Speedup {
        products: record.panel.products,
        this: record.side(),
        against: first.side(),
        factor: spread.median,
        range: Some((spread.low, spread.high)),
        estimated: false,
        against_published: false,
        status: record.status.max(first.status),
    })
}

/// The speedups of one case over the published systems.
pub fn against_published(record: &CaseRecord) -> Vec<Speedup> {
    let set = set_of(record.panel.products, record.panel.rows);
    let (Some(set), true) = (set, record.has_speed() && record.is_published_workload()) else {
        return Vec::new();
    };
    if record.unit != IterationUnit::Iterations {
        return Vec::new();
    }
    let rates: Vec<f64> = record.repeats.iter().map(Sample::rate).collect();
    let Some(rate) = Spread::of(&rates) else {
        return Vec::new();
    };
    set.times
        .iter()
        .map(|time| {
            let factor = |rate: f64| time.seconds() * rate / crate::published::ITERATIONS;
            Speedup {
                products: record.panel.products,
                this: record.side(),
                against: format!(
                    "published {}, K = 4, 1M iterations (estimate)",
                    time.system.name()
                ),
                factor: factor(rate.median),
                range: Some((factor(rate.low), factor(rate.high))),
                estimated: true,
                against_published: true,
                status: record.status,
            }
        })
        .collect()
}
