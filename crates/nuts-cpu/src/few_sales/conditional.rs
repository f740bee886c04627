//! The posterior of a product's latents given the border of its category.
//!
//! A product has D latents: a coefficient for each regressor and its effect, last. The level `u` of its log
//! rate is the effect plus the contribution of the mean regressors.

use infermark_cpu_kernels::{ForSimd, Kernel, Simd, SimdDispatch};
use infermark_model::Panel;
use infermark_model::design::{EFFECT, PRODUCT_LATENTS};
use infermark_model::negative_binomial::{CountTerm, Shape};
use infermark_processor::InstructionSet;
use std::f64::consts::LOG2_E;

/// The posterior of a product's latents given the border of its category.
pub(super) struct Conditional<'a, const D: usize> {
    pub(super) prior: Prior<D>,
    /// Bounds of the log rate.
    pub(super) clip: [f64; 2],
    pub(super) shape: Option<Shape>,
    pub(super) rows: Rows<'a, D>,
}

/// Priors of a product's latents given the border, which are independent: means and standard deviations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prior<const D: usize> {
    pub(super) mean: [f64; D],
    pub(super) sd: [f64; D],
}

/// Rows of a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, const D: usize> {
    /// Mean of each regressor over the rows, and 1.
    pub(super) mean: [f64; D],
    /// Deviation of each regressor from its mean, one entry per row; none for the effect.
    pub(super) deviation: [&'a [f64]; D],
    /// The effect of the row's period.
    pub(super) effect: &'a [f64],
    /// Rows with sales, and their units.
    pub(super) sold: &'a [(u32, u32)],
}

/// A product's rows, read from the panel.
#[derive(Debug)]
pub(super) struct OwnRows<const D: usize> {
    pub(super) deviation: [Vec<f64>; D],
    pub(super) period: Vec<u32>,
    pub(super) sold: Vec<(u32, u32)>,
}

impl OwnRows<PRODUCT_LATENTS> {
    pub(super) fn of(panel: &Panel, product: usize) -> Self {
        let mut own = OwnRows {
            deviation: [const { Vec::new() }; PRODUCT_LATENTS],
            period: Vec::new(),
            sold: Vec::new(),
        };
        let mean = panel.mean_design(product);
        for (r, row) in panel.product_rows(product).enumerate() {
            let design = row.design();
            for k in 0..EFFECT {
                own.deviation[k].push(design[k] - mean[k]);
            }
            own.period.push(row.period as u32);
            if row.units > 0 {
                own.sold.push((r as u32, row.units));
            }
        }
        own
    }
}

/// `sum exp(clip(level + a' deviation + effect))` over rows.
struct RateSum<'a, const D: usize> {
    rows: Rows<'a, D>,
    level: f64,
    a: [f64; D],
    clip: [f64; 2],
}

impl<const D: usize> ForSimd for RateSum<'_, D> {
    type Output = f64;

    fn run<I: Simd>(self, isa: I) -> f64 {
        isa.wide().vectorize(self)
    }
}

impl<I: Simd<Scalar = f64>, const D: usize> Kernel<I> for RateSum<'_, D> {
    type Output = f64;

    #[inline(always)]
    fn run(self, isa: I) -> f64 {
        let [low, high] = self.clip.map(|bound| isa.splat(bound));
        let (level, log2_e) = (isa.splat(self.level), isa.splat(LOG2_E));
        let a = self.a.map(|a| isa.splat(a));
        let Rows {
            deviation, effect, ..
        } = self.rows;
        let whole = effect.len() / I::LANES * I::LANES;
        let mut sum = isa.zero();
        for at in (0..whole).step_by(I::LANES) {
            let mut eta = isa.add(level, isa.load(&effect[at..]));
            for k in 0..D - 1 {
                eta = isa.mul_add(a[k], isa.load(&deviation[k][at..]), eta);
            }
            let eta = isa.max(isa.min(eta, high), low);
            sum = isa.add(sum, isa.exp2(isa.mul(eta, log2_e)));
        }
        let rest: f64 = (whole..effect.len())
            .map(|r| self.rows.eta(r, self.level, &self.a))
            .map(|eta| eta.clamp(self.clip[0], self.clip[1]).exp())
            .sum();
        isa.sum(sum) + rest
    }
}

impl<const D: usize> Rows<'_, D> {
    /// The log rate of a row, not clipped.
    #[inline(always)]
    pub(super) fn eta(&self, row: usize, level: f64, a: &[f64; D]) -> f64 {
        let mut eta = level;
        for k in 0..D - 1 {
            eta += a[k] * self.deviation[k][row];
        }
        eta + self.effect[row]
    }

    /// The level of the log rate.
    pub(super) fn level(&self, latents: &[f64; D]) -> f64 {
        let mut level = latents[D - 1];
        for k in 0..D - 1 {
            level += latents[k] * self.mean[k];
        }
        level
    }
}

impl<const D: usize> Conditional<'_, D> {
    /// The log likelihood at a level and coefficients; the last entry of these has no meaning.
    pub(super) fn log_likelihood(&self, level: f64, a: &[f64; D]) -> f64 {
        let [low, high] = self.clip;
        let rows = self.rows;
        if let Some(shape) = &self.shape {
            let mut sold = rows.sold.iter().peekable();
            let of_row = |r: usize| {
                let units = sold.next_if(|(row, _)| *row as usize == r).map_or(0, |(_, y)| *y);
                CountTerm::new(units, rows.eta(r, level, a).clamp(low, high), shape).log_likelihood
            };
            return (0..rows.effect.len()).map(of_row).sum();
        }
        let rates = InstructionSet::best().run_f64(RateSum {
            rows,
            level,
            a: *a,
            clip: [low, high],
        });
        let logs: f64 = rows
            .sold
            .iter()
            .map(|(r, y)| f64::from(*y) * rows.eta(*r as usize, level, a).clamp(low, high))
            .sum();
        logs - rates
    }

    /// The log density of the latents, up to a constant.
    pub(super) fn ln_density(&self, latents: &[f64; D]) -> f64 {
        let mut squares = 0.0;
        for k in 0..D {
            let z = (latents[k] - self.prior.mean[k]) / self.prior.sd[k];
            squares += z * z;
        }
        self.log_likelihood(self.rows.level(latents), latents) - 0.5 * squares
    }
}
