//! Parts of a panel, built from the collected rows: products in the order of their labels, rows in that of
//! the periods.

use crate::read::columns::Columns;
use crate::read::defect::{Defects, Place};
use crate::read::shown::quoted;
use infermark_model::{Labels, PanelPart};

/// Consecutive rows of one product in the file; the run ends where the next starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) product: u32,
    pub(super) start: u32,
}

/// Which runs each product has, in file order.
pub(super) enum RunOrder {
    /// One run per product, in the order of the labels: run `i` is product `i`'s.
    InPlace,
    /// Run indices grouped by product, and where each product's group starts.
    Grouped { runs: Vec<u32>, start: Vec<u32> },
}

impl RunOrder {
    pub(super) fn new(runs: &[Run], rank: &[u32], products: usize) -> Self {
        let ranks = || runs.iter().map(|run| rank[run.product as usize] as usize);
        if ranks().enumerate().all(|(i, r)| i == r) {
            return RunOrder::InPlace;
        }
        let mut start = vec![0u32; products + 1];
        for r in ranks() {
            start[r + 1] += 1;
        }
        for r in 0..products {
            start[r + 1] += start[r];
        }
        let mut next = start.clone();
        let mut grouped = vec![0; runs.len()];
        for (i, r) in ranks().enumerate() {
            grouped[next[r] as usize] = i as u32;
            next[r] += 1;
        }
        RunOrder::Grouped { runs: grouped, start }
    }
}

/// The collected columns while parts are built from them.
pub(super) struct Rows<'l> {
    pub(super) order: RunOrder,
    pub(super) runs: &'l [Run],
    pub(super) period: &'l [u32],
    pub(super) price: &'l [f64],
    pub(super) units: &'l [u32],
    pub(super) period_rank: &'l [u32],
    pub(super) left_out: &'l [(usize, u64)],
}

impl Rows<'_> {
    pub(super) fn part(
        &self,
        members: std::ops::Range<usize>,
        category_of: &[u32],
        [products, categories, periods]: [&Labels; 3],
        columns: &Columns,
    ) -> (PanelPart, Defects) {
        let rows = members
            .clone()
            .map(|p| self.ranges(p).map(|r| r.len()).sum::<usize>())
            .sum();
        let mut part = PanelPart::with_capacity(categories.len(), periods.len(), members.len(), rows);
        let mut defects = Defects::default();
        let mut row_periods = Vec::new();
        let mut order: Vec<(u32, usize)> = Vec::new();
        let (mut prices, mut units) = (Vec::new(), Vec::new());
        for product in members {
            let rank = |row: usize| self.period_rank[self.period[row] as usize];
            let mut ranges = self.ranges(product);
            let (first, second) = (ranges.next(), ranges.next());
            row_periods.clear();
            if let (Some(range), None) = (&first, &second) {
                row_periods.extend(range.clone().map(rank));
            }
            let (prices, units): (&[f64], &[u32]) = match first {
                Some(range) if second.is_none() && row_periods.is_sorted_by(|a, b| a < b) => {
                    (&self.price[range.clone()], &self.units[range])
                }
                _ => {
                    order.clear();
                    order.extend(self.ranges(product).flatten().map(|row| (rank(row), row)));
                    order.sort_unstable();
                    for pair in order.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                        let period = || periods.get(pair[0].0 as usize).to_string();
                        let (place, other) = (self.place(pair[1].1), self.place(pair[0].1));
                        defects.push_repeated(place, other, &columns.period, &period, || {
                            let product = products.get(product).to_string();
                            format!("product {} has this period already, on", quoted(&product))
                        });
                    }
                    order.dedup_by_key(|(period, _)| *period);
                    row_periods.clear();
                    row_periods.extend(order.iter().map(|(period, _)| *period));
                    prices.clear();
                    prices.extend(order.iter().map(|(_, row)| self.price[*row]));
                    units.clear();
                    units.extend(order.iter().map(|(_, row)| self.units[*row]));
                    (&prices, &units)
                }
            };
            let category = category_of[product] as usize;
            part.push_product(category, Some(&row_periods), prices, units)
                .expect("periods ascend and prices were checked as they were read");
        }
        (part, defects)
    }

    /// Rows of a product, run by run.
    fn ranges(&self, product: usize) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let slots = match &self.order {
            RunOrder::InPlace => product..product + 1,
            RunOrder::Grouped { start, .. } => start[product] as usize..start[product + 1] as usize,
        };
        slots.map(move |slot| {
            let run = match &self.order {
                RunOrder::InPlace => slot,
                RunOrder::Grouped { runs, .. } => runs[slot] as usize,
            };
            let end = self
                .runs
                .get(run + 1)
                .map_or(self.period.len(), |next| next.start as usize);
            self.runs[run].start as usize..end
        })
    }

    /// The file's row of a row of the columns.
    fn place(&self, row: usize) -> Place {
        let earlier = self.left_out.partition_point(|(stored, _)| *stored <= row);
        let left_out = if earlier == 0 {
            0
        } else {
            self.left_out[earlier - 1].1
        };
        Place::Row(row as u64 + left_out)
    }
}
