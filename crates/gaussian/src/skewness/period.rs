//! Marginals of the effects of periods in which a category has few sales.
//!
//! The group of rows is the category's in the period. With `V = var(tau)` and `tau = sqrt(V) u` a row's log rate is
//!
//! ```text
//! d_r = p_r u + beta_r + e_r,    p_r = cov(d_r, tau) / sqrt(V),    e_r ~ Normal(0, v_r - p_r^2);
//! ```
//!
//! the tilt is by `s / sqrt(V) + sum_r p_r lambda_r v_r / 2`, and `beta_r` is the shift of the row's log rate given `tau = 0`.

use super::rows::{Group, Row};
use super::shape::{NODES, Shape, exponentials};
use super::{Expansion, NEGLIGIBLE};
use infermark_model::site::{Layout, Site};

/// A row of such a period.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeriodRow {
    /// Of its category and period.
    pub(super) slot: u32,
    /// At the mode.
    pub(super) rate: f64,
    /// `p_r`.
    pub(super) by: f64,
    /// `v_r`.
    pub(super) variance: f64,
    /// By how much the mean of its log rate is away from the mode, to first order.
    pub(super) shift: f64,
}

/// Periods in which a category has few sales.
pub(super) struct Few {
    layout: Layout,
    /// By category and period.
    slots: Vec<Option<u32>>,
    /// Places of their effects.
    places: Vec<usize>,
    /// By category.
    any: Vec<bool>,
}

impl Few {
    /// A third-order part of [`NEGLIGIBLE`] is about that of `1 / NEGLIGIBLE^2` sales: periods with fewer are looked at.
    pub(super) fn of(expansion: &Expansion<'_>) -> Self {
        let layout = expansion.counts.layout();
        let prior = expansion.counts.priors().time_cat_effects_sd.powi(-2);
        let diagonal = expansion.factor.diagonal();
        let mut few = Few {
            layout,
            slots: Vec::with_capacity(layout.categories * layout.periods),
            places: Vec::new(),
            any: vec![false; layout.categories],
        };
        for (k, place) in layout.range(Site::TimeCatEffects).enumerate() {
            // The rates of its rows.
            let sales = diagonal[place] - prior;
            let is_few = sales < NEGLIGIBLE.powi(-2);
            few.slots.push(is_few.then_some(few.places.len() as u32));
            if is_few {
                few.places.push(place);
                few.any[k / layout.periods] = true;
            }
        }
        few
    }

    /// Whether a category has such periods.
    pub(super) fn has_any(&self, category: usize) -> bool {
        self.any[category]
    }

    /// The number of such a period by the place of its effect.
    pub(super) fn slot(&self, place: usize) -> Option<u32> {
        self.slots[place - self.layout.start(Site::TimeCatEffects)]
    }

    /// Places and shapes of those that are not about normal, from their rows by product.
    pub(super) fn marginals(
        &self,
        expansion: &Expansion<'_>,
        products: impl Iterator<Item = Vec<PeriodRow>>,
    ) -> Vec<(usize, Shape)> {
        let mut rows = vec![Vec::new(); self.places.len()];
        for row in products.flatten() {
            rows[row.slot as usize].push(row);
        }
        let variances = expansion.factor.variances_above_products();
        let of_part = |places: &[usize], rows: &[Vec<PeriodRow>]| -> Vec<(usize, Shape)> {
            let shape = |(place, rows): (&usize, &Vec<PeriodRow>)| {
                Some((*place, shape(expansion, *place, variances[*place], rows)?))
            };
            places.iter().zip(rows).filter_map(shape).collect()
        };
        let part = self.places.len().div_ceil(expansion.factor.threads()).max(1);
        std::thread::scope(|scope| {
            let parts: Vec<_> = self
                .places
                .chunks(part)
                .zip(rows.chunks(part))
                .map(|(places, rows)| scope.spawn(move || of_part(places, rows)))
                .collect();
            let join = |part: std::thread::ScopedJoinHandle<'_, Vec<(usize, Shape)>>| {
                part.join().expect("a rule of nodes cannot fail")
            };
            parts.into_iter().flat_map(join).collect()
        })
    }
}

fn shape(expansion: &Expansion<'_>, place: usize, variance: f64, rows: &[PeriodRow]) -> Option<Shape> {
    let third: f64 = rows.iter().map(|row| row.rate * row.by.abs().powi(3)).sum();
    if third < NEGLIGIBLE {
        return None;
    }
    let sd = variance.sqrt();
    let whitened = expansion.shift[place] / sd;
    let own = rows
        .iter()
        .map(|row| 0.5 * row.rate * row.variance * row.by)
        .sum::<f64>();
    let group = Group::new(rows.iter().map(|row| Row {
        rate: row.rate,
        variance: row.variance,
        by: [row.by, 0.0],
        shift: row.shift - row.by * whitened,
    }));
    let nodes = NODES.map(|(node, _)| [node, 0.0]);
    let mut weights = NODES.map(|(_, weight)| weight.ln());
    group.add_to(&mut weights, &nodes, [whitened + own, 0.0]);
    exponentials(&mut weights);
    Shape::new(
        expansion.point[place],
        &weights,
        NODES.iter().map(|(node, _)| sd * node),
    )
}
