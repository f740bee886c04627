//! The sums behind the dispersion, under a Gaussian with the arrowhead's precision.

use super::GaussianRun;
use crate::design::{LATENTS, along};
use crate::settle::variance_along;
use infermark_arrowhead::{ArrowheadFactor, ProductMoments, Visitor};
use infermark_cpu_kernels::{Kernel, Simd};
use infermark_model::design::{Regressors, design_at};
use infermark_model::dispersion::{Dispersion, FittedRates, FittedRows, ProductSums};
use std::f64::consts::LOG2_E;

impl GaussianRun {
    /// The dispersion about mean rates, with the variances of the log rates under the Gaussian of `factor`; `None` when a rank has
    /// gone.
    pub(super) fn dispersion_under(
        &self,
        fitted: FittedRates<'_>,
        factor: &ArrowheadFactor,
    ) -> Option<Dispersion> {
        let sums = factor.visit_products(&SumsUnder { fitted });
        let walk = self.counts.partition();
        if walk.ranks().is_none() {
            return Some(Dispersion::of_products(self.counts.panel(), &sums));
        }
        let mut products = walk.order().to_vec();
        products.sort_unstable();
        let mut by_category = vec![ProductSums::default(); walk.layout().categories];
        for (product, sums) in products.into_iter().zip(&sums) {
            by_category[self.counts.panel().category_of()[product as usize] as usize].add(sums);
        }
        let mut numbers: Vec<f64> = by_category.iter().flat_map(ProductSums::numbers).collect();
        walk.sum(&mut numbers, Ok(())).ok()?;
        let (of_categories, _) = numbers.as_chunks();
        let sums: Vec<ProductSums> = of_categories
            .iter()
            .map(|of| ProductSums::of_numbers(*of))
            .collect();
        Some(Dispersion::of_categories(&sums))
    }
}

/// The sums behind the dispersion, with the moments under a Gaussian.
struct SumsUnder<'a> {
    fitted: FittedRates<'a>,
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
        let covariance = moments.covariance;
        let variances = |regressors: &Regressors, periods: Option<&[u32]>, into: &mut [f64]| {
            let rows = into.len();
            let columns = regressors.each_ref().map(|of| &of[..rows]);
            let of_row = |r: usize, with_period: [f64; LATENTS], own: f64| {
                let design = design_at(columns, r);
                variance_along(&design, &covariance) + 2.0 * along(&with_period, &design) + own
            };
            match periods {
                None => {
                    let with_periods = moments.with_periods.map(|of| &of[..rows]);
                    let own = &moments.periods[..rows];
                    for (r, to) in into.iter_mut().enumerate() {
                        *to = of_row(r, with_periods.map(|of| of[r]), own[r]);
                    }
                }
                Some(periods) => {
                    for (r, (to, t)) in into.iter_mut().zip(periods).enumerate() {
                        let t = *t as usize;
                        *to = of_row(r, moments.with_periods.map(|of| of[t]), moments.periods[t]);
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
