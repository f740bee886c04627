//! All cases on one panel.

use super::timed::Timed;
use super::{BenchPanel, Case, DeviceLimits, Plan, chains, settle};
use crate::observer::Observer;
use crate::parity::check_parity;
use crate::quiet::QUIET;
use crate::timed_fits::TimedFits;
use crate::timed_run::TimedRun;
use infermark_backend::{BackendError, Detail, DeviceId, Interrupt, Method, Posterior, Request};
use infermark_fit_files::fit_record::SCHEMA_VERSION;
use infermark_fit_files::panel_description::PanelDescription;
use infermark_fit_files::system::{System, peak_memory_bytes};
use infermark_model::Likelihood;
use infermark_report::quality::agreement::{Agreement, Reference};
use infermark_report::quality::truth::TruthQuality;
use infermark_report::records::case_record::{CaseKind, CaseRecord, IterationUnit, Status};
use infermark_report::records::memory_limit::MemoryLimit;
use infermark_report::records::results_folder::now_utc;
use std::time::Duration;

/// Fastest over slowest repeat beyond which a case is marked, as scripts/compare_numpyro.py does.
const NOISY: f64 = 1.2;

pub(super) struct Size<'a> {
    pub(super) plan: &'a Plan,
    pub(super) panel: &'a BenchPanel,
    pub(super) smallest: bool,
    pub(super) system: &'a System,
    pub(super) memory_limit: MemoryLimit,
    /// Limits of the devices other than the processors.
    pub(super) device_limits: &'a DeviceLimits,
    pub(super) first_sequence: usize,
}

impl Size<'_> {
    /// Parity, then timing side by side, then quality. One record a case, in the plan's order, also of those that are left
    /// out on this size, then the published NUTS reference. Before the timing others are waited for, while `patience` lasts.
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
        let mut runs: Vec<Option<Timed>> = Vec::new();
        for case in cases {
            let mut record = self.blank(case, &description, self.first_sequence + records.len());
            let name = case.backend.name();
            let mut run = None;
            if products > case.most_products {
                record.status = Status::NotMeasured;
                record.reason = format!("above --nuts-most-products, {}", case.most_products);
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
                    Timed::Run(run) => self.finish_run(case, run, record, observer, interrupt),
                    Timed::Fits(fits) => self.finish_fits(*fits, record, interrupt),
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
            .find(|d| wanted.first() == Some(&d.id))
            .map_or_else(|| self.system.device.clone(), |d| d.name);
        CaseRecord {
            schema_version: SCHEMA_VERSION,
            sequence,
            measured_at: now_utc(),
            kind: CaseKind::Speed,
            status: Status::Ok,
            reason: "none".into(),
            backend: case.backend.name().into(),
            device: device_in_words(&device, &case.request),
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

    fn start(&self, case: &Case, record: &mut CaseRecord, interrupt: &Interrupt) -> Option<Timed> {
        let mut request = record.request.clone();
        if let (Method::Nuts(nuts), Some(max_depth)) = (&mut request.method, record.timing_max_depth) {
            nuts.max_depth = max_depth;
        }
        let started = Timed::start(case, &self.panel.panel, &request);
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

    /// Takes over what was timed of a run, and takes the quality; returns the posterior that it is of.
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

    /// Takes over what was timed of fits, and the quality of the last one, whose posterior it returns.
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

/// Holds each posterior against that of the sampler with the most effective draws, where one has made draws; `units` are
/// those of each product.
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

/// Marks a record as failed.
pub(super) fn fail(record: &mut CaseRecord, reason: impl Into<String>) {
    record.status = Status::Failed;
    record.reason = reason.into();
}

/// A device's name, with its id where it is not the processors: equal cards have one name, and so has one card that is
/// reached in two ways.
pub(super) fn device_in_words(name: &str, request: &Request) -> String {
    match request.devices[0] {
        DeviceId::CPU => name.to_owned(),
        id => format!("{name} ({id})"),
    }
}

/// Whether a backend only said that it does not serve this: what does not fit a device, or is not offered, says nothing
/// against the backend.
fn is_no_fault(error: &BackendError) -> bool {
    matches!(
        error,
        BackendError::Memory { .. } | BackendError::Unsupported { .. }
    )
}

/// Marks a record as left out.
fn leave_out(record: &mut CaseRecord, why: &BackendError) {
    record.status = Status::NotMeasured;
    record.reason = why.to_string();
}

/// Marks what a reader must know; `limits_failed` is why the limits of the record's device are not known.
fn remark(record: &mut CaseRecord, plan: &Plan, interrupted: bool, limits_failed: Option<&str>) {
    let repeats = plan.repeats;
    if record.status != Status::Ok {
        return;
    }
    let mut remarks = Vec::new();
    if record.kind == CaseKind::Speed {
        if record.repeats.is_empty() {
            let reason = if interrupted {
                "interrupted before the first repeat"
            } else {
                "nothing was timed"
            };
            return fail(record, reason);
        }
        if record.repeats.len() < repeats {
            remarks.push(format!("{} of {repeats} repeats", record.repeats.len()));
        }
        if let Some(spread) = record.iterations_per_second()
            && spread.ratio() > NOISY
        {
            remarks.push(format!(
                "noisy: the repeats differ by a factor of {:.2}",
                spread.ratio()
            ));
        }
    }
    if let Some(warmup) = record.warmup
        && record.unit == IterationUnit::Iterations
        && warmup.iterations < plan.warmup_iterations
    {
        remarks.push(format!(
            "timed from iteration {} on, where rows may still clip that later do not: a lower bound",
            warmup.iterations
        ));
    }
    if let Some(busy) = record.busy_share.filter(|busy| *busy > QUIET) {
        remarks.push(format!(
            "the machine was busy: other programs used {:.0}% of it before the timing",
            100.0 * busy
        ));
    }
    if let Some(reason) = limits_failed {
        remarks.push(format!("limits of the device: {reason}"));
    }
    if let Some(Detail::Gaussian(gaussian)) = record.report.as_ref().map(|r| &r.detail)
        && !gaussian.converged
    {
        remarks.push(format!(
            "not converged after {} steps",
            gaussian.newton_steps + gaussian.variational_steps
        ));
    }
    if record.system.program.profile.starts_with("debug") {
        remarks.push(format!("built as {}", record.system.program.profile));
    }
    if let Some(chains) = &record.chain_quality {
        if !chains.finished {
            remarks.push(format!(
                "chains: the time was up after {} draws each",
                chains.draws
            ));
        }
        if chains.divergences > 0 {
            remarks.push(format!("chains: {} divergences", chains.divergences));
        }
        if let Some(rhat) = chains.max_rhat.filter(|r| *r > 1.01) {
            remarks.push(format!("chains: R-hat up to {rhat:.3}, not converged"));
        }
    }
    if !remarks.is_empty() {
        record.status = Status::Warn;
        record.reason = remarks.join("; ");
    }
}
