//! All-reduces alone, by size and number of ranks.

use super::ScalingPlan;
use crate::benchmark::{BenchmarkError, settle};
use crate::observer::Observer;
use infermark_backend::{BackendError, Interrupt};
use infermark_communicator::{CommunicationError, Communicator, ThreadWorld, World};
use infermark_fit_files::fit_record::SCHEMA_VERSION;
use infermark_machine::System;
use infermark_report::records::case_record::Sample;
use infermark_report::records::results_folder::now_utc;
use infermark_report::records::scaling_record::{CollectiveRecord, ScalingRecord};
use infermark_threads::at_once;
use std::time::{Duration, Instant};

/// Operations before the first timed one.
const WARMUP_OPERATIONS: u64 = 50;

/// The most operations of a repeat.
const MOST_OPERATIONS: u64 = 20_000;

/// Seconds of a repeat, as a part of those of a repeat of iterations.
const PART_OF_REPEAT: f64 = 0.1;

/// Times all-reduces of the iterations' buffer, of parts of it and of larger ones, on each number of ranks.
pub(super) fn measure(
    plan: &ScalingPlan,
    records: &[ScalingRecord],
    system: &System,
    patience: &mut Duration,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<CollectiveRecord>, BenchmarkError> {
    let bytes = records
        .iter()
        .filter(|r| r.placement.ranks > 1)
        .filter_map(|r| r.bytes_per_iteration);
    let numbers = (bytes.fold(0.0, f64::max) / 8.0) as usize;
    let mut found: Vec<CollectiveRecord> = Vec::new();
    let busy_share = settle(patience, observer, interrupt);
    let mut ranks = plan.ranks.clone();
    ranks.sort_unstable();
    ranks.dedup();
    for ranks in ranks.into_iter().filter(|ranks| *ranks > 1 && numbers > 0) {
        for numbers in [1, numbers / 4, numbers, 4 * numbers]
            .into_iter()
            .filter(|n| *n > 0)
        {
            if interrupt.is_set() {
                return Ok(found);
            }
            observer.phase(&format!("all-reduce of {} bytes on {ranks} ranks", 8 * numbers));
            // The ranks of an all-reduce have a thread each, wherever their iterations run.
            let mut placement = plan.placement(ranks, system.cores, false);
            placement.logical = ranks > system.cores;
            found.push(CollectiveRecord {
                schema_version: SCHEMA_VERSION,
                sequence: found.len(),
                measured_at: now_utc(),
                placement,
                bytes: 8 * numbers as u64,
                repeats: timed(&ThreadWorld, ranks, numbers, plan)?,
                busy_share,
                system: system.clone(),
            });
        }
    }
    Ok(found)
}

/// The repeats: as many operations on every rank, and the seconds of the slowest.
fn timed(
    world: &dyn World,
    ranks: usize,
    numbers: usize,
    plan: &ScalingPlan,
) -> Result<Vec<Sample>, BenchmarkError> {
    let (repeats, seconds) = (plan.repeats, PART_OF_REPEAT * plan.repeat_seconds);
    let works: Vec<_> = world
        .ranks(ranks)
        .into_iter()
        .map(|mut rank| move || of_rank(&mut *rank, numbers, repeats, seconds))
        .collect();
    let refused = |error: BackendError| BenchmarkError::Plan(error.to_string());
    let ranks = at_once(works).map_err(|error| refused(BackendError::short_of_threads(&error)))?;
    let ranks: Vec<Vec<Sample>> = ranks
        .into_iter()
        .collect::<Result<_, CommunicationError>>()
        .map_err(|error| refused(error.into()))?;
    let slowest = |repeat: usize| {
        let of_repeat = ranks.iter().map(|samples| samples[repeat]);
        of_repeat
            .max_by(|a, b| a.seconds.total_cmp(&b.seconds))
            .expect("there is a rank")
    };
    Ok((0..repeats).map(slowest).collect())
}

fn of_rank(
    rank: &mut dyn Communicator,
    numbers: usize,
    repeats: usize,
    seconds: f64,
) -> Result<Vec<Sample>, CommunicationError> {
    // Sums of zeros stay what they are.
    let mut buffer = vec![0.0; numbers];
    let mut run = |rank: &mut dyn Communicator, operations: u64| {
        rank.barrier()?;
        let clock = Instant::now();
        for _ in 0..operations {
            rank.all_reduce(&mut buffer)?;
        }
        Ok(Sample {
            iterations: operations,
            seconds: clock.elapsed().as_secs_f64(),
        })
    };
    let first = run(rank, WARMUP_OPERATIONS)?;
    // All ranks do as many as the first one says.
    let mut wanted = [(seconds * first.rate()).ceil().clamp(1.0, MOST_OPERATIONS as f64)];
    rank.broadcast(&mut wanted, 0)?;
    (0..repeats).map(|_| run(rank, wanted[0] as u64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_backend::{Method, Request, SviSettings};
    use infermark_svi_cpu::SviCpu;
    use std::sync::Arc;

    #[test]
    fn every_rank_counts_the_same_operations() {
        let backend = || Arc::new(SviCpu::new());
        let request = Request::new(Method::Svi(SviSettings::default()));
        let mut plan = ScalingPlan::new(backend(), backend(), request, vec![10], vec![2]);
        (plan.repeats, plan.repeat_seconds) = (3, 0.02);
        for (ranks, numbers) in [(1, 7), (2, 1), (3, 1000)] {
            let samples = timed(&ThreadWorld, ranks, numbers, &plan).unwrap();
            assert_eq!(samples.len(), 3);
            assert!(
                samples
                    .iter()
                    .all(|s| s.iterations == samples[0].iterations && s.seconds > 0.0)
            );
        }
    }
}
