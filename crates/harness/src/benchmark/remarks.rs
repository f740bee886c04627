//! The words in a case's record: its device, why it failed or was left out, and remarks for its reader.

use super::Plan;
use infermark_backend::{BackendError, Convergence, Detail, DeviceId, ESS_LIMIT, RHAT_LIMIT, Request};
use infermark_report::records::case_record::{CaseKind, CaseRecord, IterationUnit, QUIET, Status};

/// Fastest over slowest repeat beyond which a case is marked.
pub(crate) const NOISY: f64 = 1.2;

/// Marks a record as failed.
pub(super) fn fail(record: &mut CaseRecord, reason: impl Into<String>) {
    record.status = Status::Failed;
    record.reason = reason.into();
}

/// A device's name, with its id unless it is the CPU: equal cards have the same name, as has one card that is
/// reached in two ways. Of several devices, all ids.
pub(super) fn device_in_words(name: &str, request: &Request) -> String {
    match request.devices.as_slice() {
        [DeviceId::CPU] => name.to_owned(),
        ids => {
            let ids: Vec<String> = ids.iter().map(DeviceId::to_string).collect();
            format!("{name} ({})", ids.join(", "))
        }
    }
}

/// Whether a backend only reported that it does not serve this: a request that does not fit on a device, or
/// is not offered, is no fault of the backend.
pub(crate) fn is_no_fault(error: &BackendError) -> bool {
    matches!(
        error,
        BackendError::Memory { .. } | BackendError::Unsupported { .. }
    )
}

/// Marks a record as left out.
pub(super) fn leave_out(record: &mut CaseRecord, why: &BackendError) {
    record.status = Status::NotMeasured;
    record.reason = why.to_string();
}

/// Adds remarks for the reader; `limits_failed` is the reason why the limits of the record's device are
/// unknown.
pub(super) fn remark(record: &mut CaseRecord, plan: &Plan, interrupted: bool, limits_failed: Option<&str>) {
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
    if let Some(report) = &record.report
        && let Detail::Gaussian(gaussian) = &report.detail
        && report.convergence(&record.request.method) == Convergence::NotConverged
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
        if let Some(rhat) = chains.max_rhat.filter(|r| *r > RHAT_LIMIT) {
            remarks.push(format!("chains: R-hat up to {rhat:.3}, not converged"));
        }
        let fewest = [chains.min_ess_bulk, chains.min_ess_tail].into_iter().flatten();
        if let Some(ess) = fewest.reduce(f64::min).filter(|ess| *ess < ESS_LIMIT) {
            remarks.push(format!(
                "chains: {ess:.0} effective draws, fewer than {ESS_LIMIT}"
            ));
        }
    }
    if !remarks.is_empty() {
        record.status = Status::Warn;
        record.reason = remarks.join("; ");
    }
}
