//! Time to a posterior: every method's way to one, on panels of one size, side by side.
//!
//! Every figure is of a record or published: figures measured in full, estimated from a part, and published
//! by others are kept apart.

use crate::number_format::count;
use crate::published::{ITERATIONS, NUTS_DRAWS, NUTS_HOURS, NUTS_TIME, NUTS_WARMUP, PARTICLES, SETS, set_of};
use crate::quality::truth::ChainQuality;
use crate::records::case_record::{CaseRecord, Status};
use infermark_backend::{Convergence, Method};
use infermark_model::{Coordinates, Likelihood};

/// The source of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBasis {
    /// All of it was timed here.
    Measured,
    /// A part of it was timed here.
    Estimated,
    /// A part of it was timed here, and the rest can take no longer than was assumed. It says how long at most, so no factor
    /// is taken over it.
    UpperBound,
    /// Others published it, themselves an estimate.
    Published,
}

impl TimeBasis {
    /// The word in tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            TimeBasis::Measured => "measured",
            TimeBasis::Estimated => "estimated",
            TimeBasis::UpperBound => "upper bound",
            TimeBasis::Published => "published estimate",
        }
    }
}

/// How far the elasticities are from the truth, and after what.
#[derive(Debug, Clone, PartialEq)]
pub struct TruthFigures {
    /// What had been done when it was taken: all of it, or the part that was timed.
    pub after: String,
    /// Mean absolute error of the product elasticities.
    pub mae: f64,
    /// Share of true elasticities in the 95% intervals.
    pub coverage_95: f64,
}

/// How many times as long other ways take on a panel of the same size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TimesAsFast {
    /// As the published 1M iterations of SVI on the published CPU.
    pub as_published_svi: Option<f64>,
    /// As the published NUTS reference on the published CPU.
    pub as_published_nuts: Option<f64>,
    /// As 1M iterations of the published SVI workload here, the fastest case, estimated.
    pub as_svi_here: Option<f64>,
    /// As the published NUTS reference here, measured or estimated; never its upper bound.
    pub as_nuts_here: Option<f64>,
}

/// One way to a posterior.
#[derive(Debug, Clone, PartialEq)]
pub struct PosteriorTime {
    /// Products of the panel.
    pub products: usize,
    /// Rows of the panel.
    pub rows: usize,
    /// The method and how much of it.
    pub way: String,
    /// What it runs on, with the settings.
    pub on: String,
    /// Seconds; the median where it was measured.
    pub seconds: f64,
    /// Shortest and longest repeat.
    pub range: Option<(f64, f64)>,
    /// Where the seconds are from.
    pub basis: TimeBasis,
    /// Quality, where the truth is known.
    pub truth: Option<TruthFigures>,
    /// Held against other ways.
    pub times: TimesAsFast,
    /// False if the run itself reports that it has not converged: then it is not complete and is compared
    /// with nothing.
    pub converged: bool,
    /// Whether it may be relied on.
    pub status: Status,
}

/// All ways to a posterior that `records` and the published figures know, by size: for each the published ones, then those
/// of the records in their order.
pub fn times_to_posterior(records: &[CaseRecord]) -> Vec<PosteriorTime> {
    let mut sizes: Vec<(usize, usize)> = records
        .iter()
        .filter(|r| time_of(r).is_some())
        .map(|r| (r.panel.products, r.panel.rows))
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut all = Vec::new();
    for size in sizes {
        let here: Vec<&CaseRecord> = records
            .iter()
            .filter(|r| (r.panel.products, r.panel.rows) == size)
            .collect();
        let fastest = |chosen: &dyn Fn(&CaseRecord) -> bool| {
            let times = here.iter().filter(|r| chosen(r)).filter_map(|r| time_of(r));
            times.map(|t| t.seconds).min_by(f64::total_cmp)
        };
        let svi = fastest(&CaseRecord::is_published_workload);
        let nuts = fastest(&|r| {
            r.published_nuts
                .as_ref()
                .is_some_and(|nuts| !nuts.is_upper_bound())
        });
        let found = published(size)
            .into_iter()
            .chain(here.iter().filter_map(|r| time_of(r)));
        all.extend(found.map(|mut time| {
            if time.converged && time.basis != TimeBasis::UpperBound {
                time.times.as_svi_here = svi.map(|s| s / time.seconds);
                time.times.as_nuts_here = nuts.map(|s| s / time.seconds);
            }
            time
        }));
    }
    all
}

/// The way represented by a case, compared only with the published ones; `None` if it has no speed or no end:
/// of SVI the published 1M iterations, or in orthogonal coordinates those of the schedule, of chains the
/// draws that were asked for if all were made, or the published reference, of whole fits one.
pub fn time_of(record: &CaseRecord) -> Option<PosteriorTime> {
    let truth = |after: String| {
        record.truth_quality.as_ref().map(|t| TruthFigures {
            after,
            mae: t.product_a_mae,
            coverage_95: t.product_a_coverage_95,
        })
    };
    let after = record.truth_quality.as_ref().map_or(0, |t| t.after);
    let converged = has_converged(record);
    let of = |way: String, seconds: f64, basis: TimeBasis| PosteriorTime {
        products: record.panel.products,
        rows: record.panel.rows,
        way,
        on: record.side(),
        seconds,
        range: None,
        basis,
        truth: None,
        times: if converged
            && basis != TimeBasis::UpperBound
            && record.request.likelihood == Likelihood::default()
        {
            against_published((record.panel.products, record.panel.rows), seconds)
        } else {
            TimesAsFast::default()
        },
        converged,
        status: record.status,
    };
    if let Some(nuts) = &record.published_nuts {
        let basis = match nuts.remaining_draws() {
            0 => TimeBasis::Measured,
            _ if nuts.is_upper_bound() => TimeBasis::UpperBound,
            _ => TimeBasis::Estimated,
        };
        return Some(of(nuts_reference(), nuts.estimated_seconds(), basis));
    }
    match &record.request.method {
        // The time is of the whole schedule; the quality is of the run so far, which in the published coordinates is seldom the whole.
        Method::Svi(svi) => {
            let (way, iterations) = match svi.coordinates {
                Coordinates::Published => (SVI.to_owned(), ITERATIONS),
                // Those over which the learning rate falls: a run that is timed may go on.
                Coordinates::Orthogonal => {
                    let iterations = svi.optimizer.decay_iterations;
                    (svi_orthogonal(iterations as u64), iterations)
                }
            };
            let seconds = record.estimated_seconds_for(iterations)?;
            Some(PosteriorTime {
                truth: truth(match after as f64 >= iterations {
                    true => format!("{} iterations", count(after)),
                    false => format!("{} iterations, the run so far", count(after)),
                }),
                ..of(way, seconds, TimeBasis::Estimated)
            })
        }
        Method::Nuts(_) => {
            let chains = record.chain_quality.as_ref().filter(|c| c.finished)?;
            let way = format!(
                "NUTS, {} chains, {} draws each after {} of warm-up{}",
                chains.chains,
                count(chains.draws),
                count(chains.warmup),
                if converged { "" } else { ", not converged" }
            );
            Some(PosteriorTime {
                truth: truth("the whole run".into()),
                ..of(way, chains.seconds, TimeBasis::Measured)
            })
        }
        method => {
            let seconds = record.seconds_per_iteration()?;
            Some(PosteriorTime {
                range: Some((seconds.low, seconds.high)),
                truth: truth("the whole fit".into()),
                ..of(method.words().into(), seconds.median, TimeBasis::Measured)
            })
        }
    }
}

/// Whether a run does not itself state that it is not at its end: chains made for their quality, and what is fitted whole. What is estimated
/// for others' settings states nothing.
fn has_converged(record: &CaseRecord) -> bool {
    let method = &record.request.method;
    let fit = record
        .report
        .as_ref()
        .filter(|_| method.kind().is_fitted_whole())
        .is_none_or(|report| report.convergence(method) == Convergence::Converged);
    let chains = record.chain_quality.as_ref();
    fit && chains.is_none_or(ChainQuality::has_converged)
}

const SVI: &str = "SVI, 1M iterations";

fn svi_orthogonal(iterations: u64) -> String {
    format!("SVI in orthogonal coordinates, {} iterations", count(iterations))
}

fn nuts_reference() -> String {
    format!(
        "NUTS, one chain, {} draws of which {} warm-up",
        count(NUTS_DRAWS),
        count(NUTS_WARMUP)
    )
}

fn against_published(size: (usize, usize), seconds: f64) -> TimesAsFast {
    let set = set_of(size.0, size.1);
    let has_nuts = set == Some(&SETS[0]);
    TimesAsFast {
        as_published_svi: set.map(|s| s.times[0].seconds() / seconds),
        as_published_nuts: has_nuts.then_some(NUTS_HOURS * 3600.0 / seconds),
        ..TimesAsFast::default()
    }
}

/// The published ways on panels of this size.
fn published(size: (usize, usize)) -> Vec<PosteriorTime> {
    let Some(set) = set_of(size.0, size.1) else {
        return Vec::new();
    };
    let of = |way: String, on: String, seconds: f64| PosteriorTime {
        products: size.0,
        rows: size.1,
        way,
        on,
        seconds,
        range: None,
        basis: TimeBasis::Published,
        truth: None,
        times: against_published(size, seconds),
        converged: true,
        status: Status::Ok,
    };
    let mut found: Vec<PosteriorTime> = set
        .times
        .iter()
        .map(|time| {
            let on = format!("{}, K = {PARTICLES}", time.system.name());
            of(SVI.into(), on, time.seconds())
        })
        .collect();
    if set == &SETS[0] {
        found.push(of(nuts_reference(), NUTS_TIME.into(), NUTS_HOURS * 3600.0));
    }
    found
}
