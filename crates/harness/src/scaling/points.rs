//! All points of one panel, in turns.

use super::ScalingPlan;
use super::meter::MeteredWorld;
use crate::benchmark::{BenchPanel, NOISY, is_no_fault, settle};
use crate::observer::Observer;
use crate::parity::check_parity;
use crate::timed_run::TimedRun;
use infermark_backend::{Backend, BackendError, Interrupt};
use infermark_communicator::{ThreadWorld, Traffic};
use infermark_fit_files::fit_record::SCHEMA_VERSION;
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::System;
use infermark_model::Shard;
use infermark_report::records::case_record::{QUIET, Status};
use infermark_report::records::results_folder::now_utc;
use infermark_report::records::scaling_record::{ScalingRecord, ScalingSample};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct PanelPoints<'a> {
    pub(super) plan: &'a ScalingPlan,
    pub(super) panel: &'a BenchPanel,
    pub(super) system: &'a System,
    pub(super) first_sequence: usize,
}

/// A started point.
struct Started {
    run: TimedRun,
    world: MeteredWorld,
}

impl Started {
    /// One timed repeat, with what the ranks spent of it in communication, and bytes per iteration.
    fn repeat(
        &mut self,
        seconds: f64,
        interrupt: &Interrupt,
    ) -> Result<Option<(ScalingSample, f64)>, BackendError> {
        let before = self.world.traffic();
        let done = self.run.repeats.len();
        self.run.repeat(seconds, interrupt)?;
        let Some(sample) = self.run.repeats.get(done) else {
            return Ok(None);
        };
        let after = self.world.traffic();
        let each = |of: &dyn Fn(&Traffic, &Traffic) -> f64| -> Vec<f64> {
            before
                .iter()
                .zip(&after)
                .map(|(before, after)| of(before, after))
                .collect()
        };
        let sent = each(&|before, after| (after.bytes - before.bytes) as f64);
        let bytes = sent.into_iter().fold(0.0, f64::max) / sample.iterations as f64;
        let sample = ScalingSample {
            iterations: sample.iterations,
            seconds: sample.seconds,
            communication_seconds: each(&|before, after| (after.time - before.time).as_secs_f64()),
        };
        Ok(Some((sample, bytes)))
    }
}

impl PanelPoints<'_> {
    /// Parity, then timing side by side: one record per number of ranks. Before the timing it waits for other programs, while `patience`
    /// lasts.
    pub(super) fn measure(
        &self,
        ranks: &BTreeSet<usize>,
        patience: &mut Duration,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Vec<ScalingRecord> {
        let products = self.panel.panel.layout().products;
        observer.phase(&format!("{products} products: fingerprint"));
        let description = PanelDescription::new(&self.panel.panel, self.panel.source.clone());
        let mut records = Vec::new();
        let mut points = Vec::new();
        for ranks in ranks {
            let mut record = self.blank(*ranks, &description, self.first_sequence + records.len());
            let mut point = None;
            if !interrupt.is_set() {
                observer.phase(&format!("{products} products: parity of {}", record.place()));
                point = self.start(&mut record, interrupt);
            }
            records.push(record);
            points.push(point);
        }
        let busy_share = settle(patience, observer, interrupt);
        observer.phase(&format!("{products} products: timing"));
        let total = self.plan.repeats.saturating_mul(records.len()) as u64;
        let mut done = 0;
        for _ in 0..self.plan.repeats {
            for (slot, record) in points.iter_mut().zip(&mut records) {
                if let Some(point) = slot.as_mut().filter(|_| !interrupt.is_set()) {
                    match point.repeat(self.plan.repeat_seconds, interrupt) {
                        Ok(Some((sample, bytes))) => {
                            record.repeats.push(sample);
                            record.bytes_per_iteration = Some(bytes);
                        }
                        Ok(None) => {}
                        Err(e) => {
                            fail(record, format!("while timed: {e}"));
                            *slot = None;
                        }
                    }
                }
                done += 1;
                observer.advanced(done, total);
            }
        }
        for record in &mut records {
            record.busy_share = busy_share;
            self.remark(record, interrupt.is_set());
        }
        records
    }

    /// A record with nothing measured.
    fn blank(&self, ranks: usize, panel: &PanelDescription, sequence: usize) -> ScalingRecord {
        let request = self.plan.request_of(ranks);
        let backend = self.backend(ranks);
        let device = backend.devices().into_iter().find(|d| d.id == request.devices[0]);
        let software = device.as_ref().is_some_and(|device| device.software);
        // More shards than products are refused at the start, by name.
        let rows_of_ranks = Shard::cut(&self.panel.panel, ranks)
            .map(|shards| shards.iter().map(Shard::rows).collect())
            .unwrap_or_default();
        ScalingRecord {
            schema_version: SCHEMA_VERSION,
            sequence,
            measured_at: now_utc(),
            status: Status::Ok,
            reason: "none".into(),
            backend: backend.name().into(),
            device: device.map_or_else(|| self.system.device.clone(), |device| device.name),
            placement: self.plan.placement(ranks, self.system.cores, software),
            request,
            panel: panel.clone(),
            rows_of_ranks,
            parity: None,
            threads_used: None,
            setup_seconds: None,
            warmup: None,
            repeats: Vec::new(),
            bytes_per_iteration: None,
            busy_share: None,
            system: self.system.clone(),
        }
    }

    fn backend(&self, ranks: usize) -> &Arc<dyn Backend> {
        match ranks {
            1 => &self.plan.whole,
            _ => &self.plan.sharded,
        }
    }

    /// Checks parity, starts the point and warms it up; the record says why, where it does not.
    fn start(&self, record: &mut ScalingRecord, interrupt: &Interrupt) -> Option<Started> {
        let ranks = record.placement.ranks;
        let mut backend = self.backend(ranks).clone();
        match check_parity(
            &*backend,
            &self.panel.panel,
            &record.request,
            self.plan.parity_rows,
        ) {
            Err(e) if is_no_fault(&e) => {
                leave_out(record, &e);
                return None;
            }
            Err(e) => {
                fail(record, format!("parity could not be checked: {e}"));
                return None;
            }
            Ok(parity) => {
                let failures = (!parity.passed()).then(|| parity.failures());
                record.parity = Some(parity);
                if let Some(failures) = failures {
                    fail(record, format!("parity: {failures}"));
                    return None;
                }
            }
        }
        let world = MeteredWorld::new(ThreadWorld);
        if ranks > 1 {
            let Some(metered) = backend.among(Arc::new(world.clone())) else {
                fail(record, format!("{} has no ranks", backend.name()));
                return None;
            };
            backend = metered;
        }
        let started =
            TimedRun::start(&*backend, self.panel.panel.clone(), &record.request).and_then(|mut run| {
                let ScalingPlan {
                    warmup_seconds,
                    warmup_iterations,
                    repeat_seconds,
                    repeats,
                    ..
                } = *self.plan;
                run.warmup(
                    warmup_seconds,
                    warmup_iterations,
                    repeat_seconds,
                    repeats,
                    interrupt,
                )?;
                Ok(run)
            });
        match started {
            Ok(run) => {
                record.threads_used = Some(run.report().threads);
                record.setup_seconds = Some(run.setup_seconds);
                record.warmup = Some(run.warmup);
                Some(Started { run, world })
            }
            Err(e) if is_no_fault(&e) => {
                leave_out(record, &e);
                None
            }
            Err(e) => {
                fail(record, format!("did not start: {e}"));
                None
            }
        }
    }

    /// Adds remarks for the reader.
    fn remark(&self, record: &mut ScalingRecord, interrupted: bool) {
        if record.status != Status::Ok {
            return;
        }
        if record.repeats.is_empty() {
            let reason = match interrupted {
                true => "interrupted before the first repeat",
                false => "nothing was timed",
            };
            return fail(record, reason.to_owned());
        }
        let mut remarks = Vec::new();
        if record.repeats.len() < self.plan.repeats {
            remarks.push(format!(
                "{} of {} repeats",
                record.repeats.len(),
                self.plan.repeats
            ));
        }
        if let Some(rate) = record.iterations_per_second().filter(|rate| rate.ratio() > NOISY) {
            remarks.push(format!(
                "noisy: the repeats differ by a factor of {:.2}",
                rate.ratio()
            ));
        }
        if let Some(warmup) = record
            .warmup
            .filter(|w| w.iterations < self.plan.warmup_iterations)
        {
            remarks.push(format!(
                "timed from iteration {} on, where rows may still clip that later do not",
                warmup.iterations
            ));
        }
        if let Some(busy) = record.busy_share.filter(|busy| *busy > QUIET) {
            remarks.push(format!(
                "the machine was busy: other programs used {:.0}% of it before the timing",
                100.0 * busy
            ));
        }
        let asked = record.placement.threads_per_rank * record.placement.ranks;
        if let Some(used) = record
            .threads_used
            .filter(|used| *used < asked && !record.is_on_gpu())
        {
            remarks.push(format!(
                "used {used} of {asked} threads, as a rank has little work"
            ));
        }
        if record.placement.logical {
            remarks.push(format!("{}: no measurement of as many devices", record.place()));
        }
        if record.system.program.profile.starts_with("debug") {
            remarks.push(format!("built as {}", record.system.program.profile));
        }
        if !remarks.is_empty() {
            record.status = Status::Warn;
            record.reason = remarks.join("; ");
        }
    }
}

fn fail(record: &mut ScalingRecord, reason: String) {
    record.status = Status::Failed;
    record.reason = reason;
}

fn leave_out(record: &mut ScalingRecord, why: &BackendError) {
    record.status = Status::NotMeasured;
    record.reason = why.to_string();
}
