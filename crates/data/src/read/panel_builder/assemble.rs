//! The assembly of the collected rows into a panel, or into the part of one whose rows a rank keeps.

use super::parts::{Collected, Rows, Run, RunOrder};
use super::spill::{RowStorage, Spill, Spilled};
use super::{Membership, Own, PanelBuilder};
use crate::read::columns::Columns;
use crate::read::defect::{Defects, Place};
use crate::read::keys::Keys;
use crate::read::shown::quoted;
use infermark_memory::gigabytes;
use infermark_model::{Axes, Labels, OwnProducts, Panel, PanelPart, StoredPanel};
use infermark_scratch::{RowFilesWriter, ScratchError};
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes of the tables by product and period (gaps, a bit each) and by category and period (sums) that a row
/// may bring, and that any panel may have: a million products over ten years of days have 0.46 GB. Far beyond
/// them a column is not what it was taken for, and a small file would take all memory. The tables exist twice
/// while parts are joined.
const TABLE_BYTES_A_ROW: u64 = 64;
const TABLE_BYTES_OF_ANY: u64 = 1 << 26;

/// Why a panel of the rows has no error.
const CHECKED: &str = "every rule was checked on the way";

/// The keys in the order of their labels.
pub(crate) struct Ranked {
    /// Of products, categories and periods.
    pub(crate) labels: [Labels; 3],
    /// Category of every product.
    pub(crate) category_of: Vec<u32>,
    /// The place of a product's code among the products, `u32::MAX` if it has none.
    product_rank: Vec<u32>,
    /// The place of a period's code.
    period_rank: Vec<u32>,
}

/// The rows that were collected.
struct Kept {
    runs: Vec<Run>,
    period: Vec<u32>,
    price: Vec<f64>,
    units: Vec<u32>,
    spilled: Option<Spilled>,
    left_out: Vec<(usize, u64)>,
}

impl PanelBuilder {
    pub(super) fn is_in_use(&self, product: u32) -> bool {
        let membership = self.membership.get(product as usize);
        membership.is_some_and(|of| of.category != u32::MAX)
    }

    /// By the code of a category, whether it has a product.
    pub(super) fn categories_with_products(&self) -> Vec<bool> {
        let mut has_product = vec![false; self.categories.len()];
        for of in self.membership.iter().filter(|of| of.category != u32::MAX) {
            has_product[of.category as usize] = true;
        }
        has_product
    }

    /// Checks what can be said of the keys of all rows; `false`, with findings, if they make no panel whatever their rows.
    pub(crate) fn check_keys(&self, columns: &Columns, defects: &mut Defects) -> bool {
        let has_product = self.categories_with_products();
        let mut orphans: Vec<(u64, u32)> = self
            .orphans
            .iter()
            .filter(|(category, _)| {
                !has_product[**category as usize] && !self.with_products_left_out.contains(category)
            })
            .map(|(category, row)| (*row, *category))
            .collect();
        // In file order, so that only the names of the few kept findings are looked up.
        orphans.sort_unstable();
        for (row, category) in orphans {
            let name = || self.categories.name(category);
            defects.push(Place::Row(row), &columns.category, Some(&name), || {
                (
                    "the category has no products: none of its rows names one".into(),
                    "fill in its products or remove its rows".into(),
                )
            });
        }
        let rows = self.counted();
        if rows == 0 {
            if defects.is_empty() {
                defects.push(Place::File, "", None, || {
                    (
                        "the file has a header and no rows".into(),
                        "check how it was exported".into(),
                    )
                });
            }
            return false;
        }
        check_spellings(&self.products, &columns.product, defects);
        check_spellings(&self.categories, &columns.category, defects);
        let products = (0..self.products.len() as u32)
            .filter(|product| self.is_in_use(*product))
            .count();
        let categories = has_product.iter().filter(|has| **has).count();
        let periods = self.periods.len();
        let gap_bytes = products as u64 * 8 * periods.div_ceil(64) as u64;
        let sum_bytes = categories as u64 * 8 * periods as u64;
        let table_bytes = gap_bytes.saturating_add(sum_bytes);
        if table_bytes > TABLE_BYTES_A_ROW * rows as u64 + TABLE_BYTES_OF_ANY {
            defects.push(Place::File, &columns.period, None, || {
                (
                    format!(
                        "{rows} rows are spread over {products} products, {categories} categories and {periods} periods, and the tables \
                         of their gaps and sums would take {}",
                        gigabytes(table_bytes)
                    ),
                    "check that the column holds the week or month of a sale and not its date or time, and add up the sales of each; \
                     or split the file by category"
                        .into(),
                )
            });
            return false;
        }
        true
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
        if !self.check_keys(columns, defects) {
            return Ok(None);
        }
        let (ranked, kept) = self.ranked()?;
        let products = kept.products(ranked, columns, defects)?;
        Ok(products.map(|all| all.alone().expect(CHECKED)))
    }

    /// The products of `own` whose rows were kept, with all keys; no products, with findings, if their rows contradict each other. The
    /// places in findings are those among the own products.
    ///
    /// # Errors
    /// When rows cannot be stored.
    pub(crate) fn assemble_own(
        mut self,
        own: &Own,
        columns: &Columns,
        defects: &mut Defects,
    ) -> Result<(Ranked, Option<OwnProducts>), ScratchError> {
        self.store_held()?;
        let (ranked, kept) = self.ranked()?;
        let products = kept.products(ranked.only(&own.products), columns, defects)?;
        Ok((ranked, products))
    }

    /// Keys in order, and the rows.
    fn ranked(self) -> Result<(Ranked, Kept), ScratchError> {
        let has_product = self.categories_with_products();
        let PanelBuilder {
            products,
            categories,
            periods,
            membership,
            runs,
            period,
            price,
            units,
            spill,
            left_out,
            ..
        } = self;
        let in_use = |product: u32| {
            let of: Option<&Membership> = membership.get(product as usize);
            of.is_some_and(|of| of.category != u32::MAX)
        };
        let (products, product_rank) = products.into_labels(in_use);
        let (categories, category_rank) = categories.into_labels(|c| has_product[c as usize]);
        let (periods, period_rank) = periods.into_labels();
        let mut category_of = vec![0; products.len()];
        for (product, of) in membership
            .iter()
            .enumerate()
            .filter(|(product, _)| product_rank[*product] != u32::MAX)
        {
            category_of[product_rank[product] as usize] = category_rank[of.category as usize];
        }
        let ranked = Ranked {
            labels: [products, categories, periods],
            category_of,
            product_rank,
            period_rank,
        };
        let kept = Kept {
            runs,
            period,
            price,
            units,
            spilled: spill.map(Spill::finish).transpose()?,
            left_out,
        };
        Ok((ranked, kept))
    }
}

impl Ranked {
    /// The same with only these products, ascending.
    fn only(&self, products: &[u32]) -> Ranked {
        let [all, categories, periods] = &self.labels;
        let mut place = vec![u32::MAX; all.len()];
        for (own, product) in products.iter().enumerate() {
            place[*product as usize] = own as u32;
        }
        let of_rank = |rank: &u32| place.get(*rank as usize).copied().unwrap_or(u32::MAX);
        Ranked {
            labels: [all.at(products), categories.clone(), periods.clone()],
            category_of: products
                .iter()
                .map(|product| self.category_of[*product as usize])
                .collect(),
            product_rank: self.product_rank.iter().map(of_rank).collect(),
            period_rank: self.period_rank.clone(),
        }
    }
}

impl Kept {
    /// The products with their rows; `None`, with findings, if any were found.
    fn products(
        mut self,
        ranked: Ranked,
        columns: &Columns,
        defects: &mut Defects,
    ) -> Result<Option<OwnProducts>, ScratchError> {
        let [products, categories, periods] = &ranked.labels;
        let category_of = &ranked.category_of;
        let held = Collected {
            runs: &self.runs,
            period: &self.period,
            price: &self.price,
            units: &self.units,
        };
        let collected = self.spilled.as_ref().map_or(held, Spilled::collected);
        let row_count = collected.period.len();
        let order = RunOrder::new(
            collected.runs,
            &ranked.product_rank,
            products.len(),
            self.spilled.as_ref(),
        )?;
        let storage = self.spilled.as_ref().map(|spilled| spilled.storage.clone());
        let without_rows = Rows {
            order: &order,
            collected: Collected::default(),
            period_rank: &ranked.period_rank,
            left_out: &self.left_out,
            window: storage.as_ref().map(|storage| &*storage.window),
        };
        // A part holds C * T sums: with few enough parts they are small compared with the rows.
        let group = (3 * categories.len()).max(1024);
        let members = |g: usize| g * group..((g + 1) * group).min(products.len());
        let groups = products.len().div_ceil(group);
        let part = |rows: &Rows<'_>, g: usize| {
            rows.part(members(g), category_of, [products, categories, periods], columns)
        };
        if let (Some(spilled), Some(RowStorage { folder, window })) = (&mut self.spilled, &storage) {
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
                products,
                categories,
                periods,
            };
            let mut panel = StoredPanel::new(axes, category_of.clone(), count).expect(CHECKED);
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
            let rows = writer.finish(window)?;
            return Ok(Some(panel.finish(ranked.labels, Arc::new(rows))));
        }
        let rows = Rows {
            collected: held,
            ..without_rows
        };
        let groups: Vec<(PanelPart, Defects)> = (0..groups).into_par_iter().map(|g| part(&rows, g)).collect();
        drop((self.runs, self.period, self.price, self.units));
        let mut parts = Vec::with_capacity(groups.len());
        for (part, found) in groups {
            parts.push(part);
            defects.absorb(found);
        }
        if !defects.is_empty() {
            return Ok(None);
        }
        let [products, categories, periods] = ranked.labels;
        let products = OwnProducts::from_parts(products, categories, periods, parts);
        Ok(Some(products.expect(CHECKED)))
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
