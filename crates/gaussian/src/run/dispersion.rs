//! The sums behind the dispersion, under a Gaussian with the arrowhead's precision.

use infermark_arrowhead::{ProductMoments, Visitor};
use infermark_cpu_kernels::{Kernel, Simd};
use infermark_model::dispersion::{FittedRates, FittedRows, ProductSums};
use std::f64::consts::LOG2_E;

/// The sums behind the dispersion, with the moments under a Gaussian.
pub(super) struct SumsUnder<'a> {
    pub(super) fitted: FittedRates<'a>,
}

impl Visitor for SumsUnder<'_> {
    type Answer = ProductSums;
    type Room = FittedRows;

    #[inline(always)]
    fn visit<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: &mut FittedRows,
        product: usize,
        moments: ProductMoments<'_>,
    ) -> ProductSums {
        let [[elasticity, covariance], [_, effect]] = moments.covariance;
        let by_period = |x: f64, [with_a, with_e, own]: [f64; 3]| {
            x * x * elasticity + 2.0 * x * covariance + effect + 2.0 * (x * with_a + with_e) + own
        };
        let of_periods = [moments.with_periods[0], moments.with_periods[1], moments.periods];
        let variances = |log_prices: &[f64], periods: Option<&[u32]>, into: &mut [f64]| {
            let [with_a, with_e, own] = of_periods;
            let rows = into.iter_mut().zip(log_prices);
            match periods {
                None => {
                    let of_periods = with_a.iter().zip(with_e).zip(own);
                    for ((to, x), ((a, e), own)) in rows.zip(of_periods) {
                        *to = by_period(*x, [*a, *e, *own]);
                    }
                }
                Some(periods) => {
                    for ((to, x), t) in rows.zip(periods) {
                        *to = by_period(*x, of_periods.map(|of| of[*t as usize]));
                    }
                }
            }
        };
        let exponentials = |of: &mut [f64]| isa.vectorize(Exponentials(of));
        self.fitted
            .of_product_with(rows, product, variances, exponentials)
    }
}

/// `exp` in place.
struct Exponentials<'a>(&'a mut [f64]);

impl<I: Simd<Scalar = f64>> Kernel<I> for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, isa: I) {
        let (least, most) = (isa.splat(-1000.0), isa.splat(1000.0));
        let log2_e = isa.splat(LOG2_E);
        // As long as the widest vector, which holds the last rows together with padding.
        let mut last = [0.0; 16];
        let whole = self.0.len() / I::LANES * I::LANES;
        let (wholes, rest) = self.0.split_at_mut(whole);
        last[..rest.len()].copy_from_slice(rest);
        for chunk in wholes.chunks_exact_mut(I::LANES).chain([&mut last[..]]) {
            let exponent = isa.mul(isa.load(chunk), log2_e);
            let found = isa.exp2(isa.min(isa.max(exponent, least), most));
            isa.store(found, chunk);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infermark_cpu_kernels::{ForSimd, SimdDispatch};
    use infermark_processor::InstructionSet;

    struct Each<'a>(&'a mut [f64]);

    impl ForSimd for Each<'_> {
        type Output = ();

        fn run<I: Simd>(self, isa: I) {
            isa.wide().vectorize(Exponentials(self.0));
        }
    }

    #[test]
    fn exponentials_are_those_of_the_library() {
        for rows in 0..40 {
            let exponents: Vec<f64> = (0..rows).map(|i| -30.0 + 1.7 * f64::from(i)).collect();
            let mut found = exponents.clone();
            InstructionSet::best().run_f64(Each(&mut found));
            for (found, exponent) in found.iter().zip(&exponents) {
                assert!(
                    (found / exponent.exp() - 1.0).abs() < 1e-13,
                    "{exponent}: {found}"
                );
            }
        }
    }
}
