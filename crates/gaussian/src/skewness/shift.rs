//! The shift of all means from the mode, to first order.

use crate::counts::Counts;
use infermark_arrow::{ArrowFactor, Assembled, FactorError, ProductRows, Rates, Weighed};
use infermark_cpu_kernels::Simd;
use infermark_model::site::Site;

/// `-Q^-1 sum_r x_r lambda_r v_r / 2` in the order of [`infermark_model::Layout`], `Q` the precision of `factor`, whose weights
/// are the rates, and `v_r` the variance of a row's log rate under it; and the factor again.
///
/// `lambda_r v_r` is the leverage of a row, between 0 and 1, so that the sum stays within bounds where a variance is large.
/// `exp(v_r / 2) - 1` in the place of `v_r / 2`, the mean of the rate under the Gaussian, does not: its higher orders belong with others
/// of the same size and the opposite sign, from products of two rows' expansions.
///
/// # Errors
/// When the precision cannot be factored again.
pub(super) fn of_means(counts: &Counts, factor: ArrowFactor) -> Result<(Vec<f64>, ArrowFactor), FactorError> {
    let layout = counts.layout();
    let (mut found, _) = Assembled::with_variances(factor, &ThirdOrder(counts))?;
    debug_assert!(layout.range(Site::CategoryA).all(|j| found.gradient[j] == 0.0));
    let gradient = std::mem::take(&mut found.gradient);
    Ok((found.step(&gradient), found.factor))
}

/// The weights that are there, with the means of the third-order terms' derivatives for a gradient.
struct ThirdOrder<'a>(&'a Counts);

impl Rates for ThirdOrder<'_> {
    #[inline(always)]
    fn weigh<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_>,
        weights: &mut [f64],
        _cross: &mut [f64],
        by_period: &mut [f64],
    ) -> Weighed {
        let (mut by_a, mut by_e) = (isa.zero(), isa.zero());
        // What stands for a product that is left out is no Poisson row; its own third derivative is small.
        let weighed = if self.0.leaves_out(rows.product) {
            0
        } else {
            weights.len()
        };
        for t in (0..weighed).step_by(I::LANES) {
            let third = isa.mul(isa.load(&weights[t..]), isa.load(&rows.half_variance[t..]));
            by_a = isa.mul_add(third, isa.load(&rows.log_price[t..]), by_a);
            by_e = isa.add(by_e, third);
            isa.store(isa.sub(isa.load(&by_period[t..]), third), &mut by_period[t..]);
        }
        Weighed {
            value: 0.0,
            gradient: [-isa.sum(by_a), -isa.sum(by_e)],
            shape: [0.0; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_model::Likelihood;
    use infermark_model::priors::Priors;
    use infermark_test_support::random_panel;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn the_shift_is_that_of_every_rows_own_variance_by_solving() {
        let panel = random_panel(&mut StdRng::seed_from_u64(7), 14, 3, 9, 0.3, 6);
        let layout = panel.layout();
        let weights: Vec<f64> = panel.units().iter().map(|y| f64::from(*y) + 0.2).collect();
        let factor = ArrowFactor::new(&panel, Priors::default(), &weights, 2).unwrap();
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
        let (found, factor) = of_means(&counts, factor).unwrap();
        for (j, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let sd = before.variance[j].sqrt();
            assert!((found - expected).abs() < 1e-9 * sd, "{j}: {found} {expected}");
        }
        assert_eq!(factor.marginals(), before);
    }
}
