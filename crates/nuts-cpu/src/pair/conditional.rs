//! The posterior of a product's pair given the border of its category.

use infermark_cpu_kernels::{ForSimd, InstructionSet, Kernel, Simd};
use infermark_model::negative_binomial::{CountTerm, Shape};
use infermark_model::{Panel, Priors};
use std::f64::consts::LOG2_E;

/// The posterior of a product's pair given the border of its category.
pub(super) struct Conditional<'a> {
    pub(super) priors: &'a Priors,
    pub(super) shape: Option<Shape>,
    /// Mean of the elasticity's prior.
    pub(super) category_a: f64,
    pub(super) rows: Rows<'a>,
}

/// Rows of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) mean_log_price: f64,
    /// Deviation of the log price from the mean, one entry per row.
    pub(super) deviation: &'a [f64],
    /// The effect of the row's period.
    pub(super) effect: &'a [f64],
    /// Rows with sales, and their units.
    pub(super) sold: &'a [(u32, u32)],
}

/// A product's rows, read from the panel.
#[derive(Debug, Default)]
pub(super) struct OwnRows {
    pub(super) deviation: Vec<f64>,
    pub(super) period: Vec<u32>,
    pub(super) sold: Vec<(u32, u32)>,
}

impl OwnRows {
    pub(super) fn of(panel: &Panel, product: usize) -> Self {
        let mut own = OwnRows::default();
        let mean = panel.mean_log_price()[product];
        for (r, row) in panel.product_rows(product).enumerate() {
            own.deviation.push(row.log_price - mean);
            own.period.push(row.period as u32);
            if row.units > 0 {
                own.sold.push((r as u32, row.units));
            }
        }
        own
    }
}

/// `sum exp(clip(level + a deviation + effect))` over rows.
struct RateSum<'a> {
    rows: Rows<'a>,
    level: f64,
    a: f64,
    clip: [f64; 2],
}

impl ForSimd for RateSum<'_> {
    type Output = f64;

    fn run<I: Simd>(self, isa: I) -> f64 {
        isa.wide().vectorize(self)
    }
}

impl<I: Simd<Scalar = f64>> Kernel<I> for RateSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let [low, high] = self.clip.map(|bound| isa.splat(bound));
        let (level, a, log2_e) = (isa.splat(self.level), isa.splat(self.a), isa.splat(LOG2_E));
        let Rows {
            deviation, effect, ..
        } = self.rows;
        let whole = deviation.len() / I::LANES * I::LANES;
        let mut sum = isa.zero();
        for at in (0..whole).step_by(I::LANES) {
            let eta = isa.mul_add(
                a,
                isa.load(&deviation[at..]),
                isa.add(level, isa.load(&effect[at..])),
            );
            let eta = isa.max(isa.min(eta, high), low);
            sum = isa.add(sum, isa.exp2(isa.mul(eta, log2_e)));
        }
        let rest: f64 = (whole..deviation.len())
            .map(|r| self.rows.eta(r, self.level, self.a))
            .map(|eta| eta.clamp(self.clip[0], self.clip[1]).exp())
            .sum();
        isa.sum(sum) + rest
    }
}

impl Rows<'_> {
    /// The log rate of a row, not clipped.
    #[inline(always)]
    pub(super) fn eta(&self, row: usize, level: f64, a: f64) -> f64 {
        level + a * self.deviation[row] + self.effect[row]
    }
}

impl Conditional<'_> {
    /// The log likelihood at a level and an elasticity.
    pub(super) fn log_likelihood(&self, level: f64, a: f64) -> f64 {
        let [low, high] = [self.priors.clip_low, self.priors.clip_high];
        let rows = self.rows;
        if let Some(shape) = &self.shape {
            let mut sold = rows.sold.iter().peekable();
            let of_row = |r: usize| {
                let units = sold.next_if(|(row, _)| *row as usize == r).map_or(0, |(_, y)| *y);
                CountTerm::new(units, rows.eta(r, level, a).clamp(low, high), shape).log_likelihood
            };
            return (0..rows.deviation.len()).map(of_row).sum();
        }
        let rates = InstructionSet::best().run_f64(RateSum {
            rows,
            level,
            a,
            clip: [low, high],
        });
        let logs: f64 = rows
            .sold
            .iter()
            .map(|(r, y)| f64::from(*y) * rows.eta(*r as usize, level, a).clamp(low, high))
            .sum();
        logs - rates
    }

    /// The log density of a pair, up to a constant.
    pub(super) fn ln_density(&self, [a, e]: [f64; 2]) -> f64 {
        let priors = self.priors;
        let za = (a - self.category_a) / priors.product_a_sd;
        let ze = (e - priors.product_effect_mean) / priors.product_effect_sd;
        self.log_likelihood(e + a * self.rows.mean_log_price, a) - 0.5 * (za * za + ze * ze)
    }
}
