//! The fixed points at which backends are compared with the reference.

use infermark_model::design::{COEFFICIENTS, along, along_regressors, at};
use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::{Likelihood, Panel, Parameterization, Priors, Site};

const SEED: u64 = 20_240_229;

/// Natural parameters under which each product's rates are near its mean sales, except for every 97th
/// product, whose rates are near the lower clip bound; log shapes match the counts' scatter about these
/// rates. Length [`infermark_model::Layout::latents`] of `likelihood`.
pub fn point_near_the_data(panel: &Panel, likelihood: Likelihood) -> Vec<f64> {
    let mut point = rates_near_the_data(panel, |product| product % 97 == 96);
    append_parameters(&mut point, panel, likelihood);
    point
}

fn rates_near_the_data(panel: &Panel, is_low: impl Fn(usize) -> bool) -> Vec<f64> {
    let layout = panel.layout();
    let uniform = |latent: usize| {
        let stream = Stream {
            seed: SEED,
            iteration: 0,
        };
        f64::from(stream.uniforms(latent as u64, 0)[0]) - 0.5
    };
    let mut point: Vec<f64> = (0..layout.latents()).map(uniform).collect();
    let elasticities = COEFFICIENTS[0];
    for latent in [elasticities.global, elasticities.category, elasticities.product]
        .into_iter()
        .flat_map(|s| layout.range(s))
    {
        point[latent] -= 1.5;
    }
    for product in 0..layout.products {
        let rows = panel.rows_of(product) as f64;
        let mean_units = panel.sums().product[product] as f64 / rows;
        let level = if is_low(product) { -4.0 } else { mean_units.ln_1p() };
        let latents = at(&point, layout.product_places(product));
        point[layout.start(Site::ProductEffect) + product] +=
            level - along_regressors(&latents, &panel.mean_design(product));
    }
    point
}

/// A Gaussian near the data: the point at which its precision is taken, and its means.
///
/// No rate at the first is below `LEAST_RATE`, and log rates of the two differ by a fifth at most: so that a row's variance is at
/// most about 1, and the weights that follow from it are within the bound on their change that methods may have.
pub fn gaussian_near_the_data(panel: &Panel, likelihood: Likelihood) -> (Vec<f64>, Vec<f64>) {
    let layout = panel.layout();
    let mut precision_at = rates_near_the_data(panel, |_| false);
    for (i, c) in panel.category_of().iter().enumerate() {
        let effect = layout.start(Site::ProductEffect) + i;
        let rates = panel.product_rows(i).map(|row| {
            along(&at(&precision_at, layout.product_places(i)), &row.design())
                + precision_at[layout.time_index(*c as usize, row.period)]
        });
        let least = rates.fold(f64::INFINITY, f64::min);
        precision_at[effect] += (LEAST_RATE.ln() - least).max(0.0);
    }
    append_parameters(&mut precision_at, panel, likelihood);
    let mut mean = precision_at.clone();
    for site in [Site::ProductEffect, Site::TimeCatEffects] {
        for latent in layout.range(site) {
            let stream = Stream {
                seed: SEED,
                iteration: 1,
            };
            mean[latent] += 0.2 * (f64::from(stream.uniforms(latent as u64, 0)[0]) - 0.5);
        }
    }
    (precision_at, mean)
}

/// See [`gaussian_near_the_data`].
const LEAST_RATE: f64 = 1.5;

/// Appends the own parameters of a likelihood that has them: for each category the value that the counts'
/// scatter about the rates of the point suggests.
fn append_parameters(point: &mut Vec<f64>, panel: &Panel, likelihood: Likelihood) {
    if likelihood.parameter().is_none() {
        return;
    }
    let layout = panel.layout();
    let priors = Priors::default();
    let mut squares = vec![0.0; layout.categories];
    let mut excess = vec![0.0; layout.categories];
    for (i, c) in panel.category_of().iter().enumerate() {
        let category = *c as usize;
        for row in panel.product_rows(i) {
            let eta = along(&at(point, layout.product_places(i)), &row.design())
                + point[layout.time_index(category, row.period)];
            let mean = eta.clamp(priors.clip_low, priors.clip_high).exp();
            let y = f64::from(row.units);
            squares[category] += mean * mean;
            excess[category] += (y - mean).powi(2) - y;
        }
    }
    let scatter = excess.iter().zip(&squares);
    point.extend(scatter.map(|(excess, squares)| likelihood.parameter_of_scatter(*excess, *squares)));
}

/// Natural parameters uniform in (-2, 2), as a guide starts: rates from below the lower clip bound to far above the data.
pub fn point_like_a_start(panel: &Panel, likelihood: Likelihood) -> Vec<f64> {
    Guide::start(&panel.layout_for(likelihood), Parameterization::Centered, SEED).loc
}
