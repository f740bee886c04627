//! Parts of a panel: filled product by product, joined by [`Panel::from_parts`](super::Panel::from_parts).

use super::{Panel, PanelError, UnitSums};
use crate::ln_factorial::ln_factorial;

/// Number of sums by category and period that a part may always hold, whatever its number of rows.
const FEW_SUMS: usize = 1 << 12;

/// Consecutive products of a panel; parts are filled independently, for instance one per thread.
#[derive(Debug, Clone)]
pub struct PanelPart {
    pub(super) categories: usize,
    pub(super) periods: usize,
    pub(super) category_of: Vec<u32>,
    pub(super) row_end: Vec<usize>,
    pub(super) presence: Vec<u64>,
    pub(super) mean_log_price: Vec<f64>,
    pub(super) deviation: Vec<f32>,
    pub(super) deviation_residual: Vec<f32>,
    pub(super) units: Vec<u32>,
    /// Its `category_period` is empty if it would be larger than the part's rows; the sums are then taken
    /// from the rows when parts are joined. Its `ln_factorials` is not used.
    pub(super) sums: UnitSums,
    /// `sum ln y!` of each product.
    pub(super) ln_factorials: Vec<f64>,
    log_price: Vec<f64>,
}

impl PanelPart {
    /// An empty part of a panel with C categories and T periods.
    pub fn new(categories: usize, periods: usize) -> Self {
        Self::with_capacity(categories, periods, 0, 0)
    }

    /// An empty part with room for `products` products and `rows` rows.
    pub fn with_capacity(categories: usize, periods: usize, products: usize, rows: usize) -> Self {
        PanelPart {
            categories,
            periods,
            category_of: Vec::with_capacity(products),
            row_end: Vec::with_capacity(products),
            presence: Vec::with_capacity(products * periods.div_ceil(64)),
            mean_log_price: Vec::with_capacity(products),
            deviation: Vec::with_capacity(rows),
            deviation_residual: Vec::with_capacity(rows),
            units: Vec::with_capacity(rows),
            sums: UnitSums {
                product: Vec::with_capacity(products),
                product_deviation: Vec::with_capacity(products),
                category_period: match categories.saturating_mul(periods) {
                    sums if sums <= rows.max(FEW_SUMS) => vec![0; sums],
                    _ => Vec::new(),
                },
                ln_factorials: 0.0,
            },
            ln_factorials: Vec::with_capacity(products),
            log_price: Vec::with_capacity(periods),
        }
    }

    /// Appends a product. `row_periods` are the periods of its rows, strictly ascending, or `None` when it has all
    /// T; `prices` (currency units) and `units` are one per row.
    ///
    /// # Errors
    /// [`PanelError`] names the product (by its index within the part) and the row; the part is unchanged in
    /// that case.
    pub fn push_product(
        &mut self,
        category: usize,
        row_periods: Option<&[u32]>,
        prices: &[f64],
        units: &[u32],
    ) -> Result<(), PanelError> {
        let product = self.category_of.len();
        self.check(product, category, row_periods, prices, units)?;
        let count = prices.len();

        self.log_price.clear();
        self.log_price.extend(prices.iter().map(|p| p.ln()));
        let mean = self.log_price.iter().sum::<f64>() / count as f64;
        let (mut weighted, mut ln_factorials) = (0.0, 0.0);
        for (log_price, y) in self.log_price.iter().zip(units) {
            let exact = log_price - mean;
            let high = exact as f32;
            let low = (exact - f64::from(high)) as f32;
            self.deviation.push(high);
            self.deviation_residual.push(low);
            weighted += f64::from(*y) * (f64::from(high) + f64::from(low));
            ln_factorials += ln_factorial(*y);
        }
        let words = self.periods.div_ceil(64);
        let first_word = self.presence.len();
        self.presence.resize(first_word + words, 0);
        let mut none = [];
        let totals = match &mut self.sums.category_period {
            sums if sums.is_empty() => none.as_mut_slice(),
            sums => &mut sums[category * self.periods..][..self.periods],
        };
        for (row, y) in units.iter().enumerate() {
            let period = row_periods.map_or(row, |p| p[row] as usize);
            self.presence[first_word + period / 64] |= 1 << (period % 64);
            if let Some(total) = totals.get_mut(period) {
                *total += u64::from(*y);
            }
        }
        self.units.extend_from_slice(units);
        self.category_of.push(category as u32);
        self.row_end.push(self.units.len());
        self.mean_log_price.push(mean);
        self.sums.product.push(units.iter().map(|y| u64::from(*y)).sum());
        self.sums.product_deviation.push(weighted);
        self.ln_factorials.push(ln_factorials);
        Ok(())
    }

    /// Appends a product of another panel, with its periods and regressors, in `category` of this one. `units`
    /// has one entry per row.
    ///
    /// # Errors
    /// Those of [`PanelPart::push_product`].
    pub fn push_product_of(
        &mut self,
        panel: &Panel,
        product: usize,
        category: usize,
        units: &[u32],
    ) -> Result<(), PanelError> {
        let rows = panel.product_rows(product);
        let (periods, prices): (Vec<u32>, Vec<f64>) =
            rows.map(|row| (row.period as u32, row.log_price.exp())).unzip();
        self.push_product(category, Some(&periods), &prices, units)
    }

    fn check(
        &self,
        product: usize,
        category: usize,
        row_periods: Option<&[u32]>,
        prices: &[f64],
        units: &[u32],
    ) -> Result<(), PanelError> {
        let count = prices.len();
        if count == 0 {
            return Err(PanelError::ProductWithoutRows { product });
        }
        let expected = row_periods.map_or(self.periods, <[u32]>::len);
        for (what, right) in [
            ("prices and units", units.len()),
            ("prices and periods", expected),
        ] {
            if count != right {
                return Err(PanelError::Length {
                    what,
                    left: count,
                    right,
                });
            }
        }
        if category >= self.categories {
            return Err(PanelError::OutOfRange {
                axis: "category",
                index: category,
                count: self.categories,
                product,
            });
        }
        if let Some(periods) = row_periods {
            if let Some(row) = (1..count).find(|r| periods[r - 1] >= periods[*r]) {
                return Err(PanelError::PeriodOrder { product, row });
            }
            let last = periods[count - 1] as usize;
            if last >= self.periods {
                return Err(PanelError::OutOfRange {
                    axis: "period",
                    index: last,
                    count: self.periods,
                    product,
                });
            }
        }
        if let Some(row) = prices.iter().position(|p| !(*p > 0.0 && p.is_finite())) {
            return Err(PanelError::Price {
                product,
                row,
                price: prices[row],
            });
        }
        Ok(())
    }

    /// Adds the part's units to `totals`, the panel's sums by category and period.
    pub(super) fn add_to(&self, totals: &mut [u64]) {
        if !self.sums.category_period.is_empty() {
            for (total, units) in totals.iter_mut().zip(&self.sums.category_period) {
                *total += units;
            }
            return;
        }
        let words = self.periods.div_ceil(64);
        let mut row = 0;
        for (product, category) in self.category_of.iter().enumerate() {
            let totals = &mut totals[*category as usize * self.periods..][..self.periods];
            for (at, word) in self.presence[product * words..][..words].iter().enumerate() {
                let mut word = *word;
                while word != 0 {
                    totals[64 * at + word.trailing_zeros() as usize] += u64::from(self.units[row]);
                    row += 1;
                    word &= word - 1;
                }
            }
        }
    }
}
