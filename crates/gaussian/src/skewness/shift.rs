//! The shift of all means from the mode, to first order.

use infermark_arrow::{ArrowFactor, Assembled, FactorError, ProductRows, Rates, Weighed};
use infermark_cpu_kernels::Simd;
use infermark_model::Panel;
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
pub(super) fn of_means(panel: &Panel, factor: ArrowFactor) -> Result<(Vec<f64>, ArrowFactor), FactorError> {
    let layout = panel.layout();
    let (mut found, _) = Assembled::with_variances(factor, &ThirdOrder)?;
    debug_assert!(layout.range(Site::CategoryA).all(|j| found.gradient[j] == 0.0));
    let gradient = std::mem::take(&mut found.gradient);
    Ok((found.step(&gradient), found.factor))
}

/// The weights that are there, with the means of the third-order terms' derivatives for a gradient.
struct ThirdOrder;

impl Rates for ThirdOrder {
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
        for t in (0..weights.len()).step_by(I::LANES) {
            let third = isa.mul(isa.load(&weights[t..]), isa.load(&rows.half_variance[t..]));
            by_a = isa.mul_add(third, isa.load(&rows.log_price[t..]), by_a);
            by_e = isa.add(by_e, third);
            isa.store(isa.sub(isa.load(&by_period[t..]), third), &mut by_period[t..]);
        }
        Weighed {
            value: 0.0,
            gradient: [-isa.sum(by_a), -isa.sum(by_e)],
            shape: [0.0; 2],
        }
    }
}
