//! A method under test, and its fit to a replication.

use crate::placement::Placement;
use crate::quantity::Quantity;
use crate::replication::Replication;
use infermark_backend::{Backend, BackendError, Draws, Interrupt, Method, Request, Run, RunState, StepUnit};
use infermark_diagnostics::Workspace;
use infermark_model::log_joint::LogJoint;
use infermark_model::{Panel, Priors, Site};
use std::sync::Arc;

/// Effective draws that every quantity shall have before a chain is taken for long enough.
const EFFECTIVE_DRAWS: f64 = crate::placement::RANK_DRAWS as f64;

/// How often a chain that mixes too slowly is made again, twice as long.
const DOUBLINGS: usize = 3;

/// A method under test: every replication is fitted by `request` on one thread, with a seed of its own.
pub struct Contender<'b> {
    /// Its name in files and pictures.
    pub name: String,
    /// What fits.
    pub backend: &'b dyn Backend,
    /// What is asked of it, the priors that are fitted with among it.
    pub request: Request,
}

/// Why a replication has no places.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FitError {
    /// No replication can be fitted: what is asked must change.
    #[error(transparent)]
    Request(BackendError),
    /// This one was not.
    #[error("{0}")]
    Failed(String),
}

impl From<BackendError> for FitError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Request(_) | BackendError::Unsupported { .. } | BackendError::Memory { .. } => {
                FitError::Request(error)
            }
            BackendError::Diverged { .. } | BackendError::NoPosterior(_) | BackendError::Device { .. } => {
                FitError::Failed(error.to_string())
            }
        }
    }
}

impl Contender<'_> {
    /// Fits a replication and places its truths, in the order of [`Quantity::ALL`]. The log joint is left out where the
    /// method has no draws of all sites.
    pub(crate) fn place(&self, replication: &Replication) -> Result<Vec<(Quantity, Placement)>, FitError> {
        let mut request = Request {
            threads: Some(1),
            seed: replication.fit_seed,
            ..self.request.clone()
        };
        let mut doublings = 0;
        loop {
            let run = finish(self.backend, &replication.panel, &request)?;
            let Some(draws) = run.draws() else {
                return in_marginals(&*run, replication);
            };
            let placed = among_draws(&draws, &request.priors, replication)?;
            let mixed = placed
                .iter()
                .filter_map(|(_, placement)| placement.rank)
                .all(|rank| rank.effective_draws >= EFFECTIVE_DRAWS);
            if mixed || doublings == DOUBLINGS || !double(&mut request) {
                return Ok(placed);
            }
            doublings += 1;
        }
    }
}

/// Asks for twice the draws; `false` for methods without.
fn double(request: &mut Request) -> bool {
    let Method::Nuts(nuts) = &mut request.method else {
        return false;
    };
    nuts.warmup = nuts.warmup.saturating_mul(2);
    nuts.draws = nuts.draws.saturating_mul(2);
    true
}

/// Runs to the end.
fn finish(backend: &dyn Backend, panel: &Arc<Panel>, request: &Request) -> Result<Box<dyn Run>, FitError> {
    let mut run = backend.start(panel.clone(), request)?;
    let never = Interrupt::new();
    let mut progress = run.progress();
    while progress.state == RunState::Running {
        progress = run.advance(progress.total.max(1), &never)?;
    }
    if progress.unit == StepUnit::Steps && progress.state != RunState::Converged {
        return Err(FitError::Failed(format!(
            "it has not converged after {} steps",
            progress.completed
        )));
    }
    Ok(run)
}

fn in_marginals(run: &dyn Run, replication: &Replication) -> Result<Vec<(Quantity, Placement)>, FitError> {
    let posterior = run.posterior()?;
    Site::ALL
        .into_iter()
        .map(|site| {
            let j = replication.latents[site.index()];
            let quantiles = [posterior.q05[j], posterior.q95[j]];
            let placed = Placement::in_marginal(
                replication.truth[j],
                posterior.mean[j],
                posterior.sd[j],
                quantiles,
            );
            // Not a number where mean or standard deviation is none.
            if placed.pit.is_nan() {
                return Err(FitError::Failed(format!(
                    "the posterior of {} is not finite",
                    site.name()
                )));
            }
            Ok((Quantity::Latent(site), placed))
        })
        .collect()
}

fn among_draws(
    draws: &Draws,
    priors: &Priors,
    replication: &Replication,
) -> Result<Vec<(Quantity, Placement)>, FitError> {
    let mut workspace = Workspace::new();
    let mut place = |quantity: Quantity, truth: f64, values: &[f64]| {
        let chains: Vec<&[f64]> = values.chunks(draws.draws.max(1)).collect();
        let within_cell = replication.within_cell[quantity.index()];
        let too_few = || FitError::Failed("its draws are fewer than four, or not finite".to_owned());
        Placement::among(truth, &chains, within_cell, &mut workspace)
            .map(|placement| (quantity, placement))
            .ok_or_else(too_few)
    };
    let mut placed = Vec::with_capacity(Quantity::ALL.len());
    for kept in &draws.sites {
        let latent = replication.latents[kept.site.index()];
        let (width, offset) = (
            draws.layout.len(kept.site),
            latent - draws.layout.start(kept.site),
        );
        let values: Vec<f64> = kept.values.chunks(width).map(|draw| draw[offset]).collect();
        placed.push(place(
            Quantity::Latent(kept.site),
            replication.truth[latent],
            &values,
        )?);
    }
    if Site::ALL
        .iter()
        .all(|site| draws.sites.iter().any(|kept| kept.site == *site))
    {
        // By the plain reference for truth and draws alike, under the priors that were fitted with.
        let log_joint = LogJoint::new(&replication.panel, *priors);
        let values: Vec<f64> = (0..draws.chains * draws.draws)
            .map(|draw| log_joint.natural(&point(draws, draw)).0)
            .collect();
        let truth = log_joint.natural(&replication.truth).0;
        placed.push(place(Quantity::LogJoint, truth, &values)?);
    }
    placed.sort_by_key(|(quantity, _)| quantity.index());
    Ok(placed)
}

/// A draw of all sites as a flat vector.
fn point(draws: &Draws, draw: usize) -> Vec<f64> {
    let mut point = vec![0.0; draws.layout.latents()];
    for kept in &draws.sites {
        let width = draws.layout.len(kept.site);
        point[draws.layout.range(kept.site)].copy_from_slice(&kept.values[draw * width..][..width]);
    }
    point
}
