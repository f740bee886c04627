//! The fixed points at which backends are compared with the reference.

use infermark_model::guide::Guide;
use infermark_model::noise::Stream;
use infermark_model::{Panel, Parameterization, Site};

const SEED: u64 = 20_240_229;

/// Natural parameters under which each product's rates are near its mean sales, except for every 97th product, whose
/// rates are near the lower clip bound. Length [`infermark_model::Layout::latents`].
pub fn point_near_the_data(panel: &Panel) -> Vec<f64> {
    let layout = panel.layout();
    let uniform = |latent: usize| {
        let stream = Stream {
            seed: SEED,
            iteration: 0,
        };
        f64::from(stream.uniforms(latent as u64, 0)[0]) - 0.5
    };
    let mut point: Vec<f64> = (0..layout.latents()).map(uniform).collect();
    for latent in [Site::GlobalA, Site::CategoryA, Site::ProductA]
        .into_iter()
        .flat_map(|s| layout.range(s))
    {
        point[latent] -= 1.5;
    }
    for product in 0..layout.products {
        let rows = panel.row_range(product).len() as f64;
        let mean_units = panel.sums().product[product] as f64 / rows;
        let level = match product % 97 {
            96 => -4.0,
            _ => mean_units.ln_1p(),
        };
        let elasticity = point[layout.start(Site::ProductA) + product];
        point[layout.start(Site::ProductEffect) + product] +=
            level - elasticity * panel.mean_log_price()[product];
    }
    point
}

/// Natural parameters uniform in (-2, 2), as a guide starts: rates from below the lower clip bound to far above the data.
pub fn point_like_a_start(panel: &Panel) -> Vec<f64> {
    Guide::start(&panel.layout(), Parameterization::Centered, SEED).loc
}
