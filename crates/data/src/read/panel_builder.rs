//! The rows of a file in compact columns, and their assembly into a panel sorted by product and period.

mod assemble;
mod census;
mod parts;
mod spill;

use super::columns::Columns;
use super::defect::{Defects, Place};
use super::keys::Keys;
use super::periods::{Period, PeriodKind, Periods};
use super::shown::quoted;
pub(crate) use assemble::Ranked;
pub(crate) use census::Own;
use census::{BETWEEN_CHECKS, Census};
use infermark_memory::Shortage;
use infermark_scratch::ScratchError;
use parts::Run;
pub(in crate::read) use parts::repeated_problem;
pub use spill::RowStorage;
use spill::{HELD_ROWS, Spill};
use std::collections::{HashMap, HashSet};

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
    /// For a file that is read in two passes.
    census: Option<Census>,
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

    /// Reserves room for `rows` more rows if there is some, unless they are only counted, or their number is known.
    pub(crate) fn reserve(&mut self, rows: usize) {
        if self.census.is_none() {
            self.make_room(rows);
        }
    }

    fn make_room(&mut self, rows: usize) {
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

    /// How many rows are kept.
    fn rows(&self) -> usize {
        self.spill.as_ref().map_or(0, Spill::rows) + self.period.len()
    }

    /// How many rows there are that this pass keeps or counts.
    fn counted(&self) -> usize {
        match &self.census {
            Some(census) if census.is_first_pass() => census.rows(),
            _ => self.rows(),
        }
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
        let Ok(start) = u32::try_from(self.counted()) else {
            defects.push(Place::Row(row), "", None, || {
                (
                    "the file has more than 4,294,967,295 rows".into(),
                    "split it by category".into(),
                )
            });
            self.leave_out();
            return;
        };
        if self.census.is_some() && !self.is_kept(product, row) {
            return;
        }
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
        if let Some(census) = &self.census
            && !census.keeps(product)
        {
            return self.follow_uncollected(product, first_row, rows);
        }
        let held = self.period.len();
        let room = (self.period.capacity() - held).min((u32::MAX as usize).saturating_sub(self.rows()));
        let cells = rows.period.iter().zip(rows.price).zip(rows.units).take(room);
        for (i, ((period, price), units)) in cells.enumerate() {
            let row = first_row + i as u64;
            let Some(code) = self.code_if_sound(*period, *price, *units, row) else {
                break;
            };
            self.period.push(code);
            self.price.push(*price);
            self.units.push(*units as u32);
        }
        let added = self.period.len() - held;
        if let Some(census) = &mut self.census {
            census.takes(product, first_row, added);
        }
        added
    }

    /// The code of a row's period, if its cells are valid.
    #[inline]
    fn code_if_sound(&mut self, period: i64, price: f64, units: i64, row: u64) -> Option<u32> {
        let sound = price > 0.0 && price.is_finite() && (0..=i64::from(MAX_UNITS)).contains(&units);
        let period = (PeriodKind::Integer, period);
        sound.then(|| self.periods.code(period, row).ok()).flatten()
    }

    /// [`PanelBuilder::follow`] for rows that are only counted, or not kept.
    fn follow_uncollected(&mut self, product: u32, first_row: u64, rows: &FollowingRows<'_>) -> usize {
        if self.census.as_ref().is_some_and(|census| !census.is_first_pass()) {
            self.leave_out_rows(rows.period.len() as u64);
            return rows.period.len();
        }
        let room = (u32::MAX as usize).saturating_sub(self.counted());
        let cells = rows.period.iter().zip(rows.price).zip(rows.units).take(room);
        let mut count = 0;
        for ((period, price), units) in cells {
            let row = first_row + count as u64;
            if self.code_if_sound(*period, *price, *units, row).is_none() {
                break;
            }
            count += 1;
        }
        if let Some(census) = &mut self.census {
            census.takes(product, first_row, count);
        }
        count
    }

    /// Notes a row of a file that is read twice. Returns whether it is kept.
    fn is_kept(&mut self, product: u32, row: u64) -> bool {
        if self.full.is_some() {
            return false;
        }
        let Some(census) = &mut self.census else {
            return true;
        };
        if census.takes(product, row, 1) {
            return true;
        }
        self.last_product = Some(product);
        if !census.is_first_pass() {
            self.leave_out();
        } else if census.rows().is_multiple_of(BETWEEN_CHECKS) {
            // Every row to come may have a key of its own.
            let what = format!("reading on after {} rows", census.rows());
            let needed = KEY_BYTES * BETWEEN_CHECKS as u64;
            self.full = infermark_memory::check(what, needed).err().map(Full::Memory);
        }
        false
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
        self.leave_out_rows(1);
    }

    /// The same of `rows` rows.
    pub(crate) fn leave_out_rows(&mut self, rows: u64) {
        let stored = self.rows();
        match self.left_out.last_mut() {
            Some((before, count)) if *before == stored => *count += rows,
            Some((_, count)) => {
                let count = *count + rows;
                self.left_out.push((stored, count));
            }
            None => self.left_out.push((stored, rows)),
        }
    }

    /// Whether there are so many rows that some pair of product and period must occur twice.
    pub(crate) fn more_rows_than_pairs(&self) -> bool {
        self.counted() as u64 > self.products.len() as u64 * self.periods.len() as u64
    }

    /// Records a row that has a category but no product.
    pub(crate) fn orphan(&mut self, category: u32, row: u64) {
        self.orphans.entry(category).or_insert(row);
    }

    /// Records that a skipped row gives the category a product.
    pub(crate) fn has_product(&mut self, category: u32) {
        self.with_products_left_out.insert(category);
    }
}
