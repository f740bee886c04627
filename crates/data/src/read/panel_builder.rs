//! The rows of a file in compact columns, and their assembly into a panel sorted by product and period.

mod parts;
mod spill;

use super::columns::Columns;
use super::defect::{Defects, Place};
use super::keys::Keys;
use super::periods::{Period, PeriodKind, Periods};
use super::shown::quoted;
use infermark_memory::{Shortage, gigabytes};
use infermark_model::{Axes, Panel, PanelPart, StoredPanel};
use infermark_scratch::{RowFilesWriter, ScratchError};
use parts::{Collected, Rows, Run, RunOrder};
use rayon::prelude::*;
pub use spill::RowStorage;
use spill::{HELD_ROWS, Spill, Spilled};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Largest number of units that a row may have, 2^31 - 1.
pub(crate) const MAX_UNITS: u32 = i32::MAX as u32;

/// Bytes of a row in the columns.
const ROW_BYTES: u64 = 16;
/// Approximate bytes of a key: the text, and its slot in a table that may be half empty and is copied as it
/// grows.
const KEY_BYTES: u64 = 120;
/// Bytes of the sum of a category's units in a period, and of the vectors of its period effect in the method
/// with the fewest.
const PERIOD_EFFECT_BYTES: u64 = 40;

/// Bytes of the tables by product and period (gaps, a bit each) and by category and period (sums) that a row
/// may bring, and that any panel may have: a million products over ten years of days have 0.46 GB. Far beyond
/// them a column is not what it was taken for, and a small file would take all memory. The tables exist twice
/// while parts are joined.
const TABLE_BYTES_A_ROW: u64 = 64;
const TABLE_BYTES_OF_ANY: u64 = 1 << 26;

/// A product's category, and the first row that gives it.
#[derive(Debug, Clone, Copy)]
struct Membership {
    category: u32,
    row: u64,
}

/// Why no more rows fit.
#[derive(Debug)]
pub(crate) enum Full {
    Memory(Shortage),
    Scratch(ScratchError),
}

/// Rows of one product and category, in columns without nulls.
pub(crate) struct FollowingRows<'a> {
    /// Whole numbers.
    pub(crate) period: &'a [i64],
    pub(crate) price: &'a [f64],
    pub(crate) units: &'a [i64],
}

/// The rows read so far. Keys are codes in the order of first appearance until [`PanelBuilder::assemble`] ranks them.
#[derive(Debug, Default)]
pub(crate) struct PanelBuilder {
    pub(crate) products: Keys,
    pub(crate) categories: Keys,
    pub(crate) periods: Periods,
    membership: Vec<Membership>,
    /// For each category, the first row that has the category but no product.
    orphans: HashMap<u32, u64>,
    /// Categories for which a skipped row gives a product.
    with_products_left_out: HashSet<u32>,
    /// The runs and rows that are held: all, or those after the ones in `spill`.
    runs: Vec<Run>,
    period: Vec<u32>,
    price: Vec<f64>,
    units: Vec<u32>,
    /// The product of the last row.
    last_product: Option<u32>,
    /// Rows that are not held, for a panel that is larger than memory.
    spill: Option<Spill>,
    /// Set when the next rows do not fit; no row is added from then on.
    full: Option<Full>,
    /// For skipped rows: how many stored rows precede, and how many rows were skipped up to there.
    left_out: Vec<(usize, u64)>,
}

impl PanelBuilder {
    /// A builder whose rows are stored in the scratch folder instead of memory.
    ///
    /// # Errors
    /// When it cannot be written to.
    pub(crate) fn stored(storage: &RowStorage) -> Result<Self, ScratchError> {
        Ok(PanelBuilder {
            spill: Some(Spill::new(storage)?),
            ..PanelBuilder::default()
        })
    }

    /// Reserves room for `rows` more rows if there is some.
    pub(crate) fn reserve(&mut self, rows: usize) {
        if let Some(spill) = &mut self.spill {
            self.full = spill.announce(rows).err().map(Full::Scratch);
            self.reserve_held(HELD_ROWS);
            return;
        }
        // A number of rows that does not fit may be wrong; if it is right, adding the rows will report it.
        if infermark_memory::check("", ROW_BYTES * rows as u64).is_ok() {
            let _ = self.period.try_reserve_exact(rows);
            let _ = self.price.try_reserve_exact(rows);
            let _ = self.units.try_reserve_exact(rows);
        }
    }

    fn reserve_held(&mut self, rows: usize) {
        self.period.reserve_exact(rows);
        self.price.reserve_exact(rows);
        self.units.reserve_exact(rows);
    }

    /// Whether no more rows fit.
    pub(crate) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Why not, if so.
    pub(crate) fn take_full(&mut self) -> Option<Full> {
        self.full.take()
    }

    /// How many rows there are.
    fn rows(&self) -> usize {
        self.spill.as_ref().map_or(0, Spill::rows) + self.period.len()
    }

    /// Doubles the capacity, or grows it by an eighth, after checking that the new rows and their keys fit in
    /// memory; or stores the rows that are held.
    #[cold]
    fn grow(&mut self) -> bool {
        let rows = self.rows();
        let keys = (self.products.len() + self.categories.len()) as u64;
        let stores = self.spill.is_some();
        let (row_bytes, steps) = match stores {
            true => (0, [HELD_ROWS; 2]),
            false => (ROW_BYTES, [rows.max(1 << 16), (rows / 8).max(1 << 14)]),
        };
        for more in steps {
            let new_keys = keys * more as u64 / rows.max(1) as u64;
            let needed = (row_bytes * more as u64).saturating_add(KEY_BYTES * new_keys);
            let what = format!("reading on after {rows} rows");
            match infermark_memory::check(what, needed) {
                Ok(()) if stores => {
                    self.full = self.store_held().err().map(Full::Scratch);
                    return self.full.is_none();
                }
                Ok(()) => {
                    self.full = None;
                    self.reserve_held(more);
                    return true;
                }
                Err(shortage) => self.full = Some(Full::Memory(shortage)),
            }
        }
        false
    }

    /// Stores the rows that are held.
    fn store_held(&mut self) -> Result<(), ScratchError> {
        if let Some(spill) = &mut self.spill {
            spill.append((&self.period, &self.price, &self.units), &self.runs)?;
            self.period.clear();
            self.price.clear();
            self.units.clear();
            self.runs.clear();
            self.reserve_held(HELD_ROWS);
        }
        Ok(())
    }

    /// Whether the panel of these rows fits in memory, with the least that any method needs in addition.
    pub(crate) fn panel_fits(&self) -> Result<(), Shortage> {
        let [products, categories, periods] =
            [self.products.len(), self.categories.len(), self.periods.len()].map(|n| n as u64);
        let presence = products.saturating_mul(8 * periods.div_ceil(64));
        let period_effects = categories.saturating_mul(periods);
        // Some rows exist in both forms at the same time.
        let row_bytes = if self.spill.is_some() { 0 } else { 13 };
        let needed = (row_bytes * self.rows() as u64)
            .saturating_add(presence.saturating_mul(2))
            .saturating_add(period_effects.saturating_mul(PERIOD_EFFECT_BYTES))
            .saturating_add(KEY_BYTES * (products + categories + periods));
        let what = format!(
            "a panel of {products} products, {categories} categories and {periods} periods, with {period_effects} period effects,"
        );
        infermark_memory::check(what, needed)
    }

    /// Adds a row with valid cells; `keys` are the codes of product, category and period.
    pub(crate) fn push(
        &mut self,
        row: u64,
        keys: (u32, u32, u32),
        price: f64,
        units: u32,
        columns: &Columns,
        defects: &mut Defects,
    ) {
        let (product, category, period) = keys;
        match self.membership.get(product as usize) {
            None => self.join(product, category, row),
            Some(known) if known.category == category => {}
            Some(known) if known.category == u32::MAX => self.join(product, category, row),
            Some(known) => {
                defects.push_pair(
                    Place::Row(row),
                    Some(Place::Row(known.row)),
                    &columns.category,
                    Some(&|| self.categories.name(category)),
                    || {
                        let (product, before) =
                            (self.products.name(product), self.categories.name(known.category));
                        (
                            format!(
                                "product {} has another category, {}, on",
                                quoted(&product),
                                quoted(&before)
                            ),
                            "give the product one category, or two names".into(),
                        )
                    },
                );
                self.has_product(category);
                self.leave_out();
                return;
            }
        }
        let Ok(start) = u32::try_from(self.rows()) else {
            defects.push(Place::Row(row), "", None, || {
                (
                    "the file has more than 4,294,967,295 rows".into(),
                    "split it by category".into(),
                )
            });
            self.leave_out();
            return;
        };
        if self.period.len() == self.period.capacity() && (self.full.is_some() || !self.grow()) {
            return;
        }
        if self.last_product != Some(product) {
            self.runs.push([product, start]);
            self.last_product = Some(product);
        }
        self.period.push(period);
        self.price.push(price);
        self.units.push(units);
    }

    /// Adds rows with the same codes of product and category as the row before, up to the first that has
    /// invalid cells or does not fit; returns their number. It does the same as [`PanelBuilder::period`] and
    /// [`PanelBuilder::push`] for each row.
    pub(crate) fn follow(
        &mut self,
        (product, category): (u32, u32),
        first_row: u64,
        rows: &FollowingRows<'_>,
    ) -> usize {
        let is_open = self.last_product == Some(product);
        let known = self.membership.get(product as usize);
        if !is_open || known.is_none_or(|known| known.category != category) || self.full.is_some() {
            return 0;
        }
        let held = self.period.len();
        let room = (self.period.capacity() - held).min((u32::MAX as usize).saturating_sub(self.rows()));
        let cells = rows.period.iter().zip(rows.price).zip(rows.units).take(room);
        for (i, ((period, price), units)) in cells.enumerate() {
            let sound = *price > 0.0 && price.is_finite() && (0..=i64::from(MAX_UNITS)).contains(units);
            let period = (PeriodKind::Integer, *period);
            let Some(code) = sound
                .then(|| self.periods.code(period, first_row + i as u64).ok())
                .flatten()
            else {
                break;
            };
            self.period.push(code);
            self.price.push(*price);
            self.units.push(*units as u32);
        }
        self.period.len() - held
    }

    fn join(&mut self, product: u32, category: u32, row: u64) {
        let unknown = Membership {
            category: u32::MAX,
            row: 0,
        };
        if self.membership.len() <= product as usize {
            self.membership.resize(product as usize + 1, unknown);
        }
        self.membership[product as usize] = Membership { category, row };
    }

    /// Code of a period, or a finding if the file mixes whole numbers and dates.
    pub(crate) fn period(
        &mut self,
        row: u64,
        period: Period,
        cell: impl Fn() -> String,
        columns: &Columns,
        defects: &mut Defects,
    ) -> Option<u32> {
        match self.periods.code(period, row) {
            Ok(code) => Some(code),
            Err((kind, first)) => {
                let place = Place::Row(row);
                defects.push_pair(
                    place,
                    Some(Place::Row(first)),
                    &columns.period,
                    Some(&cell),
                    || {
                        (
                            format!("the period is {} here and {} on", period.0.name(), kind.name()),
                            "write all periods in one way".into(),
                        )
                    },
                );
                None
            }
        }
    }

    /// Records that a row was not added, so that later rows keep their numbers.
    pub(crate) fn leave_out(&mut self) {
        let stored = self.rows();
        match self.left_out.last_mut() {
            Some((before, count)) if *before == stored => *count += 1,
            Some((_, count)) => {
                let count = *count + 1;
                self.left_out.push((stored, count));
            }
            None => self.left_out.push((stored, 1)),
        }
    }

    /// Whether there are so many rows that some pair of product and period must occur twice.
    pub(crate) fn more_rows_than_pairs(&self) -> bool {
        self.rows() as u64 > self.products.len() as u64 * self.periods.len() as u64
    }

    /// Records a row that has a category but no product.
    pub(crate) fn orphan(&mut self, category: u32, row: u64) {
        self.orphans.entry(category).or_insert(row);
    }

    /// Records that a skipped row gives the category a product.
    pub(crate) fn has_product(&mut self, category: u32) {
        self.with_products_left_out.insert(category);
    }

    /// The panel of all rows; `None`, with findings, if there are no rows or they contradict each other.
    ///
    /// # Errors
    /// When rows cannot be stored.
    pub(crate) fn assemble(
        mut self,
        columns: &Columns,
        defects: &mut Defects,
    ) -> Result<Option<Panel>, ScratchError> {
        self.store_held()?;
        let PanelBuilder {
            full: _,
            products,
            categories,
            periods,
            membership,
            orphans,
            with_products_left_out,
            runs,
            period,
            price,
            units,
            last_product: _,
            spill,
            left_out,
        } = self;
        let mut spilled = spill.map(Spill::finish).transpose()?;
        let held = Collected {
            runs: &runs,
            period: &period,
            price: &price,
            units: &units,
        };
        let collected = spilled.as_ref().map_or(held, Spilled::collected);
        let row_count = collected.period.len();
        let mut has_product = vec![false; categories.len()];
        for m in membership.iter().filter(|m| m.category != u32::MAX) {
            has_product[m.category as usize] = true;
        }
        let mut orphans: Vec<(u64, u32)> = orphans
            .into_iter()
            .filter(|(category, _)| {
                !has_product[*category as usize] && !with_products_left_out.contains(category)
            })
            .map(|(category, row)| (row, category))
            .collect();
        // In file order, so that only the names of the few kept findings are looked up.
        orphans.sort_unstable();
        for (row, category) in orphans {
            let name = || categories.name(category);
            defects.push(Place::Row(row), &columns.category, Some(&name), || {
                (
                    "the category has no products: none of its rows names one".into(),
                    "fill in its products or remove its rows".into(),
                )
            });
        }
        if row_count == 0 {
            if defects.is_empty() {
                defects.push(Place::File, "", None, || {
                    (
                        "the file has a header and no rows".into(),
                        "check how it was exported".into(),
                    )
                });
            }
            return Ok(None);
        }
        check_spellings(&products, &columns.product, defects);
        check_spellings(&categories, &columns.category, defects);
        let in_use = |product: u32| {
            membership
                .get(product as usize)
                .is_some_and(|m| m.category != u32::MAX)
        };
        let (products, product_rank) = products.into_labels(in_use);
        let (categories, category_rank) = categories.into_labels(|c| has_product[c as usize]);
        let (periods, period_rank) = periods.into_labels();

        let gap_bytes = products.len() as u64 * 8 * periods.len().div_ceil(64) as u64;
        let sum_bytes = categories.len() as u64 * 8 * periods.len() as u64;
        let table_bytes = gap_bytes.saturating_add(sum_bytes);
        if table_bytes > TABLE_BYTES_A_ROW * row_count as u64 + TABLE_BYTES_OF_ANY {
            defects.push(Place::File, &columns.period, None, || {
                (
                    format!(
                        "{} rows are spread over {} products, {} categories and {} periods, and the tables of their gaps and sums would \
                         take {}",
                        row_count,
                        products.len(),
                        categories.len(),
                        periods.len(),
                        gigabytes(table_bytes)
                    ),
                    "check that the column holds the week or month of a sale and not its date or time, and add up the sales of each; \
                     or split the file by category"
                        .into(),
                )
            });
            return Ok(None);
        }
        let mut category_of = vec![0; products.len()];
        for (product, m) in membership
            .iter()
            .enumerate()
            .filter(|(p, _)| product_rank[*p] != u32::MAX)
        {
            category_of[product_rank[product] as usize] = category_rank[m.category as usize];
        }
        let order = RunOrder::new(collected.runs, &product_rank, products.len(), spilled.as_ref())?;
        let storage = spilled.as_ref().map(|spilled| spilled.storage.clone());
        let without_rows = Rows {
            order: &order,
            collected: Collected::default(),
            period_rank: &period_rank,
            left_out: &left_out,
            window: storage.as_ref().map(|storage| &*storage.window),
        };
        // A part holds C * T sums: with few enough parts they are small compared with the rows.
        let group = (3 * categories.len()).max(1024);
        let members = |g: usize| g * group..((g + 1) * group).min(products.len());
        let groups = products.len().div_ceil(group);
        let part = |rows: &Rows<'_>, g: usize| {
            rows.part(
                members(g),
                &category_of,
                [&products, &categories, &periods],
                columns,
            )
        };
        if let (Some(spilled), Some(RowStorage { folder, window })) = (&mut spilled, &storage) {
            let is_in_place = matches!(order, RunOrder::InPlace);
            let mut writer = match is_in_place {
                true => RowFilesWriter::growing(folder, row_count)?,
                false => RowFilesWriter::new(folder, row_count)?,
            };
            let count = {
                let rows = Rows {
                    collected: spilled.collected(),
                    ..without_rows
                };
                (0..products.len())
                    .map(|product| rows.count(product) as u32)
                    .collect()
            };
            let axes = Axes {
                products: &products,
                categories: &categories,
                periods: &periods,
            };
            let mut panel = StoredPanel::new(axes, category_of.clone(), count)
                .expect("every rule was checked on the way");
            let at_once = rayon::current_num_threads();
            for first in (0..groups).step_by(at_once) {
                let rows = Rows {
                    collected: spilled.collected(),
                    ..without_rows
                };
                let end = (first + at_once).min(groups);
                let parts: Vec<(PanelPart, Defects)> =
                    (first..end).into_par_iter().map(|g| part(&rows, g)).collect();
                for (part, found) in parts {
                    defects.absorb(found);
                    // A repeated period leaves a product with fewer rows than were announced.
                    if defects.is_empty() {
                        let added = panel.add(part, |rows| writer.write(rows));
                        added.map_err(|cause| writer.error(cause))?;
                    }
                }
                if is_in_place && end < groups {
                    let done = rows.start(members(end).start);
                    spilled.discard(done);
                }
            }
            if !defects.is_empty() {
                return Ok(None);
            }
            let files = writer.finish(window)?;
            return Ok(Some(
                panel.finish([products, categories, periods], Arc::new(files)),
            ));
        }
        let rows = Rows {
            collected: held,
            ..without_rows
        };
        let groups: Vec<(PanelPart, Defects)> = (0..groups).into_par_iter().map(|g| part(&rows, g)).collect();
        drop((runs, period, price, units));
        let mut parts = Vec::with_capacity(groups.len());
        for (part, found) in groups {
            parts.push(part);
            defects.absorb(found);
        }
        if !defects.is_empty() {
            return Ok(None);
        }
        Ok(Some(
            Panel::from_parts(products, categories, periods, parts)
                .expect("every rule was checked on the way"),
        ))
    }
}

/// Reports whole numbers that are written in two ways, which may be one key or two.
fn check_spellings(keys: &Keys, column: &str, defects: &mut Defects) {
    for (text, other) in keys.two_spellings() {
        defects.push(Place::File, column, Some(&|| text.to_owned()), || {
            (
                format!("the same whole number is also written {}", quoted(other)),
                "write it in one way if both are one key, or rename one of the two".into(),
            )
        });
    }
}
