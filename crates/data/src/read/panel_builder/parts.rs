//! Parts of a panel, built from the collected rows: products in the order of their labels, rows in that of
//! the periods.

use super::spill::Spilled;
use crate::read::columns::Columns;
use crate::read::defect::{Defects, Place};
use crate::read::shown::quoted;
use infermark_model::{Labels, PanelPart};
use infermark_scratch::{Column, ScratchError, Window};

/// Consecutive rows of one product in the file: the code of the product, and the first row. The run ends where the next starts.
pub(super) type Run = [u32; 2];

/// Which runs each product has, in file order.
pub(super) enum RunOrder {
    /// One run per product, in the order of the labels: run `i` is product `i`'s.
    InPlace,
    /// Run indices grouped by product, and where each product's group starts.
    Grouped { runs: Indices, start: Vec<u32> },
}

/// Numbers that are held, or stored like the rows.
pub(super) enum Indices {
    Held(Vec<u32>),
    Stored(Column<u32>),
}

impl Indices {
    fn as_slice(&self) -> &[u32] {
        match self {
            Indices::Held(indices) => indices,
            Indices::Stored(column) => column.as_slice(),
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u32] {
        match self {
            Indices::Held(indices) => indices,
            Indices::Stored(column) => column.as_mut_slice(),
        }
    }
}

impl RunOrder {
    pub(super) fn new(
        runs: &[Run],
        rank: &[u32],
        products: usize,
        spilled: Option<&Spilled>,
    ) -> Result<Self, ScratchError> {
        let window = spilled.map(|spilled| &*spilled.storage.window);
        let ranks = || {
            runs.iter().map(|[product, _]| {
                visit(window, size_of::<Run>(), false);
                rank[*product as usize] as usize
            })
        };
        if ranks().enumerate().all(|(i, r)| i == r) {
            return Ok(RunOrder::InPlace);
        }
        let mut start = vec![0u32; products + 1];
        for r in ranks() {
            start[r + 1] += 1;
        }
        for r in 0..products {
            start[r + 1] += start[r];
        }
        let mut next = start.clone();
        let mut grouped = match spilled {
            None => Indices::Held(vec![0; runs.len()]),
            Some(Spilled { storage, .. }) => {
                Indices::Stored(Column::zeroed(&storage.folder, runs.len(), &storage.window)?)
            }
        };
        let slots = grouped.as_mut_slice();
        for (i, r) in ranks().enumerate() {
            slots[next[r] as usize] = i as u32;
            next[r] += 1;
            visit(window, size_of::<u32>(), true);
        }
        Ok(RunOrder::Grouped { runs: grouped, start })
    }
}

/// Announces that some bytes are read next, where there is a bound on them.
fn visit(window: Option<&Window>, bytes: usize, apart: bool) {
    if let Some(window) = window {
        window.visit(bytes, apart);
    }
}

/// The columns of all rows, in the order of the file.
#[derive(Clone, Copy, Default)]
pub(super) struct Collected<'l> {
    pub(super) runs: &'l [Run],
    pub(super) period: &'l [u32],
    pub(super) price: &'l [f64],
    pub(super) units: &'l [u32],
}

/// The collected columns while parts are built from them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'l> {
    pub(super) order: &'l RunOrder,
    pub(super) collected: Collected<'l>,
    pub(super) period_rank: &'l [u32],
    pub(super) left_out: &'l [(usize, u64)],
    /// The bound on what is resident of rows outside of memory.
    pub(super) window: Option<&'l Window>,
}

/// The problem with a second row of a product and period.
pub(in crate::read) fn repeated_problem(products: &Labels, product: usize) -> String {
    let product = products.get(product).to_string();
    format!("product {} has this period already, on", quoted(&product))
}

/// Rows of a run below which it lies apart from the one before.
const SHORT_RUN: usize = 64;

impl Rows<'_> {
    pub(super) fn part(
        &self,
        members: std::ops::Range<usize>,
        category_of: &[u32],
        [products, categories, periods]: [&Labels; 3],
        columns: &Columns,
    ) -> (PanelPart, Defects) {
        let rows = members.clone().map(|product| self.count(product)).sum();
        let Collected {
            period,
            price,
            units: all_units,
            ..
        } = self.collected;
        let mut part = PanelPart::with_capacity(categories.len(), periods.len(), members.len(), rows);
        let mut defects = Defects::default();
        let mut row_periods = Vec::new();
        let mut order: Vec<(u32, usize)> = Vec::new();
        let (mut prices, mut units) = (Vec::new(), Vec::new());
        for product in members {
            let rank = |row: usize| self.period_rank[period[row] as usize];
            let mut ranges = self
                .ranges(product)
                .inspect(|rows| visit(self.window, 16 * rows.len(), rows.len() < SHORT_RUN));
            let (first, second) = (ranges.next(), ranges.next());
            row_periods.clear();
            if let (Some(range), None) = (&first, &second) {
                row_periods.extend(range.clone().map(rank));
            }
            let (prices, units): (&[f64], &[u32]) = match first {
                Some(range) if second.is_none() && row_periods.is_sorted_by(|a, b| a < b) => {
                    (&price[range.clone()], &all_units[range])
                }
                _ => {
                    order.clear();
                    order.extend(self.ranges(product).flatten().map(|row| {
                        visit(self.window, 16, true);
                        (rank(row), row)
                    }));
                    order.sort_unstable();
                    for pair in order.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                        let period = || periods.get(pair[0].0 as usize).to_string();
                        let (place, other) = (self.place(pair[1].1), self.place(pair[0].1));
                        let repeated = [product, pair[0].0 as usize];
                        defects.push_repeated(place, other, repeated, &columns.period, &period, || {
                            repeated_problem(products, product)
                        });
                    }
                    order.dedup_by_key(|(period, _)| *period);
                    row_periods.clear();
                    row_periods.extend(order.iter().map(|(period, _)| *period));
                    prices.clear();
                    prices.extend(order.iter().map(|(_, row)| price[*row]));
                    units.clear();
                    units.extend(order.iter().map(|(_, row)| all_units[*row]));
                    (&prices, &units)
                }
            };
            let category = category_of[product] as usize;
            part.push_product(category, Some(&row_periods), prices, units)
                .expect("periods ascend and prices were checked as they were read");
        }
        (part, defects)
    }

    /// Number of rows of a product.
    pub(super) fn count(&self, product: usize) -> usize {
        self.ranges(product).map(|rows| rows.len()).sum()
    }

    /// The first row of a product that has one run.
    pub(super) fn start(&self, product: usize) -> usize {
        self.ranges(product).next().map_or(0, |rows| rows.start)
    }

    /// Rows of a product, run by run.
    fn ranges(&self, product: usize) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let slots = match self.order {
            RunOrder::InPlace => product..product + 1,
            RunOrder::Grouped { start, .. } => start[product] as usize..start[product + 1] as usize,
        };
        slots.map(move |slot| {
            let run = match self.order {
                RunOrder::InPlace => slot,
                RunOrder::Grouped { runs, .. } => runs.as_slice()[slot] as usize,
            };
            let Collected { runs, period, .. } = self.collected;
            let end = runs
                .get(run + 1)
                .map_or(period.len(), |[_, start]| *start as usize);
            runs[run][1] as usize..end
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
