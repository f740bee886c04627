//! Prices relative to each product's usual price.

use super::Panel;
use infermark_threads::run_parts;
use std::io;
use std::sync::Arc;

/// Log prices relative to the usual one are multiples of this, 2^-20: a price is kept to a millionth.
///
/// The logarithms of the same price in dollars and in cents, each less the mean of its product's, differ by
/// some 1e-15. On this grid they are bit-equal, except for about one row in 2e8, so that every method,
/// deterministic or not, does the same arithmetic in any unit of price. Below 16, which is a price 9 million
/// times the usual one, multiples of 2^-20 are exact in single precision too.
pub const RELATIVE_PRICE_STEP: f64 = 1.0 / (1 << 20) as f64;

impl Panel {
    /// The panel with `ln(price / usual)` where it had `ln price`; `usual` is the geometric mean of a product's prices over its
    /// rows. [`Panel::mean_log_price`] is then 0. Every log price is rounded to a multiple of [`RELATIVE_PRICE_STEP`].
    ///
    /// The same sales in another unit of price give a bit-identical panel. Every rank that holds rows takes part.
    ///
    /// # Errors
    /// Where the rows lie outside of memory, the system's error of writing them.
    ///
    /// # Panics
    /// When rows outside of memory are those of another panel as well.
    pub fn into_relative_prices(self) -> io::Result<Self> {
        let mut panel = match self.stored {
            None => self.made_relative_in_memory(),
            Some(_) => self.stored_with_relative_prices()?,
        };
        // Of products that are held elsewhere, zeros so far.
        let mut weighted = std::mem::take(&mut panel.sums.product_deviation);
        panel.sum_over_ranks(&mut weighted);
        panel.sums.product_deviation = weighted;
        Ok(panel)
    }

    fn stored_with_relative_prices(mut self) -> io::Result<Self> {
        let stored = self.stored.as_mut().expect("the rows are stored");
        let columns = Arc::get_mut(&mut stored.columns).expect("the rows are those of one panel");
        let (mut deviation, mut residual) = (Vec::new(), Vec::new());
        for (product, (first, count)) in stored.first.iter().zip(&stored.count).enumerate() {
            let rows = *first..*first + *count as usize;
            columns.visit(&rows);
            deviation.clear();
            deviation.extend_from_slice(&columns.deviation()[rows.clone()]);
            residual.clear();
            residual.extend_from_slice(&columns.deviation_residual()[rows.clone()]);
            self.sums.product_deviation[product] =
                made_relative(&mut deviation, &mut residual, &columns.units()[rows]);
            self.mean_log_price[product] = 0.0;
            columns.replace_prices(*first, &deviation, &residual)?;
        }
        Ok(self)
    }

    /// [`Panel::into_relative_prices`] of rows in memory.
    ///
    /// # Panics
    /// When the rows lie outside of memory.
    pub fn with_relative_prices(self) -> Self {
        assert!(self.stored.is_none(), "rows in memory");
        self.into_relative_prices().expect("nothing is written")
    }

    fn made_relative_in_memory(mut self) -> Self {
        let products = self.category_of.len();
        let share = products.div_ceil(infermark_threads::available()).max(1);
        let Panel {
            row_start,
            deviation,
            deviation_residual,
            units,
            mean_log_price,
            sums,
            ..
        } = &mut self;
        let (row_start, units) = (&*row_start, &*units);
        let (mut deviation, mut residual) = (deviation.as_mut_slice(), deviation_residual.as_mut_slice());
        let means = mean_log_price.chunks_mut(share);
        let shares = means.zip(sums.product_deviation.chunks_mut(share)).enumerate();
        run_parts(shares.map(|(of, (means, weighted))| {
            let starts = &row_start[of * share..][..=means.len()];
            let rows = starts[0]..starts[means.len()];
            let deviation = deviation
                .split_off_mut(..rows.len())
                .expect("there are as many rows");
            let residual = residual
                .split_off_mut(..rows.len())
                .expect("there are as many rows");
            move || {
                for (product, bounds) in starts.windows(2).enumerate() {
                    let own = bounds[0] - rows.start..bounds[1] - rows.start;
                    means[product] = 0.0;
                    weighted[product] = made_relative(
                        &mut deviation[own.clone()],
                        &mut residual[own],
                        &units[bounds[0]..bounds[1]],
                    );
                }
            }
        }));
        self
    }

    /// The products whose price is the same in all rows, so that their sales carry no information on price
    /// response. Every rank that holds rows takes part.
    pub fn constant_price_products(&self) -> Vec<usize> {
        let is_constant = |product: usize| {
            let rows = self.row_range(product);
            let (deviation, residual) = (&self.deviation()[rows.clone()], &self.deviation_residual()[rows]);
            let (first, rest) = (deviation[0], residual[0]);
            deviation.iter().all(|d| *d == first) && residual.iter().all(|r| *r == rest)
        };
        let found = self.of_all_products(|product| [f64::from(u8::from(is_constant(product)))]);
        let all = found.iter().enumerate();
        all.filter(|(_, [is_constant])| *is_constant > 0.0)
            .map(|(product, _)| product)
            .collect()
    }
}

/// Turns a product's log prices into relative ones; returns the sum of its counts times these.
fn made_relative(deviation: &mut [f32], residual: &mut [f32], units: &[u32]) -> f64 {
    let mut sum = 0.0;
    for ((high, low), units) in deviation.iter_mut().zip(residual).zip(units) {
        let exact = f64::from(*high) + f64::from(*low);
        // The sum turns -0 into 0, which differ in their bits.
        let kept = (exact / RELATIVE_PRICE_STEP).round() * RELATIVE_PRICE_STEP + 0.0;
        *high = kept as f32;
        *low = (kept - f64::from(kept as f32)) as f32 + 0.0;
        sum += f64::from(*units) * kept;
    }
    sum
}

#[cfg(test)]
mod tests {
    use crate::{Labels, Panel, PanelPart};

    /// Prices of 40 products in the given unit: whole cents times `per_cent`.
    fn panel(per_cent: f64) -> Panel {
        let mut part = PanelPart::new(1, 50);
        for product in 0..40u32 {
            // 29 to 5,000,000 cents, moved by up to a factor of e; the last three products keep their price.
            let usual = 29.0 * 1.36f64.powi(product as i32);
            let prices: Vec<f64> = (0..50u32)
                .map(|week| {
                    let move_ = f64::from((product * 7 + week * 13) % 101) / 100.0;
                    let moves = f64::from(u32::from(product < 37));
                    (usual * (moves * move_).exp()).round() * per_cent
                })
                .collect();
            let units: Vec<u32> = (0..50).map(|week| (week * 31 + product) % 17).collect();
            part.push_product(0, None, &prices, &units).unwrap();
        }
        Panel::from_parts(
            Labels::numbered("p", 40),
            Labels::numbered("c", 1),
            Labels::numbered("t", 50),
            vec![part],
        )
        .unwrap()
    }

    #[test]
    fn the_unit_of_price_drops_out_to_the_bit() {
        let dollars = panel(0.01).with_relative_prices();
        // Exact in cents, and in yen at 1.5 per cent; the others are rounded as in files.
        for per_cent in [1.0, 1.5, 0.01 / 7.0, 1e-30, 1e200] {
            assert_eq!(panel(per_cent).with_relative_prices(), dollars, "{per_cent}");
        }
        let negative_zeros = dollars
            .deviation()
            .iter()
            .filter(|d| d.to_bits() == (-0.0f32).to_bits());
        assert_eq!(negative_zeros.count(), 0);
    }

    #[test]
    fn prices_are_relative_to_the_geometric_mean() {
        let (original, relative) = (panel(1.0), panel(1.0).with_relative_prices());
        for product in 0..40 {
            assert_eq!(relative.mean_log_price()[product], 0.0);
            let mean = original.mean_log_price()[product];
            let mut weighted = 0.0;
            for (old, new) in original.product_rows(product).zip(relative.product_rows(product)) {
                assert!(
                    (old.log_price - mean - new.log_price).abs() <= 0.5 * super::RELATIVE_PRICE_STEP + 1e-14
                );
                weighted += f64::from(new.units) * new.log_price;
            }
            assert!((relative.sums().product_deviation[product] - weighted).abs() < 1e-9);
        }
        assert!(
            relative
                .deviation_residual()
                .iter()
                .all(|residual| *residual == 0.0)
        );
        assert_eq!(original.constant_price_products(), [37, 38, 39]);
        assert_eq!(relative.constant_price_products(), [37, 38, 39]);
    }
}
