//! Dense references for the block-arrowhead precision: Cholesky's factor, and coordinates in which narrow priors cancel nothing.

use infermark_model::{Panel, Priors, Site};

/// Lower triangle of the Cholesky factor of a symmetric positive definite matrix.
pub fn cholesky(q: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = q.len();
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
    l
}

/// `Q^-1 b` by the factor of `Q`.
pub fn solve(l: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let n = l.len();
    let mut x = b.to_vec();
    for i in 0..n {
        x[i] = (x[i] - (0..i).map(|k| l[i][k] * x[k]).sum::<f64>()) / l[i][i];
    }
    for i in (0..n).rev() {
        x[i] = (x[i] - (i + 1..n).map(|k| l[k][i] * x[k]).sum::<f64>()) / l[i][i];
    }
    x
}

/// Natural parameters as `theta = m + M z` with `z` standard normal a priori. In these coordinates a narrow prior leaves nothing to
/// cancel.
#[derive(Debug, Clone)]
pub struct UnitPriors {
    /// `m`.
    pub offset: Vec<f64>,
    /// The rows of `M`, as (column, entry). It is triangular, with the priors' standard deviations on its diagonal.
    pub rows: Vec<Vec<(usize, f64)>>,
}

impl UnitPriors {
    /// Of the Poisson model's latents.
    pub fn new(panel: &Panel, priors: &Priors) -> Self {
        let layout = panel.layout();
        let mut offset = vec![0.0; layout.latents()];
        let mut rows = vec![Vec::new(); layout.latents()];
        for site in layout.sites() {
            for (k, j) in layout.range(*site).enumerate() {
                (offset[j], rows[j]) = match layout.parent(*site, k, panel.category_of()) {
                    Some(parent) => (offset[parent], rows[parent].clone()),
                    None => (priors.constant_mean(*site), Vec::new()),
                };
                rows[j].push((j, priors.sd(*site)));
            }
        }
        UnitPriors { offset, rows }
    }

    /// `m + M z`.
    pub fn natural(&self, z: &[f64]) -> Vec<f64> {
        self.offset
            .iter()
            .zip(self.times(z))
            .map(|(offset, x)| offset + x)
            .collect()
    }

    /// `M z`.
    pub fn times(&self, z: &[f64]) -> Vec<f64> {
        self.rows
            .iter()
            .map(|row| row.iter().map(|(k, s)| s * z[*k]).sum())
            .collect()
    }

    /// A log rate's derivatives by `z`, as (coordinate, derivative), in a row of `product`.
    pub fn design(&self, panel: &Panel, product: usize, period: usize, log_price: f64) -> Vec<(usize, f64)> {
        let layout = panel.layout();
        let elasticity = &self.rows[layout.start(Site::ProductA) + product];
        let mut design: Vec<(usize, f64)> = elasticity.iter().map(|(j, s)| (*j, s * log_price)).collect();
        design.extend(&self.rows[layout.start(Site::ProductEffect) + product]);
        design.extend(&self.rows[layout.time_index(panel.category_of()[product] as usize, period)]);
        design
    }
}

/// The published priors with a standard deviation of `sd`, which pools fully where it is small, for each site alone and for sites that
/// depend on each other.
pub fn narrow_priors(sd: f64) -> Vec<Priors> {
    let alone: [&[Site]; 5] = [
        &[Site::GlobalA],
        &[Site::CategoryA],
        &[Site::ProductA],
        &[Site::ProductEffect],
        &[Site::TimeCatEffects],
    ];
    let together: [&[Site]; 2] = [
        &[Site::CategoryA, Site::ProductA],
        &[Site::ProductEffect, Site::TimeCatEffects],
    ];
    alone
        .into_iter()
        .chain(together)
        .map(|sites| with_sd(sites, sd))
        .collect()
}

/// The published priors with a standard deviation of `sd` of some sites.
pub fn with_sd(sites: &[Site], sd: f64) -> Priors {
    let mut priors = Priors::default();
    for site in sites {
        *priors.sd_mut(*site) = sd;
    }
    priors
}
