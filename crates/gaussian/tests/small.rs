//! Mode and structured Gaussian on the reference panel, against the model's own gradient and against NUTS.

use infermark_gaussian::{ModeSettings, StructuredSettings, find_mode, fit_structured};
use infermark_model::log_joint::LogJoint;
use infermark_model::priors::Priors;
use infermark_model::{Parameterization, Site};
use infermark_test_support::{data, norm, random_panel, small_panel};
use rand::{SeedableRng, rngs::StdRng};
use std::collections::HashMap;

#[test]
fn the_mode_is_where_the_gradient_vanishes() {
    for (seed, (n, c, t, gaps, largest)) in [
        (1, 1, 1, 0.0, 9),
        (3, 1, 17, 0.0, 0),
        (40, 4, 13, 0.2, 5),
        (150, 2, 30, 0.0, 1_000),
        (70, 3, 20, 0.9, 50),
    ]
    .into_iter()
    .enumerate()
    {
        let panel = random_panel(&mut StdRng::seed_from_u64(seed as u64), n, c, t, gaps, largest);
        let settings = ModeSettings {
            tolerance: 1e-12,
            ..ModeSettings::default()
        };
        let mode = find_mode(&panel, &Priors::default(), &settings).unwrap();
        assert!(mode.converged, "{n}x{t}: {} after {}", mode.decrement, mode.steps);
        let centred = Parameterization::Centered.start();
        let (value, gradient) = LogJoint::new(&panel, Priors::default()).at(&mode.point, &centred);
        assert!(
            (value - mode.log_joint).abs() < 1e-9 * value.abs().max(1.0),
            "{n}x{t}"
        );
        // Relative to the sum of the rows' parts, which cancel here.
        let scale = (panel.sums().product.iter().sum::<u64>() as f64).max(1.0);
        assert!(norm(&gradient.z) < 1e-6 * scale, "{n}x{t}: {}", norm(&gradient.z));
    }
}

/// `posterior.csv` of the reference: mean and standard deviation by site and index.
fn reference() -> HashMap<(String, usize), (f64, f64)> {
    let text = std::fs::read_to_string(data("posterior.csv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let mut seen: HashMap<String, usize> = HashMap::new();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let site = cells[column("site")].to_owned();
            let index = seen.entry(site.clone()).or_default();
            let key = (site, *index);
            *index += 1;
            let number = |name: &str| cells[column(name)].parse::<f64>().unwrap();
            (key, (number("mean"), number("sd")))
        })
        .collect()
}

#[test]
fn the_structured_gaussian_is_near_nuts() {
    let panel = small_panel();
    let fit = fit_structured(&panel, &Priors::default(), &StructuredSettings::default()).unwrap();
    assert!(fit.converged, "{} steps", fit.steps);
    let layout = panel.layout();
    let reference = reference();
    let (mut worst_mean, mut worst_sd): (f64, f64) = (0.0, 0.0);
    for site in Site::ALL {
        for (k, j) in layout.range(site).enumerate() {
            let (mean, sd) = reference[&(site.name().to_owned(), k)];
            worst_mean = worst_mean.max((fit.mean[j] - mean).abs() / sd);
            worst_sd = worst_sd.max((fit.marginals.variance[j].sqrt() / sd - 1.0).abs());
        }
    }
    println!(
        "worst mean {worst_mean} sd, worst sd {worst_sd}, {} steps, ELBO {}",
        fit.steps, fit.elbo
    );
    assert!(worst_mean < 0.06, "{worst_mean}");
    assert!(worst_sd < 0.06, "{worst_sd}");
}
