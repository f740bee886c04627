//! Prior standard deviations of 1e-8, full pooling: mode and marginals against Newton's method in coordinates
//! with unit priors, in which no numbers are nearly equal.

use infermark_gaussian::variational::{Family, Settings, fit};
use infermark_gaussian::{GaussianObjective, ModeSettings, find_mode};
use infermark_model::{Likelihood, Panel, Priors, Site};
use infermark_test_support::dense::{UnitPriors, cholesky, narrow_priors, solve};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};

/// Mode and marginal sds of the natural parameters.
fn dense(panel: &Panel, priors: &Priors) -> (Vec<f64>, Vec<f64>) {
    let layout = panel.layout();
    let m = UnitPriors::new(panel, priors);
    let n = layout.latents();
    let look = |z: &[f64]| {
        let theta = m.natural(z);
        let mut q = vec![vec![0.0; n]; n];
        let mut g: Vec<f64> = z.iter().map(|z| -z).collect();
        let mut value: f64 = -0.5 * z.iter().map(|z| z * z).sum::<f64>();
        for (j, row) in q.iter_mut().enumerate() {
            row[j] = 1.0;
        }
        for i in 0..layout.products {
            let [a, e] = [Site::ProductA, Site::ProductEffect].map(|site| layout.start(site) + i);
            for row in panel.product_rows(i) {
                let time = layout.time_index(panel.category_of()[i] as usize, row.period);
                let eta = theta[a] * row.log_price + theta[e] + theta[time];
                let design = m.design(panel, i, row.period, row.log_price);
                value += f64::from(row.units) * eta - eta.exp();
                for (j, x) in &design {
                    g[*j] += x * (f64::from(row.units) - eta.exp());
                    for (k, y) in &design {
                        q[*j][*k] += eta.exp() * x * y;
                    }
                }
            }
        }
        (value, g, q)
    };
    let mut z = vec![0.0; n];
    let mut now = look(&z);
    for _ in 0..200 {
        let step = solve(&cholesky(&now.2), &now.1);
        let mut length = 1.0;
        loop {
            let there: Vec<f64> = z.iter().zip(&step).map(|(z, s)| z + length * s).collect();
            let found = look(&there);
            if found.0 >= now.0 - 1e-9 * now.0.abs() || length < 1e-9 {
                (z, now) = (there, found);
                break;
            }
            length *= 0.5;
        }
    }
    let l = cholesky(&now.2);
    let sd = (0..n).map(|j| {
        let mut unit = vec![0.0; n];
        m.rows[j].iter().for_each(|(k, s)| unit[*k] = *s);
        let x = solve(&l, &unit);
        unit.iter().zip(&x).map(|(u, x)| u * x).sum::<f64>().sqrt()
    });
    (m.natural(&z), sd.collect())
}

#[test]
fn pooled_fits_are_those_of_unit_priors() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 18, 3, 6, 0.1, 40);
    for priors in narrow_priors(1e-8) {
        let counts = GaussianObjective::new(&panel, &priors, Likelihood::Poisson);
        let mode = find_mode(&counts, &ModeSettings::default()).unwrap();
        assert!(
            mode.converged,
            "{priors:?}: {} after {}",
            mode.decrement, mode.steps
        );
        let (expected, sds) = dense(&panel, &priors);
        let variance = mode.factor.marginals().variance;
        for j in 0..expected.len() {
            // The decrement that ends the search is 4e-5 sd; numbers of size 3 are resolved to 4e-16, 4e-8 of
            // the narrowest prior.
            assert!(
                (mode.point[j] - expected[j]).abs() < 1e-4 * sds[j],
                "{priors:?}: {j} {} {} {}",
                mode.point[j],
                expected[j],
                sds[j]
            );
            assert!(
                (variance[j].sqrt() / sds[j] - 1.0).abs() < 1e-4,
                "{priors:?}: {j}"
            );
        }
        for family in [Family::Structured, Family::MeanField] {
            let found = fit(&counts, family, &Settings::default()).unwrap();
            assert!(found.converged, "{priors:?}, {family:?}: {} steps", found.steps);
            for j in 0..expected.len() {
                // Counts of 20 per row: a Gaussian's mean is within a fraction of its sd from the mode.
                assert!(
                    (found.mean[j] - expected[j]).abs() < 0.3 * sds[j],
                    "{priors:?}, {family:?}: {j}"
                );
                assert!(
                    found.variance[j].sqrt() < 1.1 * sds[j],
                    "{priors:?}, {family:?}: {j}"
                );
            }
        }
    }
}
