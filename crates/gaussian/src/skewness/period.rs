//! Marginals of the effects of periods in which a category has few sales.
//!
//! The group of rows is the category's in the period. With `V = var(tau)` and `tau = sqrt(V) u` a row's log rate is
//!
//! ```text
//! d_r = p_r u + beta_r + e_r,    p_r = cov(d_r, tau) / sqrt(V),    e_r ~ Normal(0, v_r - p_r^2);
//! ```
//!
//! the tilt is `s / sqrt(V) + sum_r p_r lambda_r v_r / 2`, and `beta_r` is the shift of the row's log rate
//! given `tau = 0`.

//! All of these are sums over rows, so no row is stored: products add theirs as they are visited, in fixed
//! point, so that the sums do not depend on the order of the threads.

use super::expansion::{Expansion, NEGLIGIBLE};
use super::rows::{About, Group, Row};
use super::shape::{Shape, exponentials};
use crate::gauss_hermite::NINE;
use infermark_arrowhead::{FactorError, Partition};
use infermark_model::{Layout, Site};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Sales of a category in a period, as a sum of rates, from which on the effect is taken as normal: its
/// third-order part at one standard deviation is about one over their square root, and its 5% and 95%
/// quantiles are off by 0.03 standard deviations.
const FEW_SALES: f64 = 100.0;

/// A row of such a period.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeriodRow {
    /// Slot of its category and period.
    pub(super) slot: u32,
    /// `lambda_r`.
    pub(super) rate: f64,
    /// `p_r`.
    pub(super) by: f64,
    /// `v_r`.
    pub(super) variance: f64,
    /// The distance of the mean of its log rate from the centre, to first order.
    pub(super) shift: f64,
}

/// A sum in steps of 2^-32.
#[derive(Debug, Default)]
struct FixedPoint(AtomicI64);

impl FixedPoint {
    const STEPS: f64 = (1u64 << 32) as f64;
    /// A node has no weight if a row adds less than the negative of this.
    const MOST: f64 = 1e4;

    fn add(&self, value: f64) {
        let steps = value.clamp(-Self::MOST, Self::MOST) * Self::STEPS;
        self.0.fetch_add(steps.round() as i64, Relaxed);
    }

    fn value(&self) -> f64 {
        self.0.load(Relaxed) as f64 / Self::STEPS
    }

    fn set(&mut self, value: f64) {
        *self.0.get_mut() = (value * Self::STEPS).round() as i64;
    }
}

/// A period in which a category has few sales.
#[derive(Debug)]
struct Period {
    /// Position of its effect.
    place: usize,
    sd: f64,
    /// Shift of its mean in standard deviations.
    whitened: f64,
    /// The rows' contributions to the log density at the nodes, to the tilt and to the third-order part.
    nodes: [FixedPoint; 9],
    tilt: FixedPoint,
    third: FixedPoint,
}

/// Periods in which a category has few sales.
pub(super) struct Few {
    about: About,
    layout: Layout,
    /// Slots by category and period.
    slots: Vec<Option<u32>>,
    periods: Vec<Period>,
    /// Flags by category.
    any: Vec<bool>,
}

impl Few {
    /// The periods with fewer than [`FEW_SALES`], still without rows.
    pub(super) fn of(expansion: &Expansion<'_>) -> Self {
        let layout = expansion.counts.layout();
        let prior = expansion.counts.priors().time_cat_effects_sd.powi(-2);
        let diagonal = expansion.factor.diagonal();
        let variances = expansion.factor.variances_above_products();
        let mut few = Few {
            about: expansion.about,
            layout,
            slots: Vec::with_capacity(layout.categories * layout.periods),
            periods: Vec::new(),
            any: vec![false; layout.categories],
        };
        for (k, place) in layout.range(Site::TimeCatEffects).enumerate() {
            // The rates of its rows.
            let sales = diagonal[place] - prior;
            let is_few = sales < FEW_SALES;
            few.slots.push(is_few.then_some(few.periods.len() as u32));
            if is_few {
                few.any[k / layout.periods] = true;
                let sd = variances[place].sqrt();
                few.periods.push(Period {
                    place,
                    sd,
                    whitened: expansion.shift[place] / sd,
                    nodes: Default::default(),
                    tilt: FixedPoint::default(),
                    third: FixedPoint::default(),
                });
            }
        }
        few
    }

    /// Whether a category has such periods.
    pub(super) fn has_any(&self, category: usize) -> bool {
        self.any[category]
    }

    /// The slot of such a period, from the position of its effect.
    pub(super) fn slot(&self, place: usize) -> Option<u32> {
        self.slots[place - self.layout.start(Site::TimeCatEffects)]
    }

    /// Adds the rows of a product.
    pub(super) fn add(&self, rows: &[PeriodRow]) {
        let period = |row: &PeriodRow| &self.periods[row.slot as usize];
        let of_row = |row: &PeriodRow| Row {
            rate: row.rate,
            variance: row.variance,
            by: [row.by],
            shift: row.shift - row.by * period(row).whitened,
        };
        let group = Group::new(self.about, rows.iter().map(of_row));
        let mut values = Vec::with_capacity(rows.len());
        for (k, (node, _)) in NINE.iter().enumerate() {
            group.each([*node], &mut values);
            for (row, value) in rows.iter().zip(&values) {
                period(row).nodes[k].add(*value);
            }
        }
        for row in rows {
            period(row)
                .tilt
                .add(self.about.slope(row.rate, row.variance) * row.by);
            period(row).third.add(row.rate * row.by.abs().powi(3));
        }
    }

    /// Adds up the rows of all ranks.
    ///
    /// # Errors
    /// When a rank has gone.
    pub(super) fn sum_over_ranks(&mut self, walk: &Partition) -> Result<(), FactorError> {
        let mut numbers: Vec<f64> = (self.periods.iter_mut())
            .flat_map(|period| period.sums().map(|sum| sum.value()))
            .collect();
        walk.sum(&mut numbers, Ok(()))?;
        let sums = self.periods.iter_mut().flat_map(Period::sums);
        sums.zip(numbers).for_each(|(sum, number)| sum.set(number));
        Ok(())
    }

    /// Positions and shapes of those that are not nearly normal, after all rows were added.
    pub(super) fn marginals(&self, expansion: &Expansion<'_>) -> Vec<(usize, Shape)> {
        let shape = |period: &Period| Some((period.place, period.shape(expansion.point[period.place])?));
        self.periods.iter().filter_map(shape).collect()
    }
}

impl Period {
    fn sums(&mut self) -> impl Iterator<Item = &mut FixedPoint> {
        self.nodes.iter_mut().chain([&mut self.tilt, &mut self.third])
    }

    fn shape(&self, mode: f64) -> Option<Shape> {
        if self.third.value() < NEGLIGIBLE {
            return None;
        }
        let tilt = self.whitened + self.tilt.value();
        let mut weights: [f64; 9] = std::array::from_fn(|k| {
            let (node, weight) = NINE[k];
            weight.ln() + tilt * node + self.nodes[k].value()
        });
        exponentials(&mut weights);
        Shape::new(mode, &weights, NINE.iter().map(|(node, _)| self.sd * node))
    }
}
