//! How much more the counts vary than a fit predicts, with the information of each method on its rates.

use infermark_backend::{Posterior, Request, Run};
use infermark_model::Panel;
use infermark_model::dispersion::{Dispersion, Variances};

/// Draws over which rates are averaged: their error, a tenth of a standard deviation, adds a hundredth of
/// what a fit's parameters take from the dispersion.
const DRAWS: usize = 100;

/// The dispersion of `panel` about the fit of `run`.
///
/// | method | mean rates and variances of the log rates | excess |
/// |---|---|---|
/// | the Gaussian ones | of the Gaussian ([`Run::dispersion`]) | where the fit converged |
/// | NUTS, all draws kept | of the draws | where `converged` |
/// | NUTS, moments kept | rates at the means; no variances | no |
/// | SVI | of the guide, whose latents are independent in its coordinates ([`Run::dispersion`]); its means still move with the noise of the last iterations | no |
pub fn dispersion_of(
    panel: &Panel,
    request: &Request,
    run: &dyn Run,
    posterior: &Posterior,
    converged: bool,
) -> Dispersion {
    if let Some(known) = run.dispersion() {
        return known;
    }
    let threads = request.resolved_threads();
    let of = |variances| {
        Dispersion::of(
            panel,
            &request.priors,
            request.likelihood,
            &posterior.mean,
            variances,
            threads,
        )
    };
    let draws = run.draws().and_then(|draws| {
        let all = draws.chains * draws.draws;
        let thinned = (0..all.min(DRAWS)).map(|k| k * all / all.min(DRAWS));
        thinned.map(|draw| draws.point(draw)).collect::<Option<Vec<_>>>()
    });
    match draws {
        Some(draws) if !draws.is_empty() => {
            let found = Dispersion::of_draws(panel, &request.priors, request.likelihood, &draws, threads);
            if converged { found } else { found.without_level() }
        }
        _ => of(Variances::Unknown),
    }
}
