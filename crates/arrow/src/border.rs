//! The categories' borders: the Schur complements that their products leave.

use crate::assemble::{PartSums, Rates};
use crate::factor::FactorError;
use crate::tasks;
use crate::triangular::Lower;
use crate::walk::Walk;
use infermark_model::priors::Priors;

/// All categories' borders, factored.
pub(crate) struct Borders {
    /// `R_c`.
    pub(crate) factors: Vec<Lower>,
    /// The diagonal of `D_c`.
    pub(crate) diagonals: Vec<Vec<f64>>,
    /// `sum_i V_i' y_i`, `y` the right-hand side.
    pub(crate) coupled: Vec<Vec<f64>>,
}

impl Borders {
    /// Adds the parts up and factors.
    pub(crate) fn new(
        walk: &Walk,
        sums: &[PartSums],
        priors: &Priors,
        rates: &impl Rates,
        threads: usize,
    ) -> Result<Self, FactorError> {
        let (border, periods) = (walk.border(), walk.layout.periods);
        let categories: Vec<usize> = (0..walk.layout.categories).collect();
        let all = tasks::run(
            threads,
            categories,
            || (),
            |(), category| {
                let mut schur = vec![0.0; border * border];
                let mut coupled = vec![0.0; border];
                let mut diagonal = vec![0.0; border];
                let parts = walk
                    .parts
                    .iter()
                    .zip(sums)
                    .filter(|(p, _)| p.category == category);
                for (_, sums) in parts {
                    let order = sums.schur.len().isqrt();
                    let columns = sums.schur.chunks_exact(order);
                    for ((j, into), from) in schur.chunks_exact_mut(border).enumerate().zip(columns) {
                        for (s, r) in into[j..].iter_mut().zip(&from[j..]) {
                            *s += r;
                        }
                        // The last row of the coupling is the right-hand side.
                        coupled[j] -= from[border];
                    }
                    for (d, w) in diagonal[..periods].iter_mut().zip(&sums.weights) {
                        *d += w;
                    }
                    if walk.has_shape() {
                        diagonal[periods] += sums.shape[1];
                        for (t, c) in sums.cross[..periods].iter().enumerate() {
                            schur[t * border + periods] += c;
                        }
                    }
                }
                for d in &mut diagonal[..periods] {
                    *d += priors.time_cat_effects_sd.powi(-2);
                }
                if walk.has_shape() {
                    diagonal[periods] += rates.shape_curvature(category) + priors.log_shape_sd.powi(-2);
                }
                diagonal[border - 1] = priors.category_a_sd.powi(-2)
                    + walk.sizes[category] as f64 * priors.product_a_sd.powi(-2);
                for (j, d) in diagonal.iter().enumerate() {
                    schur[j * border + j] += d;
                }
                (Lower::cholesky(schur, border), diagonal, coupled)
            },
        );
        let mut borders = Borders {
            factors: Vec::with_capacity(all.len()),
            diagonals: Vec::with_capacity(all.len()),
            coupled: Vec::with_capacity(all.len()),
        };
        for (category, (factor, diagonal, coupled)) in all.into_iter().enumerate() {
            borders
                .factors
                .push(factor.ok_or(FactorError::Category(category))?);
            borders.diagonals.push(diagonal);
            borders.coupled.push(coupled);
        }
        Ok(borders)
    }
}
