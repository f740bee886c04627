//! The shift of all means from the mode, to first order; the pass that finds it also finds the pairs' variances and third-order parts.

use crate::counts::Counts;
use infermark_arrowhead::{ArrowheadFactor, FactorError, OfRowVariances, ProductRows, ProductThird};
use infermark_cpu_kernels::Simd;

/// What the pass over the variances finds of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtMode {
    /// Variances of its elasticity and effect.
    pub(super) variances: [f64; 2],
    /// The third-order part of the log density at one standard deviation of its pair, as `pair.rs` has it.
    pub(super) third: f64,
}

/// `-Q^-1 sum_r x_r lambda_r v_r / 2` in the order of [`infermark_model::Layout`], `Q` the precision of `factor`, whose weights
/// are the rates, and `v_r` the variance of a row's log rate under it; and what the pass finds of every product.
///
/// `lambda_r v_r` is the leverage of a row, between 0 and 1, so that the sum stays within bounds where a variance is large.
/// `exp(v_r / 2) - 1` in the place of `v_r / 2`, the mean of the rate under the Gaussian, does not: its higher orders belong with others
/// of the same size and the opposite sign, from products of two rows' expansions.
///
/// # Errors
/// When the pass is stopped.
pub(super) fn of_means(
    counts: &Counts,
    factor: &ArrowheadFactor,
) -> Result<(Vec<f64>, Vec<AtMode>), FactorError> {
    if factor.is_elsewhere() {
        let (shift, products) = factor.shifted_by_third_order()?;
        let at_mode = |of: ProductThird| AtMode {
            variances: of.variances,
            third: of.cubes,
        };
        return Ok((shift, products.into_iter().map(at_mode).collect()));
    }
    factor.solved_of_row_variances(&ThirdOrder(counts))
}

/// The means of the third-order terms' derivatives for a gradient.
struct ThirdOrder<'a>(&'a Counts);

impl OfRowVariances for ThirdOrder<'_> {
    type Answer = AtMode;

    #[inline(always)]
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &[f64],
        [elasticity, covariance, effect]: [f64; 3],
        with_periods: impl Fn(usize) -> [I::V; 2],
        by_period: &mut [f64],
    ) -> ([f64; 2], AtMode) {
        // What stands for a product that is left out is no Poisson row; its own third derivative is small.
        let weighed = if self.0.leaves_out(rows.product) {
            0
        } else {
            weights.len()
        };
        // The coordinates of `pair.rs`.
        let faa = elasticity.sqrt();
        let fea = covariance / faa;
        let fee = (effect - fea * fea).sqrt();
        let [over_faa, over_fee] = [faa, fee].map(|f| isa.splat(1.0 / f));
        let [faa, fea, fee] = [faa, fea, fee].map(|f| isa.splat(f));
        let zero = isa.zero();
        let cube = |of: I::V| isa.mul(isa.mul(of, of), isa.max(of, isa.sub(zero, of)));
        let [mut by_a, mut by_e, mut cubes] = [zero; 3];
        for t in (0..weighed).step_by(I::LANES) {
            let (weight, x) = (isa.load(&weights[t..]), isa.load(&rows.log_price[t..]));
            let third = isa.mul(weight, isa.load(&rows.half_variance[t..]));
            by_a = isa.mul_add(third, x, by_a);
            by_e = isa.add(by_e, third);
            isa.store(isa.sub(isa.load(&by_period[t..]), third), &mut by_period[t..]);
            let [with_a, with_e] = with_periods(t);
            let first = isa.mul(with_a, over_faa);
            let second = isa.mul(isa.sub(with_e, isa.mul(fea, first)), over_fee);
            let p = isa.add(isa.mul_add(x, faa, fea), first);
            let q = isa.add(fee, second);
            cubes = isa.mul_add(weight, isa.add(cube(p), cube(q)), cubes);
        }
        let found = AtMode {
            variances: [elasticity, effect],
            third: isa.sum(cubes),
        };
        ([-isa.sum(by_a), -isa.sum(by_e)], found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;
    use infermark_model::priors::Priors;
    use infermark_model::site::Site;
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
        let counts = Counts::new(&panel, &Priors::default(), Likelihood::Poisson);
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
        for (i, own) in at_mode.iter().enumerate() {
            for (found, j) in own.variances.iter().zip(pair(i)) {
                assert!((found / before.variance[j] - 1.0).abs() < 1e-10, "{i}");
            }
            let of_rows = factor.for_products(
                |product| product == i,
                |_, moments| {
                    let faa = moments.elasticity.sqrt();
                    let fea = moments.covariance / faa;
                    let fee = (moments.effect - fea * fea).sqrt();
                    let rows = panel.product_rows(i).map(|row| {
                        let first = moments.elasticity_with_periods[row.period] / faa;
                        let second = (moments.effect_with_periods[row.period] - fea * first) / fee;
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
