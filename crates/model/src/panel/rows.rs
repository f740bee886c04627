//! Some rows of a panel.

use super::{Panel, Presence, UnitSums};
use crate::ln_factorial::ln_factorial;
use std::ops::Range;

impl Panel {
    /// The panel with those of its rows alone that are in `rows`, in the order of products, then periods. Products, categories and
    /// periods stay, and what prices are measured from; products may be without rows.
    ///
    /// # Panics
    /// When `rows` ends beyond the last row, or the rows lie outside of memory or are spread over ranks.
    pub fn of_rows(&self, rows: Range<usize>) -> Panel {
        assert!(
            self.stored.is_none() && self.spread.is_none(),
            "all rows in memory"
        );
        let layout = self.layout();
        let within = |row: usize| row.clamp(rows.start, rows.end) - rows.start;
        let words_per_product = layout.periods.div_ceil(64);
        let mut presence = Presence {
            words_per_product,
            words: vec![0; layout.products * words_per_product],
        };
        let mut sums = UnitSums {
            category_period: vec![0; layout.categories * layout.periods],
            ..UnitSums::default()
        };
        for product in 0..layout.products {
            let category = self.category_of[product] as usize;
            let words = &mut presence.words[product * words_per_product..][..words_per_product];
            let (mut total, mut deviation, mut ln_factorials) = (0, 0.0, 0.0);
            for (at, row) in self.row_range(product).zip(self.product_rows(product)) {
                if !rows.contains(&at) {
                    continue;
                }
                words[row.period / 64] |= 1 << (row.period % 64);
                total += u64::from(row.units);
                let of_price = f64::from(self.deviation[at]) + f64::from(self.deviation_residual[at]);
                deviation += f64::from(row.units) * of_price;
                sums.category_period[category * layout.periods + row.period] += u64::from(row.units);
                ln_factorials += ln_factorial(row.units);
            }
            sums.ln_factorials += ln_factorials;
            sums.product.push(total);
            sums.product_deviation.push(deviation);
        }
        let is_dense = rows.len() == layout.products * layout.periods;
        Panel {
            products: self.products.clone(),
            categories: self.categories.clone(),
            periods: self.periods.clone(),
            category_of: self.category_of.clone(),
            row_start: self.row_start.iter().map(|row| within(*row)).collect(),
            presence: (!is_dense).then_some(presence),
            mean_log_price: self.mean_log_price.clone(),
            deviation: self.deviation[rows.clone()].to_vec(),
            deviation_residual: self.deviation_residual[rows.clone()].to_vec(),
            units: self.units[rows].to_vec(),
            sums,
            stored: None,
            spread: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, PanelPart};

    fn panel() -> Panel {
        let mut part = PanelPart::new(2, 70);
        for product in 0..9u32 {
            let periods: Vec<u32> = (product..70).step_by(1 + product as usize % 4).collect();
            let prices: Vec<f64> = periods
                .iter()
                .map(|t| 1.0 + f64::from(t * product % 11))
                .collect();
            let units: Vec<u32> = periods.iter().map(|t| t * 7 % 13 + product).collect();
            part.push_product(product as usize % 2, Some(&periods), &prices, &units)
                .unwrap();
        }
        let [p, c, t] = [("p", 9), ("c", 2), ("t", 70)].map(|(axis, n)| Labels::numbered(axis, n));
        Panel::from_parts(p, c, t, vec![part]).unwrap()
    }

    #[test]
    fn parts_have_the_rows_of_the_whole_and_their_sums() {
        let whole = panel();
        let rows = whole.rows();
        assert_eq!(whole.of_rows(0..rows), whole);
        for cuts in [vec![0, 1, 2, rows], vec![0, rows / 3, rows / 2, rows - 1, rows]] {
            let parts: Vec<Panel> = cuts.windows(2).map(|cut| whole.of_rows(cut[0]..cut[1])).collect();
            let mut total = UnitSums {
                product: vec![0; 9],
                product_deviation: vec![0.0; 9],
                category_period: vec![0; 140],
                ln_factorials: 0.0,
            };
            for part in &parts {
                assert_eq!(part.mean_log_price(), whole.mean_log_price());
                for (total, units) in total.product.iter_mut().zip(&part.sums().product) {
                    *total += units;
                }
                for (total, of) in total
                    .product_deviation
                    .iter_mut()
                    .zip(&part.sums().product_deviation)
                {
                    *total += of;
                }
                for (total, units) in total.category_period.iter_mut().zip(&part.sums().category_period) {
                    *total += units;
                }
                total.ln_factorials += part.sums().ln_factorials;
            }
            assert_eq!(total.product, whole.sums().product);
            assert_eq!(total.category_period, whole.sums().category_period);
            assert!((total.ln_factorials - whole.sums().ln_factorials).abs() < 1e-9);
            for product in 0..9 {
                let expected: Vec<_> = whole.product_rows(product).collect();
                let found: Vec<_> = parts.iter().flat_map(|part| part.product_rows(product)).collect();
                assert_eq!(found, expected);
                let off = total.product_deviation[product] - whole.sums().product_deviation[product];
                assert!(off.abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_part_of_a_dense_panel_has_gaps() {
        let mut part = PanelPart::new(1, 4);
        for _ in 0..3 {
            part.push_product(0, None, &[1.0, 2.0, 3.0, 4.0], &[1, 2, 3, 4])
                .unwrap();
        }
        let [p, c, t] = [("p", 3), ("c", 1), ("t", 4)].map(|(axis, n)| Labels::numbered(axis, n));
        let whole = Panel::from_parts(p, c, t, vec![part]).unwrap();
        let part = whole.of_rows(3..6);
        assert!(whole.is_dense() && !part.is_dense());
        assert_eq!(
            [0, 1, 2].map(|product| part.row_range(product)),
            [0..1, 1..3, 3..3]
        );
        assert_eq!(part.presence().unwrap().words, [8, 3, 0]);
        assert_eq!(part.sums().product, [4, 3, 0]);
    }
}
