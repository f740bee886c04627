use super::*;
use crate::chunk::chunks;
use crate::dispatch::{ForSimd, SimdDispatch, for_each_instruction_set};
use infermark_model::{Labels, PanelPart};

/// One product at one price whose rates are all `exp(effect + period effect)`.
struct FarBase {
    effect: f64,
    period_effect: f64,
}

const PERIODS: usize = 19;

/// Gradient with respect to the product's effect, and the sums of rates by period.
struct Pass<'a, I: Simd> {
    likelihood: PoissonLikelihood<'a>,
    chunk: &'a Chunk,
    rows: &'a PackedRows<I>,
    table: &'a PeriodTable<I>,
    elasticity: &'a mut [Vec<I::Scalar>],
    effect: &'a mut [Vec<I::Scalar>],
    by_period: &'a mut PeriodSums<I>,
}

impl<I: Simd> Kernel<I> for Pass<'_, I> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let [log_likelihood] = self.likelihood.chunk::<I, 1>(
            isa,
            self.chunk,
            self.rows,
            self.table,
            self.elasticity,
            self.effect,
            self.by_period,
            &mut Scratch::new(isa, 1),
        );
        log_likelihood
    }
}

impl ForSimd for &FarBase {
    type Output = ();

    fn run<I: Simd>(self, isa: I) {
        let mut part = PanelPart::new(1, PERIODS);
        part.push_product(0, None, &[2.0; PERIODS], &[3; PERIODS])
            .unwrap();
        let labels = |n| Labels::numbered("x", n);
        let panel = Panel::from_parts(labels(1), labels(1), labels(PERIODS), vec![part]).unwrap();
        let priors = Priors {
            clip_low: -80.0,
            clip_high: 80.0,
            ..Priors::default()
        };
        let chunk = &chunks(&panel)[0];
        let mut table = PeriodTable::new(isa, PERIODS, 1);
        table.set(isa, 0, &[I::Scalar::from_f64(self.period_effect); PERIODS]);
        let column = |x: f64| [vec![I::Scalar::from_f64(x); chunk.padded()]];
        let (mut elasticity, mut effect) = (column(0.0), column(self.effect));
        let mut by_period = PeriodSums::new(isa, PERIODS, 1);
        let log_likelihood = isa.vectorize(Pass {
            likelihood: PoissonLikelihood::new(&panel, &priors),
            chunk,
            rows: &PackedRows::new(isa, &panel, chunk),
            table: &table,
            elasticity: &mut elasticity,
            effect: &mut effect,
            by_period: &mut by_period,
        });
        let rate = (self.effect + self.period_effect).exp();
        let count = PERIODS as f64;
        let mut totals = [0.0; PERIODS];
        by_period.add_to(isa, 0, &mut totals);
        // Single precision: 140 rounded at 1e-5 is the same relative error of a rate.
        let close = |found: f64, expected: f64| (found - expected).abs() <= 3e-5 * expected.abs();
        for total in totals {
            assert!(close(total, rate), "{isa:?} {total:e} {rate:e}");
        }
        let by_effect = effect[0][0].to_f64();
        assert!(close(by_effect, count * (3.0 - rate)), "{isa:?} {by_effect:e}");
        // The period effects' share, their sum times the counts, is added by the caller.
        let expected = count * (3.0 * self.effect - rate);
        assert!(close(log_likelihood, expected), "{isa:?} {log_likelihood:e}");
    }
}

#[test]
fn a_base_beyond_single_precision_leaves_rates_within_it() {
    for sign in [1.0, -1.0] {
        // Rates of exp(70) and exp(-70), with a base of exp(97) and exp(-97).
        let case = FarBase {
            effect: sign * 97.0,
            period_effect: sign * -27.0,
        };
        for_each_instruction_set(|set| {
            set.run_f32(&case);
            set.run_f64(&case);
        });
    }
}
