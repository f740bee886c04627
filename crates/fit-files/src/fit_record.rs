//! `run.json`: the request, report, data and system of a fit.

use crate::panel_description::PanelDescription;
use infermark_backend::{CommunicationReport, Detail, Report, Request};
use infermark_machine::System;
use infermark_model::dispersion::{Dispersion, Pearson};
use infermark_model::{Centredness, Panel, Specification};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Version of the files' schemas: raised when an entry changes its meaning or goes. Version 2 has cases that
/// were left out, and writes `warmup` instead of `warm_up` in version 1. Version 3 has a sampler's request
/// unchanged, with the depth of the timed trees in a separate entry, which earlier versions had in the
/// request. Version 4 has the model that was fitted, and in a fit's `dispersion` the `excess` with its limit,
/// by which Poisson is refuted, instead of a `limit` of the dispersion itself in earlier versions; parameters
/// count as far as the rows determine them. All versions are still read.
pub const SCHEMA_VERSION: u32 = 4;

/// How a fit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FitStatus {
    /// It did what was asked, or met its convergence criterion.
    Finished,
    /// It was interrupted or failed; the other files hold its state at that point.
    Unfinished,
}

/// A file in the folder of `run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// How much more the counts vary about a fit's posterior means than its likelihood predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispersionRecord {
    /// Over all rows.
    pub overall: Pearson,
    /// Per category, by its name.
    pub by_category: BTreeMap<String, Pearson>,
}

impl DispersionRecord {
    /// The dispersion of `panel`, with the names of its categories.
    pub fn new(panel: &Panel, dispersion: &Dispersion) -> Self {
        let names = panel.categories().iter().map(|name| name.to_string());
        DispersionRecord {
            overall: dispersion.overall,
            by_category: names.zip(dispersion.by_category.iter().copied()).collect(),
        }
    }
}

/// The contents of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitRecord {
    /// [`SCHEMA_VERSION`] when it was written.
    pub schema_version: u32,
    /// How the fit ended.
    pub status: FitStatus,
    /// Why it is unfinished, or `none`.
    pub reason: String,
    /// The model that was fitted; records without it are of the published model.
    #[serde(default)]
    pub model: Specification,
    /// The resolved request.
    pub request: Request,
    /// The report of the run; entries of the loss trace that are not finite are left out.
    pub report: Report,
    /// How much the counts vary about the posterior means; missing where there is no posterior.
    #[serde(default)]
    pub dispersion: Option<DispersionRecord>,
    /// Share of the rows whose log rate is below the lower clip bound at the posterior means; missing where there is no
    /// posterior, and in records before version 4.
    #[serde(default)]
    pub below_lower_bound: Option<f64>,
    /// Products whose price is the same in all rows, so that their sales carry no information on price
    /// response.
    #[serde(default)]
    pub constant_price_products: Vec<String>,
    /// The data as read, with the prices of the file, whatever the model measures them against.
    pub panel: PanelDescription,
    /// The system.
    pub system: System,
    /// The files written with it: a file that does not match was replaced by another run.
    pub files: BTreeMap<String, FileDigest>,
}

impl FitRecord {
    /// A record of a run of the published model. `reason` says why it is unfinished.
    pub fn new(
        status: FitStatus,
        reason: Option<String>,
        request: Request,
        report: Report,
        panel: PanelDescription,
        system: System,
    ) -> Self {
        FitRecord {
            schema_version: SCHEMA_VERSION,
            status,
            reason: reason.unwrap_or_else(|| "none".into()),
            model: Specification::Published,
            request,
            report: finite_report(report),
            dispersion: None,
            below_lower_bound: None,
            constant_price_products: Vec::new(),
            panel,
            system,
            files: BTreeMap::new(),
        }
    }

    /// The record with the dispersion of the fit.
    pub fn with_dispersion(self, dispersion: Option<DispersionRecord>) -> Self {
        FitRecord { dispersion, ..self }
    }

    /// Writes the record as indented JSON.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        write_json(out, self)
    }
}

/// Writes indented JSON that ends with a line feed.
///
/// # Errors
/// When `out` fails.
pub fn write_json(mut out: impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")
}

/// JSON has no infinity and no NaN: entries of the trace that are not finite are dropped, diagnostics that are not are left
/// open, and rates and step sizes that are not are 0, so that the file reads back.
pub fn finite_report(mut report: Report) -> Report {
    let or_zero = |value: &mut f64| {
        if !value.is_finite() {
            *value = 0.0;
        }
    };
    match &mut report.detail {
        Detail::Svi(svi) => {
            svi.trace.retain(|p| {
                [p.seconds, p.loss, p.effective_particles, p.learning_rate]
                    .iter()
                    .all(|v| v.is_finite())
            });
            or_zero(&mut svi.mean_effective_particles);
            or_zero(&mut svi.iterations_per_second);
            if let Some(crossed) = &mut svi.communication {
                let CommunicationReport {
                    ranks: _,
                    operations_per_iteration,
                    bytes_per_iteration,
                    seconds,
                    bus_bandwidth,
                } = crossed;
                for figure in [
                    operations_per_iteration,
                    bytes_per_iteration,
                    seconds,
                    bus_bandwidth,
                ] {
                    or_zero(figure);
                }
            }
            let mut chosen = svi.centredness.chosen();
            chosen.iter_mut().for_each(or_zero);
            svi.centredness = Centredness::new(chosen);
        }
        Detail::Nuts(nuts) => {
            for diagnostic in [&mut nuts.max_rhat, &mut nuts.min_ess_bulk, &mut nuts.min_ess_tail] {
                *diagnostic = diagnostic.filter(|d| d.is_finite());
            }
            or_zero(&mut nuts.gradients_per_second);
            for chain in &mut nuts.chains {
                or_zero(&mut chain.step_size);
            }
        }
        Detail::Gaussian(gaussian) => {
            gaussian
                .trace
                .retain(|p| [p.seconds, p.value, p.remaining].iter().all(|v| v.is_finite()));
            or_zero(&mut gaussian.gradient_norm);
            or_zero(&mut gaussian.decrement);
            or_zero(&mut gaussian.log_joint);
            gaussian.elbo = gaussian.elbo.filter(|e| e.is_finite());
        }
    }
    report
}
