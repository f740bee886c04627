//! All cases on one panel.

use super::remarks::{device_in_words, fail, is_no_fault, leave_out, remark};
use super::timed::TimedCase;
use super::{BenchPanel, Case, DeviceLimits, Plan, chains, settle};
use crate::observer::Observer;
use crate::parity::check_parity;
use crate::timed_fits::TimedFits;
use crate::timed_run::TimedRun;
use infermark_backend::{Detail, Interrupt, Method, Posterior, Request};
use infermark_fit_files::fit_record::SCHEMA_VERSION;
use infermark_fit_files::panel_description::PanelDescription;
use infermark_machine::{System, peak_memory_bytes};
use infermark_model::Likelihood;
use infermark_report::quality::agreement::{Agreement, Reference};
use infermark_report::quality::truth::TruthQuality;
use infermark_report::records::case_record::{CaseKind, CaseRecord, IterationUnit, Status};
use infermark_report::records::memory_limit::MemoryLimit;
use infermark_report::records::results_folder::now_utc;
use std::time::Duration;

pub(super) struct PanelBenchmark<'a> {
    pub(super) plan: &'a Plan,
    pub(super) panel: &'a BenchPanel,
    pub(super) smallest: bool,
    pub(super) system: &'a System,
    pub(super) memory_limit: MemoryLimit,
    /// Limits of the devices other than the CPU.
    pub(super) device_limits: &'a DeviceLimits,
    pub(super) first_sequence: usize,
}

impl PanelBenchmark<'_> {
    /// Parity, then timing side by side, then quality. One record per case, in the plan's order, also for
    /// those that are left out at this size, then the published NUTS reference. Before the timing it waits
    /// for other programs, while `patience` lasts.
    pub(super) fn measure(
        &self,
        products: usize,
        patience: &mut Duration,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Vec<CaseRecord> {
        observer.phase(&format!("{products} products: fingerprint"));
        let description = PanelDescription::new(&self.panel.panel, self.panel.source.clone());
        let cases = &self.plan.cases;
        let mut records = Vec::new();
        let mut runs: Vec<Option<TimedCase>> = Vec::new();
        for case in cases {
            let mut record = self.blank(case, &description, self.first_sequence + records.len());
            let name = case.backend.name();
            let mut run = None;
            if products > case.most_products {
                record.status = Status::NotMeasured;
                record.reason = format!("above the largest size for samplers, {}", case.most_products);
            } else if interrupt.is_set() {
                fail(&mut record, "interrupted before it was measured");
            } else {
                observer.phase(&format!("{products} products: parity of {name}"));
                match check_parity(
                    &*case.backend,
                    &self.panel.panel,
                    &case.request,
                    self.plan.parity_rows,
                ) {
                    Err(e) if is_no_fault(&e) => leave_out(&mut record, &e),
                    Err(e) => fail(&mut record, format!("parity could not be checked: {e}")),
                    Ok(parity) if !parity.passed() => {
                        fail(&mut record, format!("parity: {}", parity.failures()));
                        record.parity = Some(parity);
                    }
                    Ok(parity) => {
                        record.parity = Some(parity);
                        observer.phase(&format!("{products} products: {name} starts"));
                        run = self.start(case, &mut record, interrupt);
                    }
                }
            }
            records.push(record);
            runs.push(run);
        }

        let busy_share = settle(patience, observer, interrupt);
        observer.phase(&format!("{products} products: timing"));
        let total = self.plan.repeats.saturating_mul(cases.len()) as u64;
        let mut done = 0;
        for _ in 0..self.plan.repeats {
            for (slot, record) in runs.iter_mut().zip(&mut records) {
                if let Some(run) = slot.as_mut().filter(|_| !interrupt.is_set())
                    && let Err(e) = run.repeat(self.plan.repeat_seconds, interrupt)
                {
                    fail(record, format!("while timed: {e}"));
                    *slot = None;
                }
                done += 1;
                observer.advanced(done, total);
            }
        }

        let mut posteriors: Vec<Option<Posterior>> = Vec::new();
        for ((case, slot), record) in cases.iter().zip(runs).zip(&mut records) {
            posteriors.push(slot.and_then(|run| {
                record.busy_share = busy_share;
                match run {
                    TimedCase::Run(run) => self.finish_run(case, run, record, observer, interrupt),
                    TimedCase::Fits(fits) => self.finish_fits(*fits, record, interrupt),
                }
            }));
        }
        compare_with_chains(&mut records, &posteriors, &self.panel.panel.sums().product);
        if self.smallest
            && self.plan.published_nuts_seconds > 0.0
            && !interrupt.is_set()
            && let Some((case, timed)) = cases.iter().zip(&records).find(|(c, r)| {
                // What is published is of the usual likelihood.
                let is_usual = c.request.likelihood == Likelihood::default();
                is_usual && c.request.method.kind().has_draws() && r.has_speed()
            })
        {
            observer.phase(&format!("{products} products: published NUTS reference"));
            let mut record = self.blank(case, &description, self.first_sequence + records.len());
            record.kind = CaseKind::PublishedNuts;
            record.request = chains::published_request(&case.request);
            record.timing_max_depth = None;
            record.parity = timed.parity.clone();
            record.busy_share = timed.busy_share;
            let seconds = self.plan.published_nuts_seconds;
            chains::published_reference(case, &self.panel.panel, seconds, &mut record, observer, interrupt);
            records.push(record);
        }
        for record in &mut records {
            let limits = self.device_limits.get(&record.request.devices[0]);
            let limits_failed = limits
                .and_then(|limits| limits.as_ref().err())
                .map(String::as_str);
            remark(record, self.plan, interrupt.is_set(), limits_failed);
        }
        records
    }

    /// A record with nothing measured.
    fn blank(&self, case: &Case, description: &PanelDescription, sequence: usize) -> CaseRecord {
        let wanted = &case.request.devices;
        let device = case
            .backend
            .devices()
            .into_iter()
            .find(|d| wanted.first() == Some(&d.id));
        let is_software = device.as_ref().is_some_and(|device| device.software);
        let device = device.map_or_else(|| self.system.device.clone(), |device| device.name);
        CaseRecord {
            schema_version: SCHEMA_VERSION,
            sequence,
            measured_at: now_utc(),
            kind: CaseKind::Speed,
            status: Status::Ok,
            reason: "none".into(),
            backend: case.backend.name().into(),
            device: device_in_words(&device, &case.request),
            is_software,
            threads: case.request.resolved_threads(),
            request: case.request.clone(),
            timing_max_depth: self.timing_max_depth(&case.request),
            panel: description.clone(),
            unit: IterationUnit::of(&case.request.method),
            parity: None,
            setup_seconds: None,
            warmup: None,
            repeats: Vec::new(),
            kernel_row_particles_per_second: None,
            busy_share: None,
            peak_memory_bytes: None,
            memory_limit: Some(self.memory_limit),
            device_limits: self
                .device_limits
                .get(&case.request.devices[0])
                .and_then(|limits| limits.as_ref().ok().copied()),
            truth_quality: None,
            agreement: None,
            chain_quality: None,
            published_nuts: None,
            report: None,
            system: self.system.clone(),
        }
    }

    /// The limit of tree doublings while a sampler is timed, where it is lower than the request's.
    fn timing_max_depth(&self, request: &Request) -> Option<u32> {
        match &request.method {
            Method::Nuts(nuts) if nuts.max_depth > self.plan.timing_max_depth => {
                Some(self.plan.timing_max_depth)
            }
            _ => None,
        }
    }

    fn start(&self, case: &Case, record: &mut CaseRecord, interrupt: &Interrupt) -> Option<TimedCase> {
        let mut request = record.request.clone();
        if let (Method::Nuts(nuts), Some(max_depth)) = (&mut request.method, record.timing_max_depth) {
            nuts.max_depth = max_depth;
        }
        let started = TimedCase::start(case, &self.panel.panel, &request);
        let mut run = match started {
            Ok(run) => run,
            Err(e) if is_no_fault(&e) => {
                leave_out(record, &e);
                return None;
            }
            Err(e) => {
                fail(record, format!("did not start: {e}"));
                return None;
            }
        };
        match run.warmup(self.plan, interrupt) {
            Ok(()) => Some(run),
            // A fit starts as it warms up.
            Err(e) if is_no_fault(&e) => {
                leave_out(record, &e);
                None
            }
            Err(e) => {
                fail(record, format!("while warming up: {e}"));
                None
            }
        }
    }

    /// Seconds that a case may take for its quality; 0 where none is taken.
    fn quality_seconds(&self, interrupt: &Interrupt) -> f64 {
        if self.smallest && !interrupt.is_set() {
            self.plan.quality_seconds
        } else {
            0.0
        }
    }

    /// Records the timings of a run, measures its quality, and returns the posterior.
    fn finish_run(
        &self,
        case: &Case,
        mut run: TimedRun,
        record: &mut CaseRecord,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Option<Posterior> {
        record.setup_seconds = Some(run.setup_seconds);
        record.warmup = Some(run.warmup);
        record.repeats = std::mem::take(&mut run.repeats);
        let products = record.panel.products;
        let name = case.backend.name();
        if !interrupt.is_set() && self.plan.kernel_limit {
            observer.phase(&format!("{products} products: bare kernel of {name}"));
            record.kernel_row_particles_per_second =
                case.backend.kernel_limit(&self.panel.panel, &record.request);
        }
        let seconds = self.quality_seconds(interrupt);
        if seconds > 0.0 && !case.request.method.kind().has_draws() {
            observer.phase(&format!("{products} products: {name} runs on for its quality"));
            if let Err(e) = run.go_on(seconds, interrupt, |done, total| observer.advanced(done, total)) {
                fail(record, format!("while running on: {e}"));
            }
        }
        let report = run.report();
        record.device = device_in_words(&report.device, &record.request);
        record.threads = report.threads;
        let mut posterior = None;
        if let Detail::Svi(svi) = &report.detail
            && seconds > 0.0
        {
            posterior = run.run().posterior().ok();
            if let (Some(posterior), Some(truth)) = (&posterior, &self.panel.product_a_truth) {
                let (after, seconds) = (svi.iterations, report.run_seconds);
                record.truth_quality = TruthQuality::new(posterior, None, truth, after, seconds);
            }
        }
        record.report = Some(report);
        record.peak_memory_bytes = peak_memory_bytes();
        drop(run);
        if seconds > 0.0 && case.request.method.kind().has_draws() {
            observer.phase(&format!("{products} products: {name} draws for its quality"));
            let truth = self.panel.product_a_truth.as_deref();
            posterior = chains::quality(
                case,
                &self.panel.panel,
                truth,
                seconds,
                record,
                observer,
                interrupt,
            );
            record.peak_memory_bytes = peak_memory_bytes();
        }
        posterior
    }

    /// Records the timings of fits and the quality of the last one, whose posterior it returns.
    fn finish_fits(
        &self,
        mut fits: TimedFits,
        record: &mut CaseRecord,
        interrupt: &Interrupt,
    ) -> Option<Posterior> {
        record.warmup = Some(fits.warmup);
        record.repeats = std::mem::take(&mut fits.repeats);
        record.peak_memory_bytes = peak_memory_bytes();
        let fit = fits.last?;
        record.setup_seconds = Some(fit.setup_seconds);
        record.device = device_in_words(&fit.report.device, &record.request);
        record.threads = fit.report.threads;
        record.report = Some(fit.report);
        if self.quality_seconds(interrupt) <= 0.0 {
            return None;
        }
        if let Some(truth) = &self.panel.product_a_truth {
            record.truth_quality = TruthQuality::new(&fit.posterior, None, truth, fit.steps, fit.seconds);
        }
        Some(fit.posterior)
    }
}

/// Compares each posterior with that of the sampler with the most effective draws, if one has made draws;
/// `units` are those of each product.
fn compare_with_chains(records: &mut [CaseRecord], posteriors: &[Option<Posterior>], units: &[u64]) {
    let effective = |record: &CaseRecord| record.chain_quality.as_ref().and_then(|c| c.min_ess_bulk);
    let Some(place) = (0..posteriors.len())
        .filter(|k| posteriors[*k].is_some() && records[*k].chain_quality.is_some())
        .max_by(|a, b| {
            let ess = |k: &usize| effective(&records[*k]).unwrap_or(0.0);
            ess(a).total_cmp(&ess(b))
        })
    else {
        return;
    };
    let reference = Reference {
        name: records[place].backend.clone(),
        max_rhat: records[place].chain_quality.as_ref().and_then(|c| c.max_rhat),
        min_ess_bulk: effective(&records[place]),
    };
    for (k, record) in records.iter_mut().enumerate().filter(|(k, _)| *k != place) {
        if let (Some(posterior), Some(chains)) = (&posteriors[k], &posteriors[place]) {
            record.agreement = Some(Agreement::new(posterior, chains, reference.clone(), Some(units)));
        }
    }
}
