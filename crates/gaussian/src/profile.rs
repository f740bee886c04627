//! The log joint of Poisson counts, maximized over the products: a function of the parameters above them alone.
//!
//! Given the border of its category - period effects and `category_a` - a product is a Poisson regression in
//! its latents, whose optimum takes a few Newton steps over rows in the nearest cache. So a pass that leaves
//! every product at its optimum costs little more than one over the rates, and factors no block. The
//! derivatives of the maximized log joint with respect to the border are the partial ones there, and its
//! second derivatives the Schur complements of [`infermark_arrowhead`].

use crate::design::{COEFFICIENTS, EFFECT, LATENTS, PRODUCT_SITES, prior_means, prior_precisions};
use crate::hierarchy::above_products;
use crate::objective::{GaussianObjective, SUMS_ROUND};
use crate::row_walker::MovingPairs;
use infermark_arrowhead::{AtOptimum, FactorError, GivenBorder, ProductRows};
use infermark_cpu_kernels::Simd;
use infermark_model::Likelihood;
use infermark_model::log_joint::LN_SQRT_2PI;
use infermark_model::{Layout, Site};
use std::f64::consts::LOG2_E;

/// Growth of a log rate in a step beyond which the step is shortened: since `exp(d) - 1 - d <= d^2` below
/// 1.79, no shorter step lowers a product's log density.
pub const MOST_GROWTH: f64 = 1.5;

/// Change of a log rate below which a step is a product's last: the rate that follows is
/// `rate (1 + d + d^2 / 2 + d^3 / 6)` to the last digit, and the remaining distance is about the square of
/// this.
pub const LAST_CHANGE: f64 = 1e-4;

/// Largest number of steps of a product in a pass.
pub const STEPS: usize = 40;

/// Standard deviations of a prior of products below which the priors' precision hides that of the rows: such
/// panels use the joint search.
const NARROW: f64 = 1e-3;

/// Approximate number of products per category in the first rounds: their errors of a period effect are a few
/// times those of all products.
const SAMPLE: usize = 256;

/// Largest number of rounds of the ascent, and the fraction of the previous decrement below which a round
/// must get for another to follow.
const ROUNDS: usize = 6;
const WORTH_A_ROUND: f64 = 0.3;

/// Log density still to be gained, in the metric of the rounds, below which Newton steps take over.
const NEAR: f64 = 1.0;

/// Entries of a table row are padded to a multiple of the widest vector.
const PAD: usize = 16;

/// Whether the log joint of `counts` is maximized over the products in a light pass.
pub(crate) fn is_profiled(counts: &GaussianObjective) -> bool {
    let priors = counts.priors();
    counts.likelihood() == Likelihood::Poisson
        && !counts.leaves_any_out()
        && PRODUCT_SITES.iter().all(|site| priors.sd(*site) >= NARROW)
}

/// The log joint, maximized over the products, at the parameters above them.
#[derive(Debug)]
pub(crate) struct Profiled {
    pub(crate) value: f64,
    /// How far rounding may have moved it.
    pub(crate) rounding: f64,
    /// Derivatives with respect to the parameters above the products, in the order of [`Layout`]; zero for
    /// products.
    pub(crate) gradient: Vec<f64>,
    pub(crate) at_optimum: AtOptimum,
}

/// Products at the border of `point`.
struct GivenEffects<'a> {
    counts: &'a GaussianObjective,
    layout: Layout,
    point: &'a [f64],
    /// Period effects by category, padded.
    effects: Vec<f64>,
    stride: usize,
    precisions: [f64; LATENTS],
}

impl<'a> GivenEffects<'a> {
    fn new(counts: &'a GaussianObjective, point: &'a [f64]) -> Self {
        let (layout, priors) = (counts.layout(), counts.priors());
        let stride = layout.periods.next_multiple_of(PAD);
        let mut effects = vec![0.0; layout.categories * stride];
        for (c, row) in effects.chunks_exact_mut(stride).enumerate() {
            let from = &point[layout.time_index(c, 0)..][..layout.periods];
            row[..layout.periods].copy_from_slice(from);
            // A plausible log rate, for the entries without a period.
            row[layout.periods..].fill(from[0]);
        }
        GivenEffects {
            counts,
            layout,
            point,
            effects,
            stride,
            precisions: prior_precisions(priors),
        }
    }
}

impl GivenBorder<LATENTS> for GivenEffects<'_> {
    #[inline(always)]
    fn at_optimum<I: Simd<Scalar = f64>>(
        &self,
        isa: I,
        rows: ProductRows<'_, LATENTS>,
        latents: &mut [f64; LATENTS],
        rates: &mut [f64],
        by_period: &mut [f64],
    ) -> [f64; 2] {
        let units = self.counts.panel().units_along(rows.product);
        let centre = prior_means(self.counts.priors(), self.layout, self.point, rows.category);
        let effects = &self.effects[rows.category * self.stride..][..rates.len()];
        let precisions = &self.precisions;
        let regressors = &rows.design[..EFFECT];
        let (log2_e, least, most) = (isa.splat(LOG2_E), isa.splat(-1000.0), isa.splat(1000.0));
        let mut range = [[0.0; 2]; LATENTS];
        for (column, range) in regressors.iter().zip(&mut range) {
            *range = lowest_and_highest(isa, &column[..rates.len()]);
        }
        // The smallest and largest change of a log rate in a step.
        let changes = |step: &[f64; LATENTS]| {
            let mut changes = [0.0; 2];
            for ([low, high], step) in range.iter().zip(&step[..EFFECT]) {
                let (low, high) = (step * low, step * high);
                changes = [changes[0] + low.min(high), changes[1] + low.max(high)];
            }
            changes.map(|change| change + step[EFFECT])
        };
        let step = |latents: &[f64; LATENTS], sums: &Sums| {
            let mut by = [0.0; LATENTS];
            for k in 0..LATENTS {
                by[k] = units[k] - sums.along[k] - (latents[k] - centre[k]) * precisions[k];
            }
            sums.newton_step(by, precisions)
        };
        // The step that remains when the loop ends: the rates are those before it.
        let mut last = [0.0; LATENTS];
        let mut squares = [[0.0; LATENTS]; LATENTS];
        for number in 0..=STEPS {
            let of = latents.map(|latent| isa.splat(latent));
            let mut along = [isa.zero(); LATENTS];
            let mut square = [[isa.zero(); LATENTS]; LATENTS];
            for t in (0..rates.len()).step_by(I::LANES) {
                let mut eta = isa.add(of[EFFECT], isa.load(&effects[t..]));
                for (column, slope) in regressors.iter().zip(of) {
                    eta = isa.mul_add(slope, isa.load(&column[t..]), eta);
                }
                let exponent = isa.min(isa.max(isa.mul(eta, log2_e), least), most);
                let rate = isa.mul(isa.exp2(exponent), isa.load(&rows.present()[t..]));
                isa.store(rate, &mut rates[t..]);
                along[EFFECT] = isa.add(along[EFFECT], rate);
                for j in 0..EFFECT {
                    let own = isa.mul(rate, isa.load(&regressors[j][t..]));
                    along[j] = isa.add(along[j], own);
                    for k in 0..=j {
                        square[j][k] = isa.mul_add(own, isa.load(&regressors[k][t..]), square[j][k]);
                    }
                }
            }
            squares = square.map(|row| row.map(|sum| isa.sum(sum)));
            let sums = Sums {
                along: along.map(|sum| isa.sum(sum)),
                squares,
            };
            if number == STEPS {
                break;
            }
            let by = step(latents, &sums);
            let changes = changes(&by);
            let growth = changes[1];
            let length = if growth > MOST_GROWTH {
                MOST_GROWTH / growth
            } else {
                1.0
            };
            latents
                .iter_mut()
                .zip(by)
                .for_each(|(latent, by)| *latent += length * by);
            // NaN also ends the loop.
            let goes_on = changes[0].abs().max(changes[1].abs()) > LAST_CHANGE;
            if !goes_on {
                last = by;
                break;
            }
        }
        // The rates after it, and one more step from there, whose curvature is close enough: nothing is left
        // but rounding. Remaining gradients of products would add up along the shift between their effects
        // and those of periods, which only the priors hold.
        let of = last.map(|latent| isa.splat(latent));
        let (one, half, third) = (isa.splat(1.0), isa.splat(0.5), isa.splat(1.0 / 3.0));
        let mut along = [isa.zero(); LATENTS];
        for t in (0..rates.len()).step_by(I::LANES) {
            let mut d = of[EFFECT];
            for (column, slope) in regressors.iter().zip(of) {
                d = isa.mul_add(slope, isa.load(&column[t..]), d);
            }
            // 1 + d (1 + d / 2 (1 + d / 3)).
            let cubic = isa.mul_add(isa.mul(d, half), isa.mul_add(d, third, one), one);
            let rate = isa.load(&rates[t..]);
            let rate = isa.mul_add(isa.mul(rate, d), cubic, rate);
            isa.store(rate, &mut rates[t..]);
            along[EFFECT] = isa.add(along[EFFECT], rate);
            for (sum, column) in along.iter_mut().zip(regressors) {
                *sum = isa.mul_add(rate, isa.load(&column[t..]), *sum);
            }
        }
        let sums = Sums {
            along: along.map(|sum| isa.sum(sum)),
            squares,
        };
        let by = step(latents, &sums);
        let [least_change, most_change] = changes(&by);
        let last = if least_change.abs().max(most_change.abs()) <= LAST_CHANGE {
            by
        } else {
            [0.0; LATENTS]
        };
        latents
            .iter_mut()
            .zip(last)
            .for_each(|(latent, by)| *latent += by);
        let of = last.map(|latent| isa.splat(latent));
        let mut sum = isa.zero();
        for t in (0..rates.len()).step_by(I::LANES) {
            let mut d = of[EFFECT];
            for (column, slope) in regressors.iter().zip(of) {
                d = isa.mul_add(slope, isa.load(&column[t..]), d);
            }
            let rate = isa.load(&rates[t..]);
            let rate = isa.mul_add(isa.mul(rate, d), isa.mul_add(d, half, one), rate);
            sum = isa.add(sum, rate);
            isa.store(isa.sub(isa.load(&by_period[t..]), rate), &mut by_period[t..]);
        }
        let rate = isa.sum(sum);
        let (mut value, mut size, mut squares) = (0.0, 0.0, 0.0);
        for k in 0..LATENTS {
            value += latents[k] * units[k];
            size += if k < EFFECT {
                (latents[k] * units[k]).abs()
            } else {
                (1.0 + latents[k].abs()) * units[k]
            };
            squares += (latents[k] - centre[k]).powi(2) * precisions[k];
        }
        [value - rate - 0.5 * squares, size + squares]
    }
}

/// Sums over the rows of a product.
struct Sums {
    /// Sums of the rates times the multiplier of each latent in the log rate.
    along: [f64; LATENTS],
    /// Sums of the rates times products of two regressors, the lower triangle; zero for the effect.
    squares: [[f64; LATENTS]; LATENTS],
}

impl Sums {
    /// The Newton step for a gradient, with the effect eliminated first.
    #[inline(always)]
    fn newton_step(&self, by: [f64; LATENTS], precisions: &[f64; LATENTS]) -> [f64; LATENTS] {
        let along = &self.along;
        let of_effect = along[EFFECT] + precisions[EFFECT];
        let mut left = [[0.0; LATENTS]; LATENTS];
        let mut step = by;
        for j in 0..EFFECT {
            for k in 0..=j {
                left[j][k] = self.squares[j][k] - along[j] * (along[k] / of_effect);
                left[k][j] = left[j][k];
            }
            left[j][j] = left[j][j].max(0.0) + precisions[j];
            step[j] = by[j] - along[j] / of_effect * by[EFFECT];
        }
        for pivot in 0..EFFECT {
            for i in pivot + 1..EFFECT {
                let factor = left[i][pivot] / left[pivot][pivot];
                for j in pivot + 1..EFFECT {
                    left[i][j] -= factor * left[pivot][j];
                }
                step[i] -= factor * step[pivot];
            }
        }
        for i in (0..EFFECT).rev() {
            for j in i + 1..EFFECT {
                step[i] -= left[i][j] * step[j];
            }
            step[i] /= left[i][i];
        }
        for k in 0..EFFECT {
            step[EFFECT] -= along[k] * step[k];
        }
        step[EFFECT] /= of_effect;
        step
    }
}

/// The lowest and the highest of values in whole vectors.
#[inline(always)]
fn lowest_and_highest<I: Simd<Scalar = f64>>(isa: I, values: &[f64]) -> [f64; 2] {
    let first = isa.load(values);
    let (mut low, mut high) = (first, first);
    for t in (0..values.len()).step_by(I::LANES) {
        let x = isa.load(&values[t..]);
        (low, high) = (isa.min(low, x), isa.max(high, x));
    }
    let (mut lows, mut highs) = ([0.0; PAD], [0.0; PAD]);
    isa.store(low, &mut lows);
    isa.store(high, &mut highs);
    let low = lows[..I::LANES].iter().copied().fold(f64::INFINITY, f64::min);
    let high = highs[..I::LANES]
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    [low, high]
}

/// The profile at the parameters of `point` above the products; the products' latents, in the order of the
/// walk, move to their optimum.
///
/// # Errors
/// When the pass is stopped.
pub(crate) fn profiled(
    counts: &GaussianObjective,
    point: &[f64],
    blocks: &mut Vec<[f64; LATENTS]>,
    threads: usize,
) -> Result<Profiled, FactorError> {
    let mut moving = Moving::new(counts, std::mem::take(blocks));
    let found = profiled_of(
        counts,
        counts.units_by_period(),
        point,
        &mut moving,
        usize::MAX,
        threads,
    )?;
    *blocks = moving.into_blocks()?;
    Ok(found)
}

/// The products' latents from one pass to the next.
enum Moving {
    Here(Vec<[f64; LATENTS]>),
    Elsewhere(Box<dyn MovingPairs>),
}

impl Moving {
    fn new(counts: &GaussianObjective, blocks: Vec<[f64; LATENTS]>) -> Self {
        match counts.walker() {
            Some(walker) => Moving::Elsewhere(walker.moving(&blocks)),
            None => Moving::Here(blocks),
        }
    }

    fn into_blocks(self) -> Result<Vec<[f64; LATENTS]>, FactorError> {
        match self {
            Moving::Here(blocks) => Ok(blocks),
            Moving::Elsewhere(moving) => moving.pairs(),
        }
    }
}

/// The same for a sample of the products, with `units` the sums of their counts by category and period.
fn profiled_of(
    counts: &GaussianObjective,
    units: &[u64],
    point: &[f64],
    moving: &mut Moving,
    least: usize,
    threads: usize,
) -> Result<Profiled, FactorError> {
    let (layout, priors) = (counts.layout(), counts.priors());
    let found = match moving {
        Moving::Elsewhere(moving) => moving.at_optimum(point)?,
        Moving::Here(blocks) => {
            let given = GivenEffects::new(counts, point);
            counts.partition().given_border(&given, blocks, least, threads)?
        }
    };
    let mut gradient = vec![0.0; layout.latents()];
    let mut value = found.value;
    let mut squares = 0.0;
    let mut pull = |j: usize, mean: f64, sd: f64| {
        let z = (point[j] - mean) / sd;
        squares += z * z;
        z / sd
    };
    for (k, sites) in COEFFICIENTS.iter().enumerate() {
        let global = layout.start(sites.global);
        gradient[global] = -pull(
            global,
            priors.constant_mean(sites.global),
            priors.sd(sites.global),
        );
        for (c, j) in layout.range(sites.category).enumerate() {
            let pull = pull(j, point[global], priors.sd(sites.category));
            let own = found.coefficients[c][k] - counts.partition().products_of(c) as f64 * point[j];
            gradient[j] = own * priors.sd(sites.product).powi(-2) - pull;
            gradient[global] += pull;
        }
    }
    let rows = found.by_period.iter().flatten();
    for ((j, rows), units) in layout.range(Site::TimeCatEffects).zip(rows).zip(units) {
        let units = *units as f64;
        value += point[j] * units;
        gradient[j] = units + rows - pull(j, priors.time_cat_effects_mean, priors.time_cat_effects_sd);
    }
    let logs: f64 = layout
        .sites()
        .iter()
        .map(|site| layout.len(*site) as f64 * priors.sd(*site).ln())
        .sum();
    value -= counts.ln_factorials() + 0.5 * squares + logs + layout.latents() as f64 * LN_SQRT_2PI;
    Ok(Profiled {
        value,
        rounding: SUMS_ROUND * (value.abs() + squares + counts.ln_factorials() + found.size),
        gradient,
        at_optimum: found,
    })
}

/// Ascends from `point` by blocks: products given all else, then each period effect given the products, then
/// the means of the elasticities given these. No block lowers the log joint. With many products and periods
/// they hardly depend on each other, except for a shift between their effects that changes no rate, and a few
/// rounds cover most of the distance.
///
/// # Errors
/// When a pass is stopped.
pub(crate) fn ascend(
    counts: &GaussianObjective,
    point: &mut [f64],
    threads: usize,
) -> Result<(), FactorError> {
    let (layout, priors) = (counts.layout(), counts.priors());
    let start = point.to_vec();
    let mut moving = Moving::new(counts, counts.partition().blocks(point));
    // If a device walks the rows, a pass over all of them costs no more than one over a few.
    let sampled = match counts.walker() {
        Some(_) => counts.units_by_period().to_vec(),
        None => counts.partition().units_of_sample(SAMPLE)?,
    };
    // After that, period effects are known to within their own errors, not better.
    let enough = (layout.categories * layout.periods) as f64;
    let stages: &[_] = &[
        (sampled.as_slice(), SAMPLE, enough),
        (counts.units_by_period(), usize::MAX, NEAR),
    ];
    let is_sample = sampled != counts.units_by_period();
    for (units, least, enough) in &stages[usize::from(!is_sample)..] {
        let mut before = f64::INFINITY;
        for round in 0..ROUNDS {
            let found = profiled_of(counts, units, point, &mut moving, *least, threads)?;
            if !found.value.is_finite() {
                // Newton steps start from finite numbers.
                point.copy_from_slice(&start);
                return Ok(());
            }
            let precision = priors.time_cat_effects_sd.powi(-2);
            let rows = found.at_optimum.by_period.iter().flatten();
            let mut decrement = 0.0;
            for ((j, rows), units) in layout.range(Site::TimeCatEffects).zip(rows).zip(*units) {
                let (rates, units) = (-rows, *units as f64);
                decrement += 0.5 * found.gradient[j].powi(2) / (rates + precision);
                point[j] += effect_step(units, rates, point[j] - priors.time_cat_effects_mean, precision);
            }
            if *least == usize::MAX {
                above_products(counts, point, &found.at_optimum.coefficients);
            }
            if decrement < *enough
                || decrement > WORTH_A_ROUND * before
                || (is_sample && *least == usize::MAX && round == 1)
            {
                break;
            }
            before = decrement;
        }
    }
    counts.partition().write_blocks(point, &moving.into_blocks()?);
    Ok(())
}

/// The change of a period effect, now `off` its prior's mean, that maximizes `units d - rates (exp(d) - 1) - precision (off + d)^2 / 2`.
fn effect_step(units: f64, rates: f64, off: f64, precision: f64) -> f64 {
    let slope = |d: f64| units - rates * d.exp() - precision * (off + d);
    // The slope is concave: from a point where it is negative, Newton steps descend to the root and no
    // further.
    let mut d = if rates > 0.0 {
        ((units + 0.5) / rates).ln().max(0.0)
    } else {
        0.0
    };
    for _ in 0..60 {
        let step = slope(d) / (rates * d.exp() + precision);
        d += step;
        if step.abs() < 1e-9 {
            break;
        }
    }
    if d.is_finite() { d } else { 0.0 }
}
