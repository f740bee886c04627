//! Prior standard deviations of 1e-8, full pooling: mode and marginals against Newton's method in coordinates of unit priors, in
//! which nothing is nearly the same.

use infermark_gaussian::variational::{Family, Settings, fit};
use infermark_gaussian::{Counts, ModeSettings, find_mode};
use infermark_model::priors::Priors;
use infermark_model::{Likelihood, Panel, Site};
use infermark_test_support::random_panel;
use rand::{SeedableRng, rngs::StdRng};

/// `theta = m + M z`, `z` standard normal a priori: each latent's offset and its row of `M` as (column, entry).
fn unit_priors(panel: &Panel, priors: &Priors) -> Vec<(f64, Vec<(usize, f64)>)> {
    let layout = panel.layout();
    let mut rows = vec![(0.0, Vec::new()); layout.latents()];
    rows[0] = (priors.global_a_mean, vec![(0, priors.global_a_sd)]);
    for j in layout.range(Site::CategoryA) {
        rows[j] = rows[0].clone();
        rows[j].1.push((j, priors.category_a_sd));
    }
    for (j, c) in layout.range(Site::ProductA).zip(panel.category_of()) {
        rows[j] = rows[layout.start(Site::CategoryA) + *c as usize].clone();
        rows[j].1.push((j, priors.product_a_sd));
    }
    for site in [Site::ProductEffect, Site::TimeCatEffects] {
        for j in layout.range(site) {
            rows[j] = (priors.constant_mean(site), vec![(j, priors.sd(site))]);
        }
    }
    rows
}

/// Solves `Q x = b` for a dense symmetric positive definite `Q`.
fn solve(q: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut l = vec![vec![0.0; n]; n];
    for j in 0..n {
        for i in j..n {
            let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
            l[i][j] = if i == j {
                (q[i][i] - sum).sqrt()
            } else {
                (q[i][j] - sum) / l[j][j]
            };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        x[i] = (x[i] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
    }
    for i in (0..n).rev() {
        x[i] = (x[i] - (i + 1..n).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
    }
    x
}

/// Mode and marginal sds of the natural parameters.
fn dense(panel: &Panel, priors: &Priors) -> (Vec<f64>, Vec<f64>) {
    let layout = panel.layout();
    let m = unit_priors(panel, priors);
    let n = m.len();
    let natural = |z: &[f64]| -> Vec<f64> {
        let of =
            |(mean, row): &(f64, Vec<(usize, f64)>)| mean + row.iter().map(|(k, s)| s * z[*k]).sum::<f64>();
        m.iter().map(of).collect()
    };
    let look = |z: &[f64]| {
        let theta = natural(z);
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
                let mut design: Vec<(usize, f64)> =
                    m[a].1.iter().map(|(j, s)| (*j, s * row.log_price)).collect();
                design.extend(&m[e].1);
                design.extend(&m[time].1);
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
        let step = solve(&now.2, &now.1);
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
    let sd = (0..n).map(|j| {
        let mut unit = vec![0.0; n];
        m[j].1.iter().for_each(|(k, s)| unit[*k] = *s);
        let x = solve(&now.2, &unit);
        unit.iter().zip(&x).map(|(u, x)| u * x).sum::<f64>().sqrt()
    });
    (natural(&z), sd.collect())
}

#[test]
fn pooled_fits_are_those_of_unit_priors() {
    let panel = random_panel(&mut StdRng::seed_from_u64(3), 18, 3, 6, 0.1, 40);
    let published = Priors::default();
    let sd = 1e-8;
    for priors in [
        Priors {
            global_a_sd: sd,
            ..published
        },
        Priors {
            category_a_sd: sd,
            ..published
        },
        Priors {
            product_a_sd: sd,
            ..published
        },
        Priors {
            product_a_sd: sd,
            category_a_sd: sd,
            ..published
        },
        Priors {
            product_effect_sd: sd,
            ..published
        },
        Priors {
            time_cat_effects_sd: sd,
            ..published
        },
        Priors {
            product_effect_sd: sd,
            time_cat_effects_sd: sd,
            ..published
        },
    ] {
        let counts = Counts::new(&panel, &priors, Likelihood::Poisson);
        let mode = find_mode(&counts, &ModeSettings::default()).unwrap();
        assert!(
            mode.converged,
            "{priors:?}: {} after {}",
            mode.decrement, mode.steps
        );
        let (expected, sds) = dense(&panel, &priors);
        let variance = mode.factor.marginals().variance;
        for j in 0..expected.len() {
            // The decrement that ends the search is 4e-5 sd; numbers of size 3 are told to 4e-16, 4e-8 of the narrowest prior.
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
                // Counts of 20 a row: a Gaussian's mean is within a part of its sd of the mode.
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
