//! Gaussian methods whose posteriors are wrong in a known way.

use infermark_backend::{Backend, Posterior};
use infermark_gaussian::GaussianCpu;
use infermark_model::{Panel, Priors, Site};
use infermark_test_support::altered::Altered;

/// Structured-vi, its means off by `shift` standard deviations and its standard deviations by the factor `scale`.
pub(crate) fn scaled(shift: f64, scale: f64) -> impl Backend {
    Altered::new(GaussianCpu::structured_vi()).posterior(move |_, _, right| {
        let shifted = right.mean.iter().zip(&right.sd).map(|(m, s)| m + shift * s);
        let sd = right.sd.iter().map(|s| s * scale).collect();
        Posterior::normal(right.layout, shifted.collect(), sd)
    })
}

/// The Gaussian at the posterior mode with the diagonal of the precision alone: laplace's means, with the standard deviations that a
/// mean-field posterior has.
pub(crate) fn diagonal() -> impl Backend {
    Altered::new(GaussianCpu::laplace()).posterior(|panel, request, right| {
        let sd = diagonal_precision(panel, &request.priors, &right.mean)
            .iter()
            .map(|p| p.powf(-0.5))
            .collect();
        Posterior::normal(right.layout, right.mean, sd)
    })
}

/// The diagonal of the precision at `mean`, under Poisson counts.
fn diagonal_precision(panel: &Panel, priors: &Priors, mean: &[f64]) -> Vec<f64> {
    let layout = panel.layout();
    let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
    // What children of the hierarchy add to their parents' precision, then the rows.
    let mut precision = vec![0.0; mean.len()];
    for site in Site::REPARAMETERIZED {
        precision[layout.range(site)].fill(priors.sd(site).powi(-2));
    }
    precision[0] += layout.categories as f64 * priors.category_a_sd.powi(-2);
    for (i, c) in panel.category_of().iter().enumerate() {
        precision[layout.start(Site::CategoryA) + *c as usize] += priors.product_a_sd.powi(-2);
        for row in panel.product_rows(i) {
            let t = layout.time_index(*c as usize, row.period);
            let rate = (mean[a + i] * row.log_price + mean[e + i] + mean[t]).exp();
            precision[a + i] += rate * row.log_price * row.log_price;
            precision[e + i] += rate;
            precision[t] += rate;
        }
    }
    precision
}
