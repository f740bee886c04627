//! The optimum of the mean-field bound, dense.

use infermark_model::{Orthogonal, Panel, Priors, Site};

/// Solves `matrix x = right` for a symmetric positive definite matrix, in place, by Cholesky's factorization.
fn solve(matrix: &mut [Vec<f64>], right: &mut [f64]) {
    let n = right.len();
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i][k] * matrix[j][k]).sum();
            let rest = matrix[i][j] - dot;
            matrix[i][j] = if i == j { rest.sqrt() } else { rest / matrix[j][j] };
        }
        let dot: f64 = (0..i).map(|k| matrix[i][k] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[i][i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| matrix[k][i] * right[k]).sum();
        right[i] = (right[i] - dot) / matrix[i][i];
    }
}

/// Means and sds of the natural parameters at the plain ELBO's mean-field optimum of Poisson counts under the default priors, for centred latents or in
/// orthogonal coordinates: Newton steps for the means, in turn with the variances, each of which is the inverse of its diagonal entry of the negative
/// Hessian in the coordinates. The clip is left out. Dense: for small panels.
pub fn mean_field_optimum(panel: &Panel, orthogonal: Option<&Orthogonal>) -> (Vec<f64>, Vec<f64>) {
    let (layout, priors) = (panel.layout(), Priors::default());
    let n = layout.latents();
    let parents: Vec<(Option<usize>, f64, f64)> = (0..n)
        .map(|j| {
            let site = layout.site_of(j);
            let parent = layout.parent(site, j - layout.start(site), panel.category_of());
            (parent, priors.constant_mean(site), priors.sd(site))
        })
        .collect();
    // What each coordinate moves, natural parameter by natural parameter.
    let columns: Vec<Vec<f64>> = (0..n)
        .map(|k| {
            let mut unit = vec![0.0; n];
            unit[k] = 1.0;
            orthogonal.map_or(unit.clone(), |orthogonal| orthogonal.to_natural(&unit))
        })
        .collect();
    let moves: Vec<Vec<(usize, f64)>> = columns
        .iter()
        .map(|column| {
            let entries = column.iter().copied().enumerate();
            entries.filter(|(_, moved)| *moved != 0.0).collect()
        })
        .collect();
    let (mut mean, mut variance) = (vec![0.0; n], vec![0.01; n]);
    for _ in 0..300 {
        // Gradient and Hessian of the negative ELBO by the means.
        let mut gradient = vec![0.0; n];
        let mut hessian = vec![vec![0.0; n]; n];
        for (j, (parent, prior_mean, sd)) in parents.iter().enumerate() {
            let precision = 1.0 / (sd * sd);
            let pull = (mean[j] - parent.map_or(*prior_mean, |p| mean[p])) * precision;
            gradient[j] += pull;
            hessian[j][j] += precision;
            if let Some(p) = *parent {
                gradient[p] -= pull;
                hessian[p][p] += precision;
                hessian[j][p] -= precision;
                hessian[p][j] -= precision;
            }
        }
        for (i, c) in panel.category_of().iter().enumerate() {
            let (a, e) = (
                layout.start(Site::ProductA) + i,
                layout.start(Site::ProductEffect) + i,
            );
            for row in panel.product_rows(i) {
                let x = row.log_price;
                let t = layout.time_index(*c as usize, row.period);
                let m = mean[a] * x + mean[e] + mean[t];
                let along = |k: usize| columns[k][a] * x + columns[k][e] + columns[k][t];
                let v: f64 = (0..n).map(|k| along(k).powi(2) * variance[k]).sum();
                let rate = (m + 0.5 * v).exp();
                let factors = [(a, x), (e, 1.0), (t, 1.0)];
                for (j, f) in factors {
                    gradient[j] += (rate - f64::from(row.units)) * f;
                    for (k, g) in factors {
                        hessian[j][k] += rate * f * g;
                    }
                }
            }
        }
        for j in 0..n {
            // Half way on a logarithmic scale: the plain fixed point overshoots.
            let along = |k: usize| moves[j].iter().map(|(l, by)| hessian[k][*l] * by).sum::<f64>();
            let curvature: f64 = moves[j].iter().map(|(k, by)| along(*k) * by).sum();
            variance[j] = (variance[j] / curvature).sqrt();
        }
        solve(&mut hessian, &mut gradient);
        let longest = gradient.iter().fold(1.0f64, |l, g| l.max(g.abs()));
        for j in 0..n {
            mean[j] -= gradient[j] / longest;
        }
    }
    let sd = (0..n).map(|j| {
        (0..n)
            .map(|k| columns[k][j].powi(2) * variance[k])
            .sum::<f64>()
            .sqrt()
    });
    (mean, sd.collect())
}
