//! Measurements of samplers other than the gradient: effective samples, and the published reference.

use super::Case;
use super::remarks::{device_in_words, fail};
use crate::observer::Observer;
use crate::timed_run::TimedRun;
use infermark_backend::{Detail, Interrupt, Method, Metric, NutsSettings, Posterior, Request};
use infermark_model::{Panel, Site};
use infermark_report::published::{NUTS_DRAWS, NUTS_WARMUP};
use infermark_report::quality::truth::{ChainQuality, TruthQuality};
use infermark_report::records::case_record::CaseRecord;
use infermark_report::records::published_nuts::PublishedNutsEstimate;
use std::sync::Arc;
use std::time::Instant;

/// Makes the requested draws, for at most about `seconds` (the piece under way is completed), and records the
/// chains' own error estimates; returns their posterior, if they got past warm-up.
pub(super) fn quality(
    case: &Case,
    panel: &Arc<Panel>,
    truth: Option<&[f64]>,
    seconds: f64,
    record: &mut CaseRecord,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Option<Posterior> {
    let Method::Nuts(settings) = &case.request.method else {
        return None;
    };
    let clock = Instant::now();
    let mut run = match TimedRun::start(&*case.backend, panel.clone(), &case.request) {
        Ok(run) => run,
        Err(e) => {
            fail(record, format!("did not start for its quality: {e}"));
            return None;
        }
    };
    let advanced = run.go_on(seconds, interrupt, |done, total| observer.advanced(done, total));
    if let Err(e) = advanced {
        fail(record, format!("while drawing for its quality: {e}"));
        return None;
    }
    let elapsed = clock.elapsed().as_secs_f64();
    let finished = run.run().progress().state.is_complete();
    let report = run.report();
    let Detail::Nuts(nuts) = &report.detail else {
        return None;
    };
    let chains = ChainQuality::new(nuts, settings.warmup, elapsed, finished);
    let posterior = run.run().posterior().ok();
    if let (Some(posterior), Some(truth)) = (&posterior, truth) {
        let draws = run.run().draws();
        let elasticities = draws
            .iter()
            .flat_map(|d| &d.sites)
            .find(|s| s.site == Site::ProductA);
        record.truth_quality = TruthQuality::new(posterior, elasticities, truth, chains.draws, elapsed);
    }
    record.chain_quality = Some(chains);
    posterior
}

/// The published setting with the priors, devices, threads and seed of `request`.
pub(super) fn published_request(request: &Request) -> Request {
    Request {
        method: Method::Nuts(NutsSettings {
            chains: 1,
            warmup: NUTS_WARMUP,
            draws: NUTS_DRAWS - NUTS_WARMUP,
            metric: Metric::Diagonal,
            max_depth: 10,
            ..NutsSettings::default()
        }),
        ..request.clone()
    }
}

/// Draws for about `seconds` in the published setting, counting each draw's gradients.
pub(super) fn published_reference(
    case: &Case,
    panel: &Arc<Panel>,
    seconds: f64,
    record: &mut CaseRecord,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) {
    let Method::Nuts(settings) = &record.request.method else {
        return;
    };
    let max_depth = settings.max_depth;
    let clock = Instant::now();
    let mut run = match case.backend.start(panel.clone(), &record.request) {
        Ok(run) => run,
        Err(e) => return fail(record, format!("did not start: {e}")),
    };
    record.setup_seconds = Some(clock.elapsed().as_secs_f64());
    let mut per_draw = Vec::new();
    let (mut measured_seconds, mut before) = (0.0, run.gradients().unwrap_or(0));
    while measured_seconds < seconds && !interrupt.is_set() {
        let clock = Instant::now();
        let progress = match run.advance(1, interrupt) {
            Ok(progress) => progress,
            Err(e) => return fail(record, format!("while drawing: {e}")),
        };
        let elapsed = clock.elapsed().as_secs_f64();
        let after = run.gradients().unwrap_or(0);
        if !interrupt.is_set() {
            measured_seconds += elapsed;
            per_draw.push(after - before);
        }
        before = after;
        observer.advanced(
            (1000.0 * measured_seconds.min(seconds)) as u64,
            (1000.0 * seconds) as u64,
        );
        if progress.state.is_complete() {
            break;
        }
    }
    let report = run.report();
    record.device = device_in_words(&report.device, &record.request);
    record.threads = report.threads;
    record.report = Some(report);
    if per_draw.is_empty() || per_draw.iter().sum::<u64>() == 0 {
        return fail(record, "interrupted before the first draw");
    }
    record.published_nuts = Some(PublishedNutsEstimate {
        measured_draws: per_draw.len() as u64,
        measured_gradients: per_draw.iter().sum(),
        measured_seconds,
        gradients_per_draw: per_draw,
        max_depth,
    });
}
