//! A method under test, and its fit to a replication.

use crate::quantity::Quantity;
use crate::rank_statistic::RankStatistic;
use crate::replication::Replication;
use crate::score::Scores;
use infermark_backend::{
    Backend, BackendError, Convergence, Draws, Interrupt, Method, RHAT_LIMIT, Request, Run, RunState,
    StepUnit,
};
use infermark_diagnostics::Workspace;
use infermark_model::log_joint::LogJoint;
use infermark_model::{Axis, Panel, Site};
use std::sync::Arc;

/// Effective draws that every latent, and the log joint, shall have before a chain is taken for long enough; none of them may have an
/// R-hat above [`RHAT_LIMIT`].
const EFFECTIVE_DRAWS: f64 = crate::rank_statistic::RANK_DRAWS as f64;

/// How often a chain that mixes too slowly is made again, twice as long. After the last time, 32 times as long, R-hat of a chain that
/// mixes is within a thousandth of one: what passes the limit then never mixed.
const DOUBLINGS: usize = 5;

/// A method under test: every replication is fitted by `request` on one thread, with a seed of its own.
pub struct MethodUnderTest<'b> {
    /// Its name in files and pictures.
    pub name: String,
    /// What fits.
    pub backend: &'b dyn Backend,
    /// Its request, which includes the priors of the fit.
    pub request: Request,
}

/// A quantity of a replication in its posterior.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// Which.
    pub(crate) quantity: Quantity,
    /// Placement of the latent that represents the site, or of the log joint.
    pub(crate) statistic: RankStatistic,
    /// Mean scores over all latents of the site.
    pub(crate) scores: Scores,
}

/// Reasons for a replication to have no placements.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FitError {
    /// No replication can be fitted: the request must change.
    #[error(transparent)]
    Request(BackendError),
    /// This replication could not be fitted.
    #[error("{0}")]
    Failed(String),
}

impl From<BackendError> for FitError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Request(_) | BackendError::Unsupported { .. } | BackendError::Memory { .. } => {
                FitError::Request(error)
            }
            BackendError::Diverged { .. }
            | BackendError::NoPosterior(_)
            | BackendError::Communication(_)
            | BackendError::Device { .. } => FitError::Failed(error.to_string()),
        }
    }
}

impl MethodUnderTest<'_> {
    /// Fits a replication and places its truths, in the order of [`Quantity::all`]. The log joint is left out
    /// if the method has no draws.
    pub(crate) fn place(&self, replication: &Replication) -> Result<Vec<Place>, FitError> {
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
            let unmixed = match among_draws(&draws, &request, replication) {
                Ok(Mixed::Yes(places)) => return Ok(places),
                Ok(Mixed::No(unmixed)) => unmixed,
                // A request that is too large by now is due to a chain that has not mixed, which is no reason
                // to end the others.
                Err(FitError::Request(why)) if doublings > 0 => {
                    return Err(FitError::Failed(format!(
                        "its chains have not mixed, and more draws are too many: {why}"
                    )));
                }
                Err(error) => return Err(error),
            };
            if doublings == DOUBLINGS || !double(&mut request) {
                return Err(FitError::Failed(format!(
                    "its chains have not mixed in {} draws, after {doublings} doublings: {unmixed}",
                    draws.chains * draws.draws
                )));
            }
            doublings += 1;
        }
    }
}

/// Doubles the number of draws; `false` for methods without draws.
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
    // Draws have limits of their own here, [`RHAT_LIMIT`] and [`EFFECTIVE_DRAWS`].
    let has_draws = request.method.kind().has_draws();
    if !has_draws && run.report().convergence(&request.method) == Convergence::NotConverged {
        let unit = match progress.unit {
            StepUnit::Iterations => "iterations",
            StepUnit::Draws => "draws",
            StepUnit::Steps => "steps",
        };
        return Err(FitError::Failed(format!(
            "it has not converged after {} {unit}",
            progress.completed
        )));
    }
    Ok(run)
}

fn in_marginals(run: &dyn Run, replication: &Replication) -> Result<Vec<Place>, FitError> {
    let posterior = run.posterior()?;
    let layout = replication.panel.layout_for(replication.likelihood);
    let mut places = Vec::with_capacity(layout.sites().len());
    let mut pits = Vec::new();
    for site in layout.sites() {
        let place = |j: usize| {
            let quantiles = [posterior.q05[j], posterior.q95[j]];
            RankStatistic::in_marginal(
                replication.truth[j],
                posterior.mean[j],
                posterior.sd[j],
                quantiles,
            )
        };
        pits.clear();
        pits.extend(layout.range(*site).map(|j| place(j).pit));
        // NaN if mean or standard deviation is NaN.
        if pits.iter().any(|pit| pit.is_nan()) {
            return Err(FitError::Failed(format!(
                "the posterior of {} is not finite",
                site.name()
            )));
        }
        places.push(Place {
            quantity: Quantity::Latent(*site),
            statistic: place(replication.latent(*site)),
            scores: Scores::of(pits.iter().copied()),
        });
    }
    Ok(places)
}

/// The placements among draws if chains have mixed; otherwise the worst figure.
enum Mixed {
    Yes(Vec<Place>),
    No(String),
}

fn among_draws(draws: &Draws, request: &Request, replication: &Replication) -> Result<Mixed, FitError> {
    let layout = replication.panel.layout_for(replication.likelihood);
    let kept = |site: Site| draws.sites.iter().find(|kept| kept.site == site);
    if let Some(missing) = layout.sites().iter().find(|site| kept(**site).is_none()) {
        return Err(FitError::Request(BackendError::request(format!(
            "draws of {} were not kept, more than {} bytes in all; give fewer products, periods or draws",
            missing.name(),
            match &request.method {
                Method::Nuts(nuts) => nuts.draw_bytes_limit,
                _ => 0,
            }
        ))));
    }
    let mut workspace = Workspace::new();
    let mut worst: Option<(f64, String)> = None;
    let mut place = |name: &dyn Fn() -> String, truth: f64, values: &[f64], within_cell: f64| {
        let chains: Vec<&[f64]> = values.chunks(draws.draws.max(1)).collect();
        let Some(statistic) = RankStatistic::among(truth, &chains, within_cell, &mut workspace) else {
            return Err(FitError::Failed(format!(
                "draws of {} are fewer than eight, not finite, or all equal",
                name()
            )));
        };
        let rank = statistic.rank.expect("among draws there is a rank");
        // Above one, the ratio by which the worse of the two exceeds its limit.
        let beyond = f64::max(
            (rank.rhat - 1.0) / (RHAT_LIMIT - 1.0),
            EFFECTIVE_DRAWS / rank.effective_draws,
        );
        if beyond > worst.as_ref().map_or(1.0, |(worst, _)| *worst) {
            worst = Some((
                beyond,
                format!(
                    "{} has an R-hat of {:.3} and {:.0} effective draws (limits: {RHAT_LIMIT} and {EFFECTIVE_DRAWS})",
                    name(),
                    rank.rhat,
                    rank.effective_draws
                ),
            ));
        }
        Ok(statistic)
    };
    let mut places = Vec::with_capacity(layout.sites().len() + 1);
    let mut values = Vec::with_capacity(draws.chains * draws.draws);
    for site in layout.sites() {
        let kept = kept(*site).expect("all sites were found kept");
        let (width, start) = (layout.len(*site), layout.start(*site));
        let mut of_site = Vec::with_capacity(width);
        for offset in 0..width {
            values.clear();
            values.extend(kept.values.iter().skip(offset).step_by(width));
            let name = || match site.axis() {
                Axis::Scalar => site.name().to_owned(),
                _ => format!("{}[{offset}]", site.name()),
            };
            let latent = start + offset;
            of_site.push(place(
                &name,
                replication.truth[latent],
                &values,
                replication.within_cell[latent],
            )?);
        }
        places.push(Place {
            quantity: Quantity::Latent(*site),
            statistic: of_site[replication.latent(*site) - start],
            scores: Scores::of(of_site.iter().map(|p| p.pit)),
        });
    }
    // From the plain reference for truth and draws alike, under the likelihood and the priors of the fit.
    let log_joint = LogJoint::new(&replication.panel, request.priors).with_likelihood(request.likelihood);
    values.clear();
    values.extend((0..draws.chains * draws.draws).map(|draw| log_joint.natural(&point(draws, draw)).0));
    let statistic = place(
        &|| Quantity::LogJoint.name().to_owned(),
        log_joint.natural(&replication.truth).0,
        &values,
        replication.within_cell[layout.latents()],
    )?;
    places.push(Place {
        quantity: Quantity::LogJoint,
        statistic,
        scores: Scores::of(std::iter::once(statistic.pit)),
    });
    Ok(match worst {
        None => Mixed::Yes(places),
        Some((_, unmixed)) => Mixed::No(unmixed),
    })
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
