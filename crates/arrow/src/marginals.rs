//! Marginal covariances.

use crate::category::{GATHERED, Part};
use crate::factor::ArrowFactor;
use crate::product::Rows;
use crate::tasks;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use infermark_model::site::Site;

/// Second moments of one product under `Normal(., Q^-1)`.
#[derive(Debug, Clone, Copy)]
pub struct ProductMoments<'a> {
    /// Variance of the elasticity.
    pub elasticity: f64,
    /// Variance of the effect.
    pub effect: f64,
    /// Their covariance.
    pub covariance: f64,
    /// Covariance of the elasticity with the effect of each period of its category; length T.
    pub elasticity_with_periods: &'a [f64],
    /// Covariance of the effect with the same.
    pub effect_with_periods: &'a [f64],
    /// Variance of the effect of each period of its category; length T.
    pub periods: &'a [f64],
}

/// Marginal variances of every parameter, and the covariance of each product's pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Marginals {
    /// In the order of [`infermark_model::Layout`].
    pub variance: Vec<f64>,
    /// Covariance of `product_a` and `product_effect`, one a product.
    pub product_covariance: Vec<f64>,
}

impl ArrowFactor {
    /// The marginals, in one pass over the panel and a matrix product a category.
    pub fn marginals(&self) -> Marginals {
        let covariances = self.border_covariances();
        let mut marginals = self.above_products(&covariances);
        let (a, e) = (
            self.layout.start(Site::ProductA),
            self.layout.start(Site::ProductEffect),
        );
        for (product, [va, ve, cov]) in self
            .visit(&covariances, |_, m| [m.elasticity, m.effect, m.covariance])
            .into_iter()
            .flatten()
        {
            marginals.variance[a + product] = va;
            marginals.variance[e + product] = ve;
            marginals.product_covariance[product] = cov;
        }
        marginals
    }

    /// Calls `f(product, moments)` for every product, on several threads, in no order, and returns its answers by product.
    pub fn for_each_product<R: Send>(&self, f: impl Fn(usize, ProductMoments<'_>) -> R + Sync) -> Vec<R> {
        let covariances = self.border_covariances();
        let mut answers: Vec<(usize, R)> = self.visit(&covariances, f).into_iter().flatten().collect();
        answers.sort_by_key(|(product, _)| *product);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Covariance of every category's border, column-major: `S_c^-1` and what `global_a` adds.
    fn border_covariances(&self) -> Vec<Vec<f64>> {
        let border = self.border();
        let categories: Vec<usize> = (0..self.layout.categories).collect();
        tasks::run(self.threads, &categories, |category| {
            let inverse = self.categories[*category].inverse();
            // What moves with global_a: R^-T u, one column.
            let mut moved = vec![0.0; border];
            moved[border - 1] = self.top_coupling(*category) / self.top;
            self.categories[*category].backward(&mut moved);
            let mut covariance: Vec<f64> = (0..border * border)
                .map(|at| moved[at / border] * moved[at % border])
                .collect();
            let inverse = inverse.as_mat();
            matmul(
                MatMut::from_column_major_slice_mut(&mut covariance, border, border),
                Accum::Add,
                inverse.transpose(),
                inverse,
                1.0,
                Par::Seq,
            );
            covariance
        })
    }

    fn above_products(&self, covariances: &[Vec<f64>]) -> Marginals {
        let mut variance = vec![0.0; self.layout.latents()];
        variance[0] = self.top.powi(-2);
        let border = self.border();
        for (category, covariance) in covariances.iter().enumerate() {
            for t in 0..self.layout.periods {
                variance[self.layout.time_index(category, t)] = covariance[t * border + t];
            }
            variance[self.layout.start(Site::CategoryA) + category] = covariance[border * border - 1];
        }
        Marginals {
            variance,
            product_covariance: vec![0.0; self.layout.products],
        }
    }

    fn visit<R: Send>(
        &self,
        covariances: &[Vec<f64>],
        f: impl Fn(usize, ProductMoments<'_>) -> R + Sync,
    ) -> Vec<Vec<(usize, R)>> {
        tasks::run(self.threads, &self.parts, |part| {
            self.visit_part(part, &covariances[part.category], &f)
        })
    }

    fn visit_part<R>(
        &self,
        part: &Part,
        covariance: &[f64],
        f: &impl Fn(usize, ProductMoments<'_>) -> R,
    ) -> Vec<(usize, R)> {
        let (border, periods) = (self.border(), self.layout.periods);
        let variances: Vec<f64> = (0..periods).map(|t| covariance[t * border + t]).collect();
        let mut gathered = vec![0.0; 2 * GATHERED * border];
        let mut moved = vec![0.0; 2 * GATHERED * border];
        let mut cross = vec![[0.0; 2]; periods];
        let (mut with_a, mut with_e) = (vec![0.0; periods], vec![0.0; periods]);
        let mut answers = Vec::with_capacity(part.places.len());
        let places: Vec<usize> = part.places.clone().collect();
        for chunk in places.chunks(GATHERED) {
            for (place, v) in chunk.iter().zip(gathered.chunks_exact_mut(2 * border)) {
                self.rows().coupling(self.order[*place] as usize, v);
                Rows::solve_coupling(&self.products[*place], v);
            }
            let columns = 2 * chunk.len();
            matmul(
                MatMut::from_column_major_slice_mut(&mut moved[..columns * border], border, columns),
                Accum::Replace,
                MatRef::from_column_major_slice(covariance, border, border),
                MatRef::from_column_major_slice(&gathered[..columns * border], border, columns),
                1.0,
                Par::Seq,
            );
            let vectors = gathered
                .chunks_exact(2 * border)
                .zip(moved.chunks_exact(2 * border));
            for (place, (v, y)) in chunk.iter().zip(vectors) {
                let lower = &self.products[*place];
                let ((va, ve), (ya, ye)) = (v.split_at(border), y.split_at(border));
                let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                // L^-T (I + V Sigma V') L^-1.
                let inner = dot(va, ye);
                let first = lower.backward([1.0 + dot(va, ya), inner]);
                let second = lower.backward([inner, 1.0 + dot(ve, ye)]);
                let [elasticity, covariance] = lower.backward([first[0], second[0]]);
                let [_, effect] = lower.backward([first[1], second[1]]);
                for (t, cross) in cross.iter_mut().enumerate() {
                    *cross = lower.backward([-ya[t], -ye[t]]);
                }
                for (t, [a, e]) in cross.iter().enumerate() {
                    (with_a[t], with_e[t]) = (*a, *e);
                }
                let product = self.order[*place] as usize;
                let moments = ProductMoments {
                    elasticity,
                    effect,
                    covariance,
                    elasticity_with_periods: &with_a,
                    effect_with_periods: &with_e,
                    periods: &variances,
                };
                answers.push((product, f(product, moments)));
            }
        }
        answers
    }
}
