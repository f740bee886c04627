//! The shift of all means from the mode, to first order; the pass that finds it also finds the pairs' variances and third-order parts.

use crate::design::LATENTS;
use crate::objective::GaussianObjective;
use infermark_arrowhead::{
    ArrowheadFactor, BlockFactor, BlockMatrix, FactorError, OfRowVariances, ProductRows, ProductThird,
    WithAnswers, WithPeriods,
};
use infermark_cpu_kernels::Simd;

/// The results for a product in the pass over the variances.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtMode {
    /// Variances of its latents.
    pub(super) variances: [f64; LATENTS],
    /// The third-order part of the log density at one standard deviation of its latents, as `product.rs` has it.
    pub(super) third: f64,
}

/// `-Q^-1 sum_r x_r lambda_r v_r / 2` in the order of [`infermark_model::Layout`], where `Q` is the precision
/// of `factor`, whose weights are the rates, and `v_r` the variance of a row's log rate under it; and the
/// results for every product, `None` for those of other ranks.
///
/// `lambda_r v_r` is the leverage of a row, between 0 and 1, so that the sum stays within bounds where a
/// variance is large. With `exp(v_r / 2) - 1`, from the mean of the rate under the Gaussian, instead of
/// `v_r / 2` it would not: its higher orders are balanced by others of the same size and opposite sign, from
/// products of two rows' expansions.
///
/// # Errors
/// When the pass is stopped, or a rank has gone.
pub(super) fn of_means(
    counts: &GaussianObjective,
    factor: &ArrowheadFactor,
) -> Result<WithAnswers<AtMode>, FactorError> {
    if factor.is_elsewhere() {
        let (shift, products) = factor.shifted_by_third_order()?;
        let at_mode = |of: ProductThird| {
            Some(AtMode {
                variances: of.variances,
                third: of.cubes,
            })
        };
        return Ok((shift, products.into_iter().map(at_mode).collect()));
    }
    factor.solved_of_row_variances(&ThirdOrder(counts))
}

/// The means of the third-order terms' derivatives for a gradient.
struct ThirdOrder<'a>(&'a GaussianObjective);

impl OfRowVariances<LATENTS> for ThirdOrder<'_> {
    type Answer = AtMode;

    #[inline(always)]
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, LATENTS>,
        weights: &[f64],
        covariance: BlockMatrix<LATENTS>,
        with_periods: WithPeriods<'_, I::V, LATENTS>,
        by_period: &mut [f64],
    ) -> ([f64; LATENTS], AtMode) {
        // A product that is left out is represented by a term that is not a Poisson row; its third derivative
        // is small.
        let weighed = if self.0.leaves_out(rows.product) {
            0
        } else {
            weights.len()
        };
        // The coordinates of `product.rs`.
        let root = *BlockFactor::unchecked(&covariance).rows();
        let zero = isa.zero();
        let (mut over, mut below) = ([zero; LATENTS], [[zero; LATENTS]; LATENTS]);
        for j in 0..LATENTS {
            over[j] = isa.splat(1.0 / root[j][j]);
            for k in 0..=j {
                below[j][k] = isa.splat(root[j][k]);
            }
        }
        let cube = |of: I::V| isa.mul(isa.mul(of, of), isa.max(of, isa.sub(zero, of)));
        let (mut by, mut cubes) = ([zero; LATENTS], zero);
        for t in (0..weighed).step_by(I::LANES) {
            let weight = isa.load(&weights[t..]);
            let third = isa.mul(weight, isa.load(&rows.half_variance[t..]));
            isa.store(isa.sub(isa.load(&by_period[t..]), third), &mut by_period[t..]);
            // The change of the log rate along the effect's coordinate, and then the contributions of the
            // regressors.
            let mut along = below[LATENTS - 1];
            for j in 0..LATENTS - 1 {
                let x = isa.load(&rows.design[j][t..]);
                by[j] = isa.mul_add(third, x, by[j]);
                for k in 0..=j {
                    along[k] = isa.mul_add(x, below[j][k], along[k]);
                }
            }
            by[LATENTS - 1] = isa.add(by[LATENTS - 1], third);
            let mut with = with_periods.at(isa, t);
            let mut of_row = zero;
            for j in 0..LATENTS {
                for k in 0..j {
                    with[j] = isa.sub(with[j], isa.mul(below[j][k], with[k]));
                }
                with[j] = isa.mul(with[j], over[j]);
                let own = cube(isa.add(along[j], with[j]));
                of_row = if j == 0 { own } else { isa.add(of_row, own) };
            }
            cubes = isa.mul_add(weight, of_row, cubes);
        }
        let found = AtMode {
            variances: std::array::from_fn(|k| covariance[k][k]),
            third: isa.sum(cubes),
        };
        (by.map(|by| -isa.sum(by)), found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::{Likelihood, Priors, Site};
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn the_shift_is_that_of_every_rows_own_variance_by_solving() {
        let panel = random_panel(&mut StdRng::seed_from_u64(7), 14, 3, 9, 0.3, 6);
        let layout = panel.layout();
        let weights: Vec<f64> = panel.units().iter().map(|y| f64::from(*y) + 0.2).collect();
        let factor = ArrowheadFactor::new(&panel, Priors::default(), &weights, 2).unwrap();
        let mut expected = vec![0.0; layout.latents()];
        let mut weight = weights.iter();
        for i in 0..layout.products {
            let category = panel.category_of()[i] as usize;
            for row in panel.product_rows(i) {
                let entries = [
                    (layout.start(Site::ProductA) + i, row.log_price),
                    (layout.start(Site::ProductEffect) + i, 1.0),
                    (layout.time_index(category, row.period), 1.0),
                ];
                let mut solved = vec![0.0; layout.latents()];
                entries.iter().for_each(|(j, x)| solved[*j] = *x);
                factor.solve(&mut solved);
                let variance: f64 = entries.iter().map(|(j, x)| x * solved[*j]).sum();
                let third = 0.5 * weight.next().unwrap() * variance;
                expected.iter_mut().zip(solved).for_each(|(e, s)| *e -= third * s);
            }
        }
        let before = factor.marginals();
        let counts = GaussianObjective::new(&panel, &Priors::default(), Likelihood::Poisson);
        let (found, at_mode) = of_means(&counts, &factor).unwrap();
        for (j, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let sd = before.variance[j].sqrt();
            assert!((found - expected).abs() < 1e-9 * sd, "{j}: {found} {expected}");
        }
        let pair = |i: usize| {
            [
                layout.start(Site::ProductA) + i,
                layout.start(Site::ProductEffect) + i,
            ]
        };
        for (i, own) in at_mode.into_iter().flatten().enumerate() {
            for (found, j) in own.variances.iter().zip(pair(i)) {
                assert!((found / before.variance[j] - 1.0).abs() < 1e-10, "{i}");
            }
            let of_rows = factor.for_products(
                |product| product == i,
                |_, moments| {
                    let faa = moments.covariance[0][0].sqrt();
                    let fea = moments.covariance[0][1] / faa;
                    let fee = (moments.covariance[1][1] - fea * fea).sqrt();
                    let rows = panel.product_rows(i).map(|row| {
                        let first = moments.with_periods[0][row.period] / faa;
                        let second = (moments.with_periods[1][row.period] - fea * first) / fee;
                        let (p, q) = (row.log_price * faa + fea + first, fee + second);
                        moments.weights[row.period] * (p.abs().powi(3) + q.abs().powi(3))
                    });
                    rows.sum::<f64>()
                },
            );
            assert!(
                (own.third / of_rows[0].1 - 1.0).abs() < 1e-10,
                "{i}: {own:?} {of_rows:?}"
            );
        }
    }
}
