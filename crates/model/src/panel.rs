//! The panel: rows sorted by product, then period, dense or with gaps; in memory, or stored outside of it ([`StoredRows`]); all of them,
//! or those of one of the ranks that they are spread over ([`PanelRanks`]).
//!
//! A row's log price is held as its product's mean plus a deviation, and the deviation as two `f32` (value
//! and residual, together 48 bits). Fast passes read only the first, 4 bytes per row, which improves
//! precision: the deviation is small, so the product `elasticity * deviation` is rounded at 1e-8, not at
//! 1e-6. `f64` passes read both. Inside the clip bounds the counts enter the gradient only through
//! [`UnitSums`], which never change.

mod error;
mod part;
mod presence;
mod relative;
mod rows;
mod spread;
mod stored;

use crate::axes::Axes;
use crate::labels::Labels;
use crate::likelihood::Likelihood;
use crate::site::Layout;
use infermark_threads::run_parts;
use spread::Spread;
use stored::Stored;

pub use error::PanelError;
pub use part::PanelPart;
pub use presence::Presence;
pub use relative::RELATIVE_PRICE_STEP;
pub use spread::{AllProducts, OwnProducts, PanelRanks};
pub use stored::{RowsToStore, StoredNumbers, StoredPanel, StoredRows};

/// One row of the panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Index of the period, below T.
    pub period: usize,
    /// `ln price`, in the logarithm of the currency unit.
    pub log_price: f64,
    /// Units sold.
    pub units: u32,
}

/// Sums of the counts, exact: with them the gradient needs no count inside the clip bounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UnitSums {
    /// `sum_t y`, length N.
    pub product: Vec<u64>,
    /// `sum_t y * (ln price - mean ln price)`, length N.
    pub product_deviation: Vec<f64>,
    /// `sum_i y` in a category and period, length C * T, category-major.
    pub category_period: Vec<u64>,
    /// `sum ln y!` over all rows: the sum over the products of the sums over their rows.
    pub ln_factorials: f64,
}

/// The panel. Indices of products, categories and periods follow the sorted labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    products: Labels,
    categories: Labels,
    periods: Labels,
    category_of: Vec<u32>,
    row_start: Vec<usize>,
    presence: Option<Presence>,
    mean_log_price: Vec<f64>,
    deviation: Vec<f32>,
    deviation_residual: Vec<f32>,
    units: Vec<u32>,
    sums: UnitSums,
    /// Where the rows are if they lie outside of memory; the columns above are then empty.
    stored: Option<Stored>,
    /// What is known of all products if the rows are those of one rank; sums and numbers of rows are of all products.
    spread: Option<Spread>,
}

/// Checks that every category has a product.
fn check_categories(category_of: &[u32], categories: usize) -> Result<(), PanelError> {
    let mut seen = vec![false; categories];
    for category in category_of {
        seen[*category as usize] = true;
    }
    match seen.iter().position(|seen| !seen) {
        Some(category) => Err(PanelError::CategoryWithoutProducts { category }),
        None => Ok(()),
    }
}

impl Panel {
    /// Joins parts, each a run of consecutive products, into a panel. A part is freed as soon as it is copied.
    ///
    /// # Errors
    /// [`PanelError`] when labels and parts disagree, a category has no product, or there is no row.
    pub fn from_parts(
        products: Labels,
        categories: Labels,
        periods: Labels,
        parts: Vec<PanelPart>,
    ) -> Result<Self, PanelError> {
        OwnProducts::from_parts(products, categories, periods, parts)?.alone()
    }

    /// The same, where categories may be without products: [`OwnProducts::from_parts`].
    fn joined(
        products: Labels,
        categories: Labels,
        periods: Labels,
        parts: Vec<PanelPart>,
    ) -> Result<Self, PanelError> {
        let count: usize = parts.iter().map(|p| p.category_of.len()).sum();
        let rows: usize = parts.iter().map(|p| p.units.len()).sum();
        if rows == 0 {
            return Err(PanelError::Empty);
        }
        if count != products.len() {
            return Err(PanelError::Length {
                what: "products and their labels",
                left: count,
                right: products.len(),
            });
        }
        let (c, t) = (categories.len(), periods.len());
        let dense = rows == count * t;
        let words_per_product = t.div_ceil(64);
        let mut panel = Panel {
            products,
            categories,
            periods,
            category_of: Vec::with_capacity(count),
            row_start: Vec::with_capacity(count + 1),
            presence: (!dense).then(|| Presence {
                words_per_product,
                words: Vec::with_capacity(count * words_per_product),
            }),
            mean_log_price: Vec::with_capacity(count),
            deviation: vec![0.0; rows],
            deviation_residual: vec![0.0; rows],
            units: vec![0; rows],
            sums: UnitSums {
                category_period: vec![0; c * t],
                ..UnitSums::default()
            },
            stored: None,
            spread: None,
        };
        panel.row_start.push(0);
        let mut offset = 0;
        let mut columns = Vec::with_capacity(parts.len());
        for part in parts {
            for (what, left, right) in [
                ("categories of a part and of the panel", part.categories, c),
                ("periods of a part and of the panel", part.periods, t),
            ] {
                if left != right {
                    return Err(PanelError::Length { what, left, right });
                }
            }
            part.add_to(&mut panel.sums.category_period);
            panel
                .row_start
                .extend(part.row_end.iter().map(|end| offset + end));
            offset += part.units.len();
            panel.category_of.extend(part.category_of);
            panel.mean_log_price.extend(part.mean_log_price);
            columns.push((part.deviation, part.deviation_residual, part.units));
            panel.sums.product.extend(part.sums.product);
            panel.sums.product_deviation.extend(part.sums.product_deviation);
            part.ln_factorials
                .iter()
                .for_each(|of| panel.sums.ln_factorials += of);
            if let Some(presence) = &mut panel.presence {
                presence.words.extend(part.presence);
            }
        }
        panel.copy_rows(columns);
        Ok(panel)
    }

    /// Copies the rows of several consecutive parts at once: deviations, their residuals and units.
    fn copy_rows(&mut self, mut parts: Vec<(Vec<f32>, Vec<f32>, Vec<u32>)>) {
        let (mut deviation, mut residual, mut units) = (
            self.deviation.as_mut_slice(),
            self.deviation_residual.as_mut_slice(),
            self.units.as_mut_slice(),
        );
        let share = parts.len().div_ceil(infermark_threads::available()).max(1);
        run_parts(parts.chunks_mut(share).map(|parts| {
            let rows: usize = parts.iter().map(|part| part.0.len()).sum();
            let mut deviation = deviation.split_off_mut(..rows).expect("rows of all parts");
            let mut residual = residual.split_off_mut(..rows).expect("rows of all parts");
            let mut units = units.split_off_mut(..rows).expect("rows of all parts");
            move || {
                for part in parts {
                    // Freed once it is copied.
                    let (of_deviation, of_residual, of_units) = std::mem::take(part);
                    let rows = ..of_units.len();
                    deviation
                        .split_off_mut(rows)
                        .expect("room for the part")
                        .copy_from_slice(&of_deviation);
                    residual
                        .split_off_mut(rows)
                        .expect("room for the part")
                        .copy_from_slice(&of_residual);
                    units
                        .split_off_mut(rows)
                        .expect("room for the part")
                        .copy_from_slice(&of_units);
                }
            }
        }));
    }

    /// The labels along the axes.
    pub fn axes(&self) -> Axes<'_> {
        Axes {
            products: &self.products,
            categories: &self.categories,
            periods: &self.periods,
        }
    }

    /// N, C and T, and the positions of the latents under the Poisson likelihood, which is the published
    /// model.
    pub fn layout(&self) -> Layout {
        self.axes().layout()
    }

    /// The layout of the latents under `likelihood`.
    pub fn layout_for(&self, likelihood: Likelihood) -> Layout {
        self.layout().with_likelihood(likelihood)
    }

    /// Number of rows, of all ranks; see [`Panel::held_rows`].
    pub fn rows(&self) -> usize {
        match &self.spread {
            None => self.held_rows(),
            Some(spread) => spread.rows,
        }
    }

    /// The rows' columns, if they lie outside of memory. They are then in the order (category, product, period), and only those of
    /// one [`Panel::row_range`] after the other should be read.
    pub fn stored(&self) -> Option<&dyn StoredRows> {
        self.stored.as_ref().map(|stored| &*stored.columns)
    }

    /// Whether every product has every period.
    pub fn is_dense(&self) -> bool {
        self.presence.is_none()
    }

    /// Product labels, sorted.
    pub fn products(&self) -> &Labels {
        &self.products
    }

    /// Category labels, sorted.
    pub fn categories(&self) -> &Labels {
        &self.categories
    }

    /// Period labels, sorted.
    pub fn periods(&self) -> &Labels {
        &self.periods
    }

    /// Category index of every product, length N.
    pub fn category_of(&self) -> &[u32] {
        &self.category_of
    }

    /// Which periods each product has; `None` when every product has all periods.
    pub fn presence(&self) -> Option<&Presence> {
        self.presence.as_ref()
    }

    /// Row range of a product in the row columns.
    ///
    /// # Panics
    /// When another rank holds the rows.
    #[inline]
    pub fn row_range(&self, product: usize) -> std::ops::Range<usize> {
        let rows = match &self.stored {
            None => self.row_start[product]..self.row_start[product + 1],
            Some(stored) => stored.range(product),
        };
        if rows.is_empty() {
            self.refuse_elsewhere(product);
        }
        rows
    }

    /// Number of rows of a product, wherever they are held.
    #[inline]
    pub fn rows_of(&self, product: usize) -> usize {
        if let Some(spread) = &self.spread {
            return spread.rows_of[product] as usize;
        }
        match &self.stored {
            None => self.row_start[product + 1] - self.row_start[product],
            Some(stored) => stored.count[product] as usize,
        }
    }

    /// Mean of `ln price` over each product's rows, length N.
    pub fn mean_log_price(&self) -> &[f64] {
        &self.mean_log_price
    }

    /// `ln price - mean ln price` rounded to `f32`, one per row that is held here; the fast passes read it.
    #[inline]
    pub fn deviation(&self) -> &[f32] {
        match &self.stored {
            None => &self.deviation,
            Some(stored) => stored.columns.deviation(),
        }
    }

    /// The part that rounding removed from [`Panel::deviation`], one per row: `deviation + residual` is good
    /// to 2^-48 of the deviation.
    #[inline]
    pub fn deviation_residual(&self) -> &[f32] {
        match &self.stored {
            None => &self.deviation_residual,
            Some(stored) => stored.columns.deviation_residual(),
        }
    }

    /// Units sold, one per row that is held here.
    #[inline]
    pub fn units(&self) -> &[u32] {
        match &self.stored {
            None => &self.units,
            Some(stored) => stored.columns.units(),
        }
    }

    /// The sums of the counts.
    pub fn sums(&self) -> &UnitSums {
        &self.sums
    }

    /// The log prices of a product's rows, by period.
    pub fn log_prices(&self, product: usize) -> impl ExactSizeIterator<Item = f64> + Clone + '_ {
        let rows = self.row_range(product);
        let mean = self.mean_log_price[product];
        let parts = self.deviation()[rows.clone()]
            .iter()
            .zip(&self.deviation_residual()[rows]);
        parts.map(move |(deviation, residual)| mean + (f64::from(*deviation) + f64::from(*residual)))
    }

    /// The rows of a product, by period.
    pub fn product_rows(&self, product: usize) -> impl Iterator<Item = Row> + Clone + '_ {
        let range = self.row_range(product);
        let (deviation, residual, units) = (self.deviation(), self.deviation_residual(), self.units());
        let mut period = 0;
        range.map(move |row| {
            if let Some(presence) = &self.presence {
                let words = presence.product(product);
                while words[period / 64] >> (period % 64) & 1 == 0 {
                    period += 1;
                }
            }
            let log_price =
                self.mean_log_price[product] + (f64::from(deviation[row]) + f64::from(residual[row]));
            period += 1;
            Row {
                period: period - 1,
                log_price,
                units: units[row],
            }
        })
    }

    /// Products ordered by category, then by index: the order in which fast passes walk the panel, so that a
    /// category's period effects stay in the nearest cache.
    pub fn products_by_category(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.category_of.len() as u32).collect();
        order.sort_by_key(|p| self.category_of[*p as usize]);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(c: usize, t: usize, n: usize) -> (Labels, Labels, Labels) {
        (
            Labels::numbered("p", n),
            Labels::numbered("c", c),
            Labels::numbered("t", t),
        )
    }

    #[test]
    fn gaps_are_kept_and_parts_join_in_order() {
        let mut first = PanelPart::new(2, 70);
        first
            .push_product(1, Some(&[0, 63, 64, 69]), &[1.5, 2.5, 3.25, 7.75], &[1, 0, 5, 2])
            .unwrap();
        let mut second = PanelPart::new(2, 70);
        second.push_product(0, Some(&[65]), &[9.99], &[3]).unwrap();
        let (p, c, t) = numbered(2, 70, 2);
        let panel = Panel::from_parts(p, c, t, vec![first, second]).unwrap();
        assert!(!panel.is_dense());
        let rows: Vec<Row> = panel.product_rows(0).collect();
        assert_eq!(rows.iter().map(|r| r.period).collect::<Vec<_>>(), [0, 63, 64, 69]);
        for (row, price) in rows.iter().zip([1.5f64, 2.5, 3.25, 7.75]) {
            assert!((row.log_price - price.ln()).abs() < 1e-14);
        }
        assert_eq!(panel.product_rows(1).next().unwrap().period, 65);
        assert_eq!(panel.row_range(1), 4..5);
        assert_eq!(panel.sums().product, [8, 3]);
        assert_eq!(panel.sums().category_period[70 + 64], 5);
        assert_eq!(panel.sums().category_period[65], 3);
        assert_eq!(panel.products_by_category(), [1, 0]);
    }

    #[test]
    fn sums_larger_than_a_part_are_made_as_parts_are_joined() {
        let (categories, periods) = (90, 130);
        let mut few = PanelPart::new(categories, periods);
        let mut room = PanelPart::with_capacity(categories, periods, categories, categories * periods);
        for category in 0..categories {
            let at = [category as u32 % 64, 64 + category as u32 % 66];
            for part in [&mut few, &mut room] {
                part.push_product(category, Some(&at), &[1.0, 2.0], &[3, category as u32])
                    .unwrap();
            }
        }
        assert!(few.sums.category_period.is_empty() && !room.sums.category_period.is_empty());
        let panels = [few, room].map(|part| {
            let (p, c, t) = numbered(categories, periods, categories);
            Panel::from_parts(p, c, t, vec![part]).unwrap()
        });
        assert_eq!(panels[0], panels[1]);
        assert_eq!(panels[0].sums().category_period[64 + 5 + 5 * periods], 5);
    }

    #[test]
    fn rows_that_make_no_panel_are_refused() {
        let mut part = PanelPart::new(1, 3);
        assert!(matches!(
            part.push_product(0, None, &[1.0], &[1]),
            Err(PanelError::Length { .. })
        ));
        assert!(matches!(
            part.push_product(0, Some(&[1, 1]), &[1.0, 1.0], &[1, 1]),
            Err(PanelError::PeriodOrder { row: 1, .. })
        ));
        assert!(matches!(
            part.push_product(0, Some(&[3]), &[1.0], &[1]),
            Err(PanelError::OutOfRange { .. })
        ));
        assert!(matches!(
            part.push_product(0, Some(&[0]), &[-1.0], &[1]),
            Err(PanelError::Price { .. })
        ));
        assert!(matches!(
            part.push_product(1, Some(&[0]), &[1.0], &[1]),
            Err(PanelError::OutOfRange { .. })
        ));
        let (p, c, t) = numbered(1, 3, 0);
        assert_eq!(
            Panel::from_parts(p, c, t, vec![part.clone()]),
            Err(PanelError::Empty)
        );
        part.push_product(0, Some(&[0]), &[1.0], &[1]).unwrap();
        let mut wide = PanelPart::new(2, 3);
        wide.push_product(0, None, &[1.0; 3], &[1; 3]).unwrap();
        let (p, c, t) = numbered(2, 3, 1);
        assert_eq!(
            Panel::from_parts(p, c, t, vec![wide]),
            Err(PanelError::CategoryWithoutProducts { category: 1 })
        );
        // As many category-periods as the panel, but not its own.
        let mut turned = PanelPart::new(2, 3);
        turned.push_product(0, None, &[1.0; 3], &[1; 3]).unwrap();
        let (p, c, t) = numbered(3, 2, 1);
        let error = Panel::from_parts(p, c, t, vec![turned]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "categories of a part and of the panel: 2 against 3"
        );
    }
}
