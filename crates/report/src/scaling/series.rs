//! Strong scaling: one panel on more and more ranks. Weak scaling: a panel that grows with them.
//!
//! Logical shards are in no series: they share a device, and say nothing of several.

use crate::records::scaling_record::ScalingRecord;
use crate::spread::Spread;

/// A line of points with one configuration.
#[derive(Debug, Clone)]
pub struct Series<'r> {
    /// The point of one rank that the others are compared with.
    pub base: &'r ScalingRecord,
    /// What connects the ranks of the others.
    pub communicator: &'r str,
    /// All points, by ranks; the first is the base.
    pub points: Vec<Point<'r>>,
}

/// A point of a series.
#[derive(Debug, Clone, Copy)]
pub struct Point<'r> {
    /// Its record.
    pub record: &'r ScalingRecord,
    /// Strong: times as many iterations per second as the base, each repeat against that of the same turn. Weak: times as many
    /// rows per second.
    pub speedup: Spread,
}

impl Point<'_> {
    /// Ranks, or GPUs.
    pub fn ranks(&self) -> usize {
        self.record.placement.ranks
    }

    /// Speedup per rank: 1 where every rank counts in full.
    pub fn efficiency(&self) -> f64 {
        self.speedup.median / self.ranks() as f64
    }
}

/// The series of strong scaling: points of one panel.
pub fn strong(records: &[ScalingRecord]) -> Vec<Series<'_>> {
    series(records, |base, point| {
        (point.panel.sha256 == base.panel.sha256).then(|| paired(base, point))?
    })
}

/// The series of weak scaling: points with as many products for each rank.
pub fn weak(records: &[ScalingRecord]) -> Vec<Series<'_>> {
    series(records, |base, point| {
        let rows = point.panel.rows as f64 / base.panel.rows as f64;
        if point.panel.products != base.panel.products * point.placement.ranks {
            return None;
        }
        // Panels of different sizes are not measured in turns.
        let (base, rate) = (base.iterations_per_second()?, point.iterations_per_second()?);
        Some(Spread {
            median: rows * rate.median / base.median,
            low: rows * rate.low / base.high,
            high: rows * rate.high / base.low,
            mad: rows * rate.mad / base.median,
        })
    })
}

/// The point of a record in the series, if it is in one.
pub fn point_of<'r>(record: &ScalingRecord, series: &[Series<'r>]) -> Option<Point<'r>> {
    let mut points = series.iter().flat_map(|s| &s.points);
    points.find(|point| std::ptr::eq(point.record, record)).copied()
}

/// Rates of `point` over those of `base`, turn by turn.
fn paired(base: &ScalingRecord, point: &ScalingRecord) -> Option<Spread> {
    let ratios: Vec<f64> = base
        .repeats
        .iter()
        .zip(&point.repeats)
        .map(|(base, point)| point.rate() / base.rate())
        .collect();
    Spread::of(&ratios)
}

fn series<'r>(
    records: &'r [ScalingRecord],
    speedup: impl Fn(&'r ScalingRecord, &'r ScalingRecord) -> Option<Spread>,
) -> Vec<Series<'r>> {
    let measured = || records.iter().filter(|r| r.has_speed() && !r.placement.logical);
    let mut found = Vec::new();
    for base in measured().filter(|r| r.placement.ranks == 1) {
        let configuration = base.configuration();
        let others = || measured().filter(|r| r.placement.ranks > 1 && r.configuration() == configuration);
        let mut communicators: Vec<&str> = others().map(|r| r.placement.communicator.as_str()).collect();
        communicators.sort_unstable();
        communicators.dedup();
        for communicator in communicators {
            let of_one = others().filter(|r| r.placement.communicator == communicator);
            let mut points: Vec<Point<'r>> = std::iter::once(base)
                .chain(of_one)
                .filter_map(|record| {
                    let speedup = match record.placement.ranks {
                        1 => Spread::of(&[1.0])?,
                        _ => speedup(base, record)?,
                    };
                    Some(Point { record, speedup })
                })
                .collect();
            points.sort_by_key(Point::ranks);
            if points.len() > 1 {
                found.push(Series {
                    base,
                    communicator,
                    points,
                });
            }
        }
    }
    found
}
