//! Rates and residuals of the rows at a point, and the gradient of the log joint by the natural parameters.

use infermark_model::Panel;
use infermark_model::priors::Priors;
use infermark_model::site::{Layout, Site};
use std::ops::Range;

/// What a point gives.
#[derive(Debug, Clone)]
pub(crate) struct AtPoint {
    /// The row's weight in the precision: its rate, or zero where the log rate is clipped; one a row.
    pub(crate) weights: Vec<f64>,
    /// `ln p(y, theta)`, or with variances its mean under the Gaussian short of the entropy.
    pub(crate) value: f64,
    /// By the natural parameters, in the order of [`Layout`].
    pub(crate) gradient: Vec<f64>,
}

/// Half of the variances of the rows' log rates, one a row, where rates are means under a Gaussian.
pub(crate) type HalfVariances<'a> = Option<&'a [f64]>;

/// A thread's share of the products, and what it found.
struct Share {
    likelihood: f64,
    by_a: Vec<f64>,
    by_e: Vec<f64>,
    by_period: Vec<f64>,
}

/// Evaluates a point. With half variances a rate is `exp(eta + v / 2)`, the mean under the Gaussian, and the clip is ignored.
pub(crate) fn at_point(
    panel: &Panel,
    priors: &Priors,
    point: &[f64],
    half_variances: HalfVariances<'_>,
    threads: usize,
) -> AtPoint {
    let layout = panel.layout();
    let mut weights = vec![0.0; panel.rows()];
    let threads = threads.clamp(1, layout.products);
    let cuts: Vec<usize> = (0..=threads).map(|i| layout.products * i / threads).collect();
    let mut shares: Vec<Share> = Vec::with_capacity(threads);
    std::thread::scope(|scope| {
        let mut rest = weights.as_mut_slice();
        let mut running = Vec::with_capacity(threads);
        for cut in cuts.windows(2) {
            let rows = panel.row_range(cut[1] - 1).end - panel.row_range(cut[0]).start;
            let (own, others) = rest.split_at_mut(rows);
            rest = others;
            let products = cut[0]..cut[1];
            running.push(scope.spawn(move || share(panel, priors, point, half_variances, products, own)));
        }
        shares.extend(
            running
                .into_iter()
                .map(|r| r.join().expect("a share has no panic")),
        );
    });
    let mut gradient = vec![0.0; layout.latents()];
    let mut value = -panel.sums().ln_factorials;
    let periods = layout.range(Site::TimeCatEffects);
    for (share, cut) in shares.iter().zip(cuts.windows(2)) {
        value += share.likelihood;
        gradient[layout.start(Site::ProductA) + cut[0]..][..cut[1] - cut[0]].copy_from_slice(&share.by_a);
        gradient[layout.start(Site::ProductEffect) + cut[0]..][..cut[1] - cut[0]]
            .copy_from_slice(&share.by_e);
        for (sum, own) in gradient[periods.clone()].iter_mut().zip(&share.by_period) {
            *sum += own;
        }
    }
    value += add_priors(panel, priors, &layout, point, &mut gradient);
    AtPoint {
        weights,
        value,
        gradient,
    }
}

fn share(
    panel: &Panel,
    priors: &Priors,
    point: &[f64],
    half_variances: HalfVariances<'_>,
    products: Range<usize>,
    weights: &mut [f64],
) -> Share {
    let layout = panel.layout();
    let (a, e) = (layout.start(Site::ProductA), layout.start(Site::ProductEffect));
    let first_row = panel.row_range(products.start).start;
    let mut out = Share {
        likelihood: 0.0,
        by_a: Vec::with_capacity(products.len()),
        by_e: Vec::with_capacity(products.len()),
        by_period: vec![0.0; layout.categories * layout.periods],
    };
    for i in products {
        let category = panel.category_of()[i] as usize;
        let effects = &point[layout.time_index(category, 0)..][..layout.periods];
        let by_period = &mut out.by_period[category * layout.periods..][..layout.periods];
        let (elasticity, effect) = (point[a + i], point[e + i]);
        let (mut by_a, mut by_e) = (0.0, 0.0);
        for (index, row) in panel.row_range(i).zip(panel.product_rows(i)) {
            let y = f64::from(row.units);
            let eta = elasticity * row.log_price + effect + effects[row.period];
            let (held, half) = match half_variances {
                Some(half) => (eta, half[index]),
                None => (eta.clamp(priors.clip_low, priors.clip_high), 0.0),
            };
            let rate = (held + half).exp();
            out.likelihood += y * held - rate;
            // A clipped row does not move with its log rate.
            if held == eta {
                weights[index - first_row] = rate;
                let residual = y - rate;
                by_a += residual * row.log_price;
                by_e += residual;
                by_period[row.period] += residual;
            }
        }
        out.by_a.push(by_a);
        out.by_e.push(by_e);
    }
    out
}

/// Adds the priors' gradient, and returns their log density.
fn add_priors(panel: &Panel, priors: &Priors, layout: &Layout, point: &[f64], gradient: &mut [f64]) -> f64 {
    let mut value = 0.0;
    let mut normal = |j: usize, parent: Option<usize>, mean: f64, sd: f64| {
        let mean = parent.map_or(mean, |parent| point[parent]);
        let z = (point[j] - mean) / sd;
        value -= 0.5 * z * z + sd.ln() + infermark_model::log_joint::LN_SQRT_2PI;
        gradient[j] -= z / sd;
        if let Some(parent) = parent {
            gradient[parent] += z / sd;
        }
    };
    normal(0, None, priors.global_a_mean, priors.global_a_sd);
    for j in layout.range(Site::CategoryA) {
        normal(j, Some(0), 0.0, priors.category_a_sd);
    }
    let category_a = layout.start(Site::CategoryA);
    for (j, c) in layout.range(Site::ProductA).zip(panel.category_of()) {
        normal(j, Some(category_a + *c as usize), 0.0, priors.product_a_sd);
    }
    for j in layout.range(Site::ProductEffect) {
        normal(j, None, priors.product_effect_mean, priors.product_effect_sd);
    }
    for j in layout.range(Site::TimeCatEffects) {
        normal(j, None, priors.time_cat_effects_mean, priors.time_cat_effects_sd);
    }
    value
}

/// A start from the data: each product's elasticity at the prior mean and its effect at its mean count, all periods at
/// their prior mean.
pub(crate) fn start(panel: &Panel, priors: &Priors) -> Vec<f64> {
    let layout = panel.layout();
    let mut point = vec![0.0; layout.latents()];
    point[0] = priors.global_a_mean;
    point[layout.range(Site::CategoryA)].fill(priors.global_a_mean);
    point[layout.range(Site::ProductA)].fill(priors.global_a_mean);
    point[layout.range(Site::TimeCatEffects)].fill(priors.time_cat_effects_mean);
    for i in 0..layout.products {
        let rows = panel.row_range(i).len() as f64;
        // A product without sales starts at half a unit in all its periods.
        let mean_units = (panel.sums().product[i] as f64).max(0.5) / rows;
        point[layout.start(Site::ProductEffect) + i] =
            mean_units.ln() - priors.global_a_mean * panel.mean_log_price()[i] - priors.time_cat_effects_mean;
    }
    point
}
